//! Vendors' refusals: their class, if a retry can help, and when.
//!
//! Knows no clock: a date in `retry-after` is returned as a date.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde_json::Value;

use super::{json, sse, wait};

/// Longest message of a vendor that is kept, in bytes.
const MAX_MESSAGE_BYTES: usize = 500;

/// The class of a failure. It decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The vendor does not accept this request: no retry, but another candidate may accept it.
    Invalid,
    /// Our key is not accepted, or not for this request.
    Auth,
    /// The vendor does not have this model.
    NotFound,
    /// Too many requests or tokens at the moment.
    RateLimited,
    /// A quota or spending limit is used up: waiting does not help soon.
    Exhausted,
    /// A failure at the vendor: 5xx, 529, 408, 409.
    Upstream,
}

impl Class {
    /// Returns true if the same request may succeed at the same vendor a little later.
    pub fn retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Upstream)
    }
}

/// When to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// After this duration.
    In(Duration),
    /// At this time.
    At(SystemTime),
}

/// Upper bound on a time that a vendor reports, in seconds or as a date, so that a bad value can neither block requests
/// forever nor overflow `Instant`.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

impl RetryAfter {
    /// The wait that is left at `now`: at most 24 hours.
    pub fn wait(self, now: SystemTime) -> Duration {
        let wait = match self {
            Self::In(duration) => duration,
            Self::At(time) => time.duration_since(now).unwrap_or_default(),
        };
        wait.min(LONGEST_WAIT)
    }
}

/// A vendor's refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("status {status}: {message}")]
pub struct VendorError {
    /// Class of the failure.
    pub class: Class,
    /// HTTP status. For an error inside a stream, the status that it stands for.
    pub status: u16,
    /// The vendor's code or type.
    pub code: Option<String>,
    /// The vendor's message, shortened. May quote the caller's request; not for third parties.
    pub message: String,
    /// When to retry, if the vendor says so.
    pub retry_after: Option<RetryAfter>,
    /// Set if a retry can help; normally as for the class.
    pub retry: bool,
}

impl VendorError {
    /// An error of the class that `status` stands for, with the usual retry rule of that class.
    pub fn new(status: u16, code: Option<String>, message: impl Into<String>) -> Self {
        let class = class_of(status);
        Self { class, status, code, message: shorten(message.into()), retry_after: None, retry: class.retryable() }
    }

    /// Adds when to retry, if waiting can help.
    fn waiting(mut self, told: impl FnOnce() -> Option<RetryAfter>) -> Self {
        if matches!(self.class, Class::RateLimited | Class::Upstream) {
            self.retry_after = told();
        }
        self
    }

    /// Changes the class, and with it the retry rule.
    #[must_use]
    pub fn of_class(mut self, class: Class) -> Self {
        self.class = class;
        self.retry = class.retryable();
        self
    }
}

fn class_of(status: u16) -> Class {
    match status {
        401 | 403 => Class::Auth,
        402 => Class::Exhausted,
        404 => Class::NotFound,
        408 | 409 => Class::Upstream,
        429 => Class::RateLimited,
        400..=499 => Class::Invalid,
        _ => Class::Upstream,
    }
}

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

/// The error that an event or a body reports and that is not part of any answer. `name` is the event's name. Events
/// with other names than `error`, `message` or none are the vendor's own, and not errors of the answer.
pub fn reported(name: &str, data: &[u8]) -> Option<VendorError> {
    let error = name == "error";
    if !error && !matches!(name, "" | "message") {
        return None;
    }
    let Ok(value) = json::read::<Value>(data) else {
        return error.then(|| VendorError::new(500, None, String::from_utf8_lossy(data)));
    };
    let fields = match &value {
        Value::Object(fields) => fields,
        _ if error => return Some(VendorError::new(500, None, value.to_string())),
        _ => return None,
    };
    let answers = ["choices", "candidates", "content", "message", "delta"];
    let said = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        // 0 and 2xx are codes of success.
        Value::Number(number) => number.as_f64().is_some_and(|code| code != 0.0 && !(200.0..300.0).contains(&code)),
    };
    let said = |key: &str| fields.get(key).is_some_and(said);
    let text = |key: &str| fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kind = text("type").or(text("object")).unwrap_or_default();
    let failed = error
        || said("error")
        || kind == "error"
        || ["error_message", "error_msg", "errorMessage", "error_type", "error_code"].into_iter().any(said)
        // MiniMax's format.
        || value.pointer("/base_resp/status_code").and_then(Value::as_i64).is_some_and(|code| code != 0)
        // A bare error in the format of common frameworks. An event with a type of its own is a message of the server.
        || (kind.is_empty()
            && !answers.iter().any(|key| fields.get(*key).is_some_and(|value| value.is_array() || value.is_object()))
            && ((said("detail") && fields.len() == 1) || (said("code") && (said("message") || said("msg")))));
    failed.then(|| read_value(status_in(&value), &value))
}

