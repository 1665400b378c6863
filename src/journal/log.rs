//! One call's log: its state in memory, and its file.
//!
//! The file is read only when the log is first used. Does not know the directory, other calls, or readers.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::folder::Folder;
use super::frame::{FILE_HEADER, Kind, Next, Scanner, file_header};
use super::medium::{End, Medium};
use super::metrics::Metrics;
use super::record::{decode, encode, size};
use super::scan::{Backwards, Ending, Mark, Marks, scan};
use super::{JournalError, NewRecord, Seq};
use crate::base::sync::lock;
use crate::types::CallId;

/// What every log needs for its file operations.
pub(super) struct Storage {
    pub(super) folder: Folder,
    pub(super) medium: Arc<dyn Medium>,
    pub(super) metrics: Metrics,
}

/// A call's log.
pub(super) struct Log {
    pub(super) call: CallId,
    /// Newest event that readers may see.
    visible: AtomicU64,
    /// Set if the log was used since the last check of the file cache.
    used: AtomicBool,
    /// Set while it waits for the background sync.
    unsynced: AtomicBool,
    content: Mutex<Content>,
}

/// The known state of the file.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Set if another `Log` has replaced this one, or the call was erased: the caller must look it up again.
    pub(super) retired: bool,
    /// Set once the file was read; only then are the fields below valid.
    pub(super) loaded: bool,
    /// The file, if it is open.
    pub(super) file: Option<Arc<File>>,
    /// Set if the file's name may not survive a power loss yet.
    pub(super) unnamed: bool,
    /// Set if the call is open by its entry. Only the appender uses it.
    pub(super) open: bool,
    pub(super) end: End,
    /// Newest event that was written, visible or not.
    pub(super) head: Seq,
    /// The order of `head`. If `loaded` is false and `peeked` is true, the order of the file's last record.
    pub(super) order: u64,
    /// Set if `order` is valid although the file was not loaded.
    pub(super) peeked: bool,
    marks: Marks,
    /// The last event before unreadable data, and a description of that data.
    pub(super) damage: Option<(Seq, String)>,
}

/// The content before a batch, to restore it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    len: u64,
    head: Seq,
    order: u64,
}

impl Log {
    /// A log whose file was not read yet.
    pub(super) fn untouched(call: CallId, open: bool) -> Arc<Self> {
        Self::with(call, Content { open, ..Content::default() })
    }

    /// The log of a call that has no events yet.
    pub(super) fn empty(call: CallId) -> Arc<Self> {
        Self::with(call, Content { open: true, loaded: true, ..Content::default() })
    }

    fn with(call: CallId, content: Content) -> Arc<Self> {
        Arc::new(Self {
            call,
            visible: AtomicU64::new(0),
            used: AtomicBool::new(true),
            unsynced: AtomicBool::new(false),
            content: Mutex::new(content),
        })
    }

    /// Locks the content. The caller must not lock another log's content meanwhile.
    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        lock(&self.content)
    }

    /// The content, if no thread has locked it; does not count as a use.
    pub(super) fn idle_content(&self) -> Option<MutexGuard<'_, Content>> {
        self.content.try_lock().ok()
    }

    /// Returns true if the log was used since the last call of this function.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Newest event that readers may see.
    pub(super) fn visible(&self) -> Seq {
        self.visible.load(Ordering::Acquire)
    }

    /// Makes all events up to `head` visible to readers.
    pub(super) fn show(&self, head: Seq) {
        self.visible.store(head, Ordering::Release);
    }

    /// Marks the log as unsynced; returns true if it was not marked before.
    pub(super) fn needs_sync(&self) -> bool {
        !self.unsynced.load(Ordering::Relaxed) && !self.unsynced.swap(true, Ordering::AcqRel)
    }

    /// Clears that mark before a sync: later writes need another sync.
    pub(super) fn syncing(&self) {
        self.unsynced.store(false, Ordering::Release);
    }
}

impl Content {
    /// The file, which is opened if necessary; `None` if it does not exist. The flag says whether it was opened now.
    pub(super) fn open_file(&mut self, call: &CallId, storage: &Storage) -> io::Result<Option<(Arc<File>, bool)>> {
        if let Some(file) = &self.file {
            return Ok(Some((Arc::clone(file), false)));
        }
        let Some(file) = storage.folder.open_log(call)? else { return Ok(None) };
        Ok(Some((self.keep(file, storage), true)))
    }

    /// The file, which is created if necessary.
    pub(super) fn create_file(&mut self, call: &CallId, storage: &Storage) -> io::Result<(Arc<File>, bool)> {
        if let Some(file) = &self.file {
            return Ok((Arc::clone(file), false));
        }
        let file = storage.folder.create_log(call)?;
        self.unnamed = true;
        Ok((self.keep(file, storage), true))
    }

    fn keep(&mut self, file: File, storage: &Storage) -> Arc<File> {
        let file = Arc::new(file);
        self.file = Some(Arc::clone(&file));
        storage.metrics.open_files.inc();
        file
    }

    /// Closes the file.
    pub(super) fn close_file(&mut self, storage: &Storage) {
        if self.file.take().is_some() {
            storage.metrics.open_files.dec();
        }
    }

