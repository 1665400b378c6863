//! One call's log: what is known of it in memory, and its file.
//!
//! Nothing is read before the log is touched. Does not know the directory, other calls, or who listens.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::folder::Folder;
use super::frame::{FILE_HEADER, Kind, Next, Scanner, file_header};
use super::locks::lock;
use super::medium::{End, Medium};
use super::metrics::Metrics;
use super::record::{decode, encode, size};
use super::scan::{Backwards, Ending, Mark, Marks, scan};
use super::{JournalError, NewRecord, Seq};
use crate::types::CallId;

/// What every log needs.
pub(super) struct Ground {
    pub(super) folder: Folder,
    pub(super) medium: Arc<dyn Medium>,
    pub(super) metrics: Metrics,
}

/// A call's log.
pub(super) struct Log {
    pub(super) call: CallId,
    /// Newest event that readers may see.
    visible: AtomicU64,
    /// Touched since the file cache last looked.
    used: AtomicBool,
    /// Waits for the background sync.
    unsynced: AtomicBool,
    content: Mutex<Content>,
}

/// What is known of the file.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Replaced by another `Log` of the same call, or the call is erased: look it up again.
    pub(super) retired: bool,
    /// The file was read, the rest holds.
    pub(super) loaded: bool,
    /// The file, while it is open.
    pub(super) file: Option<Arc<File>>,
    /// The file's name may not survive the loss of power yet.
    pub(super) unnamed: bool,
    /// The call is open, by its entry. Of interest to the appender only.
    pub(super) open: bool,
    pub(super) end: End,
    /// Newest event written, visible or not.
    pub(super) head: Seq,
    /// Its order; with `loaded` false, of the file's last record if `peeked`.
    pub(super) order: u64,
    /// `order` holds although nothing was loaded.
    pub(super) peeked: bool,
    marks: Marks,
    /// Last event before something unreadable, and what that is.
    pub(super) damage: Option<(Seq, String)>,
}

/// The content as it was before a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    len: u64,
    head: Seq,
    order: u64,
}

impl Log {
    /// A log of which nothing is known yet, of a call that is open or over.
    pub(super) fn untouched(call: CallId, open: bool) -> Arc<Self> {
        Self::with(call, Content { open, ..Content::default() })
    }

    /// The log of a call that is about to begin.
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

    /// Locks the content. Not to be held while another log's is wanted.
    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        lock(&self.content)
    }

    /// The content, if nobody has it now; does not count as a use.
    pub(super) fn idle_content(&self) -> Option<MutexGuard<'_, Content>> {
        self.content.try_lock().ok()
    }

    /// Whether it was used since this was last asked.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Newest event that readers may see.
    pub(super) fn visible(&self) -> Seq {
        self.visible.load(Ordering::Acquire)
    }

    /// Lets readers see all up to `head`.
    pub(super) fn show(&self, head: Seq) {
        self.visible.store(head, Ordering::Release);
    }

    /// Notes that it must be synced; `true` if it was not noted yet.
    pub(super) fn needs_sync(&self) -> bool {
        !self.unsynced.load(Ordering::Relaxed) && !self.unsynced.swap(true, Ordering::AcqRel)
    }

    /// Is about to be synced: what comes from now on needs another one.
    pub(super) fn syncing(&self) {
        self.unsynced.store(false, Ordering::Release);
    }
}

impl Content {
    /// The file, opened if it must be; `None` if there is none. The flag says whether it was opened now.
    pub(super) fn open_file(&mut self, call: &CallId, ground: &Ground) -> io::Result<Option<(Arc<File>, bool)>> {
        if let Some(file) = &self.file {
            return Ok(Some((Arc::clone(file), false)));
        }
        let Some(file) = ground.folder.open_log(call)? else { return Ok(None) };
        Ok(Some((self.keep(file, ground), true)))
    }

    /// The file, created if it must be.
    pub(super) fn create_file(&mut self, call: &CallId, ground: &Ground) -> io::Result<(Arc<File>, bool)> {
        if let Some(file) = &self.file {
            return Ok((Arc::clone(file), false));
        }
        let file = ground.folder.create_log(call)?;
        self.unnamed = true;
        Ok((self.keep(file, ground), true))
    }

    fn keep(&mut self, file: File, ground: &Ground) -> Arc<File> {
        let file = Arc::new(file);
        self.file = Some(Arc::clone(&file));
        ground.metrics.open_files.inc();
        file
    }

    /// Closes the file.
    pub(super) fn close_file(&mut self, ground: &Ground) {
        if self.file.take().is_some() {
            ground.metrics.open_files.dec();
        }
    }

