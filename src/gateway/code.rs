//! The gateway's stable error codes.

use crate::base::budget::Exceeded;
use crate::llm::Class;

/// Why a request has no answer, or an attempt failed. The names are part of the wire contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The connection to the vendor could not be made.
    Refused,
    /// A timeout or the deadline was reached.
    Timeout,
    /// The vendor failed.
    UpstreamError,
    /// The vendor does not accept the endpoint's key.
    UpstreamAuth,
    /// A rate limit of the configuration or of the vendor is reached.
    RateLimited,
    /// The vendor's quota or spending limit is used up.
    QuotaExhausted,
    /// The answer was cut off.
    Interrupted,
    /// The answer is not in the vendor's format.
    Malformed,
    /// The answer is not valid under the requested schema.
    SchemaMismatch,
    /// The model does not exist in the configuration or at the vendor.
    ModelNotFound,
    /// The candidate cannot do what the request asks for.
    Unsupported,
    /// The request is invalid by the daemon's rules or the vendor's.
    InvalidRequest,
    /// A schema, an answer or its check exceeds a limit on work.
    TooComplex,
    /// An endpoint, or this daemon, has no capacity now.
    Overloaded,
    /// A spending limit is reached.
    BudgetExhausted,
    /// The vendor withheld the answer.
    ContentFiltered,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 16] = [
        Self::Refused,
        Self::Timeout,
        Self::UpstreamError,
        Self::UpstreamAuth,
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::Interrupted,
        Self::Malformed,
        Self::SchemaMismatch,
        Self::ModelNotFound,
        Self::Unsupported,
        Self::InvalidRequest,
        Self::TooComplex,
        Self::Overloaded,
        Self::BudgetExhausted,
        Self::ContentFiltered,
    ];

    /// The code with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// The name on the wire, in the ledger and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamAuth => "upstream_auth",
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Interrupted => "interrupted",
            Self::Malformed => "malformed",
            Self::SchemaMismatch => "schema_mismatch",
            Self::ModelNotFound => "model_not_found",
            Self::Unsupported => "unsupported",
            Self::InvalidRequest => "invalid_request",
            Self::TooComplex => "too_complex",
            Self::Overloaded => "overloaded",
            Self::BudgetExhausted => "budget_exhausted",
            Self::ContentFiltered => "content_filtered",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl From<Class> for Code {
    fn from(class: Class) -> Self {
        match class {
            Class::Invalid => Self::InvalidRequest,
            Class::Auth => Self::UpstreamAuth,
            Class::NotFound => Self::ModelNotFound,
            Class::RateLimited => Self::RateLimited,
            Class::Exhausted => Self::QuotaExhausted,
            Class::Upstream => Self::UpstreamError,
        }
    }
}

impl From<Exceeded> for Code {
    fn from(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::Limit(_) | Exceeded::Stopped => Self::TooComplex,
            Exceeded::Busy(_) => Self::Overloaded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::budget::Bound;

    #[test]
    fn work_over_a_limit_has_the_code_that_its_own_error_has() {
        let bound = Bound::new("test_steps", 1);
        for exceeded in [Exceeded::Limit(bound), Exceeded::Busy(bound), Exceeded::Stopped] {
            assert_eq!(Code::from(exceeded).as_str(), exceeded.code());
        }
    }
}
