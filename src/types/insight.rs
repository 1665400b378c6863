//! An insight: the result of an analysis, with what it covers, its evidence and where it came from.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TurnNo;

/// Whether a later insight of the same analysis is to be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The call goes on.
    Provisional,
    /// The last word on this call (or, per turn, on this turn).
    Final,
}

/// Which turns an insight's prompt held. Ordinals are inclusive; an insight of nothing is `null, null, 0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// First ordinal.
    pub from: Option<TurnNo>,
    /// Last ordinal.
    pub to: Option<TurnNo>,
    /// How many turns.
    pub turns: u64,
    /// From which ordinal on the prompt held the words themselves.
    pub verbatim_from: Option<TurnNo>,
    /// The context's revision at the snapshot.
    pub revision: u64,
}

/// A quote that supports an insight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The turn that it is from.
    pub turn: TurnNo,
    /// The words.
    pub quote: String,
    /// Present and true where the quote is not in that turn (or the turn was not in the prompt).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
}

/// Tokens as the vendor counted them; unknown is `null`, never zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Prompt tokens, cached ones included.
    pub input: Option<u64>,
    /// Those of them that the vendor read from its cache.
    pub cached: Option<u64>,
    /// Completion tokens, reasoning included.
    pub output: Option<u64>,
}

/// Who answered, and by which words it was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The route asked.
    pub route: String,
    /// The variant of the route.
    pub variant: String,
    /// The logical model.
    pub model: String,
    /// The endpoint that answered.
    pub endpoint: String,
    /// `analysis/version@hash`.
    pub prompt: String,
    /// HTTP calls made for it.
    pub attempts: u32,
    /// Tokens.
    pub usage: TokenUsage,
    /// Cost in US dollars; `null` where no price is known.
    pub cost_usd: Option<f64>,
}

/// Where the time went, in ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyMs {
    /// From the newest turn covered to the trigger's firing.
    pub debounce: u64,
    /// From firing to the permit.
    pub queue: u64,
    /// From the request to its first token; `null` where the answer was not streamed.
    pub first_token: Option<u64>,
    /// From the request to its end, repair included.
    pub model: u64,
    /// From the newest turn covered to publication.
    pub total: u64,
}

/// The result of an analysis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Insight {
    /// Unique.
    pub id: String,
    /// The analysis that it answers.
    pub analysis: String,
    /// Counts per analysis (per analysis and turn, where it is per turn), from 1.
    pub rev: u64,
    /// Whether a later one is to be expected.
    pub status: Status,
    /// A lesser way made it (the local provider, a budget step).
    pub degraded: bool,
    /// The turn, where the analysis is per turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<TurnNo>,
    /// Which turns the prompt held.
    pub covers: Coverage,
    /// Turns that came after the snapshot and before publication.
    pub behind_turns: u64,
    /// Why it ran: `turns`, `interval`, `debounce`, `max_wait`, `end`, `manual`, `turn`, `retry`.
    pub trigger: String,
    /// The answer, valid under the analysis' schema.
    pub value: Value,
    /// Quotes from the transcript.
    pub evidence: Vec<Evidence>,
    /// Where it came from.
    pub provenance: Provenance,
    /// Where the time went.
    pub latency_ms: LatencyMs,
}

/// A job that gave no insight. The last good one stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsightFailure {
    /// The analysis.
    pub analysis: String,
    /// The turn, where the analysis is per turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<TurnNo>,
    /// Stable code: `refused`, `timeout`, `upstream_error`, `schema_mismatch`, `overloaded`, …
    pub code: String,
    /// What happened, for people. Never transcript text.
    pub message: String,
    /// Whether a later run may succeed with nothing changed.
    pub temporary: bool,
    /// Rev of the newest good insight; `null` = none.
    pub last_good_rev: Option<u64>,
}
