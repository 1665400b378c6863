//! The embedded store: appends on the caller's thread, reads from files.
//!
//! Locks, in the order in which they may be taken: a log's content, the directory, the sequencer; last the file cache
//! and the shards of the map. While a log's content is locked, another log's content may only be tried. Does not know
//! what an event is, and starts no thread (see `sync`).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use super::config::Config;
use super::directory::Calls;
use super::files::Files;
use super::folder::shard;
use super::health::Health;
use super::log::{Content, Log, Storage};
use super::scan::records;
use super::sequencer::Sequencer;
use super::slot::Slot;
use super::state::{BLOCK, State};
use super::work::Work;
use super::{CallState, JournalError, Record, Seq};
use crate::base::sync::lock;
use crate::base::time::unix_ms;
use crate::types::CallId;

const SHARDS: usize = 64;

/// State that the store's threads and its callers share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) storage: Storage,
    pub(super) calls: Calls,
    pub(super) sequencer: Arc<Sequencer>,
    pub(super) state: Mutex<State>,
    pub(super) files: Files,
    pub(super) health: Health,
    pub(super) work: Work,
    pub(super) closed: AtomicBool,
    /// Set if data of an earlier run may not survive a power loss yet.
    pub(super) unsettled: AtomicBool,
    /// Locked while calls are erased whose retention is over.
    pub(super) sweeping: Mutex<()>,
    logs: [Mutex<HashMap<CallId, Arc<Log>>>; SHARDS],
}

impl Shared {
    pub(super) fn new(
        config: Config,
        storage: Storage,
        calls: Calls,
        state: State,
        sequencer: Arc<Sequencer>,
        files: Files,
        unsettled: bool,
    ) -> Self {
        Self {
            config,
            storage,
            calls,
            sequencer,
            state: Mutex::new(state),
            files,
            health: Health::default(),
            work: Work::default(),
            closed: AtomicBool::new(false),
            unsettled: AtomicBool::new(unsettled),
            sweeping: Mutex::new(()),
            logs: std::array::from_fn(|_| Mutex::default()),
        }
    }

