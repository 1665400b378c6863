//! Counts new calls that are open and not in the directory yet.
//!
//! Knows no session.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts a new call as open until the directory has its entry. Dropped after the first commit.
pub(super) struct Arriving(Arc<AtomicUsize>);

impl Arriving {
    /// Adds one call to `count`.
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
