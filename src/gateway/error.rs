//! Errors of a request and failures of its attempts. Knows no HTTP status of the daemon's own API, and not which limit
//! or endpoint caused a failure.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::code::Code;
use crate::base::http::{HttpError, Kind};
use crate::llm::complete::Incomplete;
use crate::llm::{Class, RequestError, VendorError};
use crate::types::Why;

/// An attempt that failed, or a candidate that was passed over without an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptFailure {
    pub endpoint: Arc<str>,
    /// The vendor's name for the model.
    pub model: Arc<str>,
    /// HTTP status, if a response arrived.
    pub status: Option<u16>,
    pub code: Code,
    /// Why the attempt was made; `None` if the candidate was passed over without an attempt.
    pub why: Option<Why>,
    /// What happened. May contain text of the vendor, so it is shown only to the caller.
    pub message: String,
}

impl AttemptFailure {
    /// An answer that arrived complete but does not match the schema.
    pub(in crate::gateway) fn mismatch(endpoint: Arc<str>, model: Arc<str>, why: Option<Why>) -> Self {
        let message = "the answer is not valid under the schema".to_owned();
        Self { endpoint, model, status: Some(200), code: Code::SchemaMismatch, why, message }
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {}", .0.code, .0.message)]
pub struct GatewayError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: Code,
    message: String,
    temporary: bool,
    param: Option<String>,
    retry_after: Option<Duration>,
    attempts: Vec<AttemptFailure>,
    waited: Duration,
}

impl GatewayError {
    pub(in crate::gateway) fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            temporary: false,
            param: None,
            retry_after: None,
            attempts: Vec::new(),
            waited: Duration::ZERO,
        }))
    }

    pub(in crate::gateway) fn temporarily(mut self) -> Self {
        self.0.temporary = true;
        self
    }

    pub(in crate::gateway) fn with_attempts(mut self, attempts: Vec<AttemptFailure>) -> Self {
        self.0.attempts = attempts;
        self
    }

    pub(in crate::gateway) fn with_waited(mut self, waited: Duration) -> Self {
        self.0.waited = waited;
        self
    }

    pub(in crate::gateway) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after;
        self
    }

    pub(in crate::gateway) fn with_param(mut self, param: Option<String>) -> Self {
        self.0.param = param;
        self
    }

    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What happened, without any text of a call or of a vendor and without a secret.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns true if the same request may succeed later without a change.
    pub fn temporary(&self) -> bool {
        self.0.temporary
    }

    /// The field of the request that is invalid.
    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    /// Time after which a retry may succeed, where a vendor, a circuit breaker or a limit gives one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Total time spent waiting for the network and the vendors.
    pub fn waited(&self) -> Duration {
        self.0.waited
    }

    /// Every failed attempt and every candidate that was passed over, in order.
    pub fn attempts(&self) -> &[AttemptFailure] {
        &self.0.attempts
    }
}

impl From<RequestError> for GatewayError {
    fn from(error: RequestError) -> Self {
        Self::new(Code::InvalidRequest, error.message).with_param(error.param)
    }
}

/// A failure of one attempt, as the scheduler sees it.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Failure {
    pub(in crate::gateway) code: Code,
    pub(in crate::gateway) status: Option<u16>,
    pub(in crate::gateway) message: String,
    /// True if the same candidate may succeed when it is asked again a little later.
    pub(in crate::gateway) retry: bool,
    /// Wait before that retry, where it is known.
    pub(in crate::gateway) retry_after: Option<Duration>,
    /// True if the failure counts against the endpoint (for its circuit breaker), not against the request.
    pub(in crate::gateway) counts: bool,
    /// True if a later request may succeed.
    pub(in crate::gateway) temporary: bool,
    /// True if the vendor may have failed because it does not support the schema mode that was used.
    pub(in crate::gateway) maybe_schema: bool,
    /// True if nothing was sent and the message contains no text of the vendor.
    pub(in crate::gateway) unsent: bool,
}

impl Failure {
    pub(in crate::gateway) fn transport(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            status: None,
            message: message.into(),
            retry: true,
            retry_after: None,
            counts: true,
            temporary: true,
            maybe_schema: false,
            unsent: false,
        }
    }

    pub(in crate::gateway) fn timeout(what: &str, after: Duration) -> Self {
        let message = format!("{what} within {} ms", after.as_millis());
        Self { retry: false, ..Self::transport(Code::Timeout, message) }
    }

    pub(in crate::gateway) fn malformed(message: impl Into<String>) -> Self {
        Self::transport(Code::Malformed, message)
    }

    /// A failure at this candidate that the request itself caused.
    pub(in crate::gateway) fn request(code: Code, message: impl Into<String>) -> Self {
        Self { retry: false, counts: false, temporary: false, ..Self::transport(code, message) }
    }

    /// The endpoint has no capacity now; nothing was sent.
    pub(in crate::gateway) fn busy(code: Code, message: impl Into<String>) -> Self {
        Self { retry: false, counts: false, unsent: true, ..Self::transport(code, message) }
    }
}

/// A vendor's error, with the retry time that it may carry.
impl From<VendorError> for Failure {
    fn from(error: VendorError) -> Self {
        Self {
            code: Code::from(error.class),
            status: Some(error.status),
            retry: error.retry,
            retry_after: error.retry_after.map(|after| after.wait(SystemTime::now())),
            counts: matches!(error.class, Class::Upstream | Class::Auth | Class::Exhausted),
            temporary: matches!(error.class, Class::RateLimited | Class::Upstream | Class::Exhausted),
            maybe_schema: matches!(error.status, 400 | 422 | 500),
            message: error.message,
            unsent: false,
        }
    }
}

/// An answer that its vendor did not complete.
impl From<&Incomplete> for Failure {
    fn from(why: &Incomplete) -> Self {
        let code = if matches!(why, Incomplete::Unread(_)) { Code::Malformed } else { Code::Interrupted };
        Self::transport(code, why.to_string())
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let message = error.to_string();
        match error.kind() {
            Kind::Refused => Self::transport(Code::Refused, message),
            // The connection timed out, not the model: the same candidate may answer if it is asked again at once.
            Kind::ConnectTimeout => Self::transport(Code::Timeout, message),
            Kind::Tls => Self { retry: false, ..Self::transport(Code::UpstreamError, message) },
            Kind::NoClient | Kind::NoAnswer => Self::transport(Code::UpstreamError, message),
            Kind::Cut => Self::transport(Code::Interrupted, message),
            Kind::TooLong => Self::malformed(message),
        }
    }
}
