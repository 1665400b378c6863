//! Opening a journal: the folder, what the last run left, the directory; and what must change when events may be lost.
//!
//! A directory that is damaged at other than its torn end loses the lines that cannot be read, no more: the damaged
//! file is kept beside it and reported, and a log that no line knows any more becomes a failed call.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::config::{Config, Durability};
use super::directory::{Calls, Draft, FILE, Line, Lines, Slot, Table};
use super::files::{Files, default_limit};
use super::folder::Folder;
use super::frame::{FILE_HEADER, HEADER, Kind, Next, Opening, Scanner, TRAILER, check_file_header};
use super::log::Ground;
use super::medium::{Disk, End, Medium};
use super::metrics::Metrics;
use super::scan::{Backwards, scan};
use super::sequencer::Sequencer;
use super::state::{BLOCK, State, boot_id};
use super::store::Shared;
use super::{CallState, Entry};
use crate::types::id::random_suffix;
use crate::types::{CallId, JsonMap};

const DAMAGED: &str = "directory.damaged";
/// Calls that ended so long before the last one that ended were synced before the machine went down.
const SYNCED_AFTER_MS: i64 = 60 * 60 * 1000;

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or used.
    #[error("cannot {what} the journal's folder {dir}: {error} (journal.dir names it)", dir = dir.display())]
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
        "the journal in {dir} is in use by another sidetone{owner}: stop it, or give this one another journal.dir",
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

/// What a store takes from the machine, for tests to replace.
pub(super) struct Surroundings {
    pub(super) boot_id: String,
    pub(super) medium: Arc<dyn Medium>,
    pub(super) open_files: usize,
}

impl Surroundings {
    pub(super) fn real() -> Self {
        Self { boot_id: boot_id(), medium: Arc::new(Disk), open_files: default_limit() }
    }
}

