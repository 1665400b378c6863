//! An attempt: one HTTP call to one LLM endpoint, as the gateway reports it and the ledger keeps it.

use std::sync::Arc;

use super::CallId;

/// The least id of an attempt or a request that began at a time, Unix ms: ids grow with time, so that they find it. Where
/// the clock was set back, an id may be that of a later time, never of an earlier one.
///
/// 2^20 ids a millisecond last until the year 2248.
pub fn first_id(at_ms: i64) -> i64 {
    at_ms.clamp(0, i64::MAX >> 20) << 20
}

/// An attempt is about to be made; known before its first byte goes out.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptBegun {
    /// Unique over restarts; [`first_id`] of its time or more.
    pub id: i64,
    /// The request that it serves: attempts of one request share it.
    pub request: i64,
    /// Unix time, ms.
    pub at_ms: i64,
    /// The client's key by name; absent for our own analyses.
    pub key: Option<Arc<str>>,
    /// The call that it is about.
    pub call: Option<CallId>,
    /// The analysis that asks.
    pub analysis: Option<Arc<str>>,
    /// The route asked.
    pub route: Arc<str>,
    /// The variant of the route.
    pub variant: Arc<str>,
    /// The logical model.
    pub model: Arc<str>,
    /// The endpoint.
    pub endpoint: Arc<str>,
    /// Its wire format.
    pub provider: &'static str,
    /// The vendor's name of the model.
    pub vendor_model: Arc<str>,
    /// Which attempt of its request it is, from 1.
    pub number: u32,
    /// Why it is made: `first`, `retry`, `failover`, `hedge`, `repair`, `schema_step`.
    pub why: &'static str,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer.
    Ok,
    /// It failed before a token.
    Failed,
    /// It failed after a token.
    Partial,
    /// Nobody wanted it any more.
    Aborted,
}

impl Outcome {
    /// As in the ledger.
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
    /// That of its [`AttemptBegun`].
    pub id: i64,
    /// How.
    pub outcome: Outcome,
    /// The failure's code; absent when there is none.
    pub code: Option<&'static str>,
    /// HTTP status, where one came.
    pub status: Option<u16>,
    /// Prompt tokens; unknown is absent, never zero. So are the others.
    pub input: Option<u64>,
    /// Those of them that were read from the vendor's cache.
    pub cached: Option<u64>,
    /// Those of them that were written to it.
    pub cache_write: Option<u64>,
    /// Completion tokens.
    pub output: Option<u64>,
    /// Those of them that were reasoning.
    pub reasoning: Option<u64>,
    /// Cost in pico-dollars (1e-12 USD).
    pub cost_pico: Option<i64>,
    /// From the request to the first token, us.
    pub first_token_us: Option<u64>,
    /// From the request to its end, us.
    pub total_us: u64,
}

/// A request is over: no further attempt is made for it. The last one may still be giving its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestDone {
    /// What its attempts share.
    pub id: i64,
    /// When it came, Unix time, ms.
    pub at_ms: i64,
    /// The client's key by name.
    pub key: Option<Arc<str>>,
    /// The call that it is about.
    pub call: Option<CallId>,
    /// The analysis that asks.
    pub analysis: Option<Arc<str>>,
    /// The route asked.
    pub route: Arc<str>,
    /// The variant of the route.
    pub variant: Arc<str>,
    /// The logical model.
    pub model: Arc<str>,
    /// HTTP calls made for it.
    pub attempts: u32,
    /// Why it has no answer; `None` where it has one, or nobody wanted it any more.
    pub code: Option<&'static str>,
}
