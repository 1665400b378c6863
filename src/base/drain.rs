//! Stopping: one signal to finish, one to abort, and a way to know when everything is over.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Given to every long-lived task. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// Finish what is in hand and take nothing new.
    pub stop: CancellationToken,
    /// The deadline is over: return now.
    pub kill: CancellationToken,
    /// Everyone who must be waited for.
    pub tasks: TaskTracker,
}

impl Drain {
    /// Whether stopping has begun.
    pub fn stopping(&self) -> bool {
        self.stop.is_cancelled()
    }
}
