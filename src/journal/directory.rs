//! The directory: all calls in memory, and the file from which they are loaded at a start.
//!
//! Every change is appended to `directory.log`, which is compacted when most of it is outdated. A line is JSON in a
//! frame: `{"put":{…}}`, `{"change":{…}}` or `{"erased":"c_1"}`. Does not read call logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use prometheus_client::metrics::gauge::Gauge;
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::frame::{Kind, file_header, seal};
use super::medium::{End, Medium};
use super::slot::{Change, Slot};
use super::{CallState, Entry};
use crate::base::sync::{lock, read, write};
use crate::types::CallId;

/// One line of the file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// The complete entry of a call.
    Put(Box<Slot>),
    /// The changed members of an entry.
    Change(Box<Change>),
    Erased(CallId),
}

/// As [`Line`], for writing.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum NewLine<'a> {
    Put(&'a Slot),
    Change(&'a Change),
    Erased(&'a CallId),
}

/// All calls, ordered by id.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) calls: BTreeMap<CallId, Slot>,
    open: BTreeSet<CallId>,
}

impl Table {
    pub(super) fn put(&mut self, slot: Slot) {
        let call = slot.entry.call_id.clone();
        if slot.open() {
            self.open.insert(call.clone());
        } else {
            self.open.remove(&call);
        }
        self.calls.insert(call, slot);
    }

    pub(super) fn remove(&mut self, call: &CallId) -> Option<Slot> {
        self.open.remove(call);
        self.calls.remove(call)
    }

    /// Applies a change to a call. Ignores it if the call is unknown, because its line was lost or it was erased since.
    pub(super) fn change(&mut self, change: Change) {
        if let Some(mut slot) = self.remove(&change.call) {
            change.apply(&mut slot);
            self.put(slot);
        }
    }
}

/// The directory of an open journal.
pub(super) struct Calls {
    table: RwLock<Table>,
    /// Locked while file and memory are changed.
    written: Mutex<Written>,
    medium: Arc<dyn Medium>,
    /// Number of calls in `table`.
    count: Gauge,
    /// Set if lines were written since the last sync.
    changed: AtomicBool,
    /// File size in bytes from which a compaction may be worthwhile; locked while the file is rewritten.
    compact_from: Mutex<u64>,
}

/// The state of the file.
struct Written {
    /// `None` as long as the disk has no room for the file.
    lines: Option<Lines>,
    /// Calls whose newest state is in memory but not in the file.
    unsaid: BTreeSet<CallId>,
}

/// `directory.log`.
pub(super) struct Lines {
    pub(super) file: Arc<File>,
    pub(super) end: End,
}

impl Calls {
    /// Makes a directory. Without `lines`, nothing can be stored before [`Calls::write_missing_file`].
    pub(super) fn new(table: Table, lines: Option<Lines>, medium: Arc<dyn Medium>, count: Gauge) -> Self {
        count.set(i64::try_from(table.calls.len()).unwrap_or(i64::MAX));
        Self {
            table: RwLock::new(table),
            written: Mutex::new(Written { lines, unsaid: BTreeSet::new() }),
            medium,
            count,
            changed: AtomicBool::new(false),
            compact_from: Mutex::new(COMPACT_FROM),
        }
    }

    /// Stores the entry of a call: first in the file, then in memory.
    pub(super) fn put(&self, slot: Slot) -> io::Result<()> {
        let mut written = lock(&self.written);
        let call = &slot.entry.call_id;
        let said = !written.unsaid.contains(call);
        let change = if said { self.with(call, |known| Change::between(known, &slot)).flatten() } else { None };
        let line = change.as_ref().map_or(NewLine::Put(&slot), NewLine::Change);
        self.append(&mut written, &line)?;
        if !said {
            written.unsaid.remove(call);
        }
        self.update(|table| table.put(slot));
        Ok(())
    }

    /// Removes a call. It is removed from memory even if the file cannot be written: after a restart, the call without
    /// a log is removed when it is next used.
    pub(super) fn remove(&self, call: &CallId) -> io::Result<()> {
        let mut written = lock(&self.written);
        let result = self.append(&mut written, &NewLine::Erased(call));
        written.unsaid.remove(call);
        self.update(|table| drop(table.remove(call)));
        result
    }

    fn update(&self, change: impl FnOnce(&mut Table)) {
        let mut table = write(&self.table);
        change(&mut table);
        self.count.set(i64::try_from(table.calls.len()).unwrap_or(i64::MAX));
    }

    /// Stores the entry of a call in memory only.
    pub(super) fn put_in_memory(&self, slot: Slot) {
        let mut written = lock(&self.written);
        written.unsaid.insert(slot.entry.call_id.clone());
        self.update(|table| table.put(slot));
    }

    fn append(&self, written: &mut Written, line: &NewLine<'_>) -> io::Result<()> {
        let Some(Lines { file, end }) = &mut written.lines else {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the directory cannot be written until the disk has \
                space",
            ));
        };
        let mut bytes = Vec::new();
        encode(&mut bytes, line)?;
        end.append(self.medium.as_ref(), file, &bytes)?;
        self.changed.store(true, Ordering::Release);
        Ok(())
    }

    /// Syncs the file: all changes so far survive a power loss.
    pub(super) fn sync(&self) -> io::Result<()> {
        let file = lock(&self.written).lines.as_ref().map(|lines| Arc::clone(&lines.file));
        file.map_or(Ok(()), |file| self.medium.sync(&file))
    }

    /// As [`Calls::sync`], if there is anything to sync.
    pub(super) fn sync_if_changed(&self) -> io::Result<()> {
        if !self.changed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.sync().inspect_err(|_| self.changed.store(true, Ordering::Release))
    }

    /// Calls `look` with the entry of a call.
    pub(super) fn with<T>(&self, call: &CallId, look: impl FnOnce(&Slot) -> T) -> Option<T> {
        read(&self.table).calls.get(call).map(look)
    }

    /// Calls `look` with all entries.
    pub(super) fn all<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &Slot>) -> T) -> T {
        look(&mut read(&self.table).calls.values())
    }

    /// Number of open calls.
    pub(super) fn open_count(&self) -> usize {
        read(&self.table).open.len()
    }

    /// Calls after `after`, at most `limit`; with `state`, only calls in that state.
    pub(super) fn page(&self, state: Option<CallState>, after: Option<&CallId>, limit: usize) -> Vec<Entry> {
        let table = read(&self.table);
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let entry = |slot: &Slot| slot.entry.clone();
        match state {
            Some(CallState::Open) => {
                let open = table.open.range::<CallId, _>(range);
                open.filter_map(|call| table.calls.get(call)).take(limit).map(entry).collect()
            }
            _ => {
                let calls = table.calls.range::<CallId, _>(range).map(|(_, slot)| slot);
                let wanted = calls.filter(|slot| state.is_none_or(|state| slot.entry.state == state));
                wanted.take(limit).map(entry).collect()
            }
        }
    }

    /// Rewrites the file without outdated lines, if these are most of it. Changes continue meanwhile.
    pub(super) fn compact_if_worth_it(&self, folder: &Folder) -> io::Result<bool> {
        let mut from = lock(&self.compact_from);
        let len = self.len();
        if len < *from {
            return Ok(false);
        }
        // Counting the outdated lines takes as long as writing the others, so it is done again only when the file has
        // doubled.
        let mut live = 0;
        self.pages(|lines| {
            live += lines.len() as u64;
            Ok(())
        })?;
        *from = COMPACT_FROM.max(live * 2);
        if len < *from {
            return Ok(false);
        }
        self.rewrite(folder).inspect_err(|_| *from = len + len / 4)?;
        Ok(true)
    }

    /// Writes the file if the disk had no room for it before.
    pub(super) fn write_missing_file(&self, folder: &Folder) -> io::Result<()> {
        if lock(&self.written).lines.is_some() {
            return Ok(());
        }
        let _one = lock(&self.compact_from);
        if lock(&self.written).lines.is_some() { Ok(()) } else { self.rewrite(folder) }
    }

    /// Size of the file in bytes.
    pub(super) fn len(&self) -> u64 {
        lock(&self.written).lines.as_ref().map_or(0, |lines| lines.end.len)
    }

    fn rewrite(&self, folder: &Folder) -> io::Result<()> {
        let old = lock(&self.written).lines.as_ref().map(|lines| (Arc::clone(&lines.file), lines.end.len));
        let make = || -> io::Result<()> {
            let mut draft = Draft::begin(folder, self.medium.as_ref())?;
            // The table already contains every line up to the length above, because both change under one lock.
            self.pages(|lines| draft.push(lines))?;
            draft.sync()?;
            let mut written = lock(&self.written);
            if let (Some((old, from)), Some(lines)) = (&old, &written.lines) {
                // Lines that were appended meanwhile repeat the entries or replace them by newer ones.
                draft.copy(old, *from, lines.end.len)?;
            }
            let (lines, synced) = draft.publish(folder)?;
            written.lines = Some(lines);
            synced
        };
        // An incomplete draft takes disk space that other writes need.
        make().inspect_err(|_| drop(folder.remove(DRAFT)))
    }

    /// Passes the lines of all calls to `take`, page by page. Changes continue between two pages.
    fn pages(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut after: Option<CallId> = None;
        loop {
            let mut lines = Vec::new();
            let table = read(&self.table);
            let range = (after.as_ref().map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
            let mut last = None;
            for (call, slot) in table.calls.range::<CallId, _>(range).take(PAGE) {
                encode(&mut lines, &NewLine::Put(slot))?;
                last = Some(call.clone());
            }
            drop(table);
            if last.is_none() {
                return Ok(());
            }
            after = last;
            take(&lines)?;
        }
    }
}

