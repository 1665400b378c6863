//! Records read back. What the same bytes say at the same place never changes, so each record is decoded once, however
//! often the daemon comes back to it: decoding was most of what a run cost.

use bytes::Bytes;

use crate::call::record::{Decoded, decode};
use crate::types::Seq;

/// Records by position, and what each says.
#[derive(Default)]
pub(super) struct Reading {
    known: Vec<(Bytes, Bytes, Decoded)>,
}

impl Reading {
    /// What the record at `seq` says. Those before it were read already.
    pub(super) fn read(&mut self, seq: Seq, frame: &Bytes, private: &Bytes) -> Decoded {
        let index = usize::try_from(seq - 1).expect("few");
        match self.known.get(index) {
            Some((known_frame, known_private, decoded)) if known_frame == frame && known_private == private => {
                decoded.clone()
            }
            _ => {
                let decoded = decode(seq, frame, private).expect("a record reads back");
                // Another record stood here before a crash took it.
                self.known.truncate(index);
                assert_eq!(self.known.len(), index, "records are read in their order");
                self.known.push((frame.clone(), private.clone(), decoded.clone()));
                decoded
            }
        }
    }
}
