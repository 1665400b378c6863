//! A turn: a final, speaker-attributed stretch of speech, as it stands now.

use serde::{Deserialize, Serialize};

use super::{StreamId, TurnNo};

/// One word with its times in ms, in the time base of whoever holds it (stream time before the session, call time after).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// As written in the transcript, punctuation included.
    pub text: String,
    /// Start, ms.
    pub start_ms: u64,
    /// End, ms, never before the start.
    pub end_ms: u64,
    /// The vendor's speaker label for this word, verbatim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// 0 to 1, where the vendor gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
}

impl Word {
    /// The instant that decides to which part of a cut turn the word belongs.
    pub fn middle_ms(&self) -> u64 {
        self.start_ms + self.end_ms.saturating_sub(self.start_ms) / 2
    }
}

/// A turn as it goes out in `turn.final`, `turn.revised`, snapshots and `GET …/turns`.
///
/// Times are ms since the call began. `words` are kept, but go out only where asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Ordinal in the call.
    pub turn: TurnNo,
    /// The stream that it came from.
    pub stream_id: StreamId,
    /// Number in its stream.
    pub turn_order: u64,
    /// The vendor's own id of the turn, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_turn: Option<String>,
    /// Raised by every revision, from 0.
    pub rev: u32,
    /// The vendor's label, verbatim; absent where the vendor gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// What was said; `""` once all its words moved to other parts of a cut turn.
    pub text: String,
    /// Start, ms since the call began.
    pub start_ms: u64,
    /// End, ms since the call began.
    pub end_ms: u64,
    /// BCP 47 tag, where the vendor gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// 0 to 1, where the vendor gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Words with their times; empty where the vendor gave none. Not part of the wire form: they are a private field of
    /// the record, joined on for readers that ask.
    #[serde(default, skip_serializing)]
    pub words: Vec<Word>,
}
