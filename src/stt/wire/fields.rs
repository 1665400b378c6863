//! Field types of vendors' frames, read leniently: a number may be given as text and text as a number, and an integer
//! with a fraction. Null is read by `Option`, as absent. A value that cannot be read is an error that says what was
//! expected; [`super::salvage()`] decides how much of the frame is dropped for it.
//!
//! Knows no vendor, and not Sidetone's own frames, which are read strictly (`super::strict`).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::Number;

/// Largest integer that every JSON implementation represents exactly.
pub(super) const MAX_INTEGER: u64 = (1 << 53) - 1;
#[expect(clippy::cast_precision_loss, reason = "2^53 - 1 is exact")]
const MAX_FLOAT: f64 = MAX_INTEGER as f64;

/// A string, borrowed from the frame if it has no escapes. A number or a boolean is read as its text.
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

/// A count or a time in ms, rounded to an integer. Negative values become 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::stt) struct Natural(pub u64);

/// A time in seconds, stored as ms, rounded. Negative values, which some vendors' padding causes, become 0. Also read
/// from text (`"1.2"`, `"1.200s"`, `"PT1.2S"`, `"00:00:01.2"`) and from a protobuf `Duration` (`{"seconds","nanos"}`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::stt) struct Seconds(pub u64);

impl Seconds {
    /// The time in ms.
    pub(in crate::stt) fn ms(self) -> u64 {
        self.0
    }
}

/// Like [`Seconds`], at a vendor whose times are protobuf `Duration`s: one of zero may be written without its members,
/// as `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::stt) struct Offset(pub u64);

impl Offset {
    /// The time in ms.
    pub(in crate::stt) fn ms(self) -> u64 {
        self.0
    }
}

/// A number used as a confidence. Values outside 0 to 1 are clamped, because vendors round carelessly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::stt) struct Score(pub f32);

/// Any finite number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::stt) struct Real(pub f64);

/// True or false, also given as 0 or 1 or as a usual word such as `yes` or `off`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::stt) struct Flag(pub bool);

/// An id, or a speaker's or channel's label: text as it is, a number as its shortest decimal form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::stt) struct Label(pub String);

/// A list that a vendor may leave out or give as null. Null elements are skipped.
pub(in crate::stt) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    optional_list(deserializer).map(Option::unwrap_or_default)
}

/// Like [`list`], but an absent list differs from an empty one.
pub(in crate::stt) fn optional_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    struct ReadList<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for ReadList<T> {
        type Value = Option<Vec<T>>;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an array")
        }
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = sequence.next_element::<Option<T>>()? {
                items.extend(item);
            }
            Ok(Some(items))
        }
    }
    deserializer.deserialize_any(ReadList(PhantomData))
}

/// Converts each kind of JSON value to a field type; `None` if the value cannot be converted.
trait Lenient<'de>: Sized {
    /// Used in errors: "expected …".
    const EXPECTED: &'static str;

    fn number(number: &Number) -> Option<Self>;
    fn text(text: Cow<'de, str>) -> Option<Self>;
    fn flag(flag: bool) -> Option<Self> {
        let _ = flag;
        None
    }
    /// `Ok(None)`: the object was read to its end, but cannot be converted.
    fn object<A: MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
        let _ = map;
        Err(A::Error::invalid_type(Unexpected::Map, &Self::EXPECTED))
    }
}

struct Read<T>(PhantomData<T>);

impl<'de, T: Lenient<'de>> Read<T> {
    fn number<E: Error>(self, number: &Number) -> Result<T, E> {
        let found = || E::invalid_value(Unexpected::Other("number"), &T::EXPECTED);
        T::number(number).ok_or_else(found)
    }
}

