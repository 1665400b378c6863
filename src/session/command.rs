//! What a session is told, and how it answers the connections attached to it.
//!
//! Everything towards a session goes through one bounded queue; everything back is a latest-value cell per connection
//! ([`Outlet`]), so that a connection that reads nothing can never make a session wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::base::inflight::Lease;
use crate::base::measure;
use crate::stt::Dialect;
use crate::types::view::View;
use crate::types::{Carry, JsonMap, Seq, StreamId, SttEvent};

/// Number of a connection in its call, from 1; durable, so that it is never given twice.
pub type ConnectionNo = u64;

/// Close code of a connection that is over a limit.
pub const RATE_LIMITED: u16 = 4429;
/// Longest message of an error frame or of `insight.failed`, bytes.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// Errors that wait for a connection's writer; older ones are what a producer needs to see.
const OUTLET_ERRORS: usize = 64;

/// A producer that wants to feed a stream.
pub struct Attach {
    /// The stream.
    pub stream: StreamId,
    /// Its wire format.
    pub dialect: &'static dyn Dialect,
    /// Call time of stream time 0, where the producer knows it.
    pub offset_ms: Option<u64>,
    /// Merged into the call's.
    pub meta: JsonMap,
    /// Analyses that the call is to run besides those that it runs; `None` = the default ones for a new call.
    pub analyses: Option<Vec<String>>,
    /// Route to variant, for the call's jobs. A route that is pinned stays as it is.
    pub variants: BTreeMap<String, String>,
    /// Where answers go.
    pub outlet: Arc<Outlet>,
    /// Told once all earlier frames of the stream are applied and the call's first event is durable.
    pub reply: oneshot::Sender<Attached>,
}

/// What a producer is told.
#[derive(Debug)]
pub enum Attached {
    /// Go on.
    Welcome(Welcome),
    /// The call is completed, and this stream was part of it.
    Completed(Welcome),
    /// The call is completed, and this stream is new; or it has failed, or has as many streams as it may have.
    Refused {
        /// `call_completed`, `call_failed` or `too_many_streams`.
        code: &'static str,
        /// For people.
        message: String,
        /// Close code.
        close: u16,
    },
}

/// The content of `welcome`.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The call's epoch.
    pub epoch: String,
    /// The number of this connection.
    pub connection: ConnectionNo,
    /// Highest durable turn of the stream.
    pub acked: Option<u64>,
    /// The dialect of its frames: the one that was asked for, or that was picked for the stream earlier.
    pub dialect: &'static str,
    /// Frames covered of the stream's previous connection. After a crash it may be below what was acknowledged there, for
    /// frames without effect leave no record: a producer goes on from the greater of the two.
    pub frames: Option<u64>,
    /// What the previous connection's decoder knew after these.
    pub carry: Arc<Carry>,
    /// Latest insights by analysis, as many as fit into a frame.
    pub insights: serde_json::Map<String, serde_json::Value>,
    /// Analyses with insights that did not fit. `GET /v1/calls/{id}` returns all of them.
    pub insights_omitted: Vec<String>,
    /// Parts of the request that were ignored, and why.
    pub complaints: Vec<Complaint>,
    /// The call's head: events after it are new to the connection.
    pub seq: Seq,
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

/// An analysis is to run now.
pub struct Run {
    /// Which.
    pub analysis: String,
    /// Told the head after which the insight will come, or why not.
    pub reply: oneshot::Sender<Result<Seq, RunRefusal>>,
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

/// What a session can be told. Small, because every open call has room for 32 of them.
pub enum Command {
    /// A producer connects.
    Attach(Box<Attach>),
    /// It sent something.
    Frames(Box<Frames>),
    /// It is gone.
    Detach(Box<Detach>),
    /// Run an analysis.
    Run(Box<Run>),
    /// Tell the call as it stands.
    View(oneshot::Sender<Arc<View>>),
    /// Something was lost.
    Gap(Box<Gap>),
    /// The journal stopped taking appends, or takes them again.
    Journal {
        /// Whether it takes them.
        well: bool,
    },
}

/// Why an analysis is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunRefusal {
    /// No such analysis, and those that there are.
    #[error("{0}")]
    Unknown(String),
    /// It runs once a turn, by itself.
    #[error("analysis {0:?} runs once per turn and cannot be asked for as a whole")]
    PerTurn(String),
    /// The call has no turn yet.
    #[error("the call has no turn yet; there is nothing to ask about")]
    NoTurns,
    /// The daemon is stopping, or the call has failed.
    #[error("{0}")]
    Unavailable(String),
}

