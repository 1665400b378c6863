//! Migration of a folder of format 1, whose records have no header.
//!
//! The whole folder is migrated at the start, not each log when it is first read: afterwards nothing else in the
//! journal knows two formats, a damaged or unreadable log is noticed by the operator who upgrades, and no folder
//! contains both formats for months. It takes about as long as copying the folder; a folder that has the present format
//! already is not changed.
//!
//! 1. `state` gets the present version, with a note that the folder is being migrated. From here on an older build
//!    refuses the folder. (A folder without `state`, which was restored from a backup, stays without.)
//! 2. `directory.log` is copied under a new file header, the copy synced and renamed.
//! 3. The logs are copied in rounds. The copies of a round are synced together, and then each replaces its log by a
//!    rename.
//! 4. The renames are synced. The start continues, and writes `state` without the note.
//!
//! A crash after any step leaves a folder whose migration the next start finishes: each file has one format or the
//! other, and those of format 1 are migrated then. A full disk makes the start fail with an error, and leaves the
//! folder in such a state too. Besides the folder, the disk needs room for one round.
//!
//! Knows no event: the header of a record is made by a function that the caller provides ([`HeaderOf`]).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::directory;
use super::frame::{
    FILE_HEADER, Kind, Next, OLD_VERSION, Opening, Scanner, VERSION, check_versioned_header, file_header, u32_at,
    u64_at,
};
use super::log::Storage;
use super::record::{Place, Stored, put};
use super::scan::{Ending, scan_version};
use super::state::State;
use super::{Header, KindCode, OpenError};

/// Makes the header of a record from the frame of its event.
pub type HeaderOf = fn(&[u8]) -> Header;

/// A round ends after this many logs or bytes.
const ROUND_LOGS: usize = if cfg!(test) { 3 } else { 256 };
const ROUND_BYTES: u64 = 64 << 20;
/// Number of bytes that are read or written at once.
const PIECE_BYTES: usize = 1 << 20;
/// Interval of the log messages about progress.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// The extension of a log's copy.
const COPY: &str = "migrated";
const DIRECTORY_COPY: &str = "directory.migrated";
/// Bytes before the event's frame in a record of format 1.
const OLD_FIELDS: usize = 24;

/// Migrates the folder if `last`, its last state, shows or does not exclude that it has files of format 1.
///
/// # Errors
/// A file cannot be read or written. Nothing is lost, and the next start continues.
pub(super) fn migrate(storage: &Storage, last: Option<&mut State>, header_of: HeaderOf) -> Result<(), OpenError> {
    if last.as_ref().is_some_and(|last| last.version == u32::from(VERSION) && !last.migrating) {
        return Ok(());
    }
    let now = Instant::now();
    let dir = storage.folder.path().to_owned();
    let mut migration = Migration { storage, header_of, at: dir, done: 0, bytes: 0, began: now, reported: now };
    migration.run(last).map_err(|error| migration.failure(&error))
}

/// A migration in progress.
struct Migration<'a> {
    storage: &'a Storage,
    header_of: HeaderOf,
    /// The file that is being migrated.
    at: PathBuf,
    /// Number of logs migrated so far, and their bytes.
    done: usize,
    bytes: u64,
    began: Instant,
    reported: Instant,
}

