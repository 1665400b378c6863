//! Events that a decoder makes from an STT vendor's frames: the only interface between ingest and a session.
//!
//! Times are in stream time (ms since the vendor's audio clock began). The session, not the decoder, numbers turns,
//! cuts them by speaker and tells duplicates from revisions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{JsonMap, Word};

/// How a final, a partial or a revision identifies its turn within the stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnKey {
    /// The producer's own `turn_order` (the `sidetone` dialect).
    Order(u64),
    /// The vendor's id of the turn, as text (`turn_order` of AssemblyAI, `item_id` of OpenAI, …).
    Vendor(String),
    /// The vendor gives finals no id: each final is a new turn, and partials belong to the next turn.
    Next,
    /// The vendor gives finals no id and has not ended this turn yet. Each channel (by name) has one such turn at a
    /// time.
    Held(String),
    /// The turn that was [`TurnKey::Held`] on this channel and ends with this final. If no part of it was sent before,
    /// a new turn.
    Ended(String),
}

/// A final turn, as the vendor sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Final {
    /// The turn within the stream.
    pub key: TurnKey,
    /// Set if the vendor added punctuation and casing. A formatted final is never replaced by an unformatted one.
    pub formatted: bool,
    /// The turn's text. A final with empty text is not a turn.
    pub text: String,
    /// Speaker label of the whole turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// Words in time order; each may carry its own speaker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
    /// Start, ms; `None` if the vendor gives no times (then the session uses the arrival time).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<u64>,
    /// End, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ms: Option<u64>,
    /// BCP 47 language tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Confidence from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
}

/// Decoder state that later frames do not repeat: enough for the decoder of a later connection to continue from here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Carry {
    /// Unfinished turns in the order of speech, as the finals they would be now. A text may end in white space, which
    /// the next words need. Keys are [`TurnKey::Held`] or [`TurnKey::Vendor`], each at most once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Final>,
    /// End of the final speech on each channel, ms of stream time. Filled only for vendors whose times alone show that
    /// a new session began.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ends: BTreeMap<String, u64>,
    /// The vendor's session that `held` belongs to, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Set if the decoder buffers frames that this carry cannot express: the producer must send them again.
    #[serde(skip)]
    pub closed: bool,
}

impl Carry {
    /// Returns true if there is nothing to carry over.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.ends.is_empty()
    }
}

/// A correction of a turn that may already be final. Fields that are `None` do not change.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// The turn within the stream.
    pub key: TurnKey,
    /// New speaker label of the whole turn.
    pub speaker: Option<String>,
    /// New text.
    pub text: Option<String>,
    /// The turn's words with corrected speakers; empty if not given.
    pub words: Vec<Word>,
}

/// Scope of an `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum EndScope {
    /// This stream only; the call completes after its linger time.
    #[default]
    Stream,
    /// The whole call, immediately.
    Call,
}

/// One event decoded from a vendor's frame.
#[derive(Debug, Clone, PartialEq)]
pub enum SttEvent {
    /// The vendor's session began.
    Begin {
        /// The vendor's session id.
        vendor_session: Option<String>,
    },
    /// The vendor started a new session without saying so: its times went back to about 0.
    Restarted,
    /// Text of a turn that is not final yet. Replaces the turn's earlier partial; `""` removes it.
    Partial {
        /// The turn within the stream.
        key: TurnKey,
        /// Speaker label, if known.
        speaker: Option<String>,
        /// Text so far.
        text: String,
    },
    /// A final turn, new or repeated.
    Final(Box<Final>),
    /// A correction.
    Revise(Box<Revision>),
    /// The vendor merged two speaker labels: every earlier turn and word of `from` now belongs to `to`.
    MergeSpeakers {
        /// The label that no longer exists.
        from: String,
        /// The label that stays.
        to: String,
    },
    /// Facts about the call from the producer, merged into the call's `meta`.
    Meta(JsonMap),
    /// The stream or the call ended.
    End {
        /// Why, in the producer's or vendor's words.
        reason: Option<String>,
        /// The stream, or the whole call.
        scope: EndScope,
    },
    /// The vendor reported an error.
    VendorError {
        /// The vendor's code, as text.
        code: String,
        /// The vendor's message.
        message: String,
    },
    /// The dialect that was detected from the stream's first frames. The events of those frames follow.
    Dialect {
        /// The dialect's name, as in `dialect=`.
        name: &'static str,
    },
    /// The vendor detected that somebody begins to speak.
    SpeechStarted,
    /// The vendor detected that nobody speaks.
    Silence {
        /// From when to when, ms of stream time, if the vendor gives it.
        span: Option<(u64, u64)>,
    },
    /// A message of a type that this dialect does not know. It is counted and never fatal.
    Unknown {
        /// The message type, as text.
        kind: String,
    },
}
