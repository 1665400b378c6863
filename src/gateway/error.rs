//! Errors of a request, with the gateway's stable codes. Does not know which HTTP status our own API answers with.

use std::sync::Arc;
use std::time::Duration;

use super::config::EndpointConfig;
use super::gate::{Cause, Refusal};
use crate::llm::{Class, VendorError};

/// An attempt that failed, or a candidate that was passed over without an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptFailure {
    pub endpoint: Arc<str>,
    /// The vendor's name for the model.
    pub model: Arc<str>,
    /// HTTP status, if a response arrived.
    pub status: Option<u16>,
    /// Stable code, see [`GatewayError::code`].
    pub code: &'static str,
    /// Why the attempt was made: `first`, `retry`, `failover`, `hedge`, `repair`, `schema_step`; `None` if the
    /// candidate was passed over without an attempt.
    pub why: Option<&'static str>,
    /// What happened; may contain the vendor's words. Meant for the caller, not for third parties.
    pub message: String,
}

impl AttemptFailure {
    /// An answer that arrived complete but does not match the schema.
    pub(crate) fn mismatch(endpoint: Arc<str>, model: Arc<str>, why: Option<&'static str>) -> Self {
        let message = "the answer is not valid under the schema".to_owned();
        Self { endpoint, model, status: Some(200), code: "schema_mismatch", why, message }
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {}", .0.code, .0.message)]
pub struct GatewayError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: &'static str,
    message: String,
    temporary: bool,
    param: Option<String>,
    retry_after: Option<Duration>,
    attempts: Vec<AttemptFailure>,
    waited: Duration,
}

impl GatewayError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
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

    pub(super) fn temporarily(mut self) -> Self {
        self.0.temporary = true;
        self
    }

    pub(super) fn with_attempts(mut self, attempts: Vec<AttemptFailure>) -> Self {
        self.0.attempts = attempts;
        self
    }

    pub(super) fn with_waited(mut self, waited: Duration) -> Self {
        self.0.waited = waited;
        self
    }

    pub(super) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after;
        self
    }

    pub(super) fn with_param(mut self, param: Option<String>) -> Self {
        self.0.param = param;
        self
    }

    /// Stable code: `refused`, `timeout`, `upstream_error`, `upstream_auth`, `rate_limited`, `quota_exhausted`,
    /// `interrupted`, `malformed`, `schema_mismatch`, `model_not_found`, `unsupported`, `invalid_request`,
    /// `too_complex`, `overloaded`, `budget_exhausted`, `content_filtered`.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// What happened, in our own words: contains no text of a call, no words of a vendor and no secret.
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

/// A failure of one attempt, as the scheduler sees it.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) status: Option<u16>,
    pub(super) message: String,
    /// True if the same candidate may succeed when it is asked again a little later.
    pub(super) retry: bool,
    /// Wait before that retry, where it is known.
    pub(super) retry_after: Option<Duration>,
    /// True if the failure counts against the endpoint (for its circuit breaker), not against the request.
    pub(super) counts: bool,
    /// True if a later request may succeed.
    pub(super) temporary: bool,
    /// True if the vendor may have failed because it does not support the schema mode that was used.
    pub(super) maybe_schema: bool,
    /// True if nothing was sent and the message is our own.
    pub(super) unsent: bool,
}

impl Failure {
    pub(super) fn timeout(what: &str, after: Duration) -> Self {
        Self {
            code: "timeout",
            status: None,
            message: format!("{what} within {} ms", after.as_millis()),
            retry: false,
            retry_after: None,
            counts: true,
            temporary: true,
            maybe_schema: false,
            unsent: false,
        }
    }

    pub(super) fn transport(code: &'static str, message: impl Into<String>) -> Self {
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

    /// A failure at this candidate that the request itself caused.
    pub(super) fn request(code: &'static str, message: impl Into<String>) -> Self {
        Self { retry: false, counts: false, temporary: false, ..Self::transport(code, message) }
    }

    /// The endpoint has no capacity now; nothing was sent.
    pub(super) fn busy(code: &'static str, message: impl Into<String>) -> Self {
        Self { retry: false, counts: false, unsent: true, ..Self::transport(code, message) }
    }

    /// A refusal by an endpoint's gate; the message names the limit.
    pub(super) fn no_room(endpoint: &EndpointConfig, refusal: Refusal) -> Self {
        let EndpointConfig { name, limits, .. } = endpoint;
        let count = |limit: Option<u64>| limit.map_or_else(String::new, |limit| limit.to_string());
        let in_ms = refusal.wait.unwrap_or_default().as_millis();
        let (code, message) = match refusal.cause {
            Cause::Places => {
                let (within, places) = (limits.max_wait.as_millis(), limits.places.unwrap_or_default());
                ("overloaded", format!("no place within {within} ms: endpoints.{name}.max_concurrency is {places}"))
            }
            Cause::Waiting => (
                "overloaded",
                format!("not asked: endpoints.{name}.max_waiting is {}, and so many wait", limits.max_waiting),
            ),
            Cause::Requests => {
                let limit = count(limits.requests);
                (
                    "rate_limited",
                    format!("not asked: endpoints.{name}.requests_per_minute is {limit}; room in {in_ms} ms"),
                )
            }
            Cause::Tokens => {
                let limit = count(limits.tokens);
                (
                    "rate_limited",
                    format!("not asked: endpoints.{name}.tokens_per_minute is {limit}; room in {in_ms} ms"),
                )
            }
            Cause::Vendor => {
                ("rate_limited", format!("not asked: by the vendor's word {name} has no room for {in_ms} ms"))
            }
        };
        Self { retry_after: refusal.wait, ..Self::busy(code, message) }
    }

    pub(super) fn vendor(error: VendorError, retry_after: Option<Duration>) -> Self {
        let code = match error.class {
            Class::Invalid => "invalid_request",
            Class::Auth => "upstream_auth",
            Class::NotFound => "model_not_found",
            Class::RateLimited => "rate_limited",
            Class::Exhausted => "quota_exhausted",
            Class::Upstream => "upstream_error",
        };
        Self {
            code,
            status: Some(error.status),
            message: error.message,
            retry: error.retry,
            retry_after,
            counts: matches!(error.class, Class::Upstream | Class::Auth | Class::Exhausted),
            temporary: matches!(error.class, Class::RateLimited | Class::Upstream | Class::Exhausted),
            maybe_schema: matches!(error.status, 400 | 422 | 500),
            unsent: false,
        }
    }
}
