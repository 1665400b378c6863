//! An attempt: one HTTP request to one LLM endpoint, as the gateway reports it and the ledger stores it.

use std::sync::Arc;

use super::CallId;

/// Smallest id of an attempt or a request that began at `at_ms` (Unix ms). Ids grow with time, so a time range is an id
/// range. If the clock was set back, an id may be higher than its time implies, never lower.
///
/// 2^20 ids per millisecond; the ids last until the year 2248.
pub fn first_id(at_ms: i64) -> i64 {
    at_ms.clamp(0, i64::MAX >> 20) << 20
}

/// Highest plausible token count of one attempt. Higher counts from a vendor are treated as unknown.
pub const MAX_TOKENS: u64 = 1_000_000_000;

/// An attempt is about to be made. Reported before its first byte is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptBegun {
    /// Unique and increasing across restarts; never below [`first_id`] of `at_ms`.
    pub id: i64,
    /// Id of the request that the attempt serves. All attempts of one request share it.
    pub request: i64,
    /// Unix time, ms.
    pub at_ms: i64,
    /// Name of the client's API key; `None` for the daemon's own analyses.
    pub key: Option<Arc<str>>,
    /// The call that the request is about, if any.
    pub call: Option<CallId>,
    /// The analysis that made the request, if one did; of a bundle, the names of its analyses, joined by `+`.
    pub analysis: Option<Arc<str>>,
    pub route: Arc<str>,
    /// The variant of the route.
    pub variant: Arc<str>,
    /// The logical model.
    pub model: Arc<str>,
    pub endpoint: Arc<str>,
    /// Wire format of the endpoint.
    pub provider: &'static str,
    /// The vendor's name for the model.
    pub vendor_model: Arc<str>,
    /// Position of the attempt among those of its request, from 1.
    pub number: u32,
    pub why: Why,
}

/// Why an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The first attempt of its request.
    First,
    /// The same candidate is asked again after a failure.
    Retry,
    /// The candidates before it failed or could not be asked.
    Failover,
    /// The attempt runs beside a slow one.
    Hedge,
    /// The previous answer was not valid under the schema.
    Repair,
    /// The vendor refused a better schema mode.
    SchemaStep,
}

impl Why {
    /// The name in the ledger and in errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Retry => "retry",
            Self::Failover => "failover",
            Self::Hedge => "hedge",
            Self::Repair => "repair",
            Self::SchemaStep => "schema_step",
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The attempt received a complete answer.
    Ok,
    /// The attempt failed before the first token.
    Failed,
    /// The attempt failed after the first token.
    Partial,
    /// The attempt was cancelled: the answer was no longer wanted.
    Aborted,
}

impl Outcome {
    /// The name in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Aborted => "aborted",
        }
    }
}

/// An attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptDone {
    /// Id of its [`AttemptBegun`].
    pub id: i64,
    pub outcome: Outcome,
    /// Error code; `None` if it did not fail.
    pub code: Option<&'static str>,
    /// HTTP status, if a response came.
    pub status: Option<u16>,
    /// Prompt tokens. `None` if unknown, never 0; the same holds for the other token counts.
    pub input: Option<u64>,
    /// Prompt tokens that were read from the vendor's cache.
    pub cached: Option<u64>,
    /// Prompt tokens that were written to the vendor's cache.
    pub cache_write: Option<u64>,
    /// Completion tokens.
    pub output: Option<u64>,
    /// Completion tokens that were reasoning.
    pub reasoning: Option<u64>,
    /// Cost in pico-dollars (1e-12 USD).
    pub cost_pico: Option<i64>,
    /// From the request to the first token, in microseconds.
    pub first_token_us: Option<u64>,
    /// From the request to its end, in microseconds.
    pub total_us: u64,
    /// The analyses that the attempt asked, if its schema is one for several, each with its weight: tokens and cost of
    /// the attempt are divided among them in these proportions.
    pub shares: Vec<(Arc<str>, u64)>,
}

/// A request is finished: no further attempt is made for it. Its last attempt may still be streaming its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestDone {
    /// Id that its attempts have as `request`.
    pub id: i64,
    /// When the request arrived, Unix time, ms.
    pub at_ms: i64,
    /// Name of the client's API key.
    pub key: Option<Arc<str>>,
    /// The call that the request is about, if any.
    pub call: Option<CallId>,
    /// The analysis that made the request, if one did.
    pub analysis: Option<Arc<str>>,
    pub route: Arc<str>,
    /// The variant of the route.
    pub variant: Arc<str>,
    /// The logical model.
    pub model: Arc<str>,
    /// Number of HTTP calls made for it.
    pub attempts: u32,
    /// Error code if it got no answer; `None` if it got one or was cancelled.
    pub code: Option<&'static str>,
}