impl<'de, T: Lenient<'de>> Visitor<'de> for Read<T> {
    type Value = T;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::EXPECTED)
    }
    fn visit_bool<E: Error>(self, flag: bool) -> Result<T, E> {
        T::flag(flag).ok_or_else(|| E::invalid_type(Unexpected::Bool(flag), &T::EXPECTED))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.number(&Number::from(number))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.number(&Number::from(number))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        match Number::from_f64(number) {
            Some(number) => self.number(&number),
            None => Err(E::invalid_value(Unexpected::Float(number), &T::EXPECTED)),
        }
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<T, E> {
        T::text(Cow::Borrowed(text)).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &T::EXPECTED))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        self.visit_string(text.to_owned())
    }
    fn visit_string<E: Error>(self, text: String) -> Result<T, E> {
        T::text(Cow::Owned(text)).ok_or_else(|| E::invalid_value(Unexpected::Other("text"), &T::EXPECTED))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::object(map)?.ok_or_else(|| A::Error::invalid_value(Unexpected::Map, &T::EXPECTED))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read::<Text<'de>>(PhantomData))
    }
}

macro_rules! lenient {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Read::<Self>(PhantomData))
            }
        }
    )*};
}

lenient!(Natural, Seconds, Offset, Score, Real, Flag, Label, Long);

impl<'de> Lenient<'de> for Text<'de> {
    const EXPECTED: &'static str = "a string";
    fn number(number: &Number) -> Option<Self> {
        Some(Text(Cow::Owned(decimal(number))))
    }
    fn text(text: Cow<'de, str>) -> Option<Self> {
        Some(Text(text))
    }
    fn flag(flag: bool) -> Option<Self> {
        Some(Text(Cow::Borrowed(if flag { "true" } else { "false" })))
    }
}

impl<'de> Lenient<'de> for Label {
    const EXPECTED: &'static str = "a string or a number";
    fn number(number: &Number) -> Option<Self> {
        Some(Label(decimal(number)))
    }
    fn text(text: Cow<'de, str>) -> Option<Self> {
        Some(Label(text.into_owned()))
    }
    fn flag(flag: bool) -> Option<Self> {
        Some(Label(flag.to_string()))
    }
}

impl<'de> Lenient<'de> for Natural {
    const EXPECTED: &'static str = "an integer >= 0";
    fn number(number: &Number) -> Option<Self> {
        natural(number.as_f64()?).map(Natural)
    }
    fn text(text: Cow<'de, str>) -> Option<Self> {
        natural(float(&text)?).map(Natural)
    }
}

impl<'de> Lenient<'de> for Seconds {
    const EXPECTED: &'static str = "a number of seconds";
    fn number(number: &Number) -> Option<Self> {
        natural(number.as_f64()? * 1000.0).map(Seconds)
    }
    fn text(text: Cow<'de, str>) -> Option<Self> {
        natural(duration(text.trim())? * 1000.0).map(Seconds)
    }
    fn object<A: MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
        Ok(protobuf_ms(map)?.flatten().map(Seconds))
    }
}

impl<'de> Lenient<'de> for Offset {
    const EXPECTED: &'static str = Seconds::EXPECTED;
    fn number(number: &Number) -> Option<Self> {
        Seconds::number(number).map(|Seconds(ms)| Offset(ms))
    }
    fn text(text: Cow<'de, str>) -> Option<Self> {
        Seconds::text(text).map(|Seconds(ms)| Offset(ms))
    }
    fn object<A: MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
        Ok(protobuf_ms(map)?.map_or(Some(0), |ms| ms).map(Offset))
    }
}

/// A protobuf `Duration` in ms: `None` if it has no members, `Some(None)` if it cannot be read.
fn protobuf_ms<'de, A: MapAccess<'de>>(mut map: A) -> Result<Option<Option<u64>>, A::Error> {
    let (mut seconds, mut nanos): (Option<Long>, Option<Long>) = (None, None);
    let mut members = false;
    while let Some(name) = map.next_key::<Text<'de>>()? {
        members = true;
        // Some libraries serialise their internal member names, which end in an underscore.
        match name.as_str().trim_end_matches('_') {
            "seconds" => seconds = map.next_value()?,
            "nanos" => nanos = map.next_value()?,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
    }
    if !members {
        return Ok(None);
    }
    if seconds.is_none() && nanos.is_none() {
        return Ok(Some(None));
    }
    let part = |part: Option<Long>| part.map_or(0.0, |Long(number)| number);
    Ok(Some(natural(part(seconds) * 1000.0 + part(nanos) / 1e6)))
}

