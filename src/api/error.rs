//! HTTP errors, and the two good answers that are not 200: the only place that knows status codes. Problem documents (RFC 9457) everywhere but on the gateway's
//! OpenAI-shaped paths.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::auth::Refusal;
use super::body::BodyError;
use crate::base::budget::{Exceeded as OverBudget, TOO_COMPLEX};
use crate::base::inflight::Exceeded;
use crate::gateway::{AttemptFailure, GatewayError};
use crate::llm::RequestError;
use crate::types::CallId;

/// Error code for `limits.inflight_bytes`.
const INFLIGHT_BYTES: &str = "inflight_bytes";

/// 202: the work goes on, `body` says how to hear of its end.
pub(super) fn accepted(body: impl IntoResponse) -> Response {
    (StatusCode::ACCEPTED, body).into_response()
}

/// 204: done, nothing to say.
pub(super) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// 422: the STT vendor's own form of a wrong parameter.
pub(super) fn unprocessable(body: impl IntoResponse) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
}

/// What a vendor answered, as it came.
pub(super) fn relayed(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// A 401 says how a key comes.
fn name_scheme(response: &mut Response) {
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
}

/// An answer that is a problem document.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after_s: Option<u64>,
}

/// The answer to another method than a path takes says which it takes, as its `Allow` header does.
pub(super) fn name_methods(response: Response, is_chat: bool) -> Response {
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    let Some(allow) = response.headers().get(ALLOW).cloned() else { return response };
    let methods = allow.to_str().unwrap_or_default().replace(',', ", ");
    let mut answer = if is_chat {
        let message = format!("this path takes {methods}");
        OpenAiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).into_response()
    } else {
        ApiError::method_not_allowed(&methods).into_response()
    };
    answer.headers_mut().insert(ALLOW, allow);
    answer
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after_s: None }
    }

    /// 400: what was wrong, where, and what is allowed.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401: no key, or one that is not known.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    /// 401 or 403: the request's key.
    pub fn refused(refusal: &Refusal) -> Self {
        if refusal.known {
            Self::forbidden(refusal.code(), refusal.message.clone())
        } else {
            Self::unauthenticated(refusal.message.clone())
        }
    }

    /// 403.
    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// 404.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 405.
    pub fn method_not_allowed(allowed: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("this path takes {allowed}"))
    }

    /// 409: not in this state.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 410: was there and has left retention.
    pub fn gone(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, code, detail)
    }

    /// 413, 408, 503 or 400: the body could not be read.
    pub(super) fn no_body(error: BodyError) -> Self {
        match error {
            BodyError::TooLong(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", error.to_string()),
            BodyError::Cut => Self::bad_request("bad_body", error.to_string()),
            BodyError::Timeout(_) => Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", error.to_string()),
            BodyError::InFlight(exceeded) => Self::in_flight(exceeded),
        }
    }

    /// 413 if the connection alone would have too many bytes in flight, else 503.
    pub(super) fn in_flight(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::PerHolder { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, INFLIGHT_BYTES, exceeded.to_string())
            }
            Exceeded::Total { .. } => Self::unavailable(INFLIGHT_BYTES, exceeded.to_string()),
        }
    }

    /// 415.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// 500: a fault of ours.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// 502: an LLM did not answer as asked.
    pub fn upstream(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, code, detail)
    }

    /// 503 with `retry-after`.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }
}

impl ApiError {
    /// The bytes of an HTTP/1.1 answer, for a connection that is refused before it is served.
    pub fn to_http1(&self) -> Vec<u8> {
        let body = self.document();
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
             retry-after: {}\r\nconnection: close\r\n\r\n{body}",
            self.status.as_u16(),
            self.status.canonical_reason().unwrap_or("error"),
            body.len(),
            self.retry_after_s.unwrap_or(1),
        )
        .into_bytes()
    }

    fn document(&self) -> String {
        serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        })
        .to_string()
    }
}

/// An answer of OpenAI's shape: `{"error":{message, type, param, code}}`, with `attempts` where any were made.
#[derive(Debug)]
pub struct OpenAiError {
    status: StatusCode,
    code: &'static str,
    param: Option<String>,
    message: String,
    attempts: Vec<serde_json::Value>,
    retry_after: Option<Duration>,
}

fn attempt(attempt: &AttemptFailure) -> serde_json::Value {
    serde_json::json!({
        "endpoint": &*attempt.endpoint, "model": &*attempt.model, "status": attempt.status,
        "code": attempt.code, "why": attempt.why, "message": attempt.message,
    })
}

impl From<ApiError> for OpenAiError {
    fn from(error: ApiError) -> Self {
        let retry_after = error.retry_after_s.map(Duration::from_secs);
        Self { retry_after, ..Self::new(error.status, error.code, error.detail) }
    }
}

