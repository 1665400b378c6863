//! The layout of every file of the journal: a header with the format's version, then CRC-framed records.
//!
//! ```text
//! file   = magic "sidetone" · kind u8 · 0 u8 · version u16 · crc32 of these 12
//! frame  = len u32 · crc32(payload) u32 · crc32 of these 8 · payload · !len u32          (all little-endian)
//! ```
//!
//! The frame's header has a checksum of its own, so that a length that was damaged is never taken for a record that was
//! cut off. The length comes again at the end, inverted (so that its last byte is never zero), to read a file
//! backwards. Does not know what a payload means.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a file's header.
pub(super) const FILE_HEADER: usize = 16;
/// Bytes before a payload.
pub(super) const HEADER: usize = 12;
/// Bytes after a payload.
pub(super) const TRAILER: usize = 4;
/// Largest payload: an event of 64 MiB, and the fields beside it.
pub(super) const MAX_PAYLOAD: usize = (64 << 20) + (128 << 10);
/// The version of the format that this code writes, in file headers and in the state file.
pub(super) const VERSION: u16 = 2;
/// The previous version, whose records have no header. A start migrates it.
pub(super) const OLD_VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"sidetone";
const CHUNK: usize = 64 << 10;

/// The purpose of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call = b'c' as isize,
    Directory = b'd' as isize,
}

/// The header of a new file.
pub(super) fn file_header(kind: Kind) -> [u8; FILE_HEADER] {
    versioned_header(kind, VERSION)
}

/// As [`file_header`], for another version.
pub(super) fn versioned_header(kind: Kind, version: u16) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8] = kind as u8;
    header[10..12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Appends one frame to `out`, around the payload that `fill` appends.
pub(super) fn seal(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    fill(out);
    let payload = &out[start + HEADER..];
    debug_assert!(payload.len() <= MAX_PAYLOAD, "checked by the caller");
    let len = (payload.len() as u32).to_le_bytes();
    let crc = crc32fast::hash(payload).to_le_bytes();
    let header = &mut out[start..start + HEADER];
    header[..4].copy_from_slice(&len);
    header[4..8].copy_from_slice(&crc);
    let check = crc32fast::hash(&header[..8]).to_le_bytes();
    header[8..].copy_from_slice(&check);
    out.extend(len.map(|byte| !byte));
}

/// Bytes of a frame with a payload of `len` bytes.
pub(super) fn framed(len: usize) -> usize {
    HEADER + len + TRAILER
}

/// The little-endian number at `at`; 0 beyond the end.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map_or(0, u16::from_le_bytes)
}

/// The little-endian number at `at`; 0 beyond the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The little-endian number at `at`; 0 beyond the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The payload's length in a frame's header; `None` if the header is invalid.
pub(super) fn payload_len(header: &[u8]) -> Option<usize> {
    let header = header.get(..HEADER)?;
    let len = u32_at(header, 0) as usize;
    (crc32fast::hash(&header[..8]) == u32_at(header, 8) && len <= MAX_PAYLOAD).then_some(len)
}

/// Returns true if `frame`, which is complete and has a valid header, has a payload and an end that match its
/// checksums.
pub(super) fn intact(frame: &[u8]) -> bool {
    let end = frame.len() - TRAILER;
    u32_at(frame, end) == !u32_at(frame, 0) && crc32fast::hash(&frame[HEADER..end]) == u32_at(frame, 4)
}

