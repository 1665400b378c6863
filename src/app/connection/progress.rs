//! What a connection is doing: how many heads it received, and whether the newest request is answered.
//!
//! Knows no clock and no byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The state of a connection.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Number of heads that were received.
    pub(super) heads: AtomicU64,
    /// Set while the newest request is not answered.
    pub(super) answering: AtomicBool,
    /// Set after a change of protocol: no further head will come.
    pub(super) upgraded: AtomicBool,
}

/// Marks the time from a request's head to the end of its response.
pub(super) struct Answering(Option<Arc<Progress>>);

impl Answering {
    pub(super) fn begin(progress: &Arc<Progress>) -> Self {
        progress.heads.fetch_add(1, Ordering::Relaxed);
        progress.answering.store(true, Ordering::Relaxed);
        Self(Some(Arc::clone(progress)))
    }

    pub(super) fn for_good(mut self) {
        if let Some(progress) = self.0.take() {
            progress.upgraded.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(progress) = &self.0 {
            progress.answering.store(false, Ordering::Relaxed);
        }
    }
}
