//! Syncs written data, so that it survives a power loss: one log, the logs that were written recently, or everything at
//! once.
//!
//! Starts no thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::log::Log;
use super::store::Shared;
use crate::base::sync::lock;

/// If more logs than this must be synced, the whole file system is synced at once.
const MANY: usize = 8;

/// Syncs what was written in the background. A failed sync is tried again the next time.
pub(super) fn sync_dirty(shared: &Shared) -> bool {
    let mut logs = std::mem::take(&mut *lock(&shared.work.dirty));
    // Marked before the sync, because data that is written during the sync needs another one.
    logs.iter().for_each(|log| log.syncing());
    let result = if logs.len() > MANY || shared.unsettled.load(Ordering::Acquire) {
        let synced = sync_all(shared, logs.iter());
        shared.unsettled.fetch_and(synced.is_err(), Ordering::AcqRel);
        if synced.is_ok() {
            logs.clear();
        }
        synced
    } else {
        let synced = |log: &Arc<Log>| sync_log(shared, log);
        let mut first = Ok(());
        logs.retain(|log| synced(log).map_err(|error| first = Err(error)).is_err());
        first
    };
    for log in logs.into_iter().filter(|log| log.needs_sync()) {
        shared.work.dirty(&log);
    }
    match result.and(shared.calls.sync_if_changed()) {
        Ok(()) => true,
        Err(error) => {
            shared.failed("sync", &error);
            false
        }
    }
}

/// Syncs everything that was written to the journal's file system, including these logs and their names.
pub(super) fn sync_all<'l>(shared: &Shared, logs: impl Iterator<Item = &'l Arc<Log>>) -> io::Result<()> {
    let started = Instant::now();
    let synced = shared.storage.medium.sync_all(shared.storage.folder.handle());
    shared.storage.metrics.sync_seconds.observe(started.elapsed().as_secs_f64());
    if synced.is_ok() {
        logs.for_each(|log| log.content().unnamed = false);
    }
    synced
}

/// Syncs a log; also its name if that is new.
pub(super) fn sync_log(shared: &Shared, log: &Arc<Log>) -> io::Result<()> {
    let (file, unnamed) = {
        let mut content = log.content();
        let Some(file) = content.borrow_file(log, &shared.storage)? else { return Ok(()) };
        (file, std::mem::take(&mut content.unnamed))
    };
    let started = Instant::now();
    let named = || if unnamed { shared.storage.folder.sync_log_name(&log.call) } else { Ok(()) };
    let synced = shared.storage.medium.sync(&file).and_then(|()| named());
    shared.storage.metrics.sync_seconds.observe(started.elapsed().as_secs_f64());
    if synced.is_err() {
        log.content().unnamed |= unnamed;
    }
    synced
}
