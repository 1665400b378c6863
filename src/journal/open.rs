//! Opens a journal: the folder, the state of the last run, the directory. Changes epochs if events may have been lost.
//!
//! A full disk does not prevent opening: what could not be written is written once there is space, and nothing is
//! appended before.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{Config, Durability};
use super::directory::{Calls, FILE, Table};
use super::files::{Files, default_limit};
use super::folder::Folder;
use super::found::{add_missing_entries, is_full, last_record, read_directory};
use super::log::Storage;
use super::medium::{Disk, Medium};
use super::metrics::Metrics;
use super::migrate::{HeaderOf, migrate};
use super::sequencer::Sequencer;
use super::slot::Slot;
use super::state::{BLOCK, State, boot_id};
use super::store::Shared;
use crate::types::id::random_suffix;

/// A call that ended this long before the newest end was synced before the machine went down.
const SYNCED_AFTER_MS: i64 = 60 * 60 * 1000;

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be created or used.
    #[error("cannot {what} the journal's folder {dir}: {error} (storage.dir names it)", dir = dir.display())]
    Folder {
        dir: PathBuf,
        /// The operation that failed.
        what: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// Another daemon uses the journal.
    #[error(
        "the journal in {dir} is in use by another sidetone{owner}: stop that one, or use another storage.dir",
        dir = dir.display()
    )]
    Locked {
        dir: PathBuf,
        /// ` (process N)`, or empty if unknown.
        owner: String,
    },
    /// The journal's format has an unknown version.
    #[error("the journal in {dir} cannot be used: {message}", dir = dir.display())]
    Version {
        dir: PathBuf,
        /// Which version, and what to do.
        message: String,
    },
    /// The journal has the previous format, and not all of it could be migrated.
    #[error("{message}")]
    Migration {
        /// Which file, the error, and what to do.
        message: String,
    },
    /// A required file is damaged.
    #[error("{path} is damaged: {message}", path = path.display())]
    Damaged {
        path: PathBuf,
        /// What was found, and what to do.
        message: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Read {
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write to the journal in {dir}: {error}", dir = dir.display())]
    Write {
        dir: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// Threads cannot be started.
    #[error("cannot start the journal's threads: {0}")]
    Threads(io::Error),
}

/// The medium and the clock that a store uses, which tests replace, and a function of the caller.
pub(super) struct Surroundings {
    pub(super) boot_id: String,
    pub(super) medium: Arc<dyn Medium>,
    pub(super) open_files: usize,
    pub(super) header_of: HeaderOf,
}

impl Surroundings {
    pub(super) fn real(header_of: HeaderOf) -> Self {
        Self { boot_id: boot_id(), medium: Arc::new(Disk), open_files: default_limit(), header_of }
    }
}

/// Opens the journal without starting a thread.
pub(super) fn open_in(
    dir: &Path,
    config: &Config,
    metrics: Metrics,
    around: Surroundings,
) -> Result<Shared, OpenError> {
    let folder = Folder::open(dir)?;
    let dir = folder.path().to_owned();
    let write = |error| OpenError::Write { dir: dir.clone(), error };
    let read = |error| OpenError::Read { path: dir.join(FILE), error };

    let mut last = State::read(&folder)?;
    let storage = Storage { folder, medium: around.medium, metrics };
    migrate(&storage, last.as_mut(), around.header_of)?;
    let mut found = read_directory(&storage).map_err(read)??;
    // If a file ends exactly between two lines, nothing in it shows that lines are missing.
    let whole = last.as_ref().is_some_and(|last| last.clean && last.directory_bytes.unwrap_or(0) <= found.bytes);
    if found.cut || found.damaged || !whole || found.table.calls.is_empty() {
        let adopted = add_missing_entries(&storage, &mut found);
        found.changed |= adopted;
    }

    // If there are calls but no state file, the journal was restored or repaired.
    let restored = last.is_none() && !found.table.calls.is_empty();
    // Data of a killed daemon may not be synced, but this run may call it durable.
    let mut unsettled = last.as_ref().is_some_and(|last| !last.clean && last.durability == Durability::Process);
    let mut state = last.unwrap_or_else(|| State::fresh(config.durability));
    if restored {
        state.order = newest_order(&storage, &found.table) + 1;
    }
    if restored || state.may_have_lost(&around.boot_id) {
        let calls = new_epochs(&storage, &mut found.table);
        tracing::warn!(calls, "events may have been lost: open calls get new epochs");
        state.generation += 1;
        found.changed = true;
    }
    let next = state.order;
    state = State {
        migrating: false,
        boot_id: around.boot_id,
        clean: false,
        durability: config.durability,
        order: next + BLOCK,
        directory_bytes: None,
        ..state
    };

    let lines = found.lines.filter(|_| !found.changed);
    let calls = Calls::new(found.table, lines, Arc::clone(&storage.medium), storage.metrics.calls.clone());
    if unsettled && config.durability == Durability::Machine {
        storage.medium.sync_all(storage.folder.handle()).map_err(write)?;
        unsettled = false;
    }
    // The old directory is valid until the new one is complete. The state is written last: after a crash before that,
    // all of the above is done again.
    let full = match calls.write_missing_file(&storage.folder).and_then(|()| state.write(&storage)) {
        Ok(()) => None,
        Err(error) if is_full(&error) => {
            // No order is reserved, so nothing is appended before the state is written.
            state.order = next;
            Some(error)
        }
        Err(error) => return Err(write(error)),
    };
    let sequencer = Sequencer::new(next, state.order);
    let files = Files::new(around.open_files);
    let shared = Shared::new(config.clone(), storage, calls, state, sequencer, files, unsettled);
    if let Some(error) = full {
        shared.failed("write", &error);
    }
    Ok(shared)
}

/// Gives new epochs to open calls, and to ended calls that lost the end of their logs. Returns their number.
fn new_epochs(storage: &Storage, table: &mut Table) -> usize {
    let ended = |slot: &Slot| slot.entry.ended_at_ms.unwrap_or(0);
    let newest = table.calls.values().filter(|slot| !slot.open()).map(ended).max().unwrap_or(0);
    let mut changed = 0;
    for slot in table.calls.values_mut() {
        if slot.open() {
            // These values must be read from what remains of the log.
            (slot.head, slot.newest_order) = (0, 0);
        } else if ended(slot) >= newest.saturating_sub(SYNCED_AFTER_MS) {
            let (head, order) = last_record(storage, &slot.entry.call_id);
            if head == slot.head {
                continue;
            }
            (slot.head, slot.newest_order) = (head, order);
        } else {
            continue;
        }
        slot.entry.epoch = random_suffix();
        changed += 1;
    }
    changed
}

/// The newest order in any log.
fn newest_order(storage: &Storage, table: &Table) -> u64 {
    let orders = table.calls.values().map(|slot| last_record(storage, &slot.entry.call_id).1.max(slot.newest_order));
    orders.max().unwrap_or(0)
}
