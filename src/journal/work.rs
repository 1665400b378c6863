//! What waits for the store's threads: logs to be synced some time, and batches to be synced before they count.
//!
//! Knows no file and no thread.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::Entry;
use super::locks::lock;
use super::log::{Before, Log};
use super::sequencer::{Durable, Ticket};

/// A batch that was written and waits for its sync.
pub(super) struct Unsynced {
    pub(super) ticket: Ticket,
    pub(super) durable: Durable,
    /// The log as it was.
    pub(super) before: Before,
    /// The call is new: its entry and its file's name must be synced too.
    pub(super) new: bool,
    /// The entry to be set once the batch is durable.
    pub(super) entry: Option<Entry>,
}

impl Unsynced {
    /// Its log has something to be synced.
    pub(super) fn written(&self) -> bool {
        !self.durable.commit.records.is_empty()
    }
}

/// What waits for the threads.
#[derive(Default)]
pub(super) struct Work {
    /// Logs written since they were last synced, each once.
    pub(super) dirty: Mutex<Vec<Arc<Log>>>,
    /// Batches to be synced before they count, at most one a call.
    queue: Mutex<Queue>,
    arrived: Condvar,
    stop: Mutex<bool>,
    stopped: Condvar,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Unsynced>,
    stop: bool,
}

impl Work {
    /// `log` was written and is not among the dirty ones.
    pub(super) fn dirty(&self, log: &Arc<Log>) {
        lock(&self.dirty).push(Arc::clone(log));
    }

    /// A batch was written.
    pub(super) fn unsynced(&self, batch: Unsynced) {
        lock(&self.queue).batches.push_back(batch);
        self.arrived.notify_one();
    }

    /// All batches that wait, at least one; `None` once it is time to stop and none is left.
    pub(super) fn round(&self) -> Option<VecDeque<Unsynced>> {
        let queue = lock(&self.queue);
        let wait = self.arrived.wait_while(queue, |queue| queue.batches.is_empty() && !queue.stop);
        let batches = std::mem::take(&mut wait.unwrap_or_else(PoisonError::into_inner).batches);
        (!batches.is_empty()).then_some(batches)
    }

    /// Tells all threads to end once they have done what is there.
    pub(super) fn stop(&self) {
        *lock(&self.stop) = true;
        self.stopped.notify_all();
        lock(&self.queue).stop = true;
        self.arrived.notify_all();
    }

    /// Waits for `time`; `false` if it is time to stop.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let stop = lock(&self.stop);
        let wait = self.stopped.wait_timeout_while(stop, time, |stop| !*stop);
        !*wait.unwrap_or_else(PoisonError::into_inner).0
    }
}
