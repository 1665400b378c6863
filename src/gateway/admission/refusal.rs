//! Why an endpoint does not admit a request.

use std::time::Duration;

/// The limit that keeps a request out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Cause {
    /// `max_concurrency`
    Concurrency,
    /// `max_waiting`
    Waiting,
    /// `requests_per_minute`
    Requests,
    /// `tokens_per_minute`
    Tokens,
    /// A limit that the vendor reports.
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
