//! Opening a journal: the folder, what the last run left, the directory; and what must change when events may be lost.
//!
//! A full disk is no reason not to open: what could not be written is written once there is room, and until then nothing
//! is appended.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{Config, Durability};
use super::directory::{Calls, FILE, Table};
use super::files::{Files, default_limit};
use super::folder::Folder;
use super::found::{adopt_strays, is_full, last_record, read_directory};
use super::log::Ground;
use super::medium::{Disk, Medium};
use super::metrics::Metrics;
use super::migrate::{HeaderOf, migrate};
use super::sequencer::Sequencer;
use super::slot::Slot;
use super::state::{BLOCK, State, boot_id};
use super::store::Shared;
use crate::types::id::random_suffix;

/// Calls that ended so long before the last one that ended were synced before the machine went down.
const SYNCED_AFTER_MS: i64 = 60 * 60 * 1000;

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or used.
    #[error("cannot {what} the journal's folder {dir}: {error} (storage.dir names it)", dir = dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// Another daemon has it.
    #[error(
        "the journal in {dir} is in use by another sidetone{owner}: stop it, or give this one another storage.dir",
        dir = dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// ` (process N)`, if known.
        owner: String,
    },
    /// Its format is of another version.
    #[error("the journal in {dir} cannot be used: {message}", dir = dir.display())]
    Version {
        /// The folder.
        dir: PathBuf,
        /// Which version, and what to do.
        message: String,
    },
    /// It has the format before this one, and could not be migrated as a whole.
    #[error("{message}")]
    Migration {
        /// Which file, why not, and what to do.
        message: String,
    },
    /// A file that it cannot do without is damaged.
    #[error("{path} is damaged: {message}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found, and what to do.
        message: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write to the journal in {dir}: {error}", dir = dir.display())]
    Write {
        /// The folder.
        dir: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Threads cannot be started.
    #[error("cannot start the journal's threads: {0}")]
    Threads(io::Error),
}

/// What a store takes from the machine, for tests to replace, and from above.
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

/// Opens the journal; no thread is running yet.
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
    let ground = Ground { folder, medium: around.medium, metrics };
    migrate(&ground, last.as_mut(), around.header_of)?;
    let mut found = read_directory(&ground).map_err(read)??;
    // A file that ends between two lines does not show that there were more.
    let whole = last.as_ref().is_some_and(|last| last.clean && last.directory_bytes.unwrap_or(0) <= found.bytes);
    if found.cut || found.damaged || !whole || found.table.calls.is_empty() {
        let adopted = adopt_strays(&ground, &mut found);
        found.changed |= adopted;
    }

    // Without a state file, but with calls, this is a journal from somewhere else, or repaired.
    let restored = last.is_none() && !found.table.calls.is_empty();
    // A killed daemon leaves to the operating system what this run may call durable, or synced.
    let mut unsettled = last.as_ref().is_some_and(|last| !last.clean && last.durability == Durability::Process);
    let mut state = last.unwrap_or_else(|| State::fresh(config.durability));
    if restored {
        state.order = newest_order(&ground, &found.table) + 1;
    }
    if restored || state.may_have_lost(&around.boot_id) {
        let calls = new_epochs(&ground, &mut found.table);
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
    let calls = Calls::new(found.table, lines, Arc::clone(&ground.medium), ground.metrics.calls.clone());
    if unsettled && config.durability == Durability::Machine {
        ground.medium.sync_all(ground.folder.handle()).map_err(write)?;
        unsettled = false;
    }
    // The old directory counts until the new one is whole. The state comes last: a crash before it leaves all of the above
    // to be done again.
    let full = match calls.mend(&ground.folder).and_then(|()| state.write(&ground)) {
        Ok(()) => None,
        Err(error) if is_full(&error) => {
            // Nothing is reserved, so nothing is appended before the state is written.
            state.order = next;
            Some(error)
        }
        Err(error) => return Err(write(error)),
    };
    let sequencer = Sequencer::new(next, state.order);
    let files = Files::new(around.open_files);
    let shared = Shared::new(config.clone(), ground, calls, state, sequencer, files, unsettled);
    if let Some(error) = full {
        shared.failed("write", &error);
    }
    Ok(shared)
}

/// Gives open calls new epochs, and those that were over but lost the end of their logs. Returns how many.
fn new_epochs(ground: &Ground, table: &mut Table) -> usize {
    let ended = |slot: &Slot| slot.entry.ended_at_ms.unwrap_or(0);
    let newest = table.calls.values().filter(|slot| !slot.open()).map(ended).max().unwrap_or(0);
    let mut changed = 0;
    for slot in table.calls.values_mut() {
        if slot.open() {
            // What is known of its log is what is left of it.
            (slot.head, slot.newest_order) = (0, 0);
        } else if ended(slot) >= newest.saturating_sub(SYNCED_AFTER_MS) {
            let (head, order) = last_record(ground, &slot.entry.call_id);
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
fn newest_order(ground: &Ground, table: &Table) -> u64 {
    let orders = table.calls.values().map(|slot| last_record(ground, &slot.entry.call_id).1.max(slot.newest_order));
    orders.max().unwrap_or(0)
}
