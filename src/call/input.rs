//! The inputs of a call: from its producers, from readers, from the journal, from its tasks, and from the clock.
//!
//! Knows no queue and no socket: a producer and a question have a number, under which their answers are addressed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::Failed;
use super::numbers::{ConnectionNo, PeerNo};
use super::task::{Chosen, Output, TaskNo};
use crate::analysis::{Question, Spoken};
use crate::base::inflight::Lease;
use crate::stt::Dialect;
use crate::types::{Carry, JsonMap, Seq, StreamId, SttEvent};

/// The time of an input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// On a clock that never goes back, ms since the call was loaded.
    pub(crate) ms: u64,
    /// Wall time, ms since 1970.
    pub(crate) unix_ms: i64,
}

/// A producer that wants to feed a stream.
#[derive(Clone)]
pub(crate) struct Attach {
    /// Where answers go.
    pub(crate) peer: PeerNo,
    /// The stream.
    pub(crate) stream: StreamId,
    /// Its wire format.
    pub(crate) dialect: &'static dyn Dialect,
    /// Call time of stream time 0, where the producer knows it.
    pub(crate) offset_ms: Option<u64>,
    /// Merged into the call's.
    pub(crate) meta: JsonMap,
    /// Analyses that the call is to run besides those that it runs; `None` = the default ones for a new call.
    pub(crate) analyses: Option<Vec<String>>,
    /// Route to variant, for the call's tasks. A route that is pinned stays as it is.
    pub(crate) variants: BTreeMap<String, String>,
    /// Asked of each turn that its frames name for it.
    pub(crate) question: Option<Arc<Question>>,
}

/// Frames of one connection, in order.
#[derive(Debug)]
pub struct Frames {
    /// Which connection.
    pub connection: ConnectionNo,
    /// The stream that it feeds.
    pub stream: StreamId,
    /// Text messages of the connection so far, this one included.
    pub count: u64,
    /// What the decoder knows after them. The same `Arc` as long as nothing in it changed.
    pub carry: Arc<Carry>,
    /// What this frame said.
    pub events: Vec<SttEvent>,
    /// Turns of the stream that are to be answered, by the question that the connection brought.
    pub asks: Vec<Spoken>,
    /// Counts its memory while it waits; `None` for a small frame.
    pub lease: Option<Lease>,
}

/// A producer is gone; nothing of it comes after this.
pub struct Detach {
    /// Which connection.
    pub connection: ConnectionNo,
    /// The stream that it fed.
    pub stream: StreamId,
}

/// A stretch of speech was lost on the way here.
pub struct Gap {
    /// The stream.
    pub stream: StreamId,
    /// Why.
    pub cause: &'static str,
    /// Start, stream time.
    pub from_ms: u64,
    /// End, stream time.
    pub to_ms: u64,
}

/// One thing that happened to a call.
pub(crate) enum Input {
    /// A producer connects. It is answered once all earlier frames of its stream are applied and durable.
    Attach(Attach),
    /// A producer's frame. `watched`: a subscriber wants partials.
    Frames { frames: Box<Frames>, watched: bool },
    /// A producer is gone.
    Detach(Detach),
    /// Speech was lost.
    Gap(Gap),
    /// Run an analysis now.
    Run { ask: PeerNo, analysis: String },
    /// Show the call as it stands.
    View { ask: PeerNo },
    /// The journal stopped taking appends, or takes them again.
    Journal { well: bool },
    /// An append of this call failed for the first time since its last success; it is tried again.
    AppendFailed,
    /// The batch that was handed out is durable.
    Committed { head: Seq },
    /// A task has its permit: who is asked, or why nobody can be.
    Ready { task: TaskNo, chosen: Result<Chosen, Failed> },
    /// A task is over.
    Done { task: TaskNo, result: Result<Output, Failed> },
    /// The time of [`super::Call::wake_at`] has come.
    Timer,
    /// The inputs at hand were all given.
    Settle,
    /// The daemon stops: nothing new is started, and the call stays open.
    Stop,
    /// The daemon's deadline is over: what is still out is given up.
    Kill,
}
