//! Codes of `insight.failed`, of a call's `missing`, and of an in-stream answer that failed.
//!
//! Knows no message: what went wrong is said where it is found.

use std::fmt;

macro_rules! failure_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why an analysis has no result. Stable; later versions may add codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FailureCode {
            $($(#[$doc])* $name,)*
        }

        impl FailureCode {
            /// All of them.
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
    /// No connection to the vendor.
    Refused = "refused",
    /// A timeout or a deadline ended it.
    Timeout = "timeout",
    /// The vendor failed.
    UpstreamError = "upstream_error",
    /// The vendor does not accept the endpoint's key.
    UpstreamAuth = "upstream_auth",
    /// A rate limit, of the configuration or of the vendor.
    RateLimited = "rate_limited",
    /// The vendor's quota or spending limit is used up.
    QuotaExhausted = "quota_exhausted",
    /// The answer was cut off.
    Interrupted = "interrupted",
    /// The answer is not in the vendor's format.
    Malformed = "malformed",
    /// The answer is not valid under the requested schema.
    SchemaMismatch = "schema_mismatch",
    /// No such model, here or at the vendor.
    ModelNotFound = "model_not_found",
    /// The candidate cannot do what the request asks for.
    Unsupported = "unsupported",
    /// The request is invalid, by our own rules or the vendor's.
    InvalidRequest = "invalid_request",
    /// A prompt, a schema, an answer or its check is over a limit on work.
    TooComplex = "too_complex",
    /// Too much waits already, here or at the vendor.
    Overloaded = "overloaded",
    /// A cap on money is reached.
    BudgetExhausted = "budget_exhausted",
    /// The vendor withheld the answer.
    ContentFiltered = "content_filtered",
    /// The prompt does not exist, or cannot be rendered for this call.
    BadPrompt = "bad_prompt",
    /// The insight is over `limits.insight_bytes`.
    InsightTooLarge = "insight_too_large",
    /// No turn of the call has text.
    NoTurns = "no_turns",
    /// The daemon stopped meanwhile.
    Shutdown = "shutdown",
    /// `llm_gateway` is not a question.
    BadLlmGateway = "bad_llm_gateway",
    /// An in-stream answer and its turn are larger than a frame may be.
    AnswerTooLarge = "answer_too_large",
    /// The stream has no call, so nobody can be asked about its turns.
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
