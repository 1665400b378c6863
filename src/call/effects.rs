//! The outputs of a call: records to append, answers to send, tasks to start.
//!
//! Knows no journal and no socket. Answers that must wait until a record is durable are in the batch with the records;
//! the others are sent at once.

use std::sync::Arc;

use super::answer::{Attached, RunRefusal, TurnReply};
use super::numbers::PeerNo;
use super::record::Outgoing;
use super::task::{Start, TaskNo};
use crate::base::budget::Exceeded;
use crate::protocol::ingest::Ack;
use crate::protocol::{Close, ErrorFrame, FailureCode};
use crate::types::directory::Entry;
use crate::types::view::View;
use crate::types::{Seq, Severity, StreamId};

/// One append, and the answers to send once it is durable.
#[derive(Default)]
pub(crate) struct Batch {
    /// The head that the log must have before the append.
    pub(crate) after: Seq,
    /// The records, in order; empty if only the entry changed.
    pub(crate) records: Vec<Outgoing>,
    /// The directory's entry, if it changed.
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
    /// The last answer to this producer.
    Gone(PeerNo),
    /// The state of the call when it was requested.
    View(PeerNo, Arc<View>),
    /// An analysis will run; its insight comes after this event.
    Run(PeerNo, Seq),
}

/// Effects that are carried out at once.
#[derive(Default)]
pub(crate) struct Effects {
    /// Messages to producers and readers, in order.
    pub(crate) tells: Vec<Tell>,
    /// Tasks that are wanted or no longer wanted, in order.
    pub(crate) tasks: Vec<TaskEffect>,
    /// The task to start that [`super::input::Input::Ready`] was about; [`super::input::Input::Done`] returns its
    /// result.
    pub(crate) start: Option<Box<Start>>,
    /// Partials for subscribers that want them, in order.
    pub(crate) partials: Vec<Partial>,
    /// Notes for the log.
    pub(crate) notes: Vec<Note>,
    /// Counts for metrics.
    pub(crate) counts: Counts,
}

/// A message that waits for no record.
pub(crate) enum Tell {
    /// An error; the connection continues.
    Error(PeerNo, ErrorFrame),
    /// The connection must end.
    Close(PeerNo, Close),
    /// The analysis does not run.
    Refuse(PeerNo, RunRefusal),
    /// An answer about a turn of the producer.
    Reply(PeerNo, TurnReply),
}

/// A request of the call about a task.
#[derive(Debug)]
pub(crate) enum TaskEffect {
    /// A task needs a permit and a chosen model; [`super::input::Input::Ready`] provides both.
    Want(TaskNo),
    /// A task is aborted, whether it runs or waits for its permit.
    Abort(TaskNo),
}

/// A part of a turn that is not final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partial {
    pub(crate) stream: StreamId,
    /// Number that the turn will have.
    pub(crate) turn_order: u64,
    /// Speaker label, if known.
    pub(crate) speaker: Option<String>,
    /// Text so far; `""` removes it.
    pub(crate) text: String,
}

/// A note for the log. Contains no text of the call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A call names an analysis that is not configured.
    UnknownAnalysis(String),
    /// A rule raised an alert.
    AlertRaised(Arc<str>, Severity),
    /// An alert of a rule was cleared.
    AlertCleared(Arc<str>),
    /// An alert of a rule was not raised, because the call has the maximum number of alerts.
    AlertRefused(Arc<str>),
    /// A rule was not applied, because that would exceed a limit on work.
    RuleSkipped(Arc<str>, Exceeded),
    /// A digest could not be made. `stops`: none is asked for in the next minutes, and turns leave windows without.
    DigestFailed { code: FailureCode, stops: bool },
    /// The STT vendor reported an error.
    VendorError { stream: StreamId, code: String, message: String },
}

/// Counts for metrics since they were last read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Partials received.
    pub(crate) partials: u64,
    /// Vendor messages of a type that their dialect does not know.
    pub(crate) unknown_messages: u64,
    /// Errors that STT vendors reported.
    pub(crate) vendor_errors: u64,
    /// Turns that made an analysis not due because they add nothing, once for each analysis.
    pub(crate) gated: u64,
}

impl Effects {
    /// Returns true if there is nothing to send or to count. Tasks are taken separately.
    pub(crate) fn is_quiet(&self) -> bool {
        self.tells.is_empty() && self.partials.is_empty() && self.notes.is_empty() && self.counts == Counts::default()
    }
}
