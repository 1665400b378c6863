//! Which logs are open as files: the ones used lately, so many and no more.
//!
//! Second chance: a log that was used since it was last looked at stays. Does not know what is in a log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use rustix::process::{Resource, getrlimit};

use super::locks::lock;
use super::log::{Ground, Log};

/// The logs that are open as files.
pub(super) struct Files {
    queue: Mutex<VecDeque<Arc<Log>>>,
    limit: usize,
}

/// A quarter of the files that the process may open: sockets need the rest.
pub(super) fn default_limit() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (files / 4).clamp(16, 1 << 20) as usize
}

impl Files {
    pub(super) fn new(limit: usize) -> Self {
        Self { queue: Mutex::new(VecDeque::new()), limit }
    }

    /// `log` was opened; closes others if these are too many now. `retire` is asked, with its content
    /// locked, whether to take a closed one out of the store, and does.
    pub(super) fn opened(&self, log: &Arc<Log>, ground: &Ground, retire: impl Fn(&Log) -> bool) {
        let mut queue = lock(&self.queue);
        queue.push_back(Arc::clone(log));
        // Each one twice at most: once to take its mark, once to close it.
        let mut looks = queue.len() * 2;
        while queue.len() > self.limit && looks > 0 {
            looks -= 1;
            let Some(candidate) = queue.pop_front() else { break };
            if Arc::ptr_eq(&candidate, log) || candidate.take_used() || !close(&candidate, ground, &retire) {
                queue.push_back(candidate);
            }
        }
    }

    /// Closes those that were not used since this was last asked and of which `over` says that they grow no more.
    pub(super) fn close_idle(&self, ground: &Ground, over: impl Fn(&Log) -> bool, retire: impl Fn(&Log) -> bool) {
        let mut queue = lock(&self.queue);
        queue.retain(|log| log.take_used() || !over(log) || !close(log, ground, &retire));
    }

    /// `log` is gone.
    pub(super) fn forget(&self, log: &Arc<Log>) {
        lock(&self.queue).retain(|other| !Arc::ptr_eq(other, log));
    }
}

/// Closes a log's file, if nobody is at it.
fn close(log: &Log, ground: &Ground, retire: impl Fn(&Log) -> bool) -> bool {
    let Some(mut content) = log.idle_content() else { return false };
    content.close_file(ground);
    // A log with a batch on its way, or that failed writes must be cut from, has to be remembered.
    if content.loaded && content.head == log.visible() && !content.end.dirty && retire(log) {
        content.retired = true;
    }
    true
}
