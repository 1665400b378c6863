//! A turn: a final stretch of speech with its speaker, in its current state.

use serde::{Deserialize, Serialize};

use super::{StreamId, TurnNo};

/// One word with its times in ms: stream time before the session, call time after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// 0 to 1, if the vendor gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
}

impl Word {
    /// The instant that decides to which part of a cut turn the word belongs, in ms.
    pub fn middle_ms(&self) -> u64 {
        self.start_ms + self.end_ms.saturating_sub(self.start_ms) / 2
    }
}

fn always<T>(_: &T) -> bool {
    true
}

/// A turn as sent in `turn.final`, `turn.revised`, snapshots and `GET …/turns`.
///
/// Times are ms since the call began. `words` are stored, but sent only on request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Turn {
    /// Ordinal in the call, from 0.
    pub turn: TurnNo,
    /// The stream that it came from.
    pub stream_id: StreamId,
    /// Number within its stream.
    pub turn_order: u64,
    /// The vendor's id of the turn, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_turn: Option<String>,
    /// Number of revisions so far.
    pub rev: u32,
    /// The vendor's speaker label, verbatim; `None` if the vendor gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// The text; `""` once all its words moved to other parts of a cut turn.
    pub text: String,
    /// Start, ms since the call began.
    pub start_ms: u64,
    /// End, ms since the call began.
    pub end_ms: u64,
    /// BCP 47 language tag, if the vendor gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// 0 to 1, if the vendor gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Words with their times; only for readers that include them. In a record they are a private field, so a turn is
    /// always written without them.
    #[serde(default, skip_serializing_if = "always")]
    pub words: Vec<Word>,
}