    fn shard(&self, call: &CallId) -> MutexGuard<'_, HashMap<CallId, Arc<Log>>> {
        lock(&self.logs[usize::from(shard(call)) % SHARDS])
    }

    /// The log of a call that the directory knows, or of a new one if `new`. Created if it was not used yet.
    pub(super) fn find(&self, call: &CallId, new: bool) -> Option<Arc<Log>> {
        if let Some(log) = self.shard(call).get(call) {
            return Some(Arc::clone(log));
        }
        let log = match self.calls.with(call, Slot::open) {
            Some(open) => Log::untouched(call.clone(), open),
            None if new => Log::empty(call.clone()),
            None => return None,
        };
        Some(Arc::clone(self.shard(call).entry(call.clone()).or_insert(log)))
    }

    /// Returns true if a short read of the call's log takes microseconds: the log was read completely before, or does
    /// not exist.
    pub(super) fn is_at_hand(&self, call: &CallId) -> bool {
        let log = self.shard(call).get(call).map(Arc::clone);
        match log {
            Some(log) => log.idle_content().is_some_and(|content| content.loaded),
            None => self.calls.with(call, |_| ()).is_none(),
        }
    }

    /// Removes a log from memory if nothing about it must be remembered; returns true if it was removed. The caller has
    /// locked its content and marks it as retired.
    pub(super) fn retire(&self, log: &Log) -> bool {
        let over = self.over_or_unknown(log);
        if over {
            self.shard(&log.call).remove(&log.call);
        }
        over
    }

    /// Returns true if a log does not grow any more, as far as the directory knows.
    pub(super) fn over_or_unknown(&self, log: &Log) -> bool {
        self.calls.with(&log.call, |slot| !slot.open()).unwrap_or(true)
    }

    /// Records that a log's file was opened; its content is still locked.
    pub(super) fn opened(&self, log: &Arc<Log>) {
        self.files.opened(log, &self.storage, |log| self.retire(log));
    }

    /// Reads a log whose content is locked, unless it was loaded.
    pub(super) fn load(&self, log: &Arc<Log>, content: &mut Content) -> Result<(), JournalError> {
        if content.loaded {
            return Ok(());
        }
        content.load(log, &self.storage).map_err(|error| self.unreadable(&error))?;
        if content.file.is_some() {
            self.opened(log);
        }
        if content.head == 0 && content.damage.is_none() {
            self.missing(log, content);
        }
        Ok(())
    }

    /// Handles a call whose log is missing although the directory knows it.
    fn missing(&self, log: &Arc<Log>, content: &mut Content) {
        let Some((known, open)) = self.calls.with(&log.call, |slot| (slot.head, slot.open())) else { return };
        if known == 0 && open {
            // The daemon crashed between writing the entry and the first event, so the call has no events.
            tracing::info!(call_id = %log.call, "a directory entry without an event was removed");
            self.erase_log(log, content);
        } else if !open && content.file.is_none() {
            // The call was erased, but the disk was too full to record that.
            tracing::warn!(call_id = %log.call, "the log of an ended call is missing; its directory entry was removed");
            self.erase_log(log, content);
        } else {
            content.damaged(&log.call, &self.storage, 0, format!("its log is empty, but there were {known} events"));
        }
    }

    /// Erases a log and its entry permanently; its content is locked.
    pub(super) fn erase_log(&self, log: &Arc<Log>, content: &mut Content) {
        content.retired = true;
        content.close_file(&self.storage);
        self.files.forget(log);
        // The entry is removed first: a log without an entry is removed later by a sweep, but an entry without a log
        // would look like a call. On a full disk, deleting the log frees the space.
        let noted = self.calls.remove(&log.call);
        if let Err(error) = self.storage.folder.remove_log(&log.call) {
            self.failed("erase a call", &error);
        }
        if noted.is_err()
            && let Err(error) = self.calls.remove(&log.call)
        {
            self.failed("erase a call", &error);
        }
        self.shard(&log.call).remove(&log.call);
    }

    /// Records a failed write or sync for `health`, and returns the error for the caller.
    pub(super) fn failed(&self, what: &str, error: &io::Error) -> JournalError {
        self.storage.metrics.failures.inc();
        let message = format!("cannot {what} in {}: {error}", self.storage.folder.path().display());
        self.health.failed(&message);
        JournalError::Unavailable(message)
    }

    fn unreadable(&self, error: &io::Error) -> JournalError {
        self.storage.metrics.failures.inc();
        JournalError::Unavailable(format!("cannot read in {}: {error}", self.storage.folder.path().display()))
    }

    /// Reserves `count` orders and a further block. Fails until the directory's file is complete, so that nothing is
    /// appended before.
    pub(super) fn reserve_block(&self, count: u64) -> io::Result<()> {
        self.calls.write_missing_file(&self.storage.folder)?;
        let mut state = lock(&self.state);
        let reserved = State { order: state.order + count + BLOCK, ..state.clone() };
        reserved.write(&self.storage)?;
        self.sequencer.extend(reserved.order);
        *state = reserved;
        Ok(())
    }

    /// Gives `look` the content of a call's log, which was loaded.
    fn loaded<T>(
        &self,
        call: &CallId,
        look: impl FnOnce(&Arc<Log>, MutexGuard<'_, Content>) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        loop {
            let log = self.find(call, false).ok_or(JournalError::UnknownCall)?;
            let mut content = log.content();
            // Another log has replaced it.
            if content.retired {
                continue;
            }
            self.load(&log, &mut content)?;
            if content.retired {
                return Err(JournalError::UnknownCall);
            }
            return look(&log, content);
        }
    }

    pub(super) fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Result<Vec<Arc<Record>>, JournalError> {
        self.loaded(call, |log, mut content| {
            let head = log.visible();
            if head == 0 && content.damage.is_none() {
                return Err(JournalError::UnknownCall);
            }
            let (true, Some(mark)) = (after < head, content.mark_for(after)) else {
                return content.damage_error().map_or_else(|| Ok(Vec::new()), Err);
            };
            let file = self.file(log, &mut content)?;
            let end = content.end.len;
            // Visible records never change, so they are read without the lock.
            drop(content);
            let found = records(&file, mark, end, after, head, max_bytes).map_err(|error| self.unreadable(&error))?;
            if let Some(message) = found.damage {
                let last = found.records.last().map_or(after, |record| record.seq);
                let mut content = log.content();
                content.damaged(call, &self.storage, last, message);
                if found.records.is_empty() {
                    return content.damage_error().map_or_else(|| Ok(Vec::new()), Err);
                }
            }
            Ok(found.records)
        })
    }

    pub(super) fn file(&self, log: &Arc<Log>, content: &mut Content) -> Result<Arc<File>, JournalError> {
        let found = content.open_file(&log.call, &self.storage).map_err(|error| self.unreadable(&error))?;
        let Some((file, opened)) = found else {
            return Err(self.unreadable(&io::ErrorKind::NotFound.into()));
        };
        if opened {
            self.opened(log);
        }
        Ok(file)
    }

    pub(super) fn head(&self, call: &CallId) -> Result<Seq, JournalError> {
        self.loaded(call, |log, content| match (content.damage_error(), log.visible()) {
            (Some(damage), _) => Err(damage),
            (None, 0) => Err(JournalError::UnknownCall),
            (None, head) => Ok(head),
        })
    }

    pub(super) fn since(&self, after: u64) -> Result<Vec<(CallId, Seq)>, JournalError> {
        let newer = |slot: &&Slot| slot.open() || slot.newest_order > after;
        let calls: Vec<CallId> =
            self.calls.all(|slots| slots.filter(newer).map(|slot| slot.entry.call_id.clone()).collect());
        let mut found = Vec::new();
        for call in calls {
            while let Some(log) = self.find(&call, false) {
                let mut content = log.content();
                if content.retired {
                    continue;
                }
                let had_file = content.file.is_some();
                let first = content.first_after(&log, &self.storage, after).map_err(|error| self.unreadable(&error))?;
                if !had_file && content.file.is_some() {
                    self.opened(&log);
                }
                if !content.loaded && self.retire(&log) {
                    content.retired = true;
                }
                found.extend(first.map(|first| (call.clone(), first)));
                break;
            }
        }
        Ok(found)
    }

    pub(super) fn mark_failed(&self, call: &CallId) {
        while let Some(log) = self.find(call, false) {
            let mut content = log.content();
            if content.retired {
                continue;
            }
            let Some(mut slot) =
                self.calls.with(call, Slot::clone).filter(|slot| slot.entry.state != CallState::Failed)
            else {
                return;
            };
            slot.entry.state = CallState::Failed;
            slot.entry.ended_at_ms = Some(unix_ms());
            slot.entry.open_streams = 0;
            // A file that cannot be read at all has no event from which a cursor could resume.
            let loaded = self.load(&log, &mut content);
            if content.retired {
                return;
            }
            slot.newest_order = loaded.map_or(0, |()| content.order);
            slot.head = slot.head.max(content.head);
            content.open = false;
            if let Err(error) = self.calls.put(slot.clone()) {
                self.failed("mark a call as failed", &error);
                self.calls.put_in_memory(slot);
            }
            return;
        }
    }

    pub(super) fn erase(&self, call: &CallId) -> Result<bool, JournalError> {
        while let Some(log) = self.find(call, false) {
            let mut content = log.content();
            if content.retired {
                continue;
            }
            if self.calls.with(call, Slot::open) != Some(false) {
                return Ok(false);
            }
            self.erase_log(&log, &mut content);
            drop(content);
            self.storage.metrics.erased.inc();
            if let Some(tail) = self.sequencer.tail() {
                tail.erased(call);
            }
            return Ok(true);
        }
        Ok(false)
    }
}
