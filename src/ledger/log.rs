//! The log file in front of the database: appends that reach the operating system before they return, and its reading.
//!
//! Its first line names its generation; a log that was taken over is begun anew under the next.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::{LedgerError, entry};

/// Most bytes of rows that wait in memory while the file cannot be written.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes that are read at once.
const PART_BYTES: u64 = 256 * 1024;

pub(super) struct Log {
    path: PathBuf,
    file: File,
    generation: i64,
    /// Where the next entry goes.
    end: u64,
    /// Rows that the file did not take.
    waiting: Vec<u8>,
}

/// A stretch of the log.
pub(super) struct Part {
    pub(super) generation: i64,
    pub(super) from: u64,
    pub(super) bytes: Vec<u8>,
}

impl Log {
    pub(super) fn open(path: &Path) -> Result<Self, LedgerError> {
        let failed = |error| LedgerError::File { path: path.to_owned(), error };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let mut head = [0u8; 17];
        let generation = match file.read_exact(&mut head) {
            Ok(()) => std::str::from_utf8(&head[..16]).ok().and_then(|text| i64::from_str_radix(text, 16).ok()),
            Err(_) => None,
        };
        let mut log = Self { path: path.to_owned(), file, generation: 0, end: 0, waiting: Vec::new() };
        match generation {
            Some(generation) => {
                log.generation = generation;
                log.end = log.file.seek(SeekFrom::End(0)).map_err(failed)?;
                log.cut_torn_tail().map_err(failed)?;
            }
            None => log.begin(1).map_err(failed)?,
        }
        Ok(log)
    }

    /// Begins anew, empty.
    fn begin(&mut self, generation: i64) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(format!("{generation:016x}\n").as_bytes(), 0)?;
        self.generation = generation;
        self.end = 17;
        Ok(())
    }

    /// An entry that was being written when the machine went down has no end: it is cut off, to begin the next one well.
    fn cut_torn_tail(&mut self) -> std::io::Result<()> {
        let mut entries = Vec::new();
        self.file.seek(SeekFrom::Start(17))?;
        self.file.read_to_end(&mut entries)?;
        let mut rest = entries.as_slice();
        while let Some((_, after)) = entry::split(rest) {
            rest = after;
        }
        if !rest.is_empty() {
            tracing::warn!(path = %self.path.display(), bytes = rest.len(), "the ledger's log ends in half an entry: cut off");
            self.end -= rest.len() as u64;
            self.file.set_len(self.end)?;
        }
        Ok(())
    }

    /// Appends an entry. While the file refuses, entries wait in memory and go first once it takes them again.
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
            tracing::error!("the ledger's log is full in memory too: a row is lost");
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
        if let Err(error) = self.file.write_all_at(bytes, self.end) {
            // Half an entry is none.
            let _ = self.file.set_len(self.end);
            return Err(error);
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Reads on from a position of a generation; from the start where the log is another by now.
    pub(super) fn read_from(&mut self, generation: i64, position: u64) -> Result<Part, LedgerError> {
        self.flush();
        let same = generation == self.generation && (17..=self.end).contains(&position);
        let from = if same { position } else { 17 };
        let mut bytes = Vec::new();
        let read = |log: &mut Self, bytes: &mut Vec<u8>| -> std::io::Result<()> {
            log.file.seek(SeekFrom::Start(from))?;
            (&log.file).take((log.end - from).min(PART_BYTES)).read_to_end(bytes)?;
            Ok(())
        };
        read(self, &mut bytes).map_err(|error| LedgerError::File { path: self.path.clone(), error })?;
        Ok(Part { generation: self.generation, from, bytes })
    }

    /// Begins anew, if all of it is taken over and it has become long.
    pub(super) fn rotate(&mut self, taken: u64, longest: u64) -> Result<(), LedgerError> {
        if taken < longest || taken != self.end || !self.waiting.is_empty() {
            return Ok(());
        }
        let next = self.generation + 1;
        self.begin(next).map_err(|error| LedgerError::File { path: self.path.clone(), error })
    }
}
