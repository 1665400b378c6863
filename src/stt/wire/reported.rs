//! Errors that a vendor reports inside a message: an object, a text, or a value that means that there is none.

use serde::de::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::types::SttEvent;

/// A field in which a vendor reports an error. Null, `false`, 0, `""`, `{}` and a status of 0 mean that there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::stt) struct Reported(pub Option<Failure>);

/// The reported error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::stt) struct Failure {
    code: Option<String>,
    message: String,
}

impl Failure {
    /// Converts it to an event. `code` is used if the vendor gave none.
    pub(in crate::stt) fn event(self, code: &str) -> SttEvent {
        SttEvent::VendorError { code: self.code.unwrap_or_else(|| code.to_owned()), message: self.message }
    }
}

impl<'de> Deserialize<'de> for Reported {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::Object(fields) => of_object(&fields),
            Value::Bool(true) => Some(Failure::default()),
            other => scalar(&other).map(|message| Failure { code: None, message }),
        }))
    }
}

fn of_object(fields: &Map<String, Value>) -> Option<Failure> {
    let first = |names: &[&str]| names.iter().find_map(|name| scalar(fields.get(*name)?));
    let code = first(&["code", "status_code", "error_code", "type", "variant"]);
    let message = first(&["message", "reason", "description", "error"]).unwrap_or_default();
    (code.is_some() || !message.is_empty()).then_some(Failure { code, message })
}

/// A text that is not blank, or a number other than zero.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.trim().is_empty()).then(|| text.clone()),
        Value::Number(number) => (number.as_f64() != Some(0.0)).then(|| number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_fields_that_say_nothing_are_no_errors() {
        for none in ["null", "false", "0", r#""""#, r#"" ""#, "{}", "[]", r#"{"code":0,"message":"","details":[]}"#] {
            assert_eq!(serde_json::from_str(none).ok(), Some(Reported(None)), "{none}");
        }
        for (json, code, message) in [
            (r#""no""#, "error", "no"),
            ("true", "error", ""),
            (r#"{"code":11,"message":"late"}"#, "11", "late"),
            (r#"{"type":"x","reason":"late"}"#, "x", "late"),
            (r#"{"message":"late"}"#, "error", "late"),
            (r#"{"code":"c","message":{}}"#, "c", ""),
        ] {
            let failure = serde_json::from_str::<Reported>(json).ok().and_then(|reported| reported.0).expect(json);
            let expected = SttEvent::VendorError { code: code.to_owned(), message: message.to_owned() };
            assert_eq!(failure.event("error"), expected, "{json}");
        }
    }
}