impl Migration<'_> {
    fn run(&mut self, last: Option<&mut State>) -> io::Result<()> {
        let known = last.is_some();
        if let Some(last) = last {
            let marked = State { version: VERSION.into(), migrating: true, ..last.clone() };
            marked.write(self.storage)?;
            *last = marked;
        }
        let directory = self.directory()?;
        // The list fits into memory, as the entries of all calls do.
        let logs: Vec<PathBuf> =
            self.storage.folder.log_files().filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        if known || directory {
            tracing::info!(logs = logs.len(), "the journal has format {OLD_VERSION}: it is migrated to {VERSION} now");
        }
        let mut round = Vec::new();
        let copied = self.rounds(&logs, &mut round);
        if copied.is_err() {
            // Copies that were not renamed take disk space that other writes need.
            for log in &round {
                drop(std::fs::remove_file(copy_path(log)));
            }
        }
        copied?;
        if !known && !directory && self.done == 0 {
            return Ok(());
        }
        // Also syncs the renames of an earlier start, which may have been killed after the last one.
        self.storage.medium.sync_all(self.storage.folder.handle())?;
        let (logs, bytes, took) = (self.done, self.bytes, self.began.elapsed());
        tracing::info!(logs, bytes, ?took, "the journal is migrated from format {OLD_VERSION} to {VERSION}");
        Ok(())
    }

    /// Copies the directory under a new file header; returns true if it had the old one.
    fn directory(&mut self) -> io::Result<bool> {
        let Storage { folder, medium, .. } = self.storage;
        self.at = folder.path().join(directory::FILE);
        let Some(old) = folder.existing(directory::FILE)? else { return Ok(false) };
        let end = old.metadata()?.len();
        if !self.is_old(&old, Kind::Directory, end)? {
            return Ok(false);
        }
        let copied = folder.create(DIRECTORY_COPY).and_then(|copy| {
            medium.write(&copy, &file_header(Kind::Directory), 0)?;
            self.append_rest(&old, FILE_HEADER as u64, end, &copy, FILE_HEADER as u64)?;
            medium.sync(&copy)
        });
        copied.inspect_err(|_| drop(folder.remove(DIRECTORY_COPY)))?;
        folder.rename(DIRECTORY_COPY, directory::FILE)?;
        Ok(true)
    }

    /// Migrates the logs of format 1 among `logs`. On return, `round` contains the logs whose copies may exist.
    fn rounds<'p>(&mut self, logs: &'p [PathBuf], round: &mut Vec<&'p Path>) -> io::Result<()> {
        let mut bytes = 0;
        for log in logs {
            self.at.clone_from(log);
            round.push(log);
            match self.copy(log)? {
                Some(copied) => bytes += copied,
                None => {
                    round.pop();
                }
            }
            if round.len() >= ROUND_LOGS || bytes >= ROUND_BYTES {
                self.finish_round(round, logs.len())?;
                bytes = 0;
            }
        }
        self.finish_round(round, logs.len())
    }

    /// Syncs the copies of a round, and replaces each log by its copy.
    fn finish_round(&mut self, round: &mut Vec<&Path>, of: usize) -> io::Result<()> {
        if round.is_empty() {
            return Ok(());
        }
        self.storage.medium.sync_all(self.storage.folder.handle())?;
        while let Some(log) = round.last() {
            std::fs::rename(copy_path(log), log)?;
            round.pop();
            self.done += 1;
        }
        if self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            let (logs, bytes) = (self.done, self.bytes);
            tracing::info!(logs, of, bytes, "the journal is being migrated from format {OLD_VERSION} to {VERSION}");
        }
        Ok(())
    }

    /// Writes a copy of a log of format 1 in the present format beside it, and returns the copy's size. `None` for any
    /// other file.
    fn copy(&mut self, path: &Path) -> io::Result<Option<u64>> {
        let Storage { folder, medium, metrics } = self.storage;
        let old = folder.open_path(path)?;
        let metadata = old.metadata()?;
        let end = metadata.len();
        if !self.is_old(&old, Kind::Call, end)? {
            return Ok(None);
        }
        let contents = scan_version(&old, end, OLD_VERSION, decode)?;
        let copy = folder.create_path(&copy_path(path))?;
        let mut out = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        out.extend_from_slice(&file_header(Kind::Call));
        let mut written = 0;
        let mut scanner = Scanner::new(&old, FILE_HEADER as u64, contents.len);
        while let Next::Record { payload, .. } = scanner.next()? {
            let Some(stored) = decode(payload) else { break };
            let Stored { seq, order, remaining, frame, private, .. } = stored;
            let (frame, private) = (&payload[frame], &payload[private]);
            put(&mut out, Place { seq, order, remaining }, &(self.header_of)(frame), frame, private);
            if out.len() >= PIECE_BYTES {
                medium.write(&copy, &out, written)?;
                written += out.len() as u64;
                out.clear();
            }
        }
        if scanner.position() != contents.len {
            return Err(io::Error::other("the file has changed while it was read"));
        }
        medium.write(&copy, &out, written)?;
        written += out.len() as u64;
        match contents.ending {
            Ending::Clean => {}
            Ending::Torn(reason) => {
                let cut_bytes = end - contents.len;
                tracing::warn!(path = %path.display(), cut_bytes, reason, "the torn end of a log was removed");
                metrics.cut_tails.inc();
            }
            // Unreadable data is copied unchanged, so the log stays damaged at the same event.
            Ending::Damaged(_) => written += self.append_rest(&old, contents.len, end, &copy, written)?,
        }
        // A call without an entry takes its time from its log.
        copy.set_modified(metadata.modified()?)?;
        self.bytes += written;
        Ok(Some(written))
    }

    /// Copies the bytes of `old` from `from` to `end` to `copy` at the offset `at`. Returns their number.
    fn append_rest(&self, old: &File, from: u64, end: u64, copy: &File, at: u64) -> io::Result<u64> {
        let mut piece = vec![0; PIECE_BYTES.min((end - from) as usize)];
        let mut next = from;
        while next < end {
            let part = &mut piece[..PIECE_BYTES.min((end - next) as usize)];
            old.read_exact_at(part, next)?;
            self.storage.medium.write(copy, part, at + (next - from))?;
            next += part.len() as u64;
        }
        Ok(end - from)
    }

    /// Returns true if the file has the header of format 1. A file whose first write is incomplete is emptied.
    fn is_old(&self, file: &File, kind: Kind, end: u64) -> io::Result<bool> {
        match check_versioned_header(file, kind, OLD_VERSION, end)? {
            Opening::Good => Ok(true),
            Opening::Torn if end > 0 => self.storage.medium.truncate(file, 0).map(|()| false),
            Opening::Torn | Opening::Version(_) | Opening::Strange => Ok(false),
        }
    }

    fn failure(&self, error: &io::Error) -> OpenError {
        let Self { at, done, .. } = self;
        let room = ROUND_BYTES >> 20;
        let message = format!(
            "cannot migrate {at} to format {VERSION} of the journal: {error}. Nothing is lost: {done} logs are \
             migrated, the others are unchanged, and the next start continues. It needs disk space for a copy of the \
             longest log and {room} MiB",
            at = at.display()
        );
        OpenError::Migration { message }
    }
}

/// The path of a log's copy.
fn copy_path(log: &Path) -> PathBuf {
    log.with_extension(COPY)
}

/// Reads a payload of format 1, which has no header; `None` if it is invalid.
fn decode(payload: &[u8]) -> Option<Stored> {
    let private = OLD_FIELDS + u32_at(payload, 20) as usize;
    (payload.len() >= private).then(|| Stored {
        seq: u64_at(payload, 0),
        order: u64_at(payload, 8),
        remaining: u32_at(payload, 16),
        kind: KindCode(0),
        turn: None,
        analysis: None,
        frame: OLD_FIELDS..private,
        private: private..payload.len(),
    })
}
