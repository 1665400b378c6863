//! Caches the indexes of calls' logs, so that the next reader continues from them. Knows no session and reads nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};

use super::index::Index;
use crate::base::sync::lock;
use crate::journal::Entry;
use crate::types::CallId;

/// Maximum total size of the cache, bytes.
const KEPT_BYTES: usize = 64 * 1024 * 1024;
/// Maximum number of pieces of logs that are read at once.
const READERS: usize = 4;

/// The cached indexes. Each log has one reader at a time; the next one continues from its index.
pub(super) struct Library {
    kept: Mutex<Kept>,
    readers: Semaphore,
}

#[derive(Default)]
struct Kept {
    calls: HashMap<CallId, Known>,
    /// The calls in the order in which they were added.
    order: VecDeque<CallId>,
    bytes: usize,
}

struct Known {
    /// Identifies the call's history; another history has another log.
    epoch: String,
    index: Arc<AsyncMutex<Index>>,
    bytes: usize,
}

impl Default for Library {
    fn default() -> Self {
        Self { kept: Mutex::default(), readers: Semaphore::new(READERS) }
    }
}

impl Library {
    /// The index of a call's log; empty if the log was not read.
    pub(super) fn index(&self, entry: &Entry) -> Arc<AsyncMutex<Index>> {
        let mut kept = lock(&self.kept);
        if let Some(known) = kept.calls.get(&entry.call_id).filter(|known| known.epoch == entry.epoch) {
            return Arc::clone(&known.index);
        }
        kept.forget(&entry.call_id);
        let index = Arc::new(AsyncMutex::new(Index::new()));
        let known = Known { epoch: entry.epoch.clone(), index: Arc::clone(&index), bytes: 0 };
        kept.calls.insert(entry.call_id.clone(), known);
        kept.order.push_back(entry.call_id.clone());
        index
    }

    /// Records the size of a call's index after a read. If the cache is too large, the oldest indexes are removed.
    pub(super) fn note(&self, call: &CallId, bytes: usize) {
        let mut kept = lock(&self.kept);
        if let Some(known) = kept.calls.get_mut(call) {
            let before = std::mem::replace(&mut known.bytes, bytes);
            kept.bytes = (kept.bytes + bytes).saturating_sub(before);
        }
        while kept.bytes > KEPT_BYTES
            && let Some(oldest) = kept.order.front().cloned()
        {
            kept.forget(&oldest);
        }
    }

    /// A permit to read a piece of a log.
    pub(super) async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.readers.acquire().await.ok()
    }

    /// Total size of the cached indexes, bytes.
    pub(super) fn bytes(&self) -> usize {
        lock(&self.kept).bytes
    }

    /// Removes an erased call.
    pub(super) fn forget(&self, call: &CallId) {
        lock(&self.kept).forget(call);
    }
}

impl Kept {
    fn forget(&mut self, call: &CallId) {
        if let Some(known) = self.calls.remove(call) {
            self.bytes = self.bytes.saturating_sub(known.bytes);
            self.order.retain(|other| other != call);
        }
    }
}
