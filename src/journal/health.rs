//! Remembers whether writing works.
//!
//! Knows no file: the code that writes reports here.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::JournalError;
use crate::base::sync::lock;

/// The last failure, until a write succeeds again.
#[derive(Debug, Default)]
pub(super) struct Health {
    failing: AtomicBool,
    message: Mutex<String>,
}

impl Health {
    /// Records that a write or a sync failed.
    pub(super) fn failed(&self, message: &str) {
        message.clone_into(&mut lock(&self.message));
        if !self.failing.swap(true, Ordering::AcqRel) {
            tracing::error!(message, "the journal is unavailable");
        }
    }

    /// Records that a write succeeded.
    pub(super) fn works(&self) {
        if self.failing.load(Ordering::Relaxed) && self.failing.swap(false, Ordering::AcqRel) {
            tracing::info!("the journal is available again");
        }
    }

    /// Returns true if the last write failed.
    pub(super) fn failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// As [`super::Store::health`].
    pub(super) fn check(&self) -> Result<(), JournalError> {
        if self.failing() { Err(JournalError::Unavailable(lock(&self.message).clone())) } else { Ok(()) }
    }
}
