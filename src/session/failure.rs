//! Converts errors of the gateway, and of limits on work, to the failures that a call knows.
//!
//! Knows no task.

use crate::base::budget::Exceeded;
use crate::call::answer::Failed;
use crate::gateway::{Code, GatewayError};
use crate::protocol::FailureCode;

/// Converts an error of the gateway.
pub(super) fn of(error: &GatewayError) -> Failed {
    Failed { code: code(error.code()), message: error.message().to_owned(), temporary: error.temporary() }
}

/// The failure of work that exceeded a limit; `what` names the work.
pub(super) fn over(what: &str, exceeded: Exceeded) -> Failed {
    Failed {
        code: code(Code::from(exceeded)),
        message: format!("{what} is {exceeded}"),
        temporary: matches!(exceeded, Exceeded::Busy(_)),
    }
}

fn code(code: Code) -> FailureCode {
    match code {
        Code::Refused => FailureCode::Refused,
        Code::Timeout => FailureCode::Timeout,
        Code::UpstreamError => FailureCode::UpstreamError,
        Code::UpstreamAuth => FailureCode::UpstreamAuth,
        Code::RateLimited => FailureCode::RateLimited,
        Code::QuotaExhausted => FailureCode::QuotaExhausted,
        Code::Interrupted => FailureCode::Interrupted,
        Code::Malformed => FailureCode::Malformed,
        Code::SchemaMismatch => FailureCode::SchemaMismatch,
        Code::ModelNotFound => FailureCode::ModelNotFound,
        Code::Unsupported => FailureCode::Unsupported,
        Code::InvalidRequest => FailureCode::InvalidRequest,
        Code::TooComplex => FailureCode::TooComplex,
        Code::Overloaded => FailureCode::Overloaded,
        Code::BudgetExhausted => FailureCode::BudgetExhausted,
        Code::ContentFiltered => FailureCode::ContentFiltered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_and_insights_spell_codes_alike() {
        for known in Code::ALL {
            assert_eq!(code(known).as_str(), known.as_str());
        }
    }
}
