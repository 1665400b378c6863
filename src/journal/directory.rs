//! The directory: all calls in memory, and the file that they come back from.
//!
//! `directory.log` is appended to at every change and compacted when it is mostly history. A line is JSON in a frame:
//! `{"put":{…}}` or `{"erased":"c_1"}`; the last line of a call counts. Does not read call logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::frame::{Kind, file_header, seal};
use super::locks::{lock, read, write};
use super::medium::{End, Medium};
use super::{CallState, Entry, Seq};
use crate::types::CallId;

/// An entry, and what only the journal wants to know of a call that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Slot {
    /// What the callers know.
    pub(super) entry: Entry,
    /// No record of the call has a higher order; 0 = not known, see the log.
    #[serde(default)]
    pub(super) newest_order: u64,
    /// The log's head when the call was over.
    #[serde(default)]
    pub(super) head: Seq,
}

impl Slot {
    pub(super) fn open(&self) -> bool {
        self.entry.state == CallState::Open
    }
}

/// One change.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    Put(Slot),
    Erased(CallId),
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
}

/// The directory of a journal that is open.
pub(super) struct Calls {
    table: RwLock<Table>,
    /// Held over a change of both.
    file: Mutex<Lines>,
    medium: Arc<dyn Medium>,
    /// Lines were written since the last sync.
    changed: AtomicBool,
}

/// `directory.log`.
pub(super) struct Lines {
    pub(super) file: Arc<File>,
    pub(super) end: End,
    /// How many lines it has.
    pub(super) count: usize,
}

impl Calls {
    pub(super) fn new(table: Table, lines: Lines, medium: Arc<dyn Medium>) -> Self {
        Self { table: RwLock::new(table), file: Mutex::new(lines), medium, changed: AtomicBool::new(false) }
    }

    /// Sets what is known of a call: first in the file, then in memory.
    pub(super) fn put(&self, slot: Slot) -> io::Result<()> {
        let mut lines = lock(&self.file);
        let line = Line::Put(slot);
        self.append(&mut lines, &line)?;
        if let Line::Put(slot) = line {
            write(&self.table).put(slot);
        }
        Ok(())
    }

    /// Forgets a call: in memory although the file cannot be written, for then it will be forgotten when it is touched
    /// next (it has no log any more).
    pub(super) fn remove(&self, call: &CallId) -> io::Result<()> {
        let mut lines = lock(&self.file);
        let result = self.append(&mut lines, &Line::Erased(call.clone()));
        write(&self.table).remove(call);
        result
    }

    /// Sets what is known of a call in memory alone.
    pub(super) fn put_in_memory(&self, slot: Slot) {
        write(&self.table).put(slot);
    }

    fn append(&self, lines: &mut Lines, line: &Line) -> io::Result<()> {
        let bytes = encode(line)?;
        let Lines { file, end, count } = lines;
        end.append(self.medium.as_ref(), file, &bytes)?;
        *count += 1;
        self.changed.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes all changes so far survive the loss of power.
    pub(super) fn sync(&self) -> io::Result<()> {
        let file = Arc::clone(&lock(&self.file).file);
        self.medium.sync(&file)
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

    /// Rewrites the file without its history, if that is most of it. Changes go on meanwhile.
    pub(super) fn compact_if_worth_it(&self, folder: &Folder) -> io::Result<bool> {
        let (old, from) = {
            let lines = lock(&self.file);
            if lines.count < 1_000 || lines.count < read(&self.table).calls.len() * 3 {
                return Ok(false);
            }
            (Arc::clone(&lines.file), lines.end.len)
        };
        // Every line up to `from` is in the table by now, for both change under one lock.
        let slots: Vec<Slot> = self.all(|slots| slots.cloned().collect());
        let mut draft = Draft::write(folder, slots.iter())?;
        let mut lines = lock(&self.file);
        // Lines that came meanwhile say it again, or say something newer.
        draft.copy(&old, from, lines.end.len)?;
        *lines = draft.publish(folder)?;
        Ok(true)
    }
}

/// A directory file in the making.
pub(super) struct Draft {
    file: File,
    len: u64,
    count: usize,
}

const DRAFT: &str = "directory.new";
/// The name of the directory's file.
pub(super) const FILE: &str = "directory.log";

impl Draft {
    /// Writes a whole directory beside the one that counts, and syncs it.
    pub(super) fn write<'s>(folder: &Folder, slots: impl Iterator<Item = &'s Slot>) -> io::Result<Self> {
        let mut bytes = file_header(Kind::Directory).to_vec();
        let file = folder.create(DRAFT)?;
        let mut draft = Self { file, len: 0, count: 0 };
        for slot in slots {
            bytes.append(&mut encode(&Line::Put(slot.clone()))?);
            draft.count += 1;
            if bytes.len() > 1 << 20 {
                draft.push(&bytes)?;
                bytes.clear();
            }
        }
        draft.push(&bytes)?;
        draft.file.sync_data()?;
        Ok(draft)
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn copy(&mut self, old: &File, from: u64, to: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; (to - from) as usize];
        old.read_exact_at(&mut bytes, from)?;
        self.push(&bytes)?;
        // An estimate is enough: it decides when the next compaction is due.
        self.count += bytes.len() / 256;
        Ok(())
    }

    /// Puts it in the place of the one that counted.
    pub(super) fn publish(self, folder: &Folder) -> io::Result<Lines> {
        self.file.sync_data()?;
        folder.rename(DRAFT, FILE)?;
        let end = End { len: self.len, dirty: false };
        Ok(Lines { file: Arc::new(self.file), end, count: self.count })
    }
}

fn encode(line: &Line) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(line)?;
    let mut bytes = Vec::with_capacity(json.len() + 16);
    seal(&mut bytes, |out| out.extend_from_slice(&json));
    Ok(bytes)
}
