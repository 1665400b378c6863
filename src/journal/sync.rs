//! What happens behind the callers' backs: syncing, probing, reserving, compacting, sweeping. All threads of the store are here.
//!
//! With `"process"`, one thread syncs what was written every ten seconds. With `"machine"`, another one syncs each batch
//! before it is announced (see `rounds`).

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::append::Unsynced;
use super::config::Durability;
use super::locks::lock;
use super::log::{Ground, Log};
use super::rounds::rounds;
use super::state::BLOCK;
use super::store::Shared;
use crate::base::time::unix_ms;

/// How long what was written may wait for the background sync. Every second would cost, with a hundred calls of a turn a
/// second each, a sync a turn: more than all the rest of it.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// How soon a failure is noticed by the one who probes, and positions run short.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon a journal that cannot write is tried again.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// More logs than these are synced at once, with their file system.
const MANY: usize = 8;
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);
/// As much as a call may have waiting for a journal that cannot write.
const PROBE_BYTES: usize = 256 << 10;
const PROBE_FILE: &str = "probe";

/// What waits for the threads.
#[derive(Default)]
pub(super) struct Work {
    /// Logs written since they were last synced, each once.
    dirty: Mutex<Vec<Arc<Log>>>,
    /// Batches to be synced before they count, at most one a call.
    queue: Mutex<Queue>,
    arrived: Condvar,
    stop: Mutex<bool>,
    stopped: Condvar,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Unsynced>,
    stop: bool,
}

impl Work {
    /// `log` was written and is not among the dirty ones.
    pub(super) fn dirty(&self, log: &Arc<Log>) {
        lock(&self.dirty).push(Arc::clone(log));
    }

    /// A batch was written.
    pub(super) fn unsynced(&self, batch: Unsynced) {
        lock(&self.queue).batches.push_back(batch);
        self.arrived.notify_one();
    }

    /// All batches that wait, at least one; `None` once it is time to stop and none is left.
    pub(super) fn round(&self) -> Option<VecDeque<Unsynced>> {
        let queue = lock(&self.queue);
        let wait = self.arrived.wait_while(queue, |queue| queue.batches.is_empty() && !queue.stop);
        let batches = std::mem::take(&mut wait.unwrap_or_else(PoisonError::into_inner).batches);
        (!batches.is_empty()).then_some(batches)
    }

    /// Tells all threads to end once they have done what is there.
    pub(super) fn stop(&self) {
        *lock(&self.stop) = true;
        self.stopped.notify_all();
        lock(&self.queue).stop = true;
        self.arrived.notify_all();
    }

    /// Waits for `time`; `false` if it is time to stop.
    fn pause(&self, time: Duration) -> bool {
        let stop = lock(&self.stop);
        let wait = self.stopped.wait_timeout_while(stop, time, |stop| !*stop);
        !*wait.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Starts the threads.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    // A daemon that was killed may have left it, and on a disk that is short of room.
    shared.ground.folder.remove(PROBE_FILE)?;
    let mut threads = Vec::new();
    let mut spawn = |name: &str, work: fn(&Shared)| {
        let shared = Arc::clone(shared);
        Builder::new().name(name.to_owned()).spawn(move || work(&shared)).map(|thread| threads.push(thread))
    };
    spawn("journal-sync", keep)?;
    spawn("journal-sweep", sweep)?;
    if shared.config.durability == Durability::Machine {
        spawn("journal-commit", rounds)?;
    }
    Ok(threads)
}

/// The background: syncs, probes, reserves, compacts.
fn keep(shared: &Shared) {
    let mut synced = Instant::now();
    loop {
        let failing = shared.health.failing();
        if !shared.work.pause(if failing { PROBE_EVERY } else { LOOK_EVERY }) {
            return;
        }
        let short = shared.sequencer.left() < BLOCK / 2;
        let probed = if failing { probe(&shared.ground) } else { Ok(()) };
        match probed.and_then(|()| if short { shared.reserve_block(0) } else { Ok(()) }) {
            Ok(()) if failing => shared.health.works(),
            Ok(()) => {}
            Err(error) => drop(shared.failed("write", &error)),
        }
        if let Err(error) = shared.calls.compact_if_worth_it(&shared.ground.folder) {
            tracing::warn!(%error, "the directory cannot be compacted; it stays as long as it is");
        }
        if synced.elapsed() >= SYNC_EVERY {
            sync_dirty(shared);
            synced = Instant::now();
        }
    }
}

fn sweep(shared: &Shared) {
    loop {
        shared.sweep(unix_ms());
        if !shared.work.pause(SWEEP_EVERY) {
            return;
        }
    }
}

/// Syncs what was written in the background. What fails is tried again the next time.
pub(super) fn sync_dirty(shared: &Shared) -> bool {
    let mut logs = std::mem::take(&mut *lock(&shared.work.dirty));
    // Before they are synced: what is written during the sync needs another one.
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

/// Syncs everything that was written to the journal's file system, these logs and their names among it.
pub(super) fn sync_all<'l>(shared: &Shared, logs: impl Iterator<Item = &'l Arc<Log>>) -> io::Result<()> {
    let started = Instant::now();
    let synced = shared.ground.medium.sync_all(shared.ground.folder.handle());
    shared.ground.metrics.sync_seconds.observe(started.elapsed().as_secs_f64());
    if synced.is_ok() {
        logs.for_each(|log| log.content().unnamed = false);
    }
    synced
}

/// Syncs a log, and its name if that is new.
pub(super) fn sync_log(shared: &Shared, log: &Arc<Log>) -> io::Result<()> {
    let (file, unnamed) = {
        let mut content = log.content();
        let Some(file) = content.borrow_file(log, &shared.ground)? else { return Ok(()) };
        (file, std::mem::take(&mut content.unnamed))
    };
    let started = Instant::now();
    let named = || if unnamed { shared.ground.folder.sync_log_name(&log.call) } else { Ok(()) };
    let synced = shared.ground.medium.sync(&file).and_then(|()| named());
    shared.ground.metrics.sync_seconds.observe(started.elapsed().as_secs_f64());
    if synced.is_err() {
        log.content().unnamed |= unnamed;
    }
    synced
}

/// Whether there is room and a working disk.
fn probe(ground: &Ground) -> io::Result<()> {
    let written = ground.folder.create(PROBE_FILE).and_then(|file| {
        ground.medium.write(&file, &vec![0; PROBE_BYTES], 0)?;
        ground.medium.sync(&file)
    });
    written.and(ground.folder.remove(PROBE_FILE))
}
