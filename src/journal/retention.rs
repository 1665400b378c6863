//! Erases ended calls: by age, then by size.
//!
//! An open call is never erased.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::store::Shared;
use crate::base::sync::lock;
use crate::types::CallId;

impl Shared {
    /// Erases calls whose retention is over, and the oldest ended calls while all logs together are too large.
    pub(super) fn sweep(&self, now_ms: i64) {
        // Two sweeps at once would both free the same space.
        let _one = lock(&self.sweeping);
        self.storage.metrics.sweeps.inc();
        if let Some(retention) = self.config.retention {
            let before = now_ms.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
            let old = self.over(|ended_at_ms| ended_at_ms <= before);
            for (_, call) in old {
                self.erase_or_report(&call);
            }
            self.sweep_orphans(now_ms, retention);
        }
        if self.config.max_bytes > 0 {
            self.sweep_by_size(self.config.max_bytes);
        }
        // Logs of ended calls need not stay in memory.
        self.files.close_idle(&self.storage, |log| self.over_or_unknown(log), |log| self.retire(log));
    }

    fn sweep_by_size(&self, max_bytes: u64) {
        let calls: Vec<CallId> = self.calls.all(|slots| slots.map(|slot| slot.entry.call_id.clone()).collect());
        let mut bytes: u64 = calls.iter().map(|call| self.storage.folder.log_bytes(call)).sum();
        if bytes <= max_bytes {
            return;
        }
        for (_, call) in self.over(|_| true) {
            if bytes <= max_bytes {
                return;
            }
            let freed = self.storage.folder.log_bytes(&call);
            self.erase_or_report(&call);
            bytes = bytes.saturating_sub(freed);
        }
        tracing::warn!(bytes, max_bytes, "the logs of open calls alone are over journal.max_bytes");
    }

    /// Ended calls with the time of their end, oldest first.
    fn over(&self, wanted: impl Fn(i64) -> bool) -> Vec<(i64, CallId)> {
        let mut over: Vec<(i64, CallId)> = self.calls.all(|slots| {
            let over = slots.filter(|slot| !slot.open());
            let timed =
                over.map(|slot| (slot.entry.ended_at_ms.unwrap_or(slot.entry.started_at_ms), &slot.entry.call_id));
            timed.filter(|(ended, _)| wanted(*ended)).map(|(ended, call)| (ended, call.clone())).collect()
        });
        over.sort_unstable();
        over
    }

    fn erase_or_report(&self, call: &CallId) {
        if let Err(error) = self.erase(call) {
            tracing::error!(call_id = %call, %error, "a call whose retention is over could not be erased");
        }
    }

    /// Removes files below `calls` that belong to no call and that were not written to for the retention period.
    fn sweep_orphans(&self, now_ms: i64, retention: Duration) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms.max(0) as u64);
        for path in self.storage.folder.log_files() {
            let modified = path.metadata().and_then(|metadata| metadata.modified());
            let old = modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age >= retention));
            if old && !self.belongs(&path) {
                tracing::warn!(path = %path.display(), "a log that belongs to no call was removed after the retention \
                    period");
                if let Err(error) = std::fs::remove_file(&path)
                    && error.kind() != ErrorKind::NotFound
                {
                    self.failed("remove a log that belongs to no call", &error);
                }
            }
        }
    }

    fn belongs(&self, path: &Path) -> bool {
        let call = path.file_stem().and_then(|stem| CallId::parse(stem.to_str()?).ok());
        path.extension().is_some_and(|extension| extension == "log")
            && call.is_some_and(|call| self.calls.with(&call, |_| ()).is_some())
    }
}
