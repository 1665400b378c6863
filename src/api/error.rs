//! HTTP errors, and the successful responses that are not 200. The only module that knows status codes. Errors are
//! problem documents (RFC 9457), except on the paths of the gateway that follow OpenAI's API.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::auth::Refusal;
use super::body::BodyError;
use crate::base::inflight::Exceeded;
use crate::gateway::{AttemptFailure, Code, GatewayError};
use crate::llm::RequestError;
use crate::types::{CallId, Why};

/// Error code of requests over `limits.inflight_bytes`.
const INFLIGHT_BYTES: &str = "inflight_bytes";

/// 202: the work continues; `body` says how to learn of its end.
pub(super) fn accepted(body: impl IntoResponse) -> Response {
    (StatusCode::ACCEPTED, body).into_response()
}

/// A response with status 204.
pub(super) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// 422: an invalid parameter, in the STT vendor's own format.
pub(super) fn unprocessable(body: impl IntoResponse) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
}

/// The response of a vendor, unchanged.
pub(super) fn relayed(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Adds the header to a 401 that says how to send a key.
fn name_scheme(response: &mut Response) {
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
}

/// An error response as a problem document.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after_s: Option<u64>,
}

/// Adds the methods that a path takes to the body of a 405, as its `Allow` header already names them.
pub(super) fn name_methods(response: Response, is_chat: bool) -> Response {
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    let Some(allow) = response.headers().get(ALLOW).cloned() else { return response };
    let methods = allow.to_str().unwrap_or_default().replace(',', ", ");
    let mut answer = if is_chat {
        let message = format!("this path accepts {methods}");
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

    /// 400: says what was wrong, where, and what is allowed.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401: no key, or an unknown one.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    /// 401 or 403: the request's key was refused.
    pub fn refused(refusal: &Refusal) -> Self {
        if refusal.known {
            Self::forbidden(refusal.code().as_str(), refusal.message.clone())
        } else {
            Self::unauthenticated(refusal.message.clone())
        }
    }

    /// Status 403: the key or the origin is not allowed.
    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// Status 404.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// Status 405. `allowed` names the methods that the path accepts.
    pub fn method_not_allowed(allowed: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("this path accepts {allowed}"))
    }

    /// Status 409: the request does not fit the state of the call.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// Status 410: the call existed, but retention has deleted it.
    pub fn gone(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, code, detail)
    }

    /// Status 413, 408, 503 or 400: the body could not be read.
    pub(super) fn no_body(error: BodyError) -> Self {
        match error {
            BodyError::TooLong(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", error.to_string()),
            BodyError::Cut => Self::bad_request("bad_body", error.to_string()),
            BodyError::Timeout(_) => Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", error.to_string()),
            BodyError::InFlight(exceeded) => Self::in_flight(exceeded),
        }
    }

    /// Status 413 if the connection alone would have too many bytes in flight, else 503.
    pub(super) fn in_flight(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::PerHolder { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, INFLIGHT_BYTES, exceeded.to_string())
            }
            Exceeded::Total { .. } => Self::unavailable(INFLIGHT_BYTES, exceeded.to_string()),
        }
    }

    /// Status 415: the body is not uncompressed JSON.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// Status 500: an error of the daemon itself.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// 502: an LLM failed or gave an unusable answer.
    pub fn upstream(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, code, detail)
    }

    /// 503 with `retry-after`.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }
}

impl ApiError {
    /// The complete bytes of an HTTP/1.1 response, for a connection that is refused before the HTTP library serves it.
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

/// An error in OpenAI's format: `{"error":{message, type, param, code}}`, with `attempts` if any were made.
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
        "code": attempt.code.as_str(), "why": attempt.why.map(Why::as_str), "message": attempt.message,
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

    /// 400: the field `param` is invalid.
    pub fn bad_request(param: Option<&str>, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request", message);
        Self { param: param.map(str::to_owned), ..error }
    }

    /// 400: the request is not a valid chat request.
    pub fn request(error: &RequestError) -> Self {
        Self::bad_request(error.param.as_deref(), error.message.clone())
    }

    /// 401 or 403: the request's key was refused.
    pub fn refused(refusal: &Refusal) -> Self {
        let status = if refusal.known { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        Self::new(status, refusal.code().as_str(), refusal.message.clone())
    }

    /// 404: no call has this id.
    pub fn unknown_call(call: &CallId) -> Self {
        let error = Self::new(StatusCode::NOT_FOUND, "unknown_call", format!("transcript.call_id: no call {call}"));
        Self { param: Some("transcript.call_id".to_owned()), ..error }
    }

    /// As [`ApiError::no_body`].
    pub(super) fn no_body(error: BodyError) -> Self {
        ApiError::no_body(error).into()
    }

    /// Status 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// The response for an error of the gateway.
    ///
    /// If one candidate was asked, the status follows the vendor's own, except that 401, 403 and 402 concern the
    /// daemon's key and not the caller's. If several were asked, the status is 502, or 504 if the last attempt ended by
    /// a timeout.
    pub fn gateway(error: &GatewayError) -> Self {
        let attempts = error.attempts();
        let one = attempts.first().is_some_and(|first| {
            attempts.iter().all(|other| (&other.endpoint, &other.model) == (&first.endpoint, &first.model))
        });
        let vendors = attempts.last().and_then(|last| last.status).filter(|_| one);
        let status = match (error.code(), vendors) {
            (Code::InvalidRequest | Code::Unsupported | Code::TooComplex, None) if attempts.is_empty() => {
                StatusCode::BAD_REQUEST
            }
            (Code::ModelNotFound, None) if attempts.is_empty() => StatusCode::NOT_FOUND,
            (Code::BudgetExhausted, _) => StatusCode::PAYMENT_REQUIRED,
            (Code::Overloaded, _) => StatusCode::SERVICE_UNAVAILABLE,
            (Code::Timeout, _) => StatusCode::GATEWAY_TIMEOUT,
            (Code::Unsupported, _) if one => StatusCode::BAD_REQUEST,
            (Code::InvalidRequest | Code::ModelNotFound | Code::RateLimited | Code::UpstreamError, Some(status)) => {
                StatusCode::from_u16(status)
                    .ok()
                    .filter(|status| status.as_u16() >= 400)
                    .unwrap_or(StatusCode::BAD_GATEWAY)
            }
            (Code::QuotaExhausted, Some(429)) => StatusCode::TOO_MANY_REQUESTS,
            // The request was not sent, because the vendor had said when it accepts requests again.
            (Code::RateLimited, None) if one => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self {
            status,
            code: error.code().as_str(),
            param: error.param().map(str::to_owned),
            message: with_the_vendors_words(error),
            attempts: attempts.iter().map(attempt).collect(),
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

/// The message, followed by what the vendor says about the request: many clients show only the message.
fn with_the_vendors_words(error: &GatewayError) -> String {
    let of_the_request = matches!(error.code(), Code::InvalidRequest | Code::Unsupported | Code::ModelNotFound);
    let last = error.attempts().last().filter(|last| last.status.is_some() && !last.message.is_empty());
    match last.filter(|_| of_the_request) {
        Some(last) => format!("{}: {}", error.message(), last.message),
        None => error.message().to_owned(),
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Body::from(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // The gateway has already retried such a request, so a retry by the client would not help.
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
