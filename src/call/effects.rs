//! The outputs of a call: records to append, answers to send, tasks to start.
//!
//! Knows no journal and no socket. Answers that must not come before a record is durable stand beside the records; the
//! others are sent at once.

use std::sync::Arc;

use super::answer::{Attached, RunRefusal, TurnReply};
use super::numbers::PeerNo;
use super::record::Outgoing;
use super::task::{Start, TaskNo};
use crate::base::budget::Exceeded;
use crate::protocol::ingest::Ack;
use crate::protocol::{Close, ErrorFrame};
use crate::types::directory::Entry;
use crate::types::view::View;
use crate::types::{Seq, Severity, StreamId};

/// One append, and what is said once it is durable.
#[derive(Default)]
pub(crate) struct Batch {
    /// The head that the log must have.
    pub(crate) after: Seq,
    /// The records, in order; none where only the entry changed.
    pub(crate) records: Vec<Outgoing>,
    /// The directory's entry, where it changed.
    pub(crate) entry: Option<Entry>,
    /// Answers that are sent once this batch and all earlier ones are durable.
    pub(crate) replies: Vec<Reply>,
}

/// An answer that waits until all records before it are durable.
pub(crate) enum Reply {
    /// The newest acknowledgement for a producer.
    Ack(PeerNo, Ack),
    /// Whether a producer may feed its stream.
    Attached(PeerNo, Attached),
    /// Nothing more is said to this producer.
    Gone(PeerNo),
    /// The call as it stood when it was asked for.
    View(PeerNo, Arc<View>),
    /// An analysis will run; its insight comes after this event.
    Run(PeerNo, Seq),
}

/// What is done at once.
#[derive(Default)]
pub(crate) struct Effects {
    /// Messages to producers and askers, in order.
    pub(crate) tells: Vec<Tell>,
    /// Tasks that are wanted, or no longer, in order.
    pub(crate) tasks: Vec<TaskEffect>,
    /// The task that [`super::input::Input::Ready`] was about, to be started; [`super::input::Input::Done`] answers.
    pub(crate) start: Option<Box<Start>>,
    /// Partials for subscribers that want them, in order.
    pub(crate) partials: Vec<Partial>,
    /// What is to be logged.
    pub(crate) notes: Vec<Note>,
    /// What is to be counted.
    pub(crate) counts: Counts,
}

/// A message that waits for no record.
pub(crate) enum Tell {
    /// Something went wrong; the connection goes on.
    Complain(PeerNo, ErrorFrame),
    /// The connection is to end.
    Close(PeerNo, Close),
    /// The analysis does not run.
    Refuse(PeerNo, RunRefusal),
    /// An answer about a turn of the producer.
    Reply(PeerNo, TurnReply),
}

/// What becomes of tasks.
#[derive(Debug)]
pub(crate) enum TaskEffect {
    /// One wants a permit and somebody to ask; [`super::input::Input::Ready`] answers.
    Want(TaskNo),
    /// One is given up, whether it is out or waits for its permit.
    Abort(TaskNo),
}

/// Text of a turn that is not final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partial {
    /// The stream.
    pub(crate) stream: StreamId,
    /// The turn that it will be.
    pub(crate) turn_order: u64,
    /// Speaker label, if known.
    pub(crate) speaker: Option<String>,
    /// Text so far; `""` removes it.
    pub(crate) text: String,
}

/// For the log. No text of the call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A call names an analysis that is not configured.
    UnknownAnalysis(String),
    /// A rule raised an alert.
    AlertRaised(Arc<str>, Severity),
    /// An alert of a rule was cleared.
    AlertCleared(Arc<str>),
    /// An alert of a rule was not raised: the call has as many as it may have.
    AlertRefused(Arc<str>),
    /// A rule was not looked at: that would be too much work.
    RuleSkipped(Arc<str>, Exceeded),
    /// The STT vendor reported an error.
    VendorError { stream: StreamId, code: String, message: String },
}

/// For metrics, since they were read last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Partials that came in.
    pub(crate) partials: u64,
    /// Vendor messages of a type that their dialect does not know.
    pub(crate) unknown_messages: u64,
    /// Errors that STT vendors reported.
    pub(crate) vendor_errors: u64,
}

impl Effects {
    /// Nothing is to be said or counted. Tasks are taken one by one.
    pub(crate) fn is_quiet(&self) -> bool {
        self.tells.is_empty() && self.partials.is_empty() && self.notes.is_empty() && self.counts == Counts::default()
    }
}
