//! Reads a call's log: completely, to find out what it contains; from a position; and backwards from its end.
//!
//! Knows no lock and no store: only files and bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{
    FILE_HEADER, HEADER, Kind, Next, Opening, Scanner, TRAILER, VERSION, check_versioned_header, framed, intact,
    payload_len, u32_at,
};
use super::record::{Stored, decode};
use super::{Record, Seq};

/// Distance between two marks in a log, bytes.
const STRIDE: u64 = 32 << 10;
/// Number of bytes that are read at once from the end of a file.
const TAIL_CHUNK: u64 = 4 << 10;

/// The position of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) seq: Seq,
    pub(super) at: u64,
}

/// Positions of some of a log's records, in order: of the first, and of at least one in each [`STRIDE`] bytes (of every
/// record that is longer).
#[derive(Debug, Clone, Default)]
pub(super) struct Marks(Vec<Mark>);

impl Marks {
    /// Adds the position of a record if it is far enough from the last one.
    pub(super) fn note(&mut self, mark: Mark) {
        if self.0.last().is_none_or(|last| mark.at - last.at >= STRIDE) {
            self.0.push(mark);
        }
    }

    /// Removes the marks of records after `head`.
    pub(super) fn cut(&mut self, head: Seq) {
        self.0.truncate(self.0.partition_point(|mark| mark.seq <= head));
    }

    /// The last mark at or before `seq`.
    pub(super) fn by_seq(&self, seq: Seq) -> Option<Mark> {
        let behind = self.0.partition_point(|mark| mark.seq <= seq);
        self.0.get(behind.checked_sub(1)?).copied()
    }
}

/// How a log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The file ends with a complete batch.
    Clean,
    /// The file ends with an incomplete write.
    Torn(&'static str),
    /// The file ends with unreadable data, after which more records may follow.
    Damaged(String),
}

/// The contents of a log.
#[derive(Debug)]
pub(super) struct Contents {
    /// Length up to the end of the last complete batch, bytes.
    pub(super) len: u64,
    pub(super) head: Seq,
    /// The order of the last record; 0 if there is none.
    pub(super) order: u64,
    pub(super) marks: Marks,
    pub(super) ending: Ending,
}

/// Reads a whole log of `end` bytes, and checks every record.
pub(super) fn scan(file: &File, end: u64) -> io::Result<Contents> {
    scan_version(file, end, VERSION, decode)
}

/// As [`scan`], for a log of another version, whose payloads `decode` reads.
pub(super) fn scan_version(
    file: &File,
    end: u64,
    version: u16,
    decode: fn(&[u8]) -> Option<Stored>,
) -> io::Result<Contents> {
    let mut contents = Contents { len: 0, head: 0, order: 0, marks: Marks::default(), ending: Ending::Clean };
    if end == 0 {
        return Ok(contents);
    }
    match check_versioned_header(file, Kind::Call, version, end)? {
        Opening::Good => contents.len = FILE_HEADER as u64,
        Opening::Torn => {
            contents.ending = Ending::Torn("the first write is cut off");
            return Ok(contents);
        }
        Opening::Version(message) => {
            contents.ending = Ending::Damaged(message);
            return Ok(contents);
        }
        Opening::Strange => {
            contents.ending = Ending::Damaged("it does not begin like a journal file".to_owned());
            return Ok(contents);
        }
    }
    let mut scanner = Scanner::new(file, contents.len, end);
    // Values of the last record read; `contents` holds those of the last complete batch.
    let (mut seq, mut order, mut remaining) = (0, 0, 0);
    loop {
        let (at, stored) = match scanner.next()? {
            Next::Record { at, payload } => (at, decode(payload)),
            Next::End if remaining > 0 => {
                contents.ending = Ending::Torn("the rest of a batch is cut off");
                break;
            }
            Next::End => break,
            Next::Torn(reason) => {
                contents.ending = Ending::Torn(reason);
                break;
            }
            Next::Damaged(reason) => {
                contents.ending = Ending::Damaged(format!("{reason} at byte {}", scanner.position()));
                break;
            }
        };
        let wrong = match &stored {
            None => Some("a record's content contradicts its header"),
            Some(stored) if stored.seq != seq + 1 => Some("a record is out of sequence"),
            Some(stored) if stored.order <= order => Some("a record is out of order"),
            Some(stored) if remaining > 0 && stored.remaining != remaining - 1 => Some("a batch is incomplete"),
            Some(_) => None,
        };
        let (None, Some(stored)) = (wrong, stored) else {
            let reason = wrong.unwrap_or_default();
            contents.ending = Ending::Damaged(format!("{reason} at byte {at}"));
            break;
        };
        (seq, order, remaining) = (stored.seq, stored.order, stored.remaining);
        contents.marks.note(Mark { seq, at });
        if remaining == 0 {
            (contents.len, contents.head, contents.order) = (scanner.position(), seq, order);
        }
    }
    contents.marks.cut(contents.head);
    Ok(contents)
}