/// Opens the journal; no thread is running yet.
pub(super) fn open_in(config: &Config, metrics: Metrics, around: Surroundings) -> Result<Shared, OpenError> {
    let folder = Folder::open(&config.dir)?;
    let dir = folder.path().to_owned();
    let write = |error| OpenError::Write { dir: dir.clone(), error };
    let read = |error| OpenError::Read { path: dir.join(FILE), error };

    let last = State::read(&folder)?;
    let ground = Ground { folder, medium: around.medium, metrics };
    let mut found = read_directory(&ground).map_err(read)??;
    if found.damaged || found.table.calls.is_empty() {
        found.changed |= adopt_strays(&ground, &mut found.table);
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
    state =
        State { boot_id: around.boot_id, clean: false, durability: config.durability, order: next + BLOCK, ..state };

    let calls = match found.lines {
        Some(lines) if !found.changed => Calls::new(found.table, lines, Arc::clone(&ground.medium)),
        _ => {
            // The old file counts until the new one is whole.
            let lines = Draft::write(&ground.folder, found.table.calls.values())
                .and_then(|draft| draft.publish(&ground.folder))
                .map_err(write)?;
            Calls::new(found.table, lines, Arc::clone(&ground.medium))
        }
    };
    calls.compact_if_worth_it(&ground.folder).map_err(write)?;
    if unsettled && config.durability == Durability::Machine {
        ground.medium.sync_all(ground.folder.handle()).map_err(write)?;
        unsettled = false;
    }
    // Last: a crash before it leaves all of the above to be done again.
    state.write(&ground.folder).map_err(write)?;
    let sequencer = Sequencer::new(next, state.order);
    let files = Files::new(around.open_files);
    Ok(Shared::new(config.clone(), ground, calls, state, sequencer, files, unsettled))
}

/// What `directory.log` says.
struct Found {
    table: Table,
    /// The file to be appended to; `None` where there is none.
    lines: Option<Lines>,
    /// Some of it cannot be read.
    damaged: bool,
    /// The file does not say what the table says.
    changed: bool,
}

fn read_directory(ground: &Ground) -> io::Result<Result<Found, OpenError>> {
    let mut found = Found { table: Table::default(), lines: None, damaged: false, changed: false };
    let Some(file) = ground.folder.existing(FILE)? else { return Ok(Ok(found)) };
    let path = ground.folder.path().join(FILE);
    let end = file.metadata()?.len();
    match check_file_header(&file, Kind::Directory, end)? {
        Opening::Good => {}
        Opening::Torn => {
            report_cut(ground, end, "the first write is cut off");
            return Ok(Ok(found));
        }
        Opening::Version(message) => {
            return Ok(Err(OpenError::Version { dir: ground.folder.path().to_owned(), message }));
        }
        Opening::Strange => found.damaged = true,
    }
    let mut scanner = Scanner::new(&file, FILE_HEADER as u64, end);
    let mut count = 0;
    let good = loop {
        let payload = match scanner.next()? {
            Next::Record { payload, .. } => payload,
            Next::End => break end,
            Next::Torn(reason) => {
                let good = scanner.position();
                report_cut(ground, end - good, reason);
                break good;
            }
            Next::Damaged(reason) => {
                let from = scanner.position();
                let (lines, to) = lines_behind(&file, from, end)?;
                tracing::error!(path = %path.display(), from, to, reason, "the directory is damaged; what cannot be read is lost, what is behind it is not");
                found.damaged = true;
                for payload in lines {
                    if let Err(error) = apply(&mut found.table, &payload) {
                        return Ok(Err(unknown_line(path, &error)));
                    }
                }
                break from;
            }
        };
        count += 1;
        if let Err(error) = apply(&mut found.table, payload) {
            return Ok(Err(unknown_line(path, &error)));
        }
    };
    if found.damaged {
        ground.metrics.damaged.inc();
        keep_damaged(ground)?;
        found.changed = true;
    }
    let mut tail = End { len: end, dirty: false };
    if good < end && !found.damaged {
        tail.cut(ground.medium.as_ref(), &file, good);
    }
    found.lines = Some(Lines { file: Arc::new(file), end: tail, count });
    Ok(Ok(found))
}

fn report_cut(ground: &Ground, bytes: u64, reason: &str) {
    tracing::warn!(cut_bytes = bytes, reason, "the torn tail of the directory is cut");
    ground.metrics.cut_tails.inc();
}

fn unknown_line(path: PathBuf, error: &serde_json::Error) -> OpenError {
    let message =
        format!("a line is whole but not understood ({error}); it was written by another version of sidetone");
    OpenError::Damaged { path, message }
}

fn apply(table: &mut Table, payload: &[u8]) -> Result<(), serde_json::Error> {
    match serde_json::from_slice(payload)? {
        Line::Put(slot) => table.put(slot),
        Line::Erased(call) => drop(table.remove(&call)),
    }
    Ok(())
}

/// The lines that can be read backwards from the end, down to `from`; in order, with where they begin.
fn lines_behind(file: &File, from: u64, end: u64) -> io::Result<(Vec<Vec<u8>>, u64)> {
    let mut backwards = Backwards::new(file, end);
    let (mut lines, mut begin) = (Vec::new(), end);
    while let Some(frame) = backwards.frame()? {
        let payload = frame[HEADER..frame.len() - TRAILER].to_vec();
        if backwards.position() < from {
            break;
        }
        begin = backwards.position();
        lines.push(payload);
    }
    lines.reverse();
    Ok((lines, begin))
}

/// Keeps a damaged directory for those who want to look at it.
fn keep_damaged(ground: &Ground) -> io::Result<()> {
    let dir = ground.folder.path();
    ground.folder.remove(DAMAGED)?;
    std::fs::hard_link(dir.join(FILE), dir.join(DAMAGED))
}

/// Makes failed calls of logs that no entry knows, so that they can be read and erased. `true` if there were any.
fn adopt_strays(ground: &Ground, table: &mut Table) -> bool {
    let mut adopted = false;
    for path in ground.folder.log_files() {
        let call = path.file_stem().and_then(|stem| CallId::parse(stem.to_str()?).ok());
        let Some(call) = call.filter(|call| path == ground.folder.log_path(call)) else { continue };
        if table.calls.contains_key(&call) {
            continue;
        }
        let modified = path.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let age = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_ms = i64::try_from(age.as_millis()).unwrap_or(0);
        tracing::error!(call_id = %call, "a call's entry is lost; its log stays readable, as that of a failed call");
        let entry = Entry {
            call_id: call,
            epoch: random_suffix(),
            state: CallState::Failed,
            meta: JsonMap::new(),
            started_at_ms: at_ms,
            ended_at_ms: Some(at_ms),
            open_streams: 0,
            turns: 0,
            connections: Default::default(),
            positions: Default::default(),
        };
        let last = last_record(ground, &entry.call_id);
        table.put(Slot { entry, newest_order: last.1, head: last.0 });
        adopted = true;
    }
    adopted
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

/// Sequence number and order of the last record of a call's log; zeros without one.
fn last_record(ground: &Ground, call: &CallId) -> (u64, u64) {
    let look = || {
        let Some(file) = ground.folder.open_log(call)? else { return Ok((0, 0)) };
        let end = file.metadata()?.len();
        match Backwards::new(&file, end).next()? {
            Some(last) if last.remaining == 0 => Ok((last.seq, last.order)),
            _ => scan(&file, end).map(|contents| (contents.head, contents.order)),
        }
    };
    look().unwrap_or_else(|error: io::Error| {
        tracing::error!(call_id = %call, %error, "a call's log cannot be read");
        (0, 0)
    })
}

/// The newest order in any log.
fn newest_order(ground: &Ground, table: &Table) -> u64 {
    let orders = table.calls.values().map(|slot| last_record(ground, &slot.entry.call_id).1.max(slot.newest_order));
    orders.max().unwrap_or(0)
}
