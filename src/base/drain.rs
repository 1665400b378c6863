//! Stopping: one signal to finish, one to abort, and a way to know when everything is over.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use toml::Value;

use super::settings::{Problems, Section};

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

/// `[shutdown]`.
#[derive(Debug, Clone)]
pub struct ShutdownConfig {
    /// After SIGTERM, everything is over by then.
    pub deadline: Duration,
}

impl ShutdownConfig {
    /// Reads the section; what cannot be read is a problem and keeps its default.
    pub fn read(value: Option<Value>, problems: &mut Problems) -> Self {
        let mut section = Section::new("shutdown", value, problems);
        let deadline = section.millis("deadline_ms", 0..=24 * 60 * 60 * 1000).unwrap_or(Duration::from_secs(10));
        section.finish();
        Self { deadline }
    }
}
