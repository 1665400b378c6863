//! The log file in front of the database: appends that reach the operating system before they return, and reads.
//!
//! Its first line is its generation; after its contents were copied into the database, the log begins again with the
//! next generation. Damage loses only the entries that it hits.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::LedgerError;
use super::entry::{self, Entries};

/// Maximum size of entries that wait in memory while the file cannot be written, bytes.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Maximum number of bytes that are read at once.
const PART_BYTES: usize = 256 * 1024;
/// A part must be large enough for the largest entry, or reading would never make progress.
const _: () = assert!(PART_BYTES > entry::MAX_BYTES);
/// Size of the first line: the generation, in hexadecimal digits.
const HEAD_BYTES: usize = 17;

fn head(generation: i64) -> Vec<u8> {
    format!("{generation:016x}\n").into_bytes()
}

fn generation(file: &[u8]) -> Option<i64> {
    let (head, _) = file.split_first_chunk::<HEAD_BYTES>()?;
    let digits = std::str::from_utf8(head.strip_suffix(b"\n")?).ok()?;
    i64::from_str_radix(digits, 16).ok()
}

pub(super) struct Log {
    path: PathBuf,
    /// The open file; `None` until it could be opened.
    file: Option<File>,
    generation: i64,
    /// Offset of the next entry.
    end: u64,
    /// Entries that could not be written to the file.
    waiting: Vec<u8>,
}

/// A part of the log.
pub(super) struct Part {
    pub(super) generation: i64,
    pub(super) from: u64,
    pub(super) bytes: Vec<u8>,
    /// Set if nothing was written after it so far.
    pub(super) is_last: bool,
}

/// Bytes in a log that are not entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Offset of the first skipped byte.
    pub(super) offset: u64,
    /// Number of bytes that were skipped.
    pub(super) bytes: u64,
}

impl Skipped {
    /// Adds what `entries`, read from offset `from`, skipped to what was skipped before.
    pub(super) fn and(before: Option<Self>, entries: &Entries<'_>, from: u64) -> Option<Self> {
        let Some((first, bytes)) = entries.skipped else { return before };
        let now = Self { offset: from + first as u64, bytes: bytes as u64 };
        Some(before.map_or(now, |before| Self { bytes: before.bytes + now.bytes, ..before }))
    }
}