impl<'de> Lenient<'de> for Score {
    const EXPECTED: &'static str = "a number";
    fn number(number: &Number) -> Option<Self> {
        Some(Score(share(number.as_f64()?)))
    }
    fn text(text: Cow<'de, str>) -> Option<Self> {
        Some(Score(share(float(&text)?)))
    }
}

impl<'de> Lenient<'de> for Real {
    const EXPECTED: &'static str = "a number";
    fn number(number: &Number) -> Option<Self> {
        number.as_f64().map(Real)
    }
    fn text(text: Cow<'de, str>) -> Option<Self> {
        float(&text).map(Real)
    }
}

impl<'de> Lenient<'de> for Flag {
    const EXPECTED: &'static str = "true or false";
    fn number(number: &Number) -> Option<Self> {
        match number.as_f64() {
            Some(0.0) => Some(Flag(false)),
            Some(1.0) => Some(Flag(true)),
            _ => None,
        }
    }
    fn text(text: Cow<'de, str>) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "t" | "yes" | "y" | "on" => Some(Flag(true)),
            "0" | "false" | "f" | "no" | "n" | "off" => Some(Flag(false)),
            _ => None,
        }
    }
    fn flag(flag: bool) -> Option<Self> {
        Some(Flag(flag))
    }
}

/// A protobuf `int64` in JSON: a number, text, or the object `{"low","high","unsigned"}` by which a library represents
/// it.
#[derive(Clone, Copy)]
struct Long(f64);

impl<'de> Lenient<'de> for Long {
    const EXPECTED: &'static str = "a number";
    fn number(number: &Number) -> Option<Self> {
        number.as_f64().map(Long)
    }
    fn text(text: Cow<'de, str>) -> Option<Self> {
        float(&text).map(Long)
    }
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let (mut low, mut high): (Option<Real>, Option<Real>) = (None, None);
        while let Some(name) = map.next_key::<Text<'de>>()? {
            match name.as_str() {
                "low" => low = map.next_value()?,
                "high" => high = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        const WORD: f64 = 4_294_967_296.0;
        Ok(low.map(|Real(low)| {
            // The low half is written as a signed 32-bit integer.
            let low = if low < 0.0 { low + WORD } else { low };
            Long(high.map_or(0.0, |Real(high)| high) * WORD + low)
        }))
    }
}

/// The shortest decimal form: `3.0` is `3`.
fn decimal(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= MAX_FLOAT => format!("{float:.0}"),
        _ => number.to_string(),
    }
}

/// Parses a finite number.
fn float(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite())
}

/// Parses a duration, in seconds.
fn duration(text: &str) -> Option<f64> {
    if let Some(iso) = text.strip_prefix("PT") {
        let (mut total, mut rest) = (0.0, iso);
        while !rest.is_empty() {
            let end = rest.find(['H', 'M', 'S'])?;
            let unit = match rest.as_bytes()[end] {
                b'H' => 3600.0,
                b'M' => 60.0,
                _ => 1.0,
            };
            total += float(&rest[..end])? * unit;
            rest = &rest[end + 1..];
        }
        return (!iso.is_empty()).then_some(total);
    }
    if text.contains(':') {
        return text.split(':').try_fold(0.0, |total, part| Some(total * 60.0 + float(part)?));
    }
    float(text.strip_suffix('s').unwrap_or(text))
}

/// The value rounded, and 0 if it is negative; `None` if it is above [`MAX_INTEGER`].
fn natural(value: f64) -> Option<u64> {
    let rounded = value.round().max(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    (rounded <= MAX_FLOAT).then_some(rounded as u64)
}

fn share(value: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a confidence needs no more digits")]
    let share = value.clamp(0.0, 1.0) as f32;
    share
}

#[cfg(test)]
mod tests;
