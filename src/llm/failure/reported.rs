//! Finds errors that vendors report in the form of an answer: in an event of a stream, or in a body with status 200.
//!
//! Knows no vendor.

use serde_json::Value;

use super::{VendorError, read_value};
use crate::llm::json;

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
    // `{"object":"error","type":"BadRequestError",…}` (vLLM), or the contents of OpenAI's `error` alone. Other messages
    // with such a type are the server's own.
    let named = |key| text(key).is_some_and(|kind: &str| kind.to_ascii_lowercase().ends_with("error"));
    let failed = error
        || said("error")
        || kind == "error"
        || named("object")
        || (named("type") && said("message") && (fields.contains_key("param") || fields.contains_key("code")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_the_form_of_an_event_are_found_and_messages_of_the_server_are_not() {
        for (data, status) in [
            (r#"{"object":"error","message":"x","type":"BadRequestError","param":null,"code":400}"#, Some(400)),
            (r#"{"object":"error","message":"x","type":"InternalServerError","code":500}"#, Some(500)),
            (r#"{"message":"x","type":"server_error","param":null,"code":null}"#, Some(500)),
            (r#"{"message":"x","type":"rate_limit_error","code":null}"#, Some(429)),
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#, Some(529)),
            (r#"{"code":500,"message":"x","data":null}"#, Some(500)),
            (r#"{"detail":"x"}"#, Some(500)),
            (r#"{"type":"progress","code":500,"message":"x"}"#, None),
            (r#"{"object":"chat.completion.chunk","choices":[],"error":null}"#, None),
            (r#"{"type":"tool_error","message":"x"}"#, None),
        ] {
            assert_eq!(reported("", data.as_bytes()).map(|error| error.status), status, "{data}");
        }
    }
}
