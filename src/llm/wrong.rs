//! An invalid request: which field, what was found and what is allowed. Knows no status code.

use std::fmt::Display;

/// Why a request is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// The field, as in `messages[0].content`.
    pub param: Option<String>,
    /// Explanation, for people.
    pub message: String,
}

impl RequestError {
    /// An error in one field.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("{param}: {}", message.into());
        Self { param: Some(param), message }
    }

    /// The error of a deserialiser at `path`, which is below the field `under` (empty: below the request itself).
    pub fn read(under: &str, path: &serde_path_to_error::Path, error: &impl Display) -> Self {
        let path = path.to_string();
        // `.` stands for the whole value, `?` for a place without a name.
        let path = path.trim_end_matches('?').trim_end_matches('.');
        let param = [under, path].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        let message = in_words(&error.to_string());
        if param.is_empty() { Self { param: None, message } } else { Self::field(param, message) }
    }
}

/// Replaces serde's type names by plain ones.
fn in_words(message: &str) -> String {
    let Some((found, rest)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    let (expected, place) = rest.split_at(rest.find(" at line ").unwrap_or(rest.len()));
    let expected = match expected {
        "f64" => "a number",
        "u64" | "u32" | "usize" => "an integer >= 0",
        "i64" => "an integer",
        "a sequence" => "a list",
        "a map" => "an object",
        "a boolean" => "true or false",
        other => other,
    };
    format!("{found}, expected {expected}{place}")
}

#[cfg(test)]
mod tests {
    use super::super::ChatRequest;

    #[test]
    fn a_message_says_where_and_what_is_allowed_in_words_of_json() {
        for (body, param, says) in [
            ("", None, "EOF"),
            ("{", None, "EOF"),
            ("[]", None, "expected a JSON object"),
            (r#"{"temperature":"hot"}"#, Some("temperature"), "expected a number"),
            (r#"{"max_tokens":-1}"#, Some("max_tokens"), "expected an integer >= 0"),
            (r#"{"seed":"x"}"#, Some("seed"), "expected an integer"),
            (r#"{"stop":5}"#, Some("stop"), "expected a string or a list of strings"),
            (r#"{"messages":"x"}"#, Some("messages"), "expected a list"),
            (r#"{"messages":["x"]}"#, Some("messages[0]"), "expected an object"),
            (
                r#"{"messages":[{"role":"user","tool_calls":[5]}]}"#,
                Some("messages[0].tool_calls[0]"),
                "expected an object",
            ),
        ] {
            let error = ChatRequest::from_json(body.as_bytes()).expect_err(body);
            assert_eq!(error.param.as_deref(), param, "{body}: {error}");
            assert!(error.message.contains(says), "{body}: {error}");
            for ours in ["struct", "enum", "Wire", "u64", "f64", "i64", "?"] {
                assert!(!error.message.contains(ours), "{body}: {error}");
            }
        }
    }
}
