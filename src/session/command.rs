//! What a session is told, and how it answers the connections attached to it.
//!
//! Everything towards a session goes through one bounded queue; everything back is a latest-value cell per connection
//! ([`Outlet`]), so that a connection that reads nothing can never make a session wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};

use crate::analysis::Question;
pub use crate::call::OPEN_TURNS;
pub use crate::call::answer::{Attached, Failed, Replied, RunRefusal, TurnReply, Welcome};
pub use crate::call::input::{Detach, Frames, Gap};
use crate::protocol::ingest::Ack;
use crate::protocol::{Close, CloseCode, ErrorFrame};
use crate::stt::Dialect;
use crate::types::view::View;
use crate::types::{JsonMap, Seq, StreamId};

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
    /// What it asks about its turns.
    pub asking: Option<Asking>,
    /// Where answers go.
    pub outlet: Arc<Outlet>,
    /// Told once all earlier frames of the stream are applied and the call's first event is durable.
    pub reply: oneshot::Sender<Attached>,
}

/// A question about each turn of a stream, and where the answers go: one a turn, in any order.
#[derive(Clone)]
pub struct Asking {
    pub question: Arc<Question>,
    /// Has room for [`OPEN_TURNS`]; more turns are never without an answer.
    pub replies: mpsc::Sender<TurnReply>,
}

/// An analysis is to run now.
pub struct Run {
    /// Which.
    pub analysis: String,
    /// Told the head after which the insight will come, or why not.
    pub reply: oneshot::Sender<Result<Seq, RunRefusal>>,
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

#[derive(Debug, Default)]
struct Cell {
    ack: Option<Ack>,
    complaints: VecDeque<ErrorFrame>,
    reconnect: bool,
    close: Option<Close>,
}

/// A connection's inbox from its session: the newest ack, a few errors, a close. Never waits.
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
    pub complaints: Vec<ErrorFrame>,
    /// Whether the producer is told to reconnect.
    pub reconnect: bool,
    /// Last of all.
    pub close: Option<Close>,
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
    pub fn complain(&self, complaint: ErrorFrame) {
        self.change(|cell| {
            if cell.complaints.len() < OUTLET_ERRORS {
                cell.complaints.push_back(complaint);
            }
        });
    }

    /// Ends the connection. The first close stands.
    pub fn close(&self, close: Close) {
        self.change(|cell| {
            cell.close.get_or_insert(close);
        });
    }

    /// Ends the connection, and asks the producer to reconnect. An earlier close stands.
    pub fn reconnect(&self, reason: &'static str) {
        self.change(|cell| {
            if cell.close.is_none() {
                cell.reconnect = true;
                cell.close = Some(Close::new(CloseCode::GoingAway, reason));
            }
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
        if cell.ack.is_none() && cell.complaints.is_empty() && cell.close.is_none() {
            return None;
        }
        let (ack, close) = (cell.ack.take(), cell.close.take());
        let reconnect = std::mem::take(&mut cell.reconnect);
        Some(Outbound { ack, complaints: cell.complaints.drain(..).collect(), reconnect, close })
    }
}
