//! The slow path after fast parsing failed: finds which part of a frame is wrong, as a message and as a path.
//!
//! Knows no vendor.

use serde::de::Deserialize;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use crate::protocol::ErrorCode;
use crate::stt::DecodeError;

/// Longest string that an error message repeats, in characters.
const MAX_SHOWN_CHARS: usize = 24;

/// A step into a JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stt) enum Step {
    /// To an object's field.
    Key(String),
    /// To an array's element.
    Index(usize),
}

/// A fault of a frame and its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stt) enum Fault {
    /// A value that cannot be read.
    Wrong(Vec<Step>),
    /// A field that is required and missing.
    Missing(Vec<Step>),
    /// A field that is given more than once.
    Duplicate(Vec<Step>),
}

impl Fault {
    /// Widens a fault within a list to the whole list. Returns false if no list contains it.
    pub(super) fn widen_to_list(&mut self) -> bool {
        let (Self::Wrong(path) | Self::Missing(path) | Self::Duplicate(path)) = self;
        let Some(last) = path.iter().rposition(|step| matches!(step, Step::Index(_))) else { return false };
        path.truncate(last);
        *self = Self::Wrong(std::mem::take(path));
        true
    }
}

/// The reason why `frame` is not a `T`. `what` names the message.
pub(super) fn explain<'a, T: Deserialize<'a>>(what: &str, frame: &'a str) -> DecodeError {
    let object = match object(frame) {
        Ok(object) => object,
        Err(error) => return error,
    };
    let mut json = serde_json::Deserializer::from_str(frame);
    let error = match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Ok(_) => return DecodeError::new(ErrorCode::BadJson, format!("{what}: not understood")),
        Err(error) => error,
    };
    let steps = steps(error.path());
    let (path, found) = locate(what, &steps, &object);
    let inner = error.inner().to_string();
    let inner = inner.split(" at line ").next().unwrap_or_default();
    let field = |name: &str| steps.iter().cloned().chain([Step::Key(name.to_owned())]).collect();
    if let Some(name) = inner.strip_prefix("missing field ") {
        let name = name.trim_matches('`');
        let error = DecodeError::new(ErrorCode::BadField, format!("{path}.{name}: required, but missing"));
        return error.at(Fault::Missing(field(name)));
    }
    if let Some(name) = inner.strip_prefix("duplicate field ") {
        let name = name.trim_matches('`');
        let error = DecodeError::new(ErrorCode::BadField, format!("{path}.{name}: given more than once"));
        return error.at(Fault::Duplicate(field(name)));
    }
    // Replaces serde's type names by the names that this project uses.
    let expected = match inner.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected) {
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        derived if derived.starts_with("struct ") => "an object",
        expected => expected,
    };
    bad_field(&path, expected, found.or(Some(&Value::Null))).at(Fault::Wrong(steps))
}

/// Reads the frame as an object.
///
/// # Errors
/// The frame is not JSON, or another JSON value.
pub(super) fn object(frame: &str) -> Result<serde_json::Map<String, Value>, DecodeError> {
    match serde_json::from_str(frame) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => {
            Err(DecodeError::new(ErrorCode::BadField, format!("frame: expected an object, found {}", shown(&other))))
        }
        Err(error) => Err(DecodeError::new(ErrorCode::BadJson, format!("frame: expected a JSON object, but {error}"))),
    }
}

/// The error `path: expected …, found …`. Without `found`, the field is reported as required, but missing.
pub(in crate::stt) fn bad_field(path: &str, expected: &str, found: Option<&Value>) -> DecodeError {
    let message = match found {
        None => format!("{path}: required, but missing; expected {expected}"),
        Some(value) => format!("{path}: expected {expected}, found {}", shown(value)),
    };
    DecodeError::new(ErrorCode::BadField, message)
}

fn steps(path: &Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// Writes `steps` as a path below `what`, and finds the value there.
fn locate<'v>(what: &str, steps: &[Step], object: &'v serde_json::Map<String, Value>) -> (String, Option<&'v Value>) {
    let mut text = what.to_owned();
    let mut at: Option<&Value> = None;
    for (depth, step) in steps.iter().enumerate() {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
                at = if depth == 0 { object.get(key) } else { at.and_then(|value| value.get(key)) };
            }
            Step::Index(index) => {
                text.push_str(&format!("[{index}]"));
                at = at.and_then(|value| value.get(index));
            }
        }
    }
    (text, at)
}

/// A short form of a value that does not repeat a sentence of a call.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) if text.chars().count() <= MAX_SHOWN_CHARS && !text.contains(char::is_whitespace) => {
            format!("{text:?}")
        }
        Value::String(text) => format!("a string of {} characters", text.chars().count()),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