/// The newest acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The stream that the connection feeds: the one that it named, or the one that its vendor's newest session is.
    pub stream: StreamId,
    /// Frames of the connection that are covered.
    pub frames: u64,
    /// Highest durable turn of the stream.
    pub turn_order: Option<u64>,
}

/// Something that went wrong, as the producer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Stable code.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Whether it ends the connection.
    pub fatal: bool,
    /// Whether it passes by itself.
    pub temporary: bool,
    /// The `id` of the frame that it answers, where that has one.
    pub id: Option<Box<serde_json::Value>>,
}

impl Complaint {
    /// A permanent, non-fatal error. The message is truncated to 4 KiB.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        measure::cut(&mut message, MAX_MESSAGE_BYTES);
        Self { code, message, fatal: false, temporary: false, id: None }
    }

    /// The same, ending the connection.
    #[must_use]
    pub fn fatal(self) -> Self {
        Self { fatal: true, ..self }
    }

    /// The same, passing by itself.
    #[must_use]
    pub fn temporary(self) -> Self {
        Self { temporary: true, ..self }
    }
}

/// How a connection is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// Told before.
    pub complaint: Option<Complaint>,
    /// Close code.
    pub code: u16,
    /// Close reason.
    pub reason: &'static str,
}

#[derive(Debug, Default)]
struct Cell {
    ack: Option<Ack>,
    complaints: VecDeque<Complaint>,
    goodbye: Option<Goodbye>,
}

/// A connection's inbox from its session: the newest ack, a few complaints, a goodbye. Never waits.
#[derive(Debug, Default)]
pub struct Outlet {
    cell: Mutex<Cell>,
    wake: Notify,
}

/// What an outlet held.
#[derive(Debug, Default)]
pub struct Outbound {
    /// Newest ack.
    pub ack: Option<Ack>,
    /// In order.
    pub complaints: Vec<Complaint>,
    /// Last of all.
    pub goodbye: Option<Goodbye>,
}

impl Outlet {
    fn change(&self, change: impl FnOnce(&mut Cell)) {
        change(&mut self.cell.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    /// Replaces the ack by a newer one.
    pub fn ack(&self, ack: Ack) {
        self.change(|cell| cell.ack = Some(ack));
    }

    /// Adds a complaint; beyond 64 unread ones, further ones are dropped.
    pub fn complain(&self, complaint: Complaint) {
        self.change(|cell| {
            if cell.complaints.len() < OUTLET_ERRORS {
                cell.complaints.push_back(complaint);
            }
        });
    }

    /// Ends the connection. The first goodbye stands.
    pub fn close(&self, goodbye: Goodbye) {
        self.change(|cell| {
            cell.goodbye.get_or_insert(goodbye);
        });
    }

    /// Waits until there is something.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken before it is returned.
    pub async fn next(&self) -> Outbound {
        loop {
            if let Some(outbound) = self.take() {
                return outbound;
            }
            self.wake.notified().await;
        }
    }

    /// Takes what is there now, without waiting.
    pub fn take(&self) -> Option<Outbound> {
        let mut cell = self.cell.lock().unwrap_or_else(PoisonError::into_inner);
        if cell.ack.is_none() && cell.complaints.is_empty() && cell.goodbye.is_none() {
            return None;
        }
        let (ack, goodbye) = (cell.ack.take(), cell.goodbye.take());
        Some(Outbound { ack, complaints: cell.complaints.drain(..).collect(), goodbye })
    }
}
