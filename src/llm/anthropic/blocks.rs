//! Content blocks of a message, written one after the other.
//!
//! Knows no block's content.

/// A list of content blocks that is being written.
pub(super) struct Blocks<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Blocks<'a> {
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'[');
        Self { out, first: true }
    }

    pub(super) fn next(&mut self) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out
    }

    pub(super) fn close(self) {
        self.out.push(b']');
    }
}
