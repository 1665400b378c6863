//! Reads the directory's file at a start, and corrects it from the logs that exist.
//!
//! A torn or damaged file loses only the lines that cannot be read. A damaged file is kept under another name and
//! reported. A log without a line becomes an open call, and its session reads the log to learn its state.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::directory::{FILE, Line, Lines, Table};
use super::frame::{FILE_HEADER, HEADER, Kind, Next, Opening, Scanner, TRAILER, check_file_header};
use super::log::Storage;
use super::medium::End;
use super::scan::{Backwards, scan};
use super::slot::Slot;
use super::{CallState, Entry, OpenError};
use crate::types::id::random_suffix;
use crate::types::{CallId, JsonMap};

const DAMAGED: &str = "directory.damaged";

/// Contents of `directory.log`.
pub(super) struct Found {
    pub(super) table: Table,
    /// The file to append to; `None` if there is none.
    pub(super) lines: Option<Lines>,
    /// The file's length.
    pub(super) bytes: u64,
    /// Set if the file's end was cut off.
    pub(super) cut: bool,
    /// Set if a part of it cannot be read.
    pub(super) damaged: bool,
    /// Calls whose last line says that they were erased.
    erased: BTreeSet<CallId>,
    /// Set if the file differs from the table.
    pub(super) changed: bool,
}

/// Reads the file.
pub(super) fn read_directory(storage: &Storage) -> io::Result<Result<Found, OpenError>> {
    let mut found = Found {
        table: Table::default(),
        lines: None,
        bytes: 0,
        cut: false,
        damaged: false,
        erased: BTreeSet::new(),
        changed: false,
    };
    let Some(file) = storage.folder.existing(FILE)? else { return Ok(Ok(found)) };
    let path = storage.folder.path().join(FILE);
    let end = file.metadata()?.len();
    found.bytes = end;
    match check_file_header(&file, Kind::Directory, end)? {
        Opening::Good => {}
        Opening::Torn => {
            report_cut(storage, end, "the first write is cut off");
            return Ok(Ok(found));
        }
        Opening::Version(message) => {
            return Ok(Err(OpenError::Version { dir: storage.folder.path().to_owned(), message }));
        }
        Opening::Strange => found.damaged = true,
    }
    let mut scanner = Scanner::new(&file, FILE_HEADER as u64, end);
    let good = loop {
        let payload = match scanner.next()? {
            Next::Record { payload, .. } => payload,
            Next::End => break end,
            Next::Torn(reason) => {
                let good = scanner.position();
                report_cut(storage, end - good, reason);
                found.cut = true;
                break good;
            }
            Next::Damaged(reason) => {
                let from = scanner.position();
                let (lines, to) = lines_behind(&file, from, end)?;
                tracing::error!(path = %path.display(), from, to, reason, "the directory is damaged; unreadable lines \
                    are lost, but the lines after them are kept");
                found.damaged = true;
                for payload in lines {
                    if let Err(error) = apply(&mut found, &payload) {
                        return Ok(Err(unknown_line(path, &error)));
                    }
                }
                break from;
            }
        };
        if let Err(error) = apply(&mut found, payload) {
            return Ok(Err(unknown_line(path, &error)));
        }
    };
    if found.damaged {
        storage.metrics.damaged.inc();
        match keep_damaged(storage) {
            Err(error) if is_full(&error) => tracing::warn!(
                "the disk has no space to keep a copy of the damaged \
                directory"
            ),
            kept => kept?,
        }
        found.changed = true;
    }
    let mut tail = End { len: end, dirty: false };
    if good < end && !found.damaged {
        tail.cut(storage.medium.as_ref(), &file, good);
    }
    found.lines = Some(Lines { file: Arc::new(file), end: tail });
    Ok(Ok(found))
}

fn report_cut(storage: &Storage, bytes: u64, reason: &str) {
    tracing::warn!(cut_bytes = bytes, reason, "the torn end of the directory was removed");
    storage.metrics.cut_tails.inc();
}

fn unknown_line(path: PathBuf, error: &serde_json::Error) -> OpenError {
    let message = format!("a complete line is not understood ({error}); it was written by another version of sidetone");
    OpenError::Damaged { path, message }
}

fn apply(found: &mut Found, payload: &[u8]) -> Result<(), serde_json::Error> {
    match serde_json::from_slice(payload)? {
        Line::Put(slot) => {
            found.erased.remove(&slot.entry.call_id);
            found.table.put(*slot);
        }
        Line::Change(change) => found.table.change(*change),
        Line::Erased(call) => {
            found.table.remove(&call);
            found.erased.insert(call);
        }
    }
    Ok(())
}

/// The lines that can be read backwards from the end, down to `from`, in file order, with their offsets.
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

/// Keeps a damaged directory under another name for inspection.
fn keep_damaged(storage: &Storage) -> io::Result<()> {
    let dir = storage.folder.path();
    storage.folder.remove(DAMAGED)?;
    std::fs::hard_link(dir.join(FILE), dir.join(DAMAGED))
}

/// Adds an entry for every log without one, as an open call. Returns true if there were any. The lost contents of such
/// an entry are in the log: the session that rebuilds the call corrects the entry.
pub(super) fn add_missing_entries(storage: &Storage, found: &mut Found) -> bool {
    let Found { table, erased, .. } = found;
    let mut adopted = false;
    for path in storage.folder.log_files() {
        let call = path.file_stem().and_then(|stem| CallId::parse(stem.to_str()?).ok());
        let Some(call) = call.filter(|call| path == storage.folder.log_path(call)) else { continue };
        if table.calls.contains_key(&call) {
            continue;
        }
        if erased.contains(&call) {
            // The daemon stopped between the two steps of an erasure.
            if let Err(error) = storage.folder.remove_log(&call) {
                tracing::warn!(call_id = %call, %error, "the log of an erased call cannot be removed");
            }
            continue;
        }
        if last_record(storage, &call).0 == 0 {
            // No event was ever written to it.
            continue;
        }
        let modified = path.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let age = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_ms = i64::try_from(age.as_millis()).unwrap_or(0);
        tracing::warn!(call_id = %call, "a call's directory entry is lost; the call continues from its log");
        let entry = Entry {
            call_id: call,
            epoch: random_suffix(),
            state: CallState::Open,
            meta: JsonMap::new(),
            started_at_ms: at_ms,
            ended_at_ms: None,
            open_streams: 0,
            turns: 0,
            connections: Default::default(),
            positions: Default::default(),
            outline: None,
            due_at_ms: None,
        };
        table.put(Slot { entry, newest_order: 0, head: 0 });
        adopted = true;
    }
    adopted
}

/// Sequence number and order of the last record in a call's log; zeros if there is none.
pub(super) fn last_record(storage: &Storage, call: &CallId) -> (u64, u64) {
    let look = || {
        let Some(file) = storage.folder.open_log(call)? else { return Ok((0, 0)) };
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

/// Returns true if the error is only a lack of space.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
