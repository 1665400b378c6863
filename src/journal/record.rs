//! A record of a call's log as the payload of a frame.
//!
//! ```text
//! payload = seq u64 · order u64 · remaining u32 · frame length u32 · kind u8 · marks u8 · analysis length u16
//!           · [turn u64] · [analysis] · frame · private                                    (little-endian)
//! ```
//!
//! `remaining` is the number of records of the same batch that follow: a batch without its last record (0) is
//! incomplete and is not read. The record's header is `kind`, `turn` (there if `marks` has bit 0) and `analysis` (bit
//! 1). The journal does not interpret them.

use std::ops::Range;

use bytes::Bytes;

use super::frame::{MAX_PAYLOAD, framed, seal, u16_at, u32_at, u64_at};
use super::{Header, KindCode, NewRecord, Record, Seq};
use crate::types::TurnNo;

/// Bytes of the fields that every record has.
const FIELDS: usize = 28;
/// Bytes of a turn.
const TURN: usize = 8;
/// Maximum size of an event's frame and its private fields together, bytes.
const MAX_CONTENT: usize = 64 << 20;
const HAS_TURN: u8 = 1;
const HAS_ANALYSIS: u8 = 1 << 1;

const _: () = assert!(FIELDS + TURN + u16::MAX as usize + MAX_CONTENT <= MAX_PAYLOAD);

/// A record in the form of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) seq: Seq,
    pub(super) order: u64,
    pub(super) remaining: u32,
    pub(super) kind: KindCode,
    pub(super) turn: Option<TurnNo>,
    /// Range of the analysis name in the payload.
    pub(super) analysis: Option<Range<usize>>,
    /// Range of the event's frame in the payload.
    pub(super) frame: Range<usize>,
    /// Range of the private fields in the payload.
    pub(super) private: Range<usize>,
}

impl Stored {
    /// The record itself; it shares the bytes of `payload`.
    pub(super) fn record(self, payload: &Bytes) -> Record {
        let analysis = self.analysis.and_then(|range| std::str::from_utf8(&payload[range]).ok());
        Record {
            seq: self.seq,
            order: self.order,
            header: Header { kind: self.kind, analysis: analysis.map(Into::into), turn: self.turn },
            frame: payload.slice(self.frame),
            private: payload.slice(self.private),
        }
    }
}

/// Position of a record in its call's log and in its batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) seq: Seq,
    pub(super) order: u64,
    pub(super) remaining: u32,
}

/// The reason why `record` is too large to be written, if it is.
pub(super) fn oversize(record: &NewRecord) -> Option<String> {
    let bytes = record.frame.len() + record.private.len();
    if bytes > MAX_CONTENT {
        return Some(format!("an event of {bytes} bytes is over the limit of 64 MiB"));
    }
    let bytes = analysis_bytes(&record.header);
    (bytes > usize::from(u16::MAX)).then(|| format!("an analysis's name of {bytes} bytes is over the limit of 64 KiB"))
}

fn analysis_bytes(header: &Header) -> usize {
    header.analysis.as_ref().map_or(0, |analysis| analysis.len())
}

/// Bytes of `record` in the file.
pub(super) fn size(record: &NewRecord) -> u64 {
    let header = record.header.turn.map_or(0, |_| TURN) + analysis_bytes(&record.header);
    framed(FIELDS + header + record.frame.len() + record.private.len()) as u64
}

/// Appends `batch`, framed, to `out`; its first record gets `seq` and `order`.
pub(super) fn encode(out: &mut Vec<u8>, seq: Seq, order: u64, batch: &[NewRecord]) {
    for (position, record) in batch.iter().enumerate() {
        let offset = position as u64;
        let remaining = (batch.len() - 1 - position) as u32;
        let place = Place { seq: seq + offset, order: order + offset, remaining };
        put(out, place, &record.header, &record.frame, &record.private);
    }
}

/// Appends one record, framed, to `out`.
pub(super) fn put(out: &mut Vec<u8>, place: Place, header: &Header, frame: &[u8], private: &[u8]) {
    let analysis = header.analysis.as_deref();
    let marks = header.turn.map_or(0, |_| HAS_TURN) | analysis.map_or(0, |_| HAS_ANALYSIS);
    seal(out, |out| {
        out.extend_from_slice(&place.seq.to_le_bytes());
        out.extend_from_slice(&place.order.to_le_bytes());
        out.extend_from_slice(&place.remaining.to_le_bytes());
        out.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        out.extend_from_slice(&[header.kind.0, marks]);
        out.extend_from_slice(&(analysis_bytes(header) as u16).to_le_bytes());
        if let Some(turn) = header.turn {
            out.extend_from_slice(&turn.to_le_bytes());
        }
        out.extend_from_slice(analysis.unwrap_or_default().as_bytes());
        out.extend_from_slice(frame);
        out.extend_from_slice(private);
    });
}

/// Reads a payload; `None` if it is invalid.
pub(super) fn decode(payload: &[u8]) -> Option<Stored> {
    let fields = payload.get(..FIELDS)?;
    let (kind, marks) = (KindCode(fields[24]), fields[25]);
    if marks & !(HAS_TURN | HAS_ANALYSIS) != 0 {
        return None;
    }
    let turn = (marks & HAS_TURN != 0).then(|| u64_at(payload, FIELDS));
    let name = FIELDS + turn.map_or(0, |_| TURN);
    let frame = name + usize::from(u16_at(payload, 26));
    let private = frame + u32_at(payload, 20) as usize;
    let analysis = (marks & HAS_ANALYSIS != 0).then_some(name..frame);
    let whole = payload.len() >= private && (analysis.is_some() || name == frame);
    whole.then(|| Stored {
        seq: u64_at(payload, 0),
        order: u64_at(payload, 8),
        remaining: u32_at(payload, 16),
        kind,
        turn,
        analysis,
        frame: frame..private,
        private: private..payload.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::frame::{HEADER, TRAILER};

    #[test]
    fn record_reads_back_with_its_header() {
        for analysis in [None, Some(""), Some("summary"), Some("überblick")] {
            for turn in [None, Some(0), Some(u64::MAX)] {
                for (frame, private) in [("{\"type\":\"gap\"}", ""), ("", "private"), ("", "")] {
                    let header = Header { kind: KindCode(200), analysis: analysis.map(Into::into), turn };
                    let new = NewRecord { header, frame: Bytes::from(frame), private: Bytes::from(private) };
                    let mut out = Vec::new();
                    encode(&mut out, 7, 9, &[new.clone(), new.clone()]);
                    assert_eq!(out.len() as u64, size(&new) * 2);
                    let payload = Bytes::from(out).slice(HEADER..size(&new) as usize - TRAILER);
                    let stored = decode(&payload).expect("a record");
                    assert_eq!((stored.seq, stored.order, stored.remaining), (7, 9, 1));
                    let record = stored.record(&payload);
                    assert_eq!((record.header, record.frame, record.private), (new.header, new.frame, new.private));
                    for cut in 0..payload.len() - private.len() {
                        assert_eq!(decode(&payload[..cut]), None, "cut at {cut}");
                    }
                }
            }
        }
    }

    #[test]
    fn payload_with_marks_of_another_format_is_no_record() {
        let mut out = Vec::new();
        put(&mut out, Place { seq: 1, order: 1, remaining: 0 }, &Header::default(), b"{}", b"");
        let mut payload = out[HEADER..out.len() - TRAILER].to_vec();
        assert!(decode(&payload).is_some());
        payload[25] = 1 << 2;
        assert_eq!(decode(&payload), None);
    }
}