impl Log {
    /// A log that keeps entries in memory until its file can be opened.
    pub(super) fn to_be_opened(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, generation: 0, end: 0, waiting: Vec::new() }
    }

    /// Returns true if the log's file is open.
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Continues with the file of `opened`, to which the waiting entries are written too.
    pub(super) fn go_on_as(&mut self, opened: Self) {
        let waiting = std::mem::take(&mut self.waiting);
        *self = Self { waiting, ..opened };
        self.flush();
    }

    fn file(&self) -> std::io::Result<&File> {
        self.file.as_ref().ok_or_else(|| std::io::Error::other("the ledger's log is not open yet"))
    }

    /// Opens the log at `path`. `taken` is the generation, and the offset up to which it was copied into the database.
    /// A torn end is cut off. If the log is damaged elsewhere, or is not the one that was copied, its readable entries
    /// are kept under another generation, so that all of it is read again. Returns what was left out.
    pub(super) fn open(path: &Path, taken: (i64, u64)) -> Result<(Self, Option<Skipped>), LedgerError> {
        let failed = |error| LedgerError::File { path: path.to_owned(), error };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let mut log = Self { file: Some(file), ..Self::to_be_opened(path) };
        let next = taken.0.wrapping_add(1);
        if bytes.is_empty() {
            log.begin(next).map_err(failed)?;
            return Ok((log, None));
        }
        let generation = generation(&bytes);
        // Without its first line, entries may begin anywhere.
        let from = if generation.is_some() { HEAD_BYTES } else { 0 };
        let mut entries = Entries::new(&bytes[from..], true);
        let mut whole = Vec::with_capacity(bytes.len());
        let mut boundary = generation != Some(taken.0) || taken.1 == from as u64;
        while let Some((_, entry)) = entries.next() {
            whole.extend_from_slice(entry);
            boundary |= taken.1 == (from + entries.position()) as u64;
        }
        let end = from + entries.position();
        match generation {
            Some(generation) if entries.skipped.is_none() && boundary => {
                log.generation = generation;
                log.end = end as u64;
                log.cut_torn_tail(bytes.len() - end).map_err(failed)?;
                Ok((log, None))
            }
            _ => {
                entries.skip_rest();
                log.rewrite(next, &whole).map_err(failed)?;
                Ok((log, Skipped::and(None, &entries, from as u64)))
            }
        }
    }

    /// Begins an empty log.
    fn begin(&mut self, generation: i64) -> std::io::Result<()> {
        let file = self.file()?;
        file.set_len(0)?;
        file.write_all_at(&head(generation), 0)?;
        self.generation = generation;
        self.end = HEAD_BYTES as u64;
        Ok(())
    }

    /// Replaces the damaged file by one with these entries.
    fn rewrite(&mut self, generation: i64, entries: &[u8]) -> std::io::Result<()> {
        let mended = self.path.with_extension("mended");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&mended)?;
        let bytes = [&head(generation), entries].concat();
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        std::fs::rename(&mended, &self.path)?;
        self.file = Some(file);
        self.generation = generation;
        self.end = bytes.len() as u64;
        Ok(())
    }

    /// Cuts off an entry that was being written when the machine went down, so that the next one begins at a valid
    /// offset.
    fn cut_torn_tail(&mut self, bytes: usize) -> std::io::Result<()> {
        if bytes > 0 {
            tracing::warn!(path = %self.path.display(), bytes, "the ledger's log ends with an incomplete entry, which \
                was removed");
            self.file()?.set_len(self.end)?;
        }
        Ok(())
    }

    /// Appends an entry. While the file cannot be written, entries wait in memory and are written first afterwards.
    pub(super) fn append(&mut self, entry: &[u8]) {
        if self.waiting.is_empty() {
            match self.write(entry) {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(path = %self.path.display(), %error, "the ledger's log cannot be written")
                }
            }
        }
        if self.waiting.len() + entry.len() > MAX_WAITING_BYTES {
            tracing::error!("the ledger's log cannot be written and its memory is full: a row was lost");
            return;
        }
        self.waiting.extend_from_slice(entry);
        self.flush();
    }

    fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        if self.write(&waiting).is_err() {
            self.waiting = waiting;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let file = self.file()?;
        if let Err(error) = file.write_all_at(bytes, self.end) {
            // An incomplete entry is not an entry.
            let _ = file.set_len(self.end);
            return Err(error);
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Reads on from an offset of a generation; from the start if the log has another generation by now.
    pub(super) fn read_from(&mut self, generation: i64, position: u64) -> Result<Part, LedgerError> {
        self.flush();
        let start = HEAD_BYTES as u64;
        let same = generation == self.generation && (start..=self.end).contains(&position);
        let from = if same { position } else { start };
        let length = usize::try_from(self.end - from).unwrap_or(usize::MAX).min(PART_BYTES);
        let mut bytes = Vec::with_capacity(length);
        let read = |log: &Self, bytes: &mut Vec<u8>| -> std::io::Result<()> {
            let mut file = log.file()?;
            file.seek(SeekFrom::Start(from))?;
            file.take(length as u64).read_to_end(bytes)?;
            Ok(())
        };
        read(self, &mut bytes).map_err(|error| LedgerError::File { path: self.path.clone(), error })?;
        let is_last = from + bytes.len() as u64 == self.end;
        Ok(Part { generation: self.generation, from, bytes, is_last })
    }

    /// Begins the log again, if all of it was copied into the database and it has become long.
    pub(super) fn rotate(&mut self, taken: u64, longest: u64) -> Result<(), LedgerError> {
        if taken < longest || taken != self.end || !self.waiting.is_empty() {
            return Ok(());
        }
        let next = self.generation.wrapping_add(1);
        self.begin(next).map_err(|error| LedgerError::File { path: self.path.clone(), error })
    }
}
