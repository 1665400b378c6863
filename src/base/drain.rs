//! Stops the daemon: one signal to finish, one to abort, and a way to wait until all tasks have ended.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use toml::Value;

use super::settings::{Problems, Section};

/// The signals of a shutdown, which every long-lived task has. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// Cancelled when tasks must finish their work and accept no more.
    pub stop: CancellationToken,
    /// Cancelled at the deadline: tasks must return at once.
    pub kill: CancellationToken,
    /// All tasks for which the shutdown waits.
    pub tasks: TaskTracker,
}

impl Drain {
    /// Returns true once the shutdown has begun.
    pub fn stopping(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// Section `[shutdown]`.
#[derive(Debug, Clone)]
pub struct ShutdownConfig {
    /// Longest time from SIGTERM to the end of the daemon.
    pub deadline: Duration,
}

impl ShutdownConfig {
    /// Reads the section. A value that cannot be read is reported in `problems`, and its default is used.
    pub fn read(value: Option<Value>, problems: &mut Problems) -> Self {
        let mut section = Section::new("shutdown", value, problems);
        let deadline = section.millis("deadline_ms", 0..=24 * 60 * 60 * 1000).unwrap_or(Duration::from_secs(10));
        section.finish();
        Self { deadline }
    }
}