    /// Reads the file of `log`, whole, unless that was done: finds its head, cuts a torn tail.
    pub(super) fn load(&mut self, log: &Log, ground: &Ground) -> io::Result<()> {
        if self.loaded {
            return Ok(());
        }
        let Some((file, _)) = self.open_file(&log.call, ground)? else {
            self.loaded = true;
            return Ok(());
        };
        let bytes = file.metadata()?.len();
        let contents = scan(&file, bytes)?;
        let path = || ground.folder.log_path(&log.call).display().to_string();
        self.end = End { len: contents.len, dirty: false };
        (self.head, self.order, self.marks) = (contents.head, contents.order, contents.marks);
        match contents.ending {
            Ending::Clean => {}
            Ending::Torn(reason) => {
                tracing::warn!(
                    path = path(),
                    cut_bytes = bytes - contents.len,
                    reason,
                    "the torn tail of a log is cut"
                );
                ground.metrics.cut_tails.inc();
                self.end.cut(ground.medium.as_ref(), &file, contents.len);
            }
            Ending::Damaged(message) => self.damaged(&log.call, ground, self.head, message),
        }
        log.show(self.head);
        self.loaded = true;
        Ok(())
    }

    /// Notes damage behind event `after`, and reports it once.
    pub(super) fn damaged(&mut self, call: &CallId, ground: &Ground, after: Seq, message: String) {
        if self.damage.is_none() {
            let path = ground.folder.log_path(call);
            tracing::error!(path = %path.display(), after, message, "a call's log is damaged; it is left as it is");
            ground.metrics.damaged.inc();
            self.damage = Some((after, message));
        }
    }

    /// The damage as the callers know it.
    pub(super) fn damage_error(&self) -> Option<JournalError> {
        let (after, message) = self.damage.as_ref()?;
        Some(JournalError::Damaged { after: *after, message: message.clone() })
    }

    /// The order of the last record; 0 without any. Reads no more than that one, unless it is torn.
    pub(super) fn newest_order(&mut self, log: &Log, ground: &Ground) -> io::Result<u64> {
        if self.loaded || self.peeked {
            return Ok(self.order);
        }
        let Some(file) = self.borrow_file(log, ground)? else { return Ok(0) };
        let bytes = file.metadata()?.len();
        match Backwards::new(&file, bytes).next()? {
            Some(last) if last.remaining == 0 => {
                (self.order, self.peeked) = (last.order, true);
            }
            _ => self.load(log, ground)?,
        }
        Ok(self.order)
    }

    /// The first event with an order above `after`; `None` without any.
    pub(super) fn first_after(&mut self, log: &Log, ground: &Ground, after: u64) -> io::Result<Option<Seq>> {
        if self.newest_order(log, ground)? <= after {
            return Ok(None);
        }
        let Some(file) = self.borrow_file(log, ground)? else { return Ok(None) };
        let end = if self.loaded { self.end.len } else { file.metadata()?.len() };
        if let Next::Record { payload, .. } = Scanner::new(&file, FILE_HEADER as u64, end).next()?
            && decode(payload).is_some_and(|stored| stored.order > after)
        {
            return Ok(Some(1));
        }
        // What is newer will be read by the one who asks: going back over it costs no more than that.
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

    /// The file for a short look; not kept open.
    pub(super) fn borrow_file(&self, log: &Log, ground: &Ground) -> io::Result<Option<Arc<File>>> {
        match &self.file {
            Some(file) => Ok(Some(Arc::clone(file))),
            None => Ok(ground.folder.open_log(&log.call)?.map(Arc::new)),
        }
    }

    /// Where to begin reading for the event after `after`.
    pub(super) fn mark_for(&self, after: Seq) -> Option<Mark> {
        self.marks.by_seq(after + 1)
    }

    /// The content, to take a batch back to.
    pub(super) fn before(&self) -> Before {
        Before { len: self.end.len, head: self.head, order: self.order }
    }

    /// Writes a batch behind what is there. `buffer` is scratch space. Returns the bytes written.
    ///
    /// # Errors
    /// Those of the file; nothing of the batch is there then.
    pub(super) fn write(
        &mut self,
        ground: &Ground,
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
        self.end.append(ground.medium.as_ref(), file, buffer)?;
        for (order, record) in (order..).zip(batch) {
            self.head += 1;
            self.order = order;
            self.marks.note(Mark { seq: self.head, at });
            at += size(record);
        }
        Ok(buffer.len())
    }

    /// Takes a batch back that must not become readable; without the file, before anything else is written to it.
    pub(super) fn take_back(&mut self, ground: &Ground, file: Option<&File>, before: Before) {
        match file {
            Some(file) => self.end.cut(ground.medium.as_ref(), file, before.len),
            None => self.end = End { len: before.len, dirty: true },
        }
        (self.head, self.order) = (before.head, before.order);
        self.marks.cut(before.head);
    }
}

impl Before {
    /// The newest event then.
    pub(super) fn head(self) -> Seq {
        self.head
    }
}
