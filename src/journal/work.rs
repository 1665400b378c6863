//! The queues of the store's threads: logs to sync in the background, and batches that must be synced before they are
//! durable.
//!
//! Knows no file and no thread.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::Entry;
use super::log::{Before, Log};
use super::sequencer::{Durable, Ticket};
use crate::base::sync::{entered, lock};

/// A batch that was written and waits for its sync.
pub(super) struct Unsynced {
    pub(super) ticket: Ticket,
    pub(super) durable: Durable,
    /// The log before the batch.
    pub(super) before: Before,
    /// Set if the call is new: its entry and its file's name must be synced too.
    pub(super) new: bool,
    /// The entry to store once the batch is durable.
    pub(super) entry: Option<Entry>,
}

impl Unsynced {
    /// Returns true if the batch contains records, so that the log must be synced.
    pub(super) fn written(&self) -> bool {
        !self.durable.commit.records.is_empty()
    }
}

#[derive(Default)]
pub(super) struct Work {
    /// Logs written since they were last synced, each once.
    pub(super) dirty: Mutex<Vec<Arc<Log>>>,
    /// Batches that must be synced before they are durable, at most one per call.
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
    /// Adds `log`, which was written and is not among the dirty ones.
    pub(super) fn dirty(&self, log: &Arc<Log>) {
        lock(&self.dirty).push(Arc::clone(log));
    }

    /// Adds a batch that was written.
    pub(super) fn unsynced(&self, batch: Unsynced) {
        lock(&self.queue).batches.push_back(batch);
        self.arrived.notify_one();
    }

    /// Takes all batches that wait, at least one. `None` if the store stops and none is left.
    pub(super) fn round(&self) -> Option<VecDeque<Unsynced>> {
        let queue = lock(&self.queue);
        let wait = self.arrived.wait_while(queue, |queue| queue.batches.is_empty() && !queue.stop);
        let batches = std::mem::take(&mut entered(wait).batches);
        (!batches.is_empty()).then_some(batches)
    }

    /// Tells all threads to end after the remaining work.
    pub(super) fn stop(&self) {
        *lock(&self.stop) = true;
        self.stopped.notify_all();
        lock(&self.queue).stop = true;
        self.arrived.notify_all();
    }

    /// Waits for `time`; returns false if the store stops.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let stop = lock(&self.stop);
        let wait = self.stopped.wait_timeout_while(stop, time, |stop| !*stop);
        !*entered(wait).0
    }
}