/// The next thing in a file.
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// A record: the offset of its frame, and its payload.
    Record { at: u64, payload: &'a [u8] },
    /// The end of the file.
    End,
    /// The last write is incomplete: everything from the scanner's position on was never acknowledged.
    Torn(&'static str),
    /// Something at this position is no longer readable.
    Damaged(&'static str),
}

/// Reads a file's frames in order.
pub(super) struct Scanner<'f> {
    file: &'f File,
    end: u64,
    at: u64,
    buffer: Vec<u8>,
    /// Where `buffer` begins in the file.
    base: u64,
}

impl<'f> Scanner<'f> {
    /// Scans from `at`, the start of a frame, to `end`.
    pub(super) fn new(file: &'f File, at: u64, end: u64) -> Self {
        Self { file, end, at, buffer: Vec::new(), base: at }
    }

    /// Offset after the last record that was returned.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// The next record. After any other result, the same result again.
    pub(super) fn next(&mut self) -> io::Result<Next<'_>> {
        let left = self.end - self.at;
        if left == 0 {
            return Ok(Next::End);
        }
        if left < HEADER as u64 {
            return Ok(Next::Torn("a record's header is cut off"));
        }
        let Some(len) = payload_len(self.bytes(HEADER)?) else {
            return Ok(if all_zero(self.file, self.at + HEADER as u64, self.end)? {
                Next::Torn("zeros up to the end")
            } else {
                Next::Damaged("no record begins here")
            });
        };
        let size = framed(len);
        if left < size as u64 {
            return Ok(Next::Torn("a record is cut off"));
        }
        if !intact(self.bytes(size)?) {
            // A file whose length was extended before its bytes reached the disk ends in zeros, which no complete
            // record does.
            let last = self.at + (size - 1) as u64;
            return Ok(if all_zero(self.file, last, self.end)? {
                Next::Torn("zeros at the end of a record, up to the end")
            } else {
                Next::Damaged("a record does not match its checksum")
            });
        }
        let at = self.at;
        self.at += size as u64;
        let start = (at - self.base) as usize + HEADER;
        Ok(Next::Record { at, payload: &self.buffer[start..start + len] })
    }

    /// The `size` bytes after the position, which must exist.
    fn bytes(&mut self, size: usize) -> io::Result<&[u8]> {
        let start = (self.at - self.base) as usize;
        if self.buffer.len() < start + size {
            self.buffer.drain(..start.min(self.buffer.len()));
            self.base = self.at;
            let have = self.buffer.len();
            let want = (size.max(CHUNK) as u64).min(self.end - self.at) as usize;
            self.buffer.resize(want.max(have), 0);
            self.file.read_exact_at(&mut self.buffer[have..], self.at + have as u64)?;
            return Ok(&self.buffer[..size]);
        }
        Ok(&self.buffer[start..start + size])
    }
}

/// The result of checking a file's header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// The header is valid, and frames follow.
    Good,
    /// The first write is incomplete: the file counts as empty.
    Torn,
    /// The journal file has another version, described in words.
    Version(String),
    /// The file is something else.
    Strange,
}

/// Checks the header of a file of `end` bytes.
pub(super) fn check_file_header(file: &File, kind: Kind, end: u64) -> io::Result<Opening> {
    check_versioned_header(file, kind, VERSION, end)
}

/// As [`check_file_header`], for another version.
pub(super) fn check_versioned_header(file: &File, kind: Kind, version: u16, end: u64) -> io::Result<Opening> {
    let expected = versioned_header(kind, version);
    let mut found = vec![0; end.min(FILE_HEADER as u64) as usize];
    file.read_exact_at(&mut found, 0)?;
    if found == expected {
        return Ok(Opening::Good);
    }
    let same = found.iter().zip(expected).take_while(|(found, expected)| *found == expected).count();
    if all_zero(file, same as u64, end)? {
        return Ok(Opening::Torn);
    }
    let whole = found.len() == FILE_HEADER && crc32fast::hash(&found[..12]) == u32_at(&found, 12);
    if !whole || !found.starts_with(MAGIC) || found[8] != kind as u8 {
        return Ok(Opening::Strange);
    }
    let version = u16::from_le_bytes([found[10], found[11]]);
    Ok(Opening::Version(version_message(u32::from(version))))
}

/// The message that a journal of `version` cannot be read by this build.
pub(super) fn version_message(version: u32) -> String {
    if version > u32::from(VERSION) {
        format!("it has format version {version}, this build reads up to {VERSION}: run a newer sidetone")
    } else if version == u32::from(OLD_VERSION) {
        format!(
            "it has format version {version}, but the folder was already migrated to {VERSION}: delete the folder's \
             file 'state', and the next start migrates it"
        )
    } else {
        format!("it has format version {version}, which this build cannot migrate to {VERSION}")
    }
}

fn all_zero(file: &File, mut at: u64, end: u64) -> io::Result<bool> {
    let mut chunk = vec![0; CHUNK.min((end - at) as usize)];
    while at < end {
        let part = &mut chunk[..CHUNK.min((end - at) as usize)];
        file.read_exact_at(part, at)?;
        if part.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += part.len() as u64;
    }
    Ok(true)
}
