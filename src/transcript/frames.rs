//! Turns as frames of the `sidetone` dialect, for `POST /v1/transcripts` and for `sidetone convert`, so that both give
//! the same call.
//!
//! Does not know the lines of a recording.

use std::borrow::Cow;
use std::time::Duration;

use super::Turn;
use crate::protocol::{self, ingest};

/// The frame of each turn, and its time, which is the end of the turn.
pub fn frames(turns: &[Turn]) -> impl Iterator<Item = (Duration, String)> {
    turns.iter().zip(0..).map(|(turn, turn_order)| {
        let frame = ingest::Turn {
            turn_order,
            speaker: turn.speaker.as_deref().map(Cow::Borrowed),
            text: Cow::Borrowed(&turn.text),
            start_ms: Some(turn.start_ms),
            end_ms: Some(turn.end_ms),
            ..ingest::Turn::default()
        };
        (Duration::from_millis(turn.end_ms), protocol::text(&frame))
    })
}
