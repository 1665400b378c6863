//! Reads Sidetone's own frames (those of `sidetone`, and `end` and `meta` in every dialect). Their authors can read the
//! errors, so a wrong type is an error and nothing is guessed.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use std::borrow::Cow;

use super::fields::MAX_INTEGER;
use crate::stt::DecodeError;
use crate::types::{EndScope, JsonMap, SttEvent};

/// A string, borrowed from the frame if it has no escapes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::stt) struct Text<'a>(pub Cow<'a, str>);

impl Text<'_> {
    pub(in crate::stt) fn as_str(&self) -> &str {
        &self.0
    }

    pub(in crate::stt) fn into_string(self) -> String {
        self.0.into_owned()
    }
}

/// An integer from 0 to 2^53 - 1: a time in ms or a turn's number. `120.0` is read as 120, because JSON has only one
/// number type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::stt) struct Natural(pub u64);

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::stt) struct Share(pub f32);

/// Like [`super::parse`], but any fault is final: no part of the frame is dropped.
///
/// # Errors
/// What is wrong, where (`what.field`), and what is allowed.
pub(in crate::stt) fn parse<'a, T: Deserialize<'a>>(what: &str, frame: &'a str) -> Result<T, DecodeError> {
    super::parse(what, frame).map_err(|error| DecodeError { fault: None, ..error })
}

/// The frame `{"type":"meta","meta":{…}}`.
///
/// # Errors
/// A field is missing or wrong.
pub(super) fn meta(frame: &str) -> Result<SttEvent, DecodeError> {
    #[derive(serde::Deserialize)]
    struct Meta {
        meta: Object,
    }
    Ok(SttEvent::Meta(parse::<Meta>("meta", frame)?.meta.0))
}

/// The frame `{"type":"end","reason":…,"scope":…}`.
///
/// # Errors
/// A field is wrong.
pub(super) fn end(frame: &str) -> Result<SttEvent, DecodeError> {
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

/// Reads any JSON number as an `f64`. `$expected` describes the number in errors; `$take` converts or refuses it.
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

number!(Natural, "an integer >= 0", |value| {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    (value.fract() == 0.0 && (0.0..=MAX_FLOAT).contains(&value)).then_some(Natural(value as u64))
});
number!(Share, "a number from 0 to 1", |value| {
    #[expect(clippy::cast_possible_truncation, reason = "a confidence needs no more digits")]
    (0.0..=1.0).contains(&value).then_some(Share(value as f32))
});
