//! Reads JSON frames, typed and borrowing if the frame is valid. If it is not, finds which field is wrong, what was
//! found there and what is allowed.
//!
//! Knows no vendor. Field types are newtypes whose `EXPECTED` texts are used in the messages, so a frame's struct also
//! documents it: a field is required unless it is an `Option`, a list, or has a default.

mod explain;
mod fields;
mod reported;
mod salvage;
pub(super) mod strict;

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

pub(super) use self::explain::{Fault, bad_field};
pub(super) use self::fields::{Flag, Label, Natural, Offset, Real, Score, Seconds, Text, list, optional_list};
pub(super) use self::reported::{Failure, Reported};
pub(super) use self::salvage::salvage;
use super::DecodeError;
use crate::types::{SttEvent, Word};

/// Reads `frame` as a `T`. `what` names the message in errors.
///
/// # Errors
/// What is wrong, where (`what.field`), and what is allowed. [`salvage()`] then reads the frame without that part.
pub(super) fn parse<'a, T: Deserialize<'a>>(what: &str, frame: &'a str) -> Result<T, DecodeError> {
    // A derived struct would also accept an array of its fields in order, but a frame must be an object.
    if frame.trim_ascii_start().starts_with('{')
        && let Ok(message) = serde_json::from_str(frame)
    {
        return Ok(message);
    }
    Err(explain::explain::<T>(what, frame))
}

/// The string at the top-level key `key`, which is the frame's type; `None` if it is missing or null.
///
/// # Errors
/// The frame is not JSON or not an object, or the value at `key` is not a string.
pub(super) fn kind<'a>(key: &'static str, frame: &'a str) -> Result<Option<strict::Text<'a>>, DecodeError> {
    let mut json = serde_json::Deserializer::from_str(frame);
    if let Ok(kind) = FindKind(key).deserialize(&mut json)
        && json.end().is_ok()
    {
        return Ok(kind);
    }
    Err(match explain::object(frame) {
        Err(error) => error,
        Ok(object) => bad_field(key, "a string", object.get(key)),
    })
}

/// Reads a frame of a type that the dialect does not know: `end` or `meta`, which every dialect accepts, or else
/// [`SttEvent::Unknown`], which is counted.
///
/// # Errors
/// An `end` or a `meta` with wrong fields.
pub(super) fn other(kind: &str, frame: &str) -> Result<SttEvent, DecodeError> {
    match kind {
        "end" => strict::end(frame),
        "meta" => strict::meta(frame),
        other => Ok(SttEvent::Unknown { kind: other.to_owned() }),
    }
}

/// Reads an `end` or a `meta` for dialects whose own discriminator is not `type`; `None` for any other frame.
///
/// # Errors
/// As [`other`].
pub(super) fn own(frame: &str) -> Result<Option<SttEvent>, DecodeError> {
    match kind("type", frame) {
        Ok(Some(kind)) if matches!(kind.as_str(), "end" | "meta") => other(kind.as_str(), frame).map(Some),
        _ => Ok(None),
    }
}

/// The confidence for the natural logarithm of a probability, limited to 0 to 1.
pub(super) fn probability(logprob: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a confidence needs no more digits")]
    let confidence = logprob.exp().clamp(0.0, 1.0) as f32;
    confidence
}

/// A message's content: a text, or words if the vendor gave no text.
pub(super) trait Says {
    /// Name of the text's field.
    const TEXT: &'static str;

    /// Returns true if there is a text, even an empty one, or a word.
    fn says(&self) -> bool;
}

/// A message that must have content: without a text and without words, reading it fails with the error that the text is
/// missing.
#[derive(Debug, Clone)]
pub(super) struct Said<T>(pub T);

impl<'de, T: Deserialize<'de> + Says> Deserialize<'de> for Said<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let message = T::deserialize(deserializer)?;
        if message.says() { Ok(Self(message)) } else { Err(D::Error::missing_field(T::TEXT)) }
    }
}

/// The turn's text, or its words joined by spaces if the vendor gave no text.
pub(super) fn text_or_words<'w>(text: Option<Text<'_>>, words: impl Iterator<Item = &'w str>) -> String {
    text.map_or_else(
        || words.map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "),
        Text::into_string,
    )
}

/// Start and end of a word in ms, the end never before the start. If only one is given, both are equal; `None` if
/// neither is.
pub(super) fn word_times(start: Option<Seconds>, end: Option<Seconds>) -> Option<(u64, u64)> {
    let start_ms = start.or(end)?.ms();
    Some((start_ms, end.map_or(start_ms, |end| end.ms().max(start_ms))))
}

/// First start and last end of `words`.
pub(super) fn span(words: &[Word]) -> (Option<u64>, Option<u64>) {
    (words.iter().map(|word| word.start_ms).min(), words.iter().map(|word| word.end_ms).max())
}

/// The label that all labelled words share; `None` if they differ or none has one.
pub(super) fn common_speaker(words: &[Word]) -> Option<String> {
    let mut labels = words.iter().filter_map(|word| word.speaker.as_deref());
    let first = labels.next()?;
    labels.all(|label| label == first).then(|| first.to_owned())
}

struct FindKind(&'static str);

impl<'de> DeserializeSeed<'de> for FindKind {
    type Value = Option<strict::Text<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FindKind {
    type Value = Option<strict::Text<'de>>;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<strict::Text<'de>>()? {
            if name.as_str() == self.0 {
                found = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
