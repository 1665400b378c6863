//! The frames of a recording as they are sent to the daemon, and what is expected of them.
//!
//! Knows no connection and no clock.

use std::ops::Range;

use super::expected::Expected;
use crate::base::ws::Utf8Bytes;
use crate::protocol::{self, ingest};
use crate::recording::Recording;
use crate::stt::Dialect;

/// The frames to send.
pub(super) struct Script {
    /// All frames of the recording, followed by an `end` if the recording has none.
    pub(super) frames: Vec<Utf8Bytes>,
    /// For each frame: set if it has a final turn.
    pub(super) is_final: Vec<bool>,
    pub(super) expected: Expected,
    /// Bytes of all frames before each index, and last the bytes of all frames.
    offsets: Vec<usize>,
}

impl Script {
    pub(super) fn of(recording: &Recording, dialect: &'static dyn Dialect) -> Self {
        let expected = Expected::read(dialect, recording.frames.iter().map(|frame| &*frame.message));
        let mut frames: Vec<Utf8Bytes> =
            recording.frames.iter().map(|frame| Utf8Bytes::from(&*frame.message)).collect();
        if !expected.ends {
            frames.push(Utf8Bytes::from(protocol::text(&ingest::End::default())));
        }
        let mut offsets = vec![0];
        offsets.extend(frames.iter().scan(0, |sum, frame| {
            *sum += frame.len();
            Some(*sum)
        }));
        let mut is_final = vec![false; frames.len()];
        for index in &expected.final_frames {
            is_final[*index] = true;
        }
        Self { frames, is_final, expected, offsets }
    }

    /// Size of the frames, bytes.
    pub(super) fn bytes(&self, range: Range<usize>) -> usize {
        self.offsets[range.end] - self.offsets[range.start]
    }
}
