//! Turns as frames of the `sidetone` dialect: what `POST /v1/transcripts` feeds and `sidetone convert` writes, so that
//! both come to the same call.
//!
//! Knows no recording's lines.

use std::borrow::Cow;
use std::time::Duration;

use super::Turn;
use crate::protocol::{self, ingest};

/// The frame of each turn, and when it comes: when the turn has ended.
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
