//! The commands to a session, and its answers to the attached connections.
//!
//! Everything for a session goes through one bounded queue. Everything from it goes through a cell per connection that
//! keeps only the newest values ([`Outlet`]), so that a connection that does not read can never make a session wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc, oneshot};

use crate::analysis::Question;
use crate::base::sync::lock;
pub use crate::call::OPEN_TURNS;
pub use crate::call::answer::{Attached, Failed, Replied, RunRefusal, TurnReply, Welcome};
pub use crate::call::input::{Detach, Frames, Gap};
use crate::protocol::ingest::Ack;
use crate::protocol::{Close, CloseCode, ErrorFrame};
use crate::stt::Dialect;
use crate::types::view::View;
use crate::types::{JsonMap, Seq, StreamId};

/// Maximum number of errors that wait for a connection's writer. Later ones are dropped, because the first errors
/// matter most.
const OUTLET_ERRORS: usize = 64;

/// A producer that wants to feed a stream.
pub struct Attach {
    pub stream: StreamId,
    /// The wire format of the producer's frames.
    pub dialect: &'static dyn Dialect,
    /// Call time of stream time 0, if the producer knows it.
    pub offset_ms: Option<u64>,
    /// Metadata that is merged into the call's.
    pub meta: JsonMap,
    /// Analyses that the call runs in addition; `None` = the default ones for a new call.
    pub analyses: Option<Vec<String>>,
    /// Chosen variants for the call's jobs, by route. A pinned route does not change.
    pub variants: BTreeMap<String, String>,
    /// The question that the producer asks about its turns.
    pub asking: Option<Asking>,
    /// Receives the session's answers.
    pub outlet: Arc<Outlet>,
    /// Receives the answer once all earlier frames of the stream are applied and the call's first event is durable.
    pub reply: oneshot::Sender<Attached>,
}

/// A question about each turn of a stream, and the channel for its answers: one per turn, in any order.
#[derive(Clone)]
pub struct Asking {
    pub question: Arc<Question>,
    /// Has room for [`OPEN_TURNS`], the maximum number of turns without an answer.
    pub replies: mpsc::Sender<TurnReply>,
}

/// A request to run an analysis now.
pub struct Run {
    pub analysis: String,
    /// Receives the head after which the insight will come, or the reason for a refusal.
    pub reply: oneshot::Sender<Result<Seq, RunRefusal>>,
}

/// A command to a session. Small, because every open call has room for 32 of them.
pub enum Command {
    /// A producer connects.
    Attach(Box<Attach>),
    /// A producer sent a frame.
    Frames(Box<Frames>),
    /// A producer is gone.
    Detach(Box<Detach>),
    /// Run an analysis.
    Run(Box<Run>),
    /// Show the present state of the call.
    View(oneshot::Sender<Arc<View>>),
    /// Speech was lost.
    Gap(Box<Gap>),
    /// The journal stopped accepting appends, or accepts them again.
    Journal {
        /// Set if the journal accepts appends.
        well: bool,
    },
}

#[derive(Debug, Default)]
struct Cell {
    ack: Option<Ack>,
    errors: VecDeque<ErrorFrame>,
    reconnect: bool,
    close: Option<Close>,
}

/// A connection's inbox from its session: the newest ack, a few errors, a close. Adding to it never waits.
#[derive(Debug, Default)]
pub struct Outlet {
    cell: Mutex<Cell>,
    wake: Notify,
}

/// The contents of an outlet.
#[derive(Debug, Default)]
pub struct Outbound {
    /// Newest ack.
    pub ack: Option<Ack>,
    /// Errors, in order.
    pub errors: Vec<ErrorFrame>,
    /// Set if the producer is asked to reconnect.
    pub reconnect: bool,
    /// The close, which is sent last.
    pub close: Option<Close>,
}

impl Outlet {
    fn change(&self, change: impl FnOnce(&mut Cell)) {
        change(&mut lock(&self.cell));
        self.wake.notify_one();
    }

    /// Replaces the ack by a newer one.
    pub fn ack(&self, ack: Ack) {
        self.change(|cell| cell.ack = Some(ack));
    }

    /// Adds an error; if 64 are unread, it is dropped.
    pub fn report_error(&self, error: ErrorFrame) {
        self.change(|cell| {
            if cell.errors.len() < OUTLET_ERRORS {
                cell.errors.push_back(error);
            }
        });
    }

    /// Ends the connection. If it was ended before, the first close is kept.
    pub fn close(&self, close: Close) {
        self.change(|cell| {
            cell.close.get_or_insert(close);
        });
    }

    /// Ends the connection, and asks the producer to reconnect. An earlier close is kept.
    pub fn reconnect(&self, reason: &'static str) {
        self.change(|cell| {
            if cell.close.is_none() {
                cell.reconnect = true;
                cell.close = Some(Close::new(CloseCode::GoingAway, reason));
            }
        });
    }

    /// Waits until the outlet has something.
    ///
    /// # Cancel safety
    /// Safe: nothing is removed before it is returned.
    pub async fn next(&self) -> Outbound {
        loop {
            if let Some(outbound) = self.take() {
                return outbound;
            }
            self.wake.notified().await;
        }
    }

    /// Takes the present contents, without waiting.
    pub fn take(&self) -> Option<Outbound> {
        let mut cell = lock(&self.cell);
        if cell.ack.is_none() && cell.errors.is_empty() && cell.close.is_none() {
            return None;
        }
        let (ack, close) = (cell.ack.take(), cell.close.take());
        let reconnect = std::mem::take(&mut cell.reconnect);
        Some(Outbound { ack, errors: cell.errors.drain(..).collect(), reconnect, close })
    }
}
