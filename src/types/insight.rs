//! An insight: the result of an analysis, with its coverage, its evidence and its origin.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{JsonMap, Trigger, TurnNo};

/// Tells if a later insight of the same analysis may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The call continues; a later insight may follow.
    Provisional,
    /// The last insight of this call (or of this turn, if the analysis is per turn).
    Final,
}

/// The turns in an insight's prompt, word for word or in a digest. Ordinals are inclusive; `null, null, 0` if there were
/// none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Coverage {
    /// First ordinal.
    pub from: Option<TurnNo>,
    /// Last ordinal.
    pub to: Option<TurnNo>,
    /// Number of turns.
    pub turns: u64,
    /// Last ordinal of the turns that were in the prompt only as a digest. Turns between it and `verbatim_from` were not in
    /// the prompt. Present on the wire only if there was a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest_to: Option<TurnNo>,
    /// First ordinal whose turns were in the prompt word for word.
    pub verbatim_from: Option<TurnNo>,
    /// The context's revision when the snapshot was taken.
    pub revision: u64,
}

impl Coverage {
    /// Returns true if the turn was in the prompt, word for word or in a digest.
    pub fn holds(&self, turn: TurnNo) -> bool {
        let within = self.from.is_some_and(|from| from <= turn) && self.to.is_some_and(|to| turn <= to);
        let left_out = self.digest_to.is_some_and(|to| to < turn) && self.verbatim_from.is_some_and(|from| turn < from);
        within && !left_out
    }
}

/// A quote that supports an insight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Evidence {
    /// The turn that the quote is from.
    pub turn: TurnNo,
    pub quote: String,
    /// Set if the quote is not in that turn, or the turn was not in the prompt. Present on the wire only if true.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
}

/// Tokens as the vendor counted them; `null` if unknown, never 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TokenUsage {
    /// Prompt tokens, including cached ones.
    pub input: Option<u64>,
    /// Prompt tokens that the vendor read from its cache.
    pub cached: Option<u64>,
    /// Completion tokens, including reasoning.
    pub output: Option<u64>,
}

/// The model that answered and the prompt that it was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Provenance {
    pub route: String,
    /// The variant of the route.
    pub variant: String,
    /// The logical model.
    pub model: String,
    /// The endpoint that answered.
    pub endpoint: String,
    /// The prompt, as `analysis/version@hash`.
    pub prompt: String,
    /// Number of HTTP calls made for it.
    pub attempts: u32,
    pub usage: TokenUsage,
    /// Cost in US dollars; `null` if a price is unknown.
    pub cost_usd: Option<f64>,
}

/// Durations of the steps, in ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LatencyMs {
    /// From the newest covered turn until the trigger fired.
    pub debounce: u64,
    /// From the trigger until the job got its permit and started.
    pub queue: u64,
    /// From the request to its first token; `null` if the answer was not streamed.
    pub first_token: Option<u64>,
    /// From the request to its end, including repair.
    pub model: u64,
    /// From the newest covered turn to publication.
    pub total: u64,
}

/// One change of an insight's value. All of a revision's changes, applied in order to the value of the revision before, give
/// its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Change {
    /// A list has a new item.
    Add {
        /// JSON pointer to the list in the value.
        list: String,
        /// The item's id.
        id: String,
        /// The id of the item before which it was inserted; absent if it is the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<String>,
        /// Its other fields.
        #[serde(flatten)]
        fields: JsonMap,
    },
    /// Fields of an item have new values.
    Update {
        list: String,
        id: String,
        /// Those fields.
        #[serde(flatten)]
        fields: JsonMap,
    },
    /// An item is settled.
    Resolve {
        list: String,
        id: String,
        /// The fields that changed, its state among them.
        #[serde(flatten)]
        fields: JsonMap,
    },
    /// An item was wrong and is removed.
    Retract { list: String, id: String },
    /// A part of the value that is not a list of items has a new value.
    Set {
        /// JSON pointer to that part.
        field: String,
        value: Value,
    },
}

/// The result of an analysis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Insight {
    /// Unique id.
    pub id: String,
    /// The analysis that made it.
    pub analysis: String,
    /// Revision: counts from 1 per analysis, or per analysis and turn if the analysis is per turn.
    pub rev: u64,
    /// Tells if a later one may follow.
    pub status: Status,
    /// Set if a fallback of lower quality made it (the local provider, a budget step).
    pub degraded: bool,
    /// The turn, if the analysis is per turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<TurnNo>,
    /// The turns in the prompt.
    pub covers: Coverage,
    /// Number of turns that arrived between the snapshot and publication.
    pub behind_turns: u64,
    /// Why it ran: `turns`, `interval`, `debounce`, `max_wait`, `end`, `manual`, `turn`, `retry`, `bundle`, `silence`,
    /// `speech_started`, `revision`, `alert:RULE`.
    #[cfg_attr(test, schemars(with = "String"))]
    pub trigger: Trigger,
    /// The answer, valid under the analysis's schema.
    pub value: Value,
    /// The changes that lead from the previous revision's value to this value. Only for values with lists of items.
    /// Absent if there is no previous revision or if the changes are longer than the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
    /// Number of operations in the model's answer that could not be carried out. Present on the wire only if above 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_operations: u64,
    /// Quotes from the transcript.
    pub evidence: Vec<Evidence>,
    /// The model and prompt that made it.
    pub provenance: Provenance,
    /// Durations of the steps.
    pub latency_ms: LatencyMs,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A job that produced no insight. The last good insight stays valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InsightFailure {
    pub analysis: String,
    /// The turn, if the analysis is per turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<TurnNo>,
    /// Stable code: `refused`, `timeout`, `upstream_error`, `schema_mismatch`, `overloaded`, …
    pub code: String,
    /// What happened, for people. Contains no transcript text.
    pub message: String,
    /// Set if a later run may succeed with nothing changed.
    pub temporary: bool,
    /// Revision of the newest good insight; `null` if there is none.
    pub last_good_rev: Option<u64>,
}
