//! Reading JSON frames: typed and borrowing where all is well; where not, which field is wrong, what was found there
//! and what is allowed.
//!
//! Knows no vendor. Field types are newtypes whose `expecting` texts become the messages, so that a frame's struct is
//! also its documentation.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::DecodeError;
use crate::types::{EndScope, JsonMap, SttEvent, Word};

/// Largest integer that every JSON implementation keeps exactly.
const MAX_INTEGER: u64 = (1 << 53) - 1;
/// Longest string that an error repeats.
const MAX_SHOWN_CHARS: usize = 24;

/// A string that borrows from the frame where it has no escapes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text<'a>(pub Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn into_string(self) -> String {
        self.0.into_owned()
    }
}

/// An integer from 0 to 2^53 - 1: a time in ms or a turn's number. `120.0` is 120, as JSON knows only numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Natural(pub u64);

/// A time in seconds, kept as ms, rounded. Below zero, which some vendors' padding gives, is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seconds(pub u64);

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share(pub f32);

/// A number taken for a confidence: what lies outside 0 to 1 is clamped, for vendors round carelessly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score(pub f32);

impl Seconds {
    /// ms.
    pub(super) fn ms(self) -> u64 {
        self.0
    }
}

/// A speaker or channel label: a string as it is, an integer as its decimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Label(pub String);

/// Reads `frame` as a `T`; `what` names the message in errors.
///
/// # Errors
/// What is wrong, where (`what.field`), and what is allowed.
pub(super) fn parse<'a, T: Deserialize<'a>>(what: &str, frame: &'a str) -> Result<T, DecodeError> {
    // A derived struct would take an array for its fields in order; a frame is an object.
    if frame.trim_ascii_start().starts_with('{')
        && let Ok(message) = serde_json::from_str(frame)
    {
        return Ok(message);
    }
    Err(explain::<T>(what, frame))
}

/// A list that a vendor may leave out or give as null.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The string at the top-level key `key`, which tells a frame's kind; `None` where there is none or it is null.
///
/// # Errors
/// No JSON, no object, or something else than a string there.
pub(super) fn kind<'a>(key: &'static str, frame: &'a str) -> Result<Option<Text<'a>>, DecodeError> {
    let mut json = serde_json::Deserializer::from_str(frame);
    if let Ok(kind) = FindKind(key).deserialize(&mut json)
        && json.end().is_ok()
    {
        return Ok(kind);
    }
    Err(match object(frame) {
        Err(error) => error,
        Ok(object) => bad_field(key, "a string", object.get(key)),
    })
}

/// A frame of a type that the dialect does not know: `end` or `meta`, which every dialect has, or something to count.
///
/// # Errors
/// An `end` or a `meta` with wrong fields.
pub(super) fn other(kind: &str, frame: &str) -> Result<SttEvent, DecodeError> {
    match kind {
        "end" => end(frame),
        "meta" => meta(frame),
        other => Ok(SttEvent::Unknown { kind: other.to_owned() }),
    }
}

/// An `end` or `meta`, for dialects whose own frames have another discriminator than `type`.
///
/// # Errors
/// As [`other`].
pub(super) fn own(frame: &str) -> Result<Option<SttEvent>, DecodeError> {
    match kind("type", frame) {
        Ok(Some(kind)) if matches!(kind.as_str(), "end" | "meta") => other(kind.as_str(), frame).map(Some),
        _ => Ok(None),
    }
}

/// The frame `{"type":"meta","meta":{…}}`.
///
/// # Errors
/// Wrong fields.
fn meta(frame: &str) -> Result<SttEvent, DecodeError> {
    #[derive(serde::Deserialize)]
    struct Meta {
        meta: Object,
    }
    Ok(SttEvent::Meta(parse::<Meta>("meta", frame)?.meta.0))
}

/// The frame `{"type":"end","reason":…,"scope":…}`.
///
/// # Errors
/// Wrong fields.
fn end(frame: &str) -> Result<SttEvent, DecodeError> {
    #[derive(serde::Deserialize)]
    struct End<'a> {
        #[serde(borrow)]
        reason: Option<Text<'a>>,
        scope: Option<Scope>,
    }
    struct Scope(EndScope);
    impl<'de> Deserialize<'de> for Scope {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = Text::deserialize(deserializer)?;
            match text.as_str() {
                "stream" => Ok(Self(EndScope::Stream)),
                "call" => Ok(Self(EndScope::Call)),
                other => Err(D::Error::invalid_value(Unexpected::Str(other), &"\"stream\" or \"call\"")),
            }
        }
    }
    let end: End<'_> = parse("end", frame)?;
    Ok(SttEvent::End {
        reason: end.reason.map(Text::into_string),
        scope: end.scope.map_or(EndScope::default(), |scope| scope.0),
    })
}

/// `path: expected …, found …`.
pub(super) fn bad_field(path: &str, expected: &str, found: Option<&Value>) -> DecodeError {
    let message = match found {
        None => format!("{path}: required, but missing; expected {expected}"),
        Some(value) => format!("{path}: expected {expected}, found {}", shown(value)),
    };
    DecodeError { code: "bad_field", message }
}

/// A confidence from the logarithm of a probability.
pub(super) fn probability(logprob: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a confidence needs no more digits")]
    let confidence = logprob.exp().clamp(0.0, 1.0) as f32;
    confidence
}

/// First start and last end of `words`.
pub(super) fn span(words: &[Word]) -> (Option<u64>, Option<u64>) {
    (words.iter().map(|word| word.start_ms).min(), words.iter().map(|word| word.end_ms).max())
}