impl OpenAiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, param: None, message: message.into(), attempts: Vec::new(), retry_after: None }
    }

    /// 400 at a field.
    pub fn bad_request(param: Option<&str>, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request", message);
        Self { param: param.map(str::to_owned), ..error }
    }

    /// 400: the request is none.
    pub fn request(error: &RequestError) -> Self {
        Self::bad_request(error.param.as_deref(), error.message.clone())
    }

    /// 401 or 403: the request's key.
    pub fn refused(refusal: &Refusal) -> Self {
        let status = if refusal.known { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        Self::new(status, refusal.code(), refusal.message.clone())
    }

    /// 404: no such call.
    pub fn unknown_call(call: &CallId) -> Self {
        let error = Self::new(StatusCode::NOT_FOUND, "unknown_call", format!("transcript.call_id: no call {call}"));
        Self { param: Some("transcript.call_id".to_owned()), ..error }
    }

    /// As [`ApiError::no_body`].
    pub(super) fn no_body(error: BodyError) -> Self {
        ApiError::no_body(error).into()
    }

    /// 502: an answer that no repair makes JSON.
    pub fn unrepairable(last: &AttemptFailure, before: &[GatewayError]) -> Self {
        let message = "json-repair: the answer cannot be made JSON without guessing";
        let attempts = before.iter().flat_map(GatewayError::attempts).chain([last]).map(attempt).collect();
        Self { attempts, ..Self::new(StatusCode::BAD_GATEWAY, "schema_mismatch", message) }
    }

    /// 502: an answer that takes too much to repair.
    pub fn unrepaired(exceeded: OverBudget, last: AttemptFailure, before: &[GatewayError]) -> Self {
        let message = format!("json-repair: the answer is {exceeded}");
        let last = AttemptFailure { code: exceeded.code(), message: message.clone(), ..last };
        let attempts = before.iter().flat_map(GatewayError::attempts).chain([&last]).map(attempt).collect();
        Self { attempts, ..Self::new(StatusCode::BAD_GATEWAY, exceeded.code(), message) }
    }

    /// 400: a fallback is no request that can be asked.
    pub fn fallback(position: usize, error: &GatewayError) -> Self {
        let param = format!("fallbacks[{position}].{}", error.param().unwrap_or_default());
        let message = format!("fallbacks[{position}]: {}", error.message());
        let code = if error.code() == TOO_COMPLEX { TOO_COMPLEX } else { "invalid_request" };
        Self { code, ..Self::bad_request(Some(param.trim_end_matches('.')), message) }
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// What the gateway says; `before` are the errors of the requests that this one was a fallback for.
    ///
    /// With one candidate the vendor's own class stands, but that 401, 403 and 402 are about our key and not the
    /// caller's; with several it is 502, or 504 where the last attempt ended by a clock.
    pub fn gateway(error: &GatewayError, before: &[GatewayError]) -> Self {
        let attempts: Vec<&AttemptFailure> =
            before.iter().flat_map(GatewayError::attempts).chain(error.attempts()).collect();
        let one = attempts.first().is_some_and(|first| {
            attempts.iter().all(|other| (&other.endpoint, &other.model) == (&first.endpoint, &first.model))
        });
        let vendors = attempts.last().and_then(|last| last.status).filter(|_| one);
        let status = match (error.code(), vendors) {
            ("invalid_request" | "unsupported" | TOO_COMPLEX, None) if attempts.is_empty() => StatusCode::BAD_REQUEST,
            ("model_not_found", None) if attempts.is_empty() => StatusCode::NOT_FOUND,
            ("budget_exhausted", _) => StatusCode::PAYMENT_REQUIRED,
            ("overloaded", _) => StatusCode::SERVICE_UNAVAILABLE,
            ("timeout", _) => StatusCode::GATEWAY_TIMEOUT,
            ("unsupported", _) if one => StatusCode::BAD_REQUEST,
            ("invalid_request" | "model_not_found" | "rate_limited" | "upstream_error", Some(status)) => {
                StatusCode::from_u16(status)
                    .ok()
                    .filter(|status| status.as_u16() >= 400)
                    .unwrap_or(StatusCode::BAD_GATEWAY)
            }
            ("quota_exhausted", Some(429)) => StatusCode::TOO_MANY_REQUESTS,
            // Not asked, for the vendor said when to come back.
            ("rate_limited", None) if one => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self {
            status,
            code: error.code(),
            param: error.param().map(str::to_owned),
            message: with_the_vendors_words(error, attempts.last().copied()),
            attempts: attempts.into_iter().map(attempt).collect(),
            retry_after: error.retry_after(),
        }
    }

    /// The JSON document.
    pub fn body(&self) -> String {
        let kind = match self.status.as_u16() {
            400 | 404 | 405 | 408 | 413 | 415 | 422 => "invalid_request_error",
            401 => "authentication_error",
            402 => "insufficient_quota",
            403 => "permission_error",
            429 => "rate_limit_error",
            _ => "api_error",
        };
        let mut error = serde_json::json!({
            "message": self.message, "type": kind, "param": self.param, "code": self.code,
        });
        if !self.attempts.is_empty() {
            error["attempts"] = serde_json::Value::Array(self.attempts.clone());
        }
        serde_json::json!({ "error": error }).to_string()
    }
}

/// Many clients show the message alone: what the vendor says of the request stands in it.
fn with_the_vendors_words(error: &GatewayError, last: Option<&AttemptFailure>) -> String {
    let of_the_request = matches!(error.code(), "invalid_request" | "unsupported" | "model_not_found");
    match last.filter(|last| of_the_request && last.status.is_some() && !last.message.is_empty()) {
        Some(last) => format!("{}: {}", error.message(), last.message),
        None => error.message().to_owned(),
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Body::from(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // A request that was retried here already gains nothing by the client's own retries.
        let retry = HeaderValue::from_static(if self.retry_after.is_some() { "true" } else { "false" });
        headers.insert(http::HeaderName::from_static("x-should-retry"), retry);
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs() + u64::from(after.subsec_nanos() > 0)));
        }
        name_scheme(&mut response);
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let document = self.document();
        let mut response = (self.status, Body::from(document)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        name_scheme(&mut response);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
