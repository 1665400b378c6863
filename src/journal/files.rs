//! Keeps the recently used logs open as files, up to a limit.
//!
//! Uses the second-chance algorithm: a log that was used since the last check stays open. Does not know what a log
//! contains.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use rustix::process::{Resource, getrlimit};

use super::log::{Log, Storage};
use crate::base::sync::lock;

/// The logs that are open as files.
pub(super) struct Files {
    queue: Mutex<VecDeque<Arc<Log>>>,
    limit: usize,
}

/// A quarter of the files that the process may open, because sockets need the rest.
pub(super) fn default_limit() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (files / 4).clamp(16, 1 << 20) as usize
}

impl Files {
    pub(super) fn new(limit: usize) -> Self {
        Self { queue: Mutex::new(VecDeque::new()), limit }
    }

    /// Records that `log` was opened, and closes others if too many are open. `retire` is called with a closed log
    /// whose content is locked, and may remove it from the store.
    pub(super) fn opened(&self, log: &Arc<Log>, storage: &Storage, retire: impl Fn(&Log) -> bool) {
        let mut queue = lock(&self.queue);
        queue.push_back(Arc::clone(log));
        // Checks each log at most twice: once to clear its mark, once to close it.
        let mut looks = queue.len() * 2;
        while queue.len() > self.limit && looks > 0 {
            looks -= 1;
            let Some(candidate) = queue.pop_front() else { break };
            if Arc::ptr_eq(&candidate, log) || candidate.take_used() || !close(&candidate, storage, &retire) {
                queue.push_back(candidate);
            }
        }
    }

    /// Closes the logs that were not used since the last call of this and for which `over` says that their call has
    /// ended.
    pub(super) fn close_idle(&self, storage: &Storage, over: impl Fn(&Log) -> bool, retire: impl Fn(&Log) -> bool) {
        let mut queue = lock(&self.queue);
        queue.retain(|log| log.take_used() || !over(log) || !close(log, storage, &retire));
    }

    /// Removes `log`, which was erased.
    pub(super) fn forget(&self, log: &Arc<Log>) {
        lock(&self.queue).retain(|other| !Arc::ptr_eq(other, log));
    }
}

/// Closes a log's file, if no thread is using it.
fn close(log: &Log, storage: &Storage, retire: impl Fn(&Log) -> bool) -> bool {
    let Some(mut content) = log.idle_content() else { return false };
    content.close_file(storage);
    // A log with a batch in flight, or with the remains of a failed write, must stay in memory.
    if content.loaded && content.head == log.visible() && !content.end.dirty && retire(log) {
        content.retired = true;
    }
    true
}
