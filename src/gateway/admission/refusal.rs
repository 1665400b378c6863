//! Why an endpoint does not admit a request.

use std::time::Duration;

/// The limit that keeps a request out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Cause {
    /// `max_concurrency` is reached.
    Concurrency,
    /// `max_waiting` is reached.
    Waiting,
    /// `requests_per_minute` is reached.
    Requests,
    /// `tokens_per_minute` is reached.
    Tokens,
    /// A limit that the vendor reports is reached.
    Vendor,
}

impl Cause {
    /// The cause's label in metrics.
    pub(in crate::gateway) fn as_str(self) -> &'static str {
        match self {
            Self::Concurrency => "max_concurrency",
            Self::Waiting => "max_waiting",
            Self::Requests => "requests_per_minute",
            Self::Tokens => "tokens_per_minute",
            Self::Vendor => "vendor",
        }
    }
}

/// A request that was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Refusal {
    pub(in crate::gateway) cause: Cause,
    /// Time after which it may be admitted, if known.
    pub(in crate::gateway) wait: Option<Duration>,
}