    /// Reads the whole file of `log`, unless it was loaded: finds its head, and truncates a torn end.
    pub(super) fn load(&mut self, log: &Log, storage: &Storage) -> io::Result<()> {
        if self.loaded {
            return Ok(());
        }
        let Some((file, _)) = self.open_file(&log.call, storage)? else {
            self.loaded = true;
            return Ok(());
        };
        let bytes = file.metadata()?.len();
        let contents = scan(&file, bytes)?;
        let path = || storage.folder.log_path(&log.call).display().to_string();
        self.end = End { len: contents.len, dirty: false };
        (self.head, self.order, self.marks) = (contents.head, contents.order, contents.marks);
        match contents.ending {
            Ending::Clean => {}
            Ending::Torn(reason) => {
                tracing::warn!(
                    path = path(),
                    cut_bytes = bytes - contents.len,
                    reason,
                    "the torn end of a log was removed"
                );
                storage.metrics.cut_tails.inc();
                self.end.cut(storage.medium.as_ref(), &file, contents.len);
            }
            Ending::Damaged(message) => self.damaged(&log.call, storage, self.head, message),
        }
        log.show(self.head);
        self.loaded = true;
        Ok(())
    }

    /// Records damage after the event `after`, and reports it once.
    pub(super) fn damaged(&mut self, call: &CallId, storage: &Storage, after: Seq, message: String) {
        if self.damage.is_none() {
            let path = storage.folder.log_path(call);
            tracing::error!(path = %path.display(), after, message, "a call's log is damaged; it is not changed");
            storage.metrics.damaged.inc();
            self.damage = Some((after, message));
        }
    }

    /// The damage as an error for callers.
    pub(super) fn damage_error(&self) -> Option<JournalError> {
        let (after, message) = self.damage.as_ref()?;
        Some(JournalError::Damaged { after: *after, message: message.clone() })
    }

    /// The order of the last record; 0 if there is none. Reads only that record, unless the end is torn.
    pub(super) fn newest_order(&mut self, log: &Log, storage: &Storage) -> io::Result<u64> {
        if self.loaded || self.peeked {
            return Ok(self.order);
        }
        let Some(file) = self.borrow_file(log, storage)? else { return Ok(0) };
        let bytes = file.metadata()?.len();
        match Backwards::new(&file, bytes).next()? {
            Some(last) if last.remaining == 0 => {
                (self.order, self.peeked) = (last.order, true);
            }
            _ => self.load(log, storage)?,
        }
        Ok(self.order)
    }

    /// The first event with an order above `after`; `None` if there is none.
    pub(super) fn first_after(&mut self, log: &Log, storage: &Storage, after: u64) -> io::Result<Option<Seq>> {
        if self.newest_order(log, storage)? <= after {
            return Ok(None);
        }
        let Some(file) = self.borrow_file(log, storage)? else { return Ok(None) };
        let end = if self.loaded { self.end.len } else { file.metadata()?.len() };
        if let Next::Record { payload, .. } = Scanner::new(&file, FILE_HEADER as u64, end).next()?
            && decode(payload).is_some_and(|stored| stored.order > after)
        {
            return Ok(Some(1));
        }
        // The caller will read the newer records anyway, so reading backwards over them costs no more than that.
        let mut backwards = Backwards::new(&file, end);
        let mut first = None;
        while let Some(stored) = backwards.next()? {
            if stored.order <= after {
                break;
            }
            first = Some(stored.seq);
        }
        Ok(first)
    }

    /// The file for a short read; it is not kept open.
    pub(super) fn borrow_file(&self, log: &Log, storage: &Storage) -> io::Result<Option<Arc<File>>> {
        match &self.file {
            Some(file) => Ok(Some(Arc::clone(file))),
            None => Ok(storage.folder.open_log(&log.call)?.map(Arc::new)),
        }
    }

    /// Where to begin reading to find the event after `after`.
    pub(super) fn mark_for(&self, after: Seq) -> Option<Mark> {
        self.marks.by_seq(after + 1)
    }

    /// A copy of the content, to undo a batch.
    pub(super) fn before(&self) -> Before {
        Before { len: self.end.len, head: self.head, order: self.order }
    }

    /// Writes a batch after the existing records. `buffer` is scratch space. Returns the number of bytes written.
    ///
    /// # Errors
    /// Those of the file; then no part of the batch is in the log.
    pub(super) fn write(
        &mut self,
        storage: &Storage,
        file: &File,
        order: u64,
        batch: &[NewRecord],
        buffer: &mut Vec<u8>,
    ) -> io::Result<usize> {
        buffer.clear();
        if self.end.len == 0 {
            buffer.extend_from_slice(&file_header(Kind::Call));
        }
        encode(buffer, self.head + 1, order, batch);
        let mut at = self.end.len.max(FILE_HEADER as u64);
        self.end.append(storage.medium.as_ref(), file, buffer)?;
        for (order, record) in (order..).zip(batch) {
            self.head += 1;
            self.order = order;
            self.marks.note(Mark { seq: self.head, at });
            at += size(record);
        }
        Ok(buffer.len())
    }

    /// Undoes a batch that must not become readable. If the file cannot be truncated now, that is done before the next
    /// write.
    pub(super) fn rollback(&mut self, storage: &Storage, file: Option<&File>, before: Before) {
        match file {
            Some(file) => self.end.cut(storage.medium.as_ref(), file, before.len),
            None => self.end = End { len: before.len, dirty: true },
        }
        (self.head, self.order) = (before.head, before.order);
        self.marks.cut(before.head);
    }
}

impl Before {
    /// The newest event before the batch.
    pub(super) fn head(self) -> Seq {
        self.head
    }
}