/// The status for an error that has none of its own: a number in it, or the one that its type stands for; otherwise
/// 500.
fn status_in(value: &Value) -> u16 {
    let inner = value.get("error").filter(|error| error.is_object()).unwrap_or(value);
    let numbers = ["status", "code", "status_code", "http_status_code", "error_code"];
    let number = |key: &&str| match inner.get(*key)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let number = numbers.iter().filter_map(number).find(|number| (400..600).contains(number));
    if let Some(status) = number.and_then(|number| u16::try_from(number).ok()) {
        return status;
    }
    let words = ["type", "code", "error_type", "error_code", "status"];
    let words: String = words.iter().filter_map(|key| inner.get(*key)?.as_str()).collect();
    let words: String = words.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase();
    let known = [
        ("ratelimit", 429),
        ("toomanyrequests", 429),
        ("quota", 429),
        ("overloaded", 529),
        ("unavailable", 503),
        ("timeout", 504),
        ("authentication", 401),
        ("permission", 403),
        ("notfound", 404),
        ("badrequest", 400),
        ("invalidrequest", 400),
        ("contextlength", 400),
    ];
    known.iter().find(|(word, _)| words.contains(word)).map_or(500, |(_, status)| *status)
}

/// Reads an error object given as JSON, in a body or in a stream.
pub fn read_value(status: u16, value: &Value) -> VendorError {
    let inner = match value.get("error") {
        Some(Value::Object(inner)) => inner,
        _ => match value.as_object() {
            Some(outer) => outer,
            None => return VendorError::new(status, None, "an error that is no JSON object"),
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
    format!("{} bytes of {kind} that are no JSON", body.len())
}

fn shorten(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        super::cut(&mut message, MAX_MESSAGE_BYTES);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read_case(status: u16, headers: &[(&'static str, &str)], body: &str) -> VendorError {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("header")))
            .collect();
        read(status, &headers, body.as_bytes())
    }

    #[test]
    fn each_vendors_shapes() {
        let openai = read_case(
            429,
            &[],
            r#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
        );
        assert_eq!((openai.class, openai.retry), (Class::Exhausted, false));
        let anthropic = read_case(
            429,
            &[("retry-after", "7")],
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"m"},"request_id":"r"}"#,
        );
        assert_eq!(anthropic.retry_after, Some(RetryAfter::In(Duration::from_secs(7))));
        assert!(anthropic.retry);
        let spend = read_case(
            429,
            &[],
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
        );
        assert_eq!((spend.class, spend.retry), (Class::Exhausted, false));
        let google = read_case(
            429,
            &[],
            r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"46s"}]}}]"#,
        );
        assert_eq!(google.retry_after, Some(RetryAfter::In(Duration::from_secs(46))));
        let key = read_case(
            400,
            &[],
            r#"{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}"#,
        );
        assert_eq!(key.class, Class::Auth);
        let none = read_case(429, &[], r#"{"error":{"message":"Quota exceeded, limit: 0. Please retry in 46s."}}"#);
        assert_eq!((none.class, none.retry_after), (Class::Exhausted, None));
        let flat = read_case(
            400,
            &[],
            r#"{"code":400,"message":"invalid request body","request_id":"r","metadata":{"errors":["x"]}}"#,
        );
        assert_eq!((flat.class, flat.message.as_str()), (Class::Invalid, "invalid request body: x"));
        let old = read_case(401, &[], r#"{"error":"Authentication error","status":"error","request_id":"r"}"#);
        assert_eq!((old.class, old.message.as_str()), (Class::Auth, "Authentication error"));
        let page = read_case(503, &[("content-type", "text/html")], "<html>");
        assert_eq!(page.message, "an HTML or XML page of 6 bytes instead of JSON");
        assert!(read_case(529, &[], "{}").retry);
        assert!(!read_case(500, &[("x-should-retry", "false")], "{}").retry);
        let told_to = read_case(429, &[("x-should-retry", "true")], r#"{"error":{"code":"insufficient_quota"}}"#);
        assert!(!told_to.retry);
    }

    #[test]
    fn wait_is_read_from_header_field_or_words_where_waiting_helps() {
        let seconds = |seconds| Some(RetryAfter::In(Duration::from_secs(seconds)));
        let words = r#"{"error":{"message":"Limit 900, used 899. Please try again in 1m12s."}}"#;
        for status in [408, 409, 429, 500, 503, 529] {
            assert_eq!(read_case(status, &[], words).retry_after, seconds(72), "{status}");
        }
        for status in [400, 401, 402, 404, 422] {
            assert_eq!(read_case(status, &[], words).retry_after, None, "{status}");
        }
        assert_eq!(read_case(429, &[("retry-after", "7")], words).retry_after, seconds(7));
        assert_eq!(read_case(429, &[("retry-after", "soon")], words).retry_after, seconds(72));
        let both = r#"{"error":{"message":"try again in 1 minute","retry_after":9}}"#;
        assert_eq!(read_case(429, &[], both).retry_after, seconds(9));
        let nested = r#"{"detail":[{"msg":"Overloaded, retry after 3 seconds"}]}"#;
        assert_eq!(read_case(503, &[], nested).retry_after, seconds(3));
        let text = [("content-type", "text/plain")];
        assert_eq!(read_case(503, &text, "Busy. Try again in 2 minutes").retry_after, seconds(120));
        assert_eq!(read_case(503, &[], "<p>Try again in 2 minutes</p>").retry_after, None);
        let spent = r#"{"error":{"code":"insufficient_quota","message":"try again in 1 minute"}}"#;
        assert_eq!(read_case(429, &[], spent).retry_after, None);
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        let of = |name, value| read_case(429, &[(name, value)], "{}").retry_after;
        assert_eq!(of("retry-after-ms", "250"), Some(RetryAfter::In(Duration::from_millis(250))));
        assert_eq!(of("retry-after", "1.5"), Some(RetryAfter::In(Duration::from_millis(1500))));
        assert!(matches!(of("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"), Some(RetryAfter::At(_))));
        assert_eq!(of("retry-after", "soon"), None);
        assert_eq!(of("retry-after", "-1"), None);
    }
}
