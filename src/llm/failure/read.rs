//! Reads the body and the headers of an error response, in all formats of the vendors.
//!
//! Knows no clock: a date is returned as a date.

use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use super::{Class, RetryAfter, VendorError};
use crate::llm::{json, sse, wait};

/// Codes and types of 429s and 400s after which waiting is useless: spend limits of OpenAI and Anthropic.
const EXHAUSTED: &[&str] = &[
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_usage_limit_exceeded",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "enforced_spend_limit_reached",
    "billing_error",
    "billing_hard_limit_reached",
];

/// Codes of 400s that are about the key.
const AUTH: &[&str] = &["invalid_api_key", "API_KEY_INVALID", "authentication_error", "permission_error"];

/// Reads an error response in any of the known formats: OpenAI's `{"error":{…}}`, AssemblyAI's flat and old ones,
/// Anthropic's `{"type":"error","error":{…}}`, Google's (also wrapped in a list), or no JSON at all.
pub fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> VendorError {
    let parsed: Option<Value> = json::read(body).ok().or_else(|| in_event(body));
    let parsed = parsed.map(|value| match value {
        Value::Array(mut items) if items.len() == 1 => items.remove(0),
        other => other,
    });
    let mut error = match &parsed {
        Some(value) => read_value(status, value),
        None => {
            let error = VendorError::new(status, None, describe_other(headers, body));
            let page = body.trim_ascii_start().starts_with(b"<");
            error.waiting(|| wait::in_text(&String::from_utf8_lossy(body)).filter(|_| !page))
        }
    };
    // Waiting does not help if a quota is used up, even if the vendor's servers add the header automatically.
    if let Some(after) = retry_after(headers).filter(|_| error.class != Class::Exhausted) {
        error.retry_after = Some(after);
    }
    // Anthropic's rule: a spend limit is a 429 without a time. Other vendors leave out the header for ordinary rate
    // limits too, so the code decides. `x-should-retry` overrides it (OpenAI's and Anthropic's SDKs obey it).
    match headers.get("x-should-retry").and_then(|value| value.to_str().ok()) {
        // But no header makes a retry useful if a quota is used up.
        Some("true") => error.retry = error.class != Class::Exhausted,
        Some("false") => error.retry = false,
        _ => {}
    }
    error
}

/// The JSON of an error body that is an event stream of one event.
fn in_event(body: &[u8]) -> Option<Value> {
    let mut parser = sse::Parser::default();
    parser.push(body).ok()?;
    if let Some(event) = parser.next() {
        return json::read(event.data).ok();
    }
    json::read(parser.finish()?.data).ok()
}

/// Reads an error object given as JSON, in a body or in a stream.
pub fn read_value(status: u16, value: &Value) -> VendorError {
    let inner = match value.get("error") {
        Some(Value::Object(inner)) => inner,
        _ => match value.as_object() {
            Some(outer) => outer,
            None => return VendorError::new(status, None, "an error that is not a JSON object"),
        },
    };
    let text = |key: &str| inner.get(key).and_then(Value::as_str);
    let nested = listed(value);
    let names = ["message", "error", "detail", "error_message", "error_msg", "errorMessage", "msg"];
    let said = names.iter().find_map(|name| text(name).filter(|text| !text.is_empty()));
    let said = said.or_else(|| value.pointer("/base_resp/status_msg").and_then(Value::as_str));
    let message = match (said, nested) {
        (Some(said), Some(nested)) => format!("{said}: {nested}"),
        (Some(said), None) => said.to_owned(),
        (None, nested) => nested.unwrap_or_else(|| "no message".to_owned()),
    };
    let details = inner.get("details");
    let codes: Vec<&str> = [
        text("code"),
        text("type"),
        text("error_type"),
        text("status"),
        details.and_then(|details| details.get("error_code")).and_then(Value::as_str),
        google_reason(details),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut error = VendorError::new(status, codes.first().map(|code| (*code).to_owned()), message.as_str());
    if codes.iter().any(|code| EXHAUSTED.contains(code)) || (status == 429 && message.contains("limit: 0")) {
        error = error.of_class(Class::Exhausted);
    } else if status == 400
        && (codes.iter().any(|code| AUTH.contains(code))
            || message.contains("does not have access to this LLM Gateway"))
    {
        error = error.of_class(Class::Auth);
    } else if codes.contains(&"model_not_found") {
        error = error.of_class(Class::NotFound);
    }
    error.waiting(|| wait::in_fields(value).or_else(|| wait::in_text(&message)))
}

/// The messages in a list: AssemblyAI's `metadata.errors`, and the `detail` of servers that report invalid parameters
/// by their location (Mistral, which also puts it below `message`, and vLLM).
fn listed(value: &Value) -> Option<String> {
    let list =
        ["/metadata/errors", "/detail", "/message/detail"].iter().find_map(|path| value.pointer(path)?.as_array())?;
    let said = |item: &Value| {
        if let Some(text) = item.as_str() {
            return Some(text.to_owned());
        }
        let place = item.get("loc").and_then(Value::as_array).map(|place| {
            let names = place.iter().map(|name| name.as_str().map_or_else(|| name.to_string(), str::to_owned));
            names.collect::<Vec<_>>().join(".")
        });
        let message = item.get("msg").and_then(Value::as_str)?;
        Some(place.map_or_else(|| message.to_owned(), |place| format!("{place}: {message}")))
    };
    Some(list.iter().filter_map(said).collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
}

/// `details[].reason` of a `google.rpc.ErrorInfo`.
fn google_reason(details: Option<&Value>) -> Option<&str> {
    details?.as_array()?.iter().find_map(|detail| detail.get("reason")?.as_str())
}

/// `retry-after-ms`, or else `retry-after`: seconds (also with a fraction), a duration or a date.
pub fn retry_after(headers: &HeaderMap) -> Option<RetryAfter> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok()).filter(|ms| *ms >= 0.0) {
        return Some(RetryAfter::In(millis(ms)));
    }
    wait::value(text("retry-after")?)
}

fn millis(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::MAX)
}

fn describe_other(headers: &HeaderMap, body: &[u8]) -> String {
    let kind = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("no content type");
    let head = String::from_utf8_lossy(&body[..body.len().min(64)]);
    if head.trim_start().starts_with('<') {
        return format!("an HTML or XML page of {} bytes instead of JSON", body.len());
    }
    if body.is_empty() {
        return "an empty body".to_owned();
    }
    if kind.starts_with("text/plain") {
        return String::from_utf8_lossy(body).trim().to_owned();
    }
    format!("{} bytes of {kind} that are not JSON", body.len())
}
