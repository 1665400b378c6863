//! Numbers the commits of all calls, and announces them in that order.
//!
//! A batch gets its `order` before it is written, and batches of different calls become durable in any order. If they
//! were announced as they become durable, a reader with a cursor of 6 could miss 5 for ever. So a batch is announced
//! (made visible, passed to the tail, its future resolved) only once all earlier ones are announced or have failed.
//! Does not know how anything is written.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use tokio::sync::oneshot;

use super::log::Log;
use super::{Commit, JournalError, Tail};
use crate::base::sync::{entered, lock};

/// The result of an append.
pub(super) type Committed = Result<Commit, JournalError>;

/// No more reserved orders: `limit` must be raised in the state file first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

/// Assigns orders and announces commits in that order.
pub(super) struct Sequencer {
    line: Mutex<Line>,
    moved: Condvar,
    announced: AtomicU64,
    tail: OnceLock<Arc<dyn Tail>>,
}

struct Line {
    /// The next order to assign.
    next: u64,
    /// The state file has reserved all orders below this.
    limit: u64,
    /// Number of the first batch in `batches`.
    first: u64,
    /// Numbered batches not announced yet, oldest first: at most one of each call.
    batches: VecDeque<Waiting>,
    /// Number of threads in [`Sequencer::wait_for`].
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

/// A batch that is durable and can be announced.
pub(super) struct Durable {
    pub(super) log: Arc<Log>,
    pub(super) commit: Commit,
    /// The channel to the waiting caller; `None` if the caller gets the result directly.
    pub(super) answer: Option<oneshot::Sender<Committed>>,
}

/// A batch's place in the sequence. If it is dropped without [`Ticket::durable`], the batch has failed and later ones
/// are announced without it.
pub(super) struct Ticket {
    sequencer: Arc<Sequencer>,
    number: u64,
    /// Order of the batch's first record.
    pub(super) first_order: u64,
    /// Order of the batch's last record.
    pub(super) last_order: u64,
    settled: bool,
}

impl Sequencer {
    /// Assigns orders from `next` on, of which those below `limit` are reserved.
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
            tracing::error!("the journal has a listener already; the second one will receive nothing");
        }
    }

    /// The listener, if it is set.
    pub(super) fn tail(&self) -> Option<&Arc<dyn Tail>> {
        self.tail.get()
    }

    /// Everything up to this order was announced or has failed.
    pub(super) fn announced(&self) -> u64 {
        self.announced.load(Ordering::Acquire)
    }

    /// Assigns the orders of a batch of `count` records.
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

    /// Number of reserved orders that are left.
    pub(super) fn left(&self) -> u64 {
        let line = lock(&self.line);
        line.limit - line.next
    }

    /// Records that the state file has reserved all orders below `limit`.
    pub(super) fn extend(&self, limit: u64) {
        let mut line = lock(&self.line);
        line.limit = line.limit.max(limit);
    }

    /// Waits until everything up to `order` was announced or has failed.
    pub(super) fn wait_for(&self, order: u64) {
        let mut line = lock(&self.line);
        while self.announced() < order {
            line.waiters += 1;
            line = entered(self.moved.wait(line));
            line.waiters -= 1;
        }
    }

    /// Records the outcome of a batch, and announces all batches that can be announced now. Returns the commit if it
    /// was announced at once and nobody waits for it on a channel; otherwise the receiver that will get it.
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
        // Stored before the answer is sent, so that its receiver finds the batch among the announced ones.
        self.announced.store(last_order, Ordering::Release);
        match answer {
            None => Some(commit),
            Some(answer) => {
                // The caller may be gone; the batch is committed in any case.
                drop(answer.send(Ok(commit)));
                None
            }
        }
    }
}

impl Ticket {
    /// Marks the batch as durable. Returns its commit if it was announced at once and nobody waits for it on a channel;
    /// otherwise the receiver that will get it.
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
