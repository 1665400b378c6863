//! The directory: all calls in memory, and the file that they come back from.
//!
//! `directory.log` is appended to at every change and compacted when it is mostly history. A line is JSON in a frame:
//! `{"put":{…}}`, `{"change":{…}}` or `{"erased":"c_1"}`. Does not read call logs.

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
use super::locks::{lock, read, write};
use super::medium::{End, Medium};
use super::slot::{Change, Slot};
use super::{CallState, Entry};
use crate::types::CallId;

/// One line of the file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// All that is known of a call.
    Put(Box<Slot>),
    /// What is new of it.
    Change(Box<Change>),
    Erased(CallId),
}

/// The same, to be written.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum NewLine<'a> {
    Put(&'a Slot),
    Change(&'a Change),
    Erased(&'a CallId),
}

/// All calls, in order of their ids.
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

    /// Takes a change of a call; of one that is not known (its line was lost, or it was erased since), nothing.
    pub(super) fn change(&mut self, change: Change) {
        if let Some(mut slot) = self.remove(&change.call) {
            change.apply(&mut slot);
            self.put(slot);
        }
    }
}

/// The directory of a journal that is open.
pub(super) struct Calls {
    table: RwLock<Table>,
    /// Held over a change of both.
    written: Mutex<Written>,
    medium: Arc<dyn Medium>,
    /// Number of calls in `table`.
    count: Gauge,
    /// Lines were written since the last sync.
    changed: AtomicBool,
    /// Bytes of the file from which on a compaction may be worth it; locked while the file is written anew.
    compact_from: Mutex<u64>,
}

/// What the file says.
struct Written {
    /// `None` until there is room for it.
    lines: Option<Lines>,
    /// Calls of which memory knows what the file does not.
    unsaid: BTreeSet<CallId>,
}

/// `directory.log`.
pub(super) struct Lines {
    pub(super) file: Arc<File>,
    pub(super) end: End,
}

impl Calls {
    /// Without `lines`, nothing can be put before [`Calls::mend`].
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

    /// Sets what is known of a call: first in the file, then in memory.
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

    /// Forgets a call: in memory although the file cannot be written, for then it will be forgotten when it is touched
    /// next (it has no log any more).
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

    /// Sets what is known of a call in memory alone.
    pub(super) fn put_in_memory(&self, slot: Slot) {
        let mut written = lock(&self.written);
        written.unsaid.insert(slot.entry.call_id.clone());
        self.update(|table| table.put(slot));
    }

    fn append(&self, written: &mut Written, line: &NewLine<'_>) -> io::Result<()> {
        let Some(Lines { file, end }) = &mut written.lines else {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the directory waits for room to be written"));
        };
        let mut bytes = Vec::new();
        encode(&mut bytes, line)?;
        end.append(self.medium.as_ref(), file, &bytes)?;
        self.changed.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes all changes so far survive the loss of power.
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

    /// Looks at what is known of a call.
    pub(super) fn with<T>(&self, call: &CallId, look: impl FnOnce(&Slot) -> T) -> Option<T> {
        read(&self.table).calls.get(call).map(look)
    }

    /// Looks at all calls.
    pub(super) fn all<T>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &Slot>) -> T) -> T {
        look(&mut read(&self.table).calls.values())
    }

    /// How many calls are open.
    pub(super) fn open_count(&self) -> usize {
        read(&self.table).open.len()
    }

    /// Calls after `after`, at most `limit`; with `state`, only such.
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

    /// Writes the file anew without its history, if that is most of it. Changes go on meanwhile.
    pub(super) fn compact_if_worth_it(&self, folder: &Folder) -> io::Result<bool> {
        let mut from = lock(&self.compact_from);
        let len = self.len();
        if len < *from {
            return Ok(false);
        }
        // To know what of it is history takes as long as to write what is not: looked at again once it has doubled.
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

    /// Writes the file where there was no room for it yet.
    pub(super) fn mend(&self, folder: &Folder) -> io::Result<()> {
        if lock(&self.written).lines.is_some() {
            return Ok(());
        }
        let _one = lock(&self.compact_from);
        if lock(&self.written).lines.is_some() { Ok(()) } else { self.rewrite(folder) }
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        lock(&self.written).lines.as_ref().map_or(0, |lines| lines.end.len)
    }

    fn rewrite(&self, folder: &Folder) -> io::Result<()> {
        let old = lock(&self.written).lines.as_ref().map(|lines| (Arc::clone(&lines.file), lines.end.len));
        let make = || -> io::Result<()> {
            let mut draft = Draft::begin(folder, self.medium.as_ref())?;
            // Every line up to the length above is in the table by now, for both change under one lock.
            self.pages(|lines| draft.push(lines))?;
            draft.sync()?;
            let mut written = lock(&self.written);
            if let (Some((old, from)), Some(lines)) = (&old, &written.lines) {
                // Lines that came meanwhile say it again, or say something newer.
                draft.copy(old, *from, lines.end.len)?;
            }
            let (lines, synced) = draft.publish(folder)?;
            written.lines = Some(lines);
            synced
        };
        // Half a draft takes room that others wait for.
        make().inspect_err(|_| drop(folder.remove(DRAFT)))
    }

    /// The lines of all calls, a page at a time: changes go on between two pages.
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

/// A directory file in the making.
struct Draft<'m> {
    file: File,
    len: u64,
    medium: &'m dyn Medium,
}

const DRAFT: &str = "directory.new";
/// The name of the directory's file.
pub(super) const FILE: &str = "directory.log";
/// A file below this many bytes is not compacted.
const COMPACT_FROM: u64 = if cfg!(test) { 64 << 10 } else { 1 << 20 };
/// Calls whose lines are made under one lock.
const PAGE: usize = 1_000;

impl<'m> Draft<'m> {
    /// A file beside the one that counts.
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

    /// Puts it in the place of the one that counted. From then on it counts, although that may not survive the loss of
    /// power, as the second result says.
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
