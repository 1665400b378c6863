//! Numbers commits over all calls, and announces them in that order.
//!
//! A batch gets its `order` before it is written, and batches of different calls become durable in any order. Were they
//! announced as they come, a reader whose cursor says 6 could have missed 5 for good. So a batch is announced (made
//! visible, told to the tail, its future resolved) once all before it are announced or have failed. Does not know how
//! anything is written.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use tokio::sync::oneshot;

use super::locks::lock;
use super::log::Log;
use super::{Commit, JournalError, Tail};

/// What an append resolves to.
pub(super) type Committed = Result<Commit, JournalError>;

/// Orders reserved beyond `limit` need the state file first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

/// Hands out orders and keeps their order.
pub(super) struct Sequencer {
    line: Mutex<Line>,
    moved: Condvar,
    announced: AtomicU64,
    tail: OnceLock<Arc<dyn Tail>>,
}

struct Line {
    /// The order to be handed out next.
    next: u64,
    /// Orders below it are reserved by the state file.
    limit: u64,
    /// Number of the first batch in `batches`.
    first: u64,
    /// Numbered batches not announced yet, oldest first: at most one of each call.
    batches: VecDeque<Waiting>,
    /// Threads in [`Sequencer::wait_for`].
    waiters: usize,
}

struct Waiting {
    last_order: u64,
    outcome: Outcome,
}

enum Outcome {
    Open,
    Durable(Durable),
    Failed,
}

/// A batch that may be announced.
pub(super) struct Durable {
    pub(super) log: Arc<Log>,
    pub(super) commit: Commit,
    /// Who waits for it; `None` where the caller is told directly.
    pub(super) answer: Option<oneshot::Sender<Committed>>,
}

/// The place of a batch in the line. Dropped without [`Ticket::durable`], the batch has failed and others go on.
pub(super) struct Ticket {
    sequencer: Arc<Sequencer>,
    number: u64,
    /// Order of the batch's first record.
    pub(super) first_order: u64,
    /// Order of its last.
    pub(super) last_order: u64,
    settled: bool,
}

impl Sequencer {
    /// Orders from `next` on, of which those below `limit` may be handed out.
    pub(super) fn new(next: u64, limit: u64) -> Arc<Self> {
        let line = Line { next, limit, first: 0, batches: VecDeque::new(), waiters: 0 };
        Arc::new(Self {
            line: Mutex::new(line),
            moved: Condvar::new(),
            announced: AtomicU64::new(next.saturating_sub(1)),
            tail: OnceLock::new(),
        })
    }

    /// Sets the listener, once.
    pub(super) fn set_tail(&self, tail: Arc<dyn Tail>) {
        if self.tail.set(tail).is_err() {
            tracing::error!("the journal has a listener already; the second one will hear nothing");
        }
    }

    /// The listener, if it is set.
    pub(super) fn tail(&self) -> Option<&Arc<dyn Tail>> {
        self.tail.get()
    }

    /// All up to this order was announced or has failed.
    pub(super) fn announced(&self) -> u64 {
        self.announced.load(Ordering::Acquire)
    }

    /// A place in the line for a batch of `count` records.
    pub(super) fn reserve(self: &Arc<Self>, count: u64) -> Result<Ticket, Exhausted> {
        let mut line = lock(&self.line);
        if line.next + count > line.limit {
            return Err(Exhausted);
        }
        let first_order = line.next;
        line.next += count;
        let last_order = line.next - 1;
        let number = line.first + line.batches.len() as u64;
        line.batches.push_back(Waiting { last_order, outcome: Outcome::Open });
        Ok(Ticket { sequencer: Arc::clone(self), number, first_order, last_order, settled: false })
    }

    /// How many orders are left to be handed out.
    pub(super) fn left(&self) -> u64 {
        let line = lock(&self.line);
        line.limit - line.next
    }

    /// The state file has reserved all below `limit`.
    pub(super) fn extend(&self, limit: u64) {
        let mut line = lock(&self.line);
        line.limit = line.limit.max(limit);
    }

    /// Returns once all up to `order` was announced or has failed.
    pub(super) fn wait_for(&self, order: u64) {
        let mut line = lock(&self.line);
        while self.announced() < order {
            line.waiters += 1;
            line = self.moved.wait(line).unwrap_or_else(PoisonError::into_inner);
            line.waiters -= 1;
        }
    }

    /// Settles a batch, and announces all that may be now. Returns the commit where nobody else is to be told of it
    /// and it was announced at once, or else the receiver that will be.
    fn settle(&self, number: u64, outcome: Outcome) -> Option<Result<Commit, oneshot::Receiver<Committed>>> {
        let mut line = lock(&self.line);
        let place = (number - line.first) as usize;
        let direct = matches!(&outcome, Outcome::Durable(durable) if durable.answer.is_none());
        let mut result = None;
        if let Some(waiting) = line.batches.get_mut(place) {
            waiting.outcome = outcome;
            if let (true, true, Outcome::Durable(durable)) = (direct, place > 0, &mut waiting.outcome) {
                let (sender, receiver) = oneshot::channel();
                durable.answer = Some(sender);
                result = Some(Err(receiver));
            }
        }
        while line.batches.front().is_some_and(|front| !matches!(front.outcome, Outcome::Open)) {
            let Some(front) = line.batches.pop_front() else { break };
            line.first += 1;
            match front.outcome {
                Outcome::Durable(durable) => {
                    if let Some(commit) = self.announce(durable, front.last_order) {
                        result = Some(Ok(commit));
                    }
                }
                Outcome::Open | Outcome::Failed => self.announced.store(front.last_order, Ordering::Release),
            }
        }
        if line.waiters > 0 {
            self.moved.notify_all();
        }
        result
    }

    fn announce(&self, durable: Durable, last_order: u64) -> Option<Commit> {
        let Durable { log, commit, answer } = durable;
        log.show(commit.head);
        if let Some(tail) = self.tail.get() {
            tail.committed(&log.call, &commit.records);
        }
        // Before the answer: whoever has that finds the batch among what was announced.
        self.announced.store(last_order, Ordering::Release);
        match answer {
            None => Some(commit),
            Some(answer) => {
                // The caller may have gone; the batch stands all the same.
                drop(answer.send(Ok(commit)));
                None
            }
        }
    }
}

impl Ticket {
    /// The batch is durable. Returns its commit if nobody waits for it elsewhere and its turn was now, or the receiver
    /// of it, if its turn is not yet.
    pub(super) fn durable(mut self, durable: Durable) -> Option<Result<Commit, oneshot::Receiver<Committed>>> {
        self.settled = true;
        self.sequencer.settle(self.number, Outcome::Durable(durable))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.sequencer.settle(self.number, Outcome::Failed);
        }
    }
}
