//! What a decoder makes of an STT vendor's frame: the only language in which ingest speaks to a session.
//!
//! Times are in stream time (ms since the vendor's audio clock began). Numbering turns, cutting them by speaker and
//! telling duplicates from revisions is the session's work, not the decoder's.

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
}

/// A final turn, as the vendor sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct Final {
    /// Which turn of the stream.
    pub key: TurnKey,
    /// Whether the vendor punctuated and cased it. A formatted final is never replaced by an unformatted one.
    pub formatted: bool,
    /// The turn's text; an empty one is no turn.
    pub text: String,
    /// Label of the whole turn.
    pub speaker: Option<String>,
    /// Words in time order; may carry speakers of their own.
    pub words: Vec<Word>,
    /// Start, ms; `None` where the vendor gives no times (then the session takes the arrival).
    pub start_ms: Option<u64>,
    /// End, ms.
    pub end_ms: Option<u64>,
    /// BCP 47 tag.
    pub language: Option<String>,
    /// 0 to 1.
    pub confidence: Option<f32>,
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
