//! A disk with one call's log: complete batches, each with its length and a checksum, and what a crash leaves of the
//! batch that was being written. The directory's entry is stored next to it.

use bytes::Bytes;

use super::random::Random;
use crate::call::effects::Batch;
use crate::types::Seq;
use crate::types::directory::Entry;

/// A record as stored on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) seq: Seq,
    pub(super) frame: Bytes,
    pub(super) private: Bytes,
}

#[derive(Default)]
pub(super) struct Disk {
    bytes: Vec<u8>,
    /// Where the newest complete batch ends.
    good: usize,
    head: Seq,
    pub(super) entry: Option<Entry>,
}

/// Bytes before a batch: its length and its checksum.
const HEADER: usize = 12;

fn header(payload: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    header[8..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    header
}

fn framed(batch: &Batch) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    for record in &batch.records {
        for part in [&record.frame, &record.private] {
            out.extend_from_slice(&u32::try_from(part.len()).expect("short").to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    let header = header(&out[HEADER..]);
    out[..HEADER].copy_from_slice(&header);
    out
}

impl Disk {
    pub(super) fn head(&self) -> Seq {
        self.head
    }

    /// Appends a complete batch, or fails and leaves a part of it, which the next append overwrites.
    pub(super) fn append(&mut self, batch: &Batch, fails: bool, random: &mut Random) -> Result<Vec<Stored>, ()> {
        assert_eq!(batch.after, self.head, "a batch follows the log's head");
        let bytes = framed(batch);
        self.bytes.truncate(self.good);
        if fails {
            // A short write, or a complete one whose sync fails: neither is ever read.
            let written = random.index(bytes.len() + 1);
            self.bytes.extend_from_slice(&bytes[..written]);
            return Err(());
        }
        self.bytes.extend_from_slice(&bytes);
        self.good = self.bytes.len();
        let first = self.head + 1;
        self.head += batch.records.len() as u64;
        if let Some(entry) = &batch.entry {
            self.entry = Some(entry.clone());
        }
        let stored = batch.records.iter().zip(first..);
        Ok(stored
            .map(|(record, seq)| Stored { seq, frame: record.frame.clone(), private: record.private.clone() })
            .collect())
    }

    /// The process dies while `flight` is written: nothing of it is stored, or a part, or all of it, or all of it and
    /// the entry.
    pub(super) fn crash(&mut self, flight: Option<&Batch>, random: &mut Random) {
        self.bytes.truncate(self.good);
        let Some(batch) = flight else { return };
        let bytes = framed(batch);
        let written = if random.chance(500) { bytes.len() } else { random.index(bytes.len()) };
        self.bytes.extend_from_slice(&bytes[..written]);
        if written == bytes.len() && random.chance(700) && batch.entry.is_some() {
            self.entry.clone_from(&batch.entry);
        }
        // A new call's entry is written before its first record.
        if self.entry.is_none() && written > 0 {
            self.entry.clone_from(&batch.entry);
        }
    }

    /// Reads the log from its beginning, and cuts off the torn end that a crash left.
    pub(super) fn recover(&mut self) -> Vec<Stored> {
        let mut records = Vec::new();
        let mut at = 0;
        while let Some(before) = self.bytes.get(at..at + HEADER) {
            let length = usize::try_from(u64::from_le_bytes(before[..8].try_into().expect("8 bytes"))).expect("short");
            let Some(payload) = self.bytes.get(at + HEADER..at + HEADER + length) else { break };
            if header(payload) != before {
                break;
            }
            let mut parts = Vec::new();
            let mut from = 0;
            while from < payload.len() {
                let length = u32::from_le_bytes(payload[from..from + 4].try_into().expect("4 bytes")) as usize;
                parts.push(Bytes::copy_from_slice(&payload[from + 4..from + 4 + length]));
                from += 4 + length;
            }
            for pair in parts.chunks(2) {
                let seq = records.len() as u64 + 1;
                records.push(Stored { seq, frame: pair[0].clone(), private: pair[1].clone() });
            }
            at += HEADER + length;
        }
        self.bytes.truncate(at);
        self.good = at;
        self.head = records.len() as u64;
        records
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.good]
    }
}