/// The label that all labelled words share; `None` where they differ, or have none.
pub(super) fn common_speaker(words: &[Word]) -> Option<String> {
    let mut labels = words.iter().filter_map(|word| word.speaker.as_deref());
    let first = labels.next()?;
    labels.all(|label| label == first).then(|| first.to_owned())
}

/// The slow way, after the fast one has failed: finds what to say.
fn explain<'a, T: Deserialize<'a>>(what: &str, frame: &'a str) -> DecodeError {
    let object = match object(frame) {
        Ok(object) => object,
        Err(error) => return error,
    };
    let mut json = serde_json::Deserializer::from_str(frame);
    let error = match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Ok(_) => return DecodeError { code: "bad_json", message: format!("{what}: not understood") },
        Err(error) => error,
    };
    let (path, found) = locate(what, error.path(), &object);
    let inner = error.inner().to_string();
    let inner = inner.split(" at line ").next().unwrap_or_default();
    if let Some(field) = inner.strip_prefix("missing field ") {
        let message = format!("{path}.{}: required, but missing", field.trim_matches('`'));
        return DecodeError { code: "bad_field", message };
    }
    if let Some(field) = inner.strip_prefix("duplicate field ") {
        let message = format!("{path}.{}: given more than once", field.trim_matches('`'));
        return DecodeError { code: "bad_field", message };
    }
    // The words of serde's own types, in ours.
    let expected = match inner.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected) {
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        derived if derived.starts_with("struct ") => "an object",
        expected => expected,
    };
    bad_field(&path, expected, found.or(Some(&Value::Null)))
}

fn object(frame: &str) -> Result<serde_json::Map<String, Value>, DecodeError> {
    match serde_json::from_str(frame) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(DecodeError {
            code: "bad_field",
            message: format!("frame: expected an object, found {}", shown(&other)),
        }),
        Err(error) => {
            Err(DecodeError { code: "bad_json", message: format!("frame: expected a JSON object, but {error}") })
        }
    }
}

/// Writes `path` below `what`, and finds what stands there.
fn locate<'v>(what: &str, path: &Path, object: &'v serde_json::Map<String, Value>) -> (String, Option<&'v Value>) {
    let mut text = what.to_owned();
    let mut at: Option<&Value> = None;
    for (depth, segment) in path.iter().enumerate() {
        match segment {
            Segment::Map { key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
                at = if depth == 0 { object.get(key) } else { at.and_then(|value| value.get(key)) };
            }
            Segment::Seq { index } => {
                text.push_str(&format!("[{index}]"));
                at = at.and_then(|value| value.get(index));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    (text, at)
}

/// A short form of a value that repeats no sentence of a call.
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

/// Any JSON object.
struct Object(JsonMap);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Object;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object, A::Error> {
                JsonMap::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Read)
    }
}

struct FindKind(&'static str);

impl<'de> DeserializeSeed<'de> for FindKind {
    type Value = Option<Text<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FindKind {
    type Value = Option<Text<'de>>;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<Text<'de>>()? {
            if name.as_str() == self.0 {
                found = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_string<E: Error>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// Reads any JSON number as an `f64`, in the words of `$expected`; `$take` makes the value or refuses it.
macro_rules! number {
    ($name:ident, $expected:literal, $take:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Read;
                impl Visitor<'_> for Read {
                    type Value = $name;
                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        formatter.write_str($expected)
                    }
                    fn visit_u64<E: Error>(self, value: u64) -> Result<$name, E> {
                        #[expect(clippy::cast_precision_loss, reason = "times and scores are far below 2^53")]
                        self.visit_f64(value as f64)
                    }
                    fn visit_i64<E: Error>(self, value: i64) -> Result<$name, E> {
                        #[expect(clippy::cast_precision_loss, reason = "times and scores are far below 2^53")]
                        self.visit_f64(value as f64)
                    }
                    fn visit_f64<E: Error>(self, value: f64) -> Result<$name, E> {
                        let take: fn(f64) -> Option<$name> = $take;
                        take(value).ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
                    }
                }
                deserializer.deserialize_any(Read)
            }
        }
    };
}

#[expect(clippy::cast_precision_loss, reason = "2^53 - 1 is exact")]
const MAX_FLOAT: f64 = MAX_INTEGER as f64;

/// A float within `0..=MAX_INTEGER` as an integer, rounded.
fn rounded(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates and is bounded")]
    let integer = value.round().clamp(0.0, MAX_FLOAT) as u64;
    integer
}

#[expect(clippy::cast_possible_truncation, reason = "a confidence needs no more digits")]
fn share(value: f64) -> f32 {
    value as f32
}

number!(Natural, "an integer >= 0", |value| {
    (value.fract() == 0.0 && (0.0..=MAX_FLOAT).contains(&value)).then(|| Natural(rounded(value)))
});
number!(Seconds, "a number of seconds", |value| Some(Seconds(rounded(value * 1000.0))));
number!(Share, "a number from 0 to 1", |value| (0.0..=1.0).contains(&value).then(|| Share(share(value))));
number!(Score, "a number", |value| Some(Score(share(value.clamp(0.0, 1.0)))));

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Label;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or an integer")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Label, E> {
                Ok(Label(text.to_owned()))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Label, E> {
                Ok(Label(value.to_string()))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Label, E> {
                Ok(Label(value.to_string()))
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Label, E> {
                if value.fract() == 0.0 && value.abs() <= MAX_FLOAT {
                    Ok(Label(format!("{value:.0}")))
                } else {
                    Err(E::invalid_type(Unexpected::Float(value), &self))
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}
