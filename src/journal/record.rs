//! A record of a call's log as the payload of a frame.
//!
//! ```text
//! payload = seq u64 · order u64 · remaining u32 · frame length u32 · frame · private          (little-endian)
//! ```
//!
//! `remaining` is how many records of the same batch follow: a batch whose last record (0) is not there never counted.

use std::ops::Range;

use super::frame::{MAX_PAYLOAD, framed, seal, u32_at, u64_at};
use super::{NewRecord, Seq};

/// Bytes before the event's frame.
const FIELDS: usize = 24;

/// A record as it lies in a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) seq: Seq,
    pub(super) order: u64,
    pub(super) remaining: u32,
    /// Where the event's frame is in the payload.
    pub(super) frame: Range<usize>,
    /// Where the private fields are in the payload.
    pub(super) private: Range<usize>,
}

/// Whether `record` can be written at all.
pub(super) fn fits(record: &NewRecord) -> bool {
    FIELDS + record.frame.len() + record.private.len() <= MAX_PAYLOAD
}

/// Bytes of `record` in the file.
pub(super) fn size(record: &NewRecord) -> u64 {
    framed(FIELDS + record.frame.len() + record.private.len()) as u64
}

/// Appends `batch`, framed, to `out`; its first record gets `seq` and `order`.
pub(super) fn encode(out: &mut Vec<u8>, seq: Seq, order: u64, batch: &[NewRecord]) {
    for (position, record) in batch.iter().enumerate() {
        let offset = position as u64;
        let remaining = (batch.len() - 1 - position) as u32;
        seal(out, |out| {
            out.extend_from_slice(&(seq + offset).to_le_bytes());
            out.extend_from_slice(&(order + offset).to_le_bytes());
            out.extend_from_slice(&remaining.to_le_bytes());
            out.extend_from_slice(&(record.frame.len() as u32).to_le_bytes());
            out.extend_from_slice(&record.frame);
            out.extend_from_slice(&record.private);
        });
    }
}

/// Reads a payload; `None` where it cannot be one.
pub(super) fn decode(payload: &[u8]) -> Option<Stored> {
    let frame_end = FIELDS + u32_at(payload, 20) as usize;
    (payload.len() >= frame_end).then(|| Stored {
        seq: u64_at(payload, 0),
        order: u64_at(payload, 8),
        remaining: u32_at(payload, 16),
        frame: FIELDS..frame_end,
        private: frame_end..payload.len(),
    })
}
