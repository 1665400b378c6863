//! What a decoder makes of an STT vendor's frame: the only language in which ingest speaks to a session.
//!
//! Times are in stream time (ms since the vendor's audio clock began). Numbering turns, cutting them by speaker and
//! telling duplicates from revisions is the session's work, not the decoder's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{JsonMap, Word};

/// How a final, a partial or a revision names its turn within the stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnKey {
    /// The producer's own `turn_order` (the `sidetone` dialect).
    Order(u64),
    /// The vendor's id of the turn, as text (`turn_order` of AssemblyAI, `item_id` of OpenAI, …).
    Vendor(String),
    /// The vendor gives finals no id: each one is a new turn, and partials belong to the turn to come.
    Next,
    /// The vendor gives finals no id and has not ended this turn yet. A channel (by name) has one such turn at a time.
    Held(String),
    /// The turn that was [`TurnKey::Held`] on this channel, which ends with this final. A new turn where nothing of it
    /// came out before.
    Ended(String),
}

/// A final turn, as the vendor sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Final {
    /// Which turn of the stream.
    pub key: TurnKey,
    /// Whether the vendor punctuated and cased it. A formatted final is never replaced by an unformatted one.
    pub formatted: bool,
    /// The turn's text; an empty one is no turn.
    pub text: String,
    /// Label of the whole turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// Words in time order; may carry speakers of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
    /// Start, ms; `None` where the vendor gives no times (then the session takes the arrival).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<u64>,
    /// End, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ms: Option<u64>,
    /// BCP 47 tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
}

/// What a decoder knows that its next frames do not say again: enough for the decoder of a later connection to go on
/// where this one was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Carry {
    /// Turns in the making, in the order of the talk, as the finals that they would be now. Their texts may end in
    /// white space, which the next words need. Keys are [`TurnKey::Held`] or [`TurnKey::Vendor`], each at most once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Final>,
    /// Where final speech has come to on each channel, ms of stream time; only where a vendor's times alone say that
    /// its session began anew.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ends: BTreeMap<String, u64>,
    /// The vendor's session that `held` belongs to, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The decoder keeps frames that nobody can carry on: they must be sent again.
    #[serde(skip)]
    pub closed: bool,
}

impl Carry {
    /// Nothing to know.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.ends.is_empty()
    }
}

/// A correction of a turn that may already be final. Fields that are `None` stay as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Which turn of the stream.
    pub key: TurnKey,
    /// New label of the whole turn.
    pub speaker: Option<String>,
    /// New text.
    pub text: Option<String>,
    /// The turn's words with corrected speakers; empty = not given.
    pub words: Vec<Word>,
}

/// What an `end` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndScope {
    /// This stream; the call completes after its linger time.
    #[default]
    Stream,
    /// The call, at once.
    Call,
}

/// One thing that a vendor's frame said.
#[derive(Debug, Clone, PartialEq)]
pub enum SttEvent {
    /// The vendor's session began.
    Begin {
        /// The vendor's session id.
        vendor_session: Option<String>,
    },
    /// The vendor's session began anew, which nothing but its times says: they went back to about 0.
    Restarted,
    /// Text of a turn that is not final. Replaces the turn's earlier partial; `""` voids it.
    Partial {
        /// Which turn of the stream.
        key: TurnKey,
        /// Label, where known.
        speaker: Option<String>,
        /// Text so far.
        text: String,
    },
    /// A final turn, or a final turn once more.
    Final(Box<Final>),
    /// A correction.
    Revise(Box<Revision>),
    /// The vendor merged two labels: every earlier turn and word of `from` is now `to`.
    MergeSpeakers {
        /// The label that is gone.
        from: String,
        /// The label that stays.
        to: String,
    },
    /// Things the producer knows of the call, merged into its `meta`.
    Meta(JsonMap),
    /// The stream, or the call, is over.
    End {
        /// Why, in the producer's or vendor's words.
        reason: Option<String>,
        /// What is over.
        scope: EndScope,
    },
    /// The vendor reported an error of its own.
    VendorError {
        /// The vendor's code, as text.
        code: String,
        /// The vendor's message.
        message: String,
    },
    /// The stream's dialect, where it was picked by the frames so far; what they said comes next.
    Dialect {
        /// Its name.
        name: &'static str,
    },
    /// A message of a type that this dialect does not know: counted, never fatal.
    Unknown {
        /// Its type, as text.
        kind: String,
    },
}
