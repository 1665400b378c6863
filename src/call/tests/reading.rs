//! Reads records back. The same bytes at the same position always have the same meaning, so each record is decoded only
//! once, however often the daemon reads it: otherwise decoding would take most of the time of a run.

use bytes::Bytes;

use crate::call::record::{Decoded, decode};
use crate::types::Seq;

/// Records and their decoded content, by position.
#[derive(Default)]
pub(super) struct Reading {
    known: Vec<(Bytes, Bytes, Decoded)>,
}

impl Reading {
    /// The decoded record at `seq`. All records before it have been read already.
    pub(super) fn read(&mut self, seq: Seq, frame: &Bytes, private: &Bytes) -> Decoded {
        let index = usize::try_from(seq - 1).expect("few");
        match self.known.get(index) {
            Some((known_frame, known_private, decoded)) if known_frame == frame && known_private == private => {
                decoded.clone()
            }
            _ => {
                let decoded = decode(seq, frame, private).expect("a record reads back");
                // The record that was here before was lost in a crash.
                self.known.truncate(index);
                assert_eq!(self.known.len(), index, "records are read in their order");
                self.known.push((frame.clone(), private.clone(), decoded.clone()));
                decoded
            }
        }
    }
}