/// Result of [`records`].
pub(super) struct Batch {
    pub(super) records: Vec<Arc<Record>>,
    /// Why reading stopped before all requested records were read.
    pub(super) damage: Option<String>,
}

/// Records with `after < seq <= head`, read from `mark` on: about `max_bytes` of frames but at least one. `end` is the
/// length of the valid part of the file. The records share one buffer.
pub(super) fn records(file: &File, mark: Mark, end: u64, after: Seq, head: Seq, max_bytes: usize) -> io::Result<Batch> {
    let mut batch = Batch { records: Vec::new(), damage: None };
    let (mut at, mut expected, mut taken) = (mark.at, mark.seq, 0);
    // The distance from a mark to the requested record is at most one stride. A record that does not fit is read again
    // together with what follows.
    let mut want = (max_bytes as u64).saturating_add(STRIDE);
    while expected <= head && (taken < max_bytes || batch.records.is_empty()) {
        let size = want.min(end - at) as usize;
        let chunk = Bytes::from(read_up_to(file, at, size)?);
        let mut used = 0;
        while expected <= head && (taken < max_bytes || batch.records.is_empty()) {
            let rest = &chunk[used..];
            if rest.len() < HEADER {
                want = want.max(HEADER as u64);
                break;
            }
            let Some(size) = payload_len(rest).map(framed) else {
                batch.damage = Some(format!("the record at byte {} is missing now", at + used as u64));
                return Ok(batch);
            };
            if rest.len() < size {
                want = want.max(size as u64);
                break;
            }
            let payload = used + HEADER..used + size - TRAILER;
            let stored = intact(&rest[..size]).then(|| decode(&chunk[payload.clone()])).flatten();
            let Some(stored) = stored.filter(|stored| stored.seq == expected) else {
                batch.damage = Some(format!("the record at byte {} has changed", at + used as u64));
                return Ok(batch);
            };
            if stored.seq > after {
                taken += stored.frame.len();
                batch.records.push(Arc::new(stored.record(&chunk.slice(payload))));
            }
            used += size;
            expected += 1;
        }
        // We reached the recorded end without a whole record: the file is truncated.
        if used == 0 && (size as u64 == end - at || chunk.len() < size) {
            batch.damage = Some(format!("the file ends at byte {end}, before event {expected}"));
            return Ok(batch);
        }
        at += used as u64;
    }
    Ok(batch)
}

/// The `size` bytes from `at`, or as many as exist: after the visible part, a file may shrink.
fn read_up_to(file: &File, at: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut got = 0;
    while got < size {
        match file.read_at(&mut bytes[got..], at + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(got);
    Ok(bytes)
}

/// Reads a log backwards. Stops at an invalid frame: only a complete scan can say what is wrong.
pub(super) struct Backwards<'f> {
    file: &'f File,
    /// End of the frame that is read next.
    end: u64,
    /// The bytes from `base` on, already read.
    buffer: Vec<u8>,
    base: u64,
}

impl<'f> Backwards<'f> {
    pub(super) fn new(file: &'f File, end: u64) -> Self {
        Self { file, end, buffer: Vec::new(), base: end }
    }

    /// The record before, or `None` at the beginning or if that record is invalid.
    pub(super) fn next(&mut self) -> io::Result<Option<Stored>> {
        Ok(self.frame()?.and_then(|frame| decode(&frame[HEADER..frame.len() - TRAILER])))
    }

    /// Offset of the record that was returned last.
    pub(super) fn position(&self) -> u64 {
        self.end
    }

    /// The frame before.
    pub(super) fn frame(&mut self) -> io::Result<Option<&[u8]>> {
        let smallest = framed(0) as u64;
        if self.end < FILE_HEADER as u64 + smallest {
            return Ok(None);
        }
        let trailer = self.bytes(TRAILER as u64)?;
        let size = framed(!u32_at(trailer, 0) as usize) as u64;
        if size > self.end - FILE_HEADER as u64 {
            return Ok(None);
        }
        let frame = self.bytes(size)?;
        if payload_len(frame).map(framed) != Some(frame.len()) || !intact(frame) {
            return Ok(None);
        }
        self.end -= size;
        let start = (self.end - self.base) as usize;
        Ok(Some(&self.buffer[start..start + size as usize]))
    }

    /// The `size` bytes before `end`, which must exist.
    fn bytes(&mut self, size: u64) -> io::Result<&[u8]> {
        if self.end - size < self.base {
            self.buffer.truncate((self.end - self.base) as usize);
            let want = size.max(TAIL_CHUNK).min(self.end);
            let more = want as usize - self.buffer.len();
            let mut buffer = vec![0; want as usize];
            self.file.read_exact_at(&mut buffer[..more], self.end - want)?;
            buffer[more..].copy_from_slice(&self.buffer);
            self.buffer = buffer;
            self.base = self.end - want;
        }
        let stop = (self.end - self.base) as usize;
        Ok(&self.buffer[stop - size as usize..stop])
    }
}
