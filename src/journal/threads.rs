//! Work that runs without a caller: syncs, probes, reservations, compaction, sweeps. All threads of the store are here.
//!
//! With `"process"`, one thread syncs every ten seconds what was written. With `"machine"`, another one syncs each
//! batch before it is announced (see `rounds`).

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::config::Durability;
use super::log::Storage;
use super::rounds::rounds;
use super::state::BLOCK;
use super::store::Shared;
use super::sync::sync_dirty;
use crate::base::time::unix_ms;

/// How long written data may wait for the background sync. A sync every second would cost more than everything else:
/// with a hundred calls of one turn per second each, one sync for each turn.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// Interval of checks whether a write has failed, and whether orders must be reserved.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Interval of attempts to write while the journal cannot write.
const PROBE_EVERY: Duration = Duration::from_millis(250);
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);
/// Size of the probe: as many bytes as a call may have waiting for the journal.
const PROBE_BYTES: usize = 256 << 10;
const PROBE_FILE: &str = "probe";

/// Starts the threads.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    // A killed daemon may have left the file, and the disk may be short of space.
    shared.storage.folder.remove(PROBE_FILE)?;
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

/// The background thread: syncs, probes, reserves, compacts.
fn keep(shared: &Shared) {
    let mut synced = Instant::now();
    loop {
        let failing = shared.health.failing();
        if !shared.work.pause(if failing { PROBE_EVERY } else { LOOK_EVERY }) {
            return;
        }
        let short = shared.sequencer.left() < BLOCK / 2;
        let probed = if failing { probe(&shared.storage) } else { Ok(()) };
        match probed.and_then(|()| if short { shared.reserve_block(0) } else { Ok(()) }) {
            Ok(()) if failing => shared.health.works(),
            Ok(()) => {}
            Err(error) => drop(shared.failed("write", &error)),
        }
        if let Err(error) = shared.calls.compact_if_worth_it(&shared.storage.folder) {
            tracing::warn!(%error, "the directory cannot be compacted; it keeps its size");
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

/// Checks that the disk has space and works.
fn probe(storage: &Storage) -> io::Result<()> {
    let written = storage.folder.create(PROBE_FILE).and_then(|file| {
        storage.medium.write(&file, &vec![0; PROBE_BYTES], 0)?;
        storage.medium.sync(&file)
    });
    written.and(storage.folder.remove(PROBE_FILE))
}