/// A new directory file that is being written.
struct Draft<'m> {
    file: File,
    len: u64,
    medium: &'m dyn Medium,
}

const DRAFT: &str = "directory.new";
/// The name of the directory's file.
pub(super) const FILE: &str = "directory.log";
/// A smaller file is not compacted.
const COMPACT_FROM: u64 = if cfg!(test) { 64 << 10 } else { 1 << 20 };
/// Number of calls whose lines are made under one lock.
const PAGE: usize = 1_000;

impl<'m> Draft<'m> {
    /// Begins a draft beside the current file.
    fn begin(folder: &Folder, medium: &'m dyn Medium) -> io::Result<Self> {
        let mut draft = Self { file: folder.create(DRAFT)?, len: 0, medium };
        draft.push(&file_header(Kind::Directory))?;
        Ok(draft)
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.medium.write(&self.file, bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.medium.sync(&self.file)
    }

    fn copy(&mut self, old: &File, from: u64, to: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; (to - from) as usize];
        old.read_exact_at(&mut bytes, from)?;
        self.push(&bytes)
    }

    /// Replaces the current file by the draft. From then on the draft is the directory. The second result says whether
    /// the replacement survives a power loss.
    fn publish(self, folder: &Folder) -> io::Result<(Lines, io::Result<()>)> {
        self.sync()?;
        folder.replace(DRAFT, FILE)?;
        let end = End { len: self.len, dirty: false };
        Ok((Lines { file: Arc::new(self.file), end }, folder.sync()))
    }
}

fn encode(out: &mut Vec<u8>, line: &NewLine<'_>) -> io::Result<()> {
    let mut written = Ok(());
    seal(out, |out| written = serde_json::to_writer(out, line));
    Ok(written?)
}
