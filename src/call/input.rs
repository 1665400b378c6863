//! The inputs of a call: from its producers, from readers, from the journal, from its tasks, and from the clock.
//!
//! Knows no queue and no socket: a producer or a request has a number, to which its answers are addressed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::Failed;
use super::numbers::{ConnectionNo, PeerNo};
use super::task::{Chosen, Output, TaskNo};
use crate::analysis::{Question, Spoken};
use crate::base::inflight::Lease;
use crate::protocol::GapCause;
use crate::stt::Dialect;
use crate::types::{Carry, JsonMap, Seq, StreamId, SttEvent};

/// The time of an input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// ms since the call was loaded, on a clock that never goes back.
    pub(crate) ms: u64,
    /// Wall-clock time, ms since 1970.
    pub(crate) unix_ms: i64,
}

/// A producer that wants to feed a stream.
#[derive(Clone)]
pub(crate) struct Attach {
    /// Number to which answers are addressed.
    pub(crate) peer: PeerNo,
    pub(crate) stream: StreamId,
    /// The wire format of the producer's frames.
    pub(crate) dialect: &'static dyn Dialect,
    /// Call time of stream time 0, if the producer knows it.
    pub(crate) offset_ms: Option<u64>,
    /// Metadata that is merged into the call's.
    pub(crate) meta: JsonMap,
    /// Analyses that the call runs in addition; `None` = the default ones for a new call.
    pub(crate) analyses: Option<Vec<String>>,
    /// Chosen variants for the call's tasks, by route. A pinned route does not change.
    pub(crate) variants: BTreeMap<String, String>,
    /// The question that is asked about each turn that its frames mark for it.
    pub(crate) question: Option<Arc<Question>>,
}

/// Frames of one connection, in order.
#[derive(Debug)]
pub struct Frames {
    pub connection: ConnectionNo,
    /// The stream that the producer feeds.
    pub stream: StreamId,
    /// Text messages of the connection so far, this one included.
    pub count: u64,
    /// The decoder's state after them. The same `Arc` as long as it has not changed.
    pub carry: Arc<Carry>,
    /// The events that were decoded from the frame.
    pub events: Vec<SttEvent>,
    /// Turns of the stream to answer, by the question of the connection.
    pub asks: Vec<Spoken>,
    /// Counts its memory while it waits; `None` for a small frame.
    pub lease: Option<Lease>,
}

/// A producer has disconnected; no further frame of it follows.
pub struct Detach {
    pub connection: ConnectionNo,
    /// The stream that the producer fed.
    pub stream: StreamId,
}

/// A stretch of speech was lost before it reached the call.
pub struct Gap {
    pub stream: StreamId,
    pub cause: GapCause,
    /// Start, stream time.
    pub from_ms: u64,
    /// End, stream time.
    pub to_ms: u64,
}

/// One input to a call.
pub(crate) enum Input {
    /// A producer connects. It is answered once all earlier frames of its stream are applied and durable.
    Attach(Attach),
    /// A producer's frame. `watched`: a subscriber wants partials.
    Frames { frames: Box<Frames>, watched: bool },
    /// A producer has disconnected.
    Detach(Detach),
    /// Speech was lost.
    Gap(Gap),
    /// A request to run an analysis now.
    Run { ask: PeerNo, analysis: String },
    /// A request for the present state of the call.
    View { ask: PeerNo },
    /// The journal stopped accepting appends, or accepts them again.
    Journal { well: bool },
    /// An append of this call failed for the first time since its last success; it is repeated.
    AppendFailed,
    /// The batch in flight is durable.
    Committed { head: Seq },
    /// A task has its permit: the chosen model, or why there is none.
    Ready { task: TaskNo, chosen: Result<Chosen, Failed> },
    /// A task ended.
    Done { task: TaskNo, result: Result<Output, Failed> },
    /// The time of [`super::Call::wake_at`] has come.
    Timer,
    /// All available inputs were given.
    Settle,
    /// The daemon stops: nothing new is started, and the call stays open.
    Stop,
    /// The daemon's deadline has passed: remaining tasks are aborted.
    Kill,
}
