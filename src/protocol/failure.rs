//! Codes of `insight.failed`, of a call's `missing`, and of an in-stream answer that failed.
//!
//! Knows no messages: the code that finds an error writes its message.

use std::fmt;

macro_rules! failure_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why an analysis has no result. Stable; later versions may add codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FailureCode {
            $($(#[$doc])* $name,)*
        }

        impl FailureCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

failure_codes! {
    /// The connection to the vendor could not be made.
    Refused = "refused",
    /// A timeout or a deadline was reached.
    Timeout = "timeout",
    /// The vendor failed.
    UpstreamError = "upstream_error",
    /// The vendor does not accept the endpoint's key.
    UpstreamAuth = "upstream_auth",
    /// A rate limit of the configuration or of the vendor is reached.
    RateLimited = "rate_limited",
    /// The vendor's quota or spending limit is used up.
    QuotaExhausted = "quota_exhausted",
    /// The answer was cut off.
    Interrupted = "interrupted",
    /// The answer is not in the vendor's format.
    Malformed = "malformed",
    /// The answer is not valid under the requested schema.
    SchemaMismatch = "schema_mismatch",
    /// The model does not exist in the configuration or at the vendor.
    ModelNotFound = "model_not_found",
    /// The candidate cannot do what the request asks for.
    Unsupported = "unsupported",
    /// The request is invalid by the daemon's rules or the vendor's.
    InvalidRequest = "invalid_request",
    /// A prompt, a schema, an answer or its check exceeds a limit on work.
    TooComplex = "too_complex",
    /// Too many requests are waiting already, here or at the vendor.
    Overloaded = "overloaded",
    /// A spending limit is reached.
    BudgetExhausted = "budget_exhausted",
    /// The vendor withheld the answer.
    ContentFiltered = "content_filtered",
    /// The prompt does not exist, or cannot be rendered for this call.
    BadPrompt = "bad_prompt",
    /// The insight is over `limits.insight_bytes`.
    InsightTooLarge = "insight_too_large",
    /// No turn of the call has text.
    NoTurns = "no_turns",
    /// The daemon stopped before the run ended.
    Shutdown = "shutdown",
    /// `llm_gateway` is not a valid request.
    BadLlmGateway = "bad_llm_gateway",
    /// An in-stream answer and its turn together are larger than a frame may be.
    AnswerTooLarge = "answer_too_large",
    /// The stream has no call, so no model can be asked about its turns.
    NoCall = "no_call",
}

impl fmt::Display for FailureCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_codes_differ() {
        for (position, code) in FailureCode::ALL.iter().enumerate() {
            assert!(FailureCode::ALL[..position].iter().all(|other| other.as_str() != code.as_str()), "{code}");
        }
    }
}
