//! Reads the fields of vendors' answers. A field is text, a count, a flag, a list, an object or an error report. Any
//! other value in its place (`null`, another type) is converted if possible, and otherwise read as absent.
//!
//! So a frame is never refused for a field that the decoder can do without: the decoder checks what it needs. Knows no
//! field's name.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Largest count that is accepted: every integer up to it is exact as a floating-point number too. No vendor counts
/// further, and sums of a few such counts do not overflow.
const MAX_COUNT: u64 = 1 << 53;

/// Maximum number of objects in a list. No answer has as many choices, parts, tool calls or models; each may take two
/// kilobytes although its text is `{}`.
const MAX_ITEMS: usize = 10_000;

/// Text. A number is read as its digits, anything else as absent.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    read(deserializer)
}

/// A count: a whole number from 0, also with a decimal point (rounded) or as text.
pub(super) fn count<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let Count(count) = read(deserializer)?;
    Ok(count.and_then(|count| T::try_from(count).ok()))
}

/// A count of tokens. Unlike [`count`] it keeps a number that is too large, so that the gateway can count it as
/// implausible.
pub(super) fn tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Tokens(tokens) = read(deserializer)?;
    Ok(tokens)
}

/// A flag, also as a number or text; `false` if absent.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    read(deserializer)
}

/// The objects of a list, at most [`MAX_ITEMS`]; other items are skipped. Any other value is read as an empty list.
pub(super) fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let List(items) = read(deserializer)?;
    Ok(items)
}

/// The objects of a list, or a single object in its place.
pub(super) fn one_or_many<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let OneOrMany(items) = read(deserializer)?;
    Ok(items)
}

/// An object.
pub(super) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let Object(object) = read(deserializer)?;
    Ok(object)
}

/// An error report; `null`, `false`, `""`, `0`, `{}` and `[]` mean that there is no error.
pub(super) fn error<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Ok(reported(Value::deserialize(deserializer)?))
}

/// The arguments of a tool call: JSON as text, or the JSON value itself. `null`, booleans and numbers are read as
/// absent.
pub(super) fn arguments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        value @ (Value::Object(_) | Value::Array(_)) => Some(value.to_string()),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    })
}

/// The error that a field reports, if it reports one; see [`error`].
pub(super) fn reported(value: Value) -> Option<Value> {
    let nothing = match &value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    };
    (!nothing).then_some(value)
}

/// A count in a value that is parsed already; see [`count`].
pub(super) fn count_of(value: &Value) -> Option<u64> {
    let Count(count) = read(value).ok()?;
    count
}

/// Text in a value that is parsed already; see [`text`].
pub(super) fn text_of(value: &Value) -> Option<String> {
    read(value).ok()?
}

/// Conversions from each kind of JSON value. Those that a type does not override give the default, which means absent.
trait Lenient<'de>: Default {
    fn text(_: &str) -> Self {
        Self::default()
    }

    fn string(text: String) -> Self {
        Self::text(&text)
    }

    fn number(_: f64) -> Self {
        Self::default()
    }

    fn unsigned(number: u64) -> Self {
        Self::number(number as f64)
    }

    fn flag(_: bool) -> Self {
        Self::default()
    }

    fn map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }

    fn seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

fn read<'de, T: Lenient<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Any<T>(PhantomData<T>);
    impl<'de, T: Lenient<'de>> Visitor<'de> for Any<T> {
        type Value = T;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("any value")
        }
        fn visit_str<E>(self, text: &str) -> Result<T, E> {
            Ok(T::text(text))
        }
        fn visit_string<E>(self, text: String) -> Result<T, E> {
            Ok(T::string(text))
        }
        fn visit_u64<E>(self, number: u64) -> Result<T, E> {
            Ok(T::unsigned(number))
        }
        fn visit_i64<E>(self, number: i64) -> Result<T, E> {
            Ok(u64::try_from(number).map_or_else(|_| T::number(number as f64), T::unsigned))
        }
        fn visit_f64<E>(self, number: f64) -> Result<T, E> {
            Ok(T::number(number))
        }
        fn visit_bool<E>(self, flag: bool) -> Result<T, E> {
            Ok(T::flag(flag))
        }
        fn visit_unit<E>(self) -> Result<T, E> {
            Ok(T::default())
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::map(map)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<T, A::Error> {
            T::seq(seq)
        }
    }
    deserializer.deserialize_any(Any(PhantomData))
}

impl Lenient<'_> for Option<String> {
    fn text(text: &str) -> Self {
        Some(text.to_owned())
    }

    fn string(text: String) -> Self {
        Some(text)
    }

    fn number(number: f64) -> Self {
        Some(number.to_string())
    }

    fn unsigned(number: u64) -> Self {
        Some(number.to_string())
    }
}

#[derive(Default)]
struct Count(Option<u64>);

impl Lenient<'_> for Count {
    fn text(text: &str) -> Self {
        let text = text.trim();
        match text.parse() {
            Ok(number) => Self::unsigned(number),
            Err(_) => text.parse().map_or(Self(None), Self::number),
        }
    }

    fn number(number: f64) -> Self {
        Self((0.0..=MAX_COUNT as f64).contains(&number).then(|| number.round() as u64))
    }

    fn unsigned(number: u64) -> Self {
        Self(Some(number).filter(|number| *number <= MAX_COUNT))
    }
}

#[derive(Default)]
struct Tokens(Option<u64>);

impl Lenient<'_> for Tokens {
    fn text(text: &str) -> Self {
        let text = text.trim();
        match text.parse() {
            Ok(number) => Self::unsigned(number),
            Err(_) => text.parse().map_or(Self(None), Self::number),
        }
    }

    fn number(number: f64) -> Self {
        // The cast saturates.
        Self((number >= 0.0).then(|| number.round() as u64))
    }

    fn unsigned(number: u64) -> Self {
        Self(Some(number))
    }
}

impl Lenient<'_> for bool {
    fn text(text: &str) -> Self {
        text.trim().eq_ignore_ascii_case("true")
    }

    fn number(number: f64) -> Self {
        number != 0.0
    }

    fn flag(flag: bool) -> Self {
        flag
    }
}

struct Object<T>(Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Lenient<'de> for Object<T> {
    fn map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|object| Self(Some(object)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

struct List<T>(Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Lenient<'de> for List<T> {
    fn seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        let mut items = Vec::new();
        while let Some(Object(item)) = seq.next_element()? {
            if items.len() == MAX_ITEMS {
                return Err(A::Error::custom(format_args!("a list of more than {MAX_ITEMS} objects (answer_items)")));
            }
            items.extend(item);
        }
        Ok(Self(items))
    }
}

struct OneOrMany<T>(Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Lenient<'de> for OneOrMany<T> {
    fn map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|item| Self(vec![item]))
    }

    fn seq<A: SeqAccess<'de>>(seq: A) -> Result<Self, A::Error> {
        List::seq(seq).map(|List(items)| Self(items))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, Debug, Default, PartialEq)]
    #[serde(default)]
    struct Fields {
        #[serde(deserialize_with = "text")]
        text: Option<String>,
        #[serde(deserialize_with = "count")]
        count: Option<u32>,
        #[serde(deserialize_with = "flag")]
        flag: bool,
        #[serde(deserialize_with = "list")]
        list: Vec<Fields>,
        #[serde(deserialize_with = "one_or_many")]
        many: Vec<Fields>,
        #[serde(deserialize_with = "object")]
        object: Option<Box<Fields>>,
        #[serde(deserialize_with = "error")]
        error: Option<Value>,
        #[serde(deserialize_with = "arguments")]
        arguments: Option<String>,
    }

    fn fields(value: Value) -> Fields {
        serde_json::from_str(&value.to_string()).expect("no field is refused")
    }

    #[test]
    fn fields_in_other_spellings_are_read() {
        let digits = |text: &str| Fields { text: Some(text.to_owned()), ..Fields::default() };
        for (value, text) in [(json!("a"), "a"), (json!(7), "7"), (json!(-7), "-7"), (json!(1.5), "1.5")] {
            assert_eq!(fields(json!({ "text": value })), digits(text));
        }
        for value in [json!(12), json!(12.0), json!(11.6), json!("12"), json!(" 12 "), json!("12.2")] {
            assert_eq!(fields(json!({ "count": value })).count, Some(12), "{value}");
        }
        for value in [json!(true), json!(1), json!("true"), json!("True")] {
            assert!(fields(json!({ "flag": value })).flag, "{value}");
        }
        for value in [json!({"text":"a"}), json!([{"text":"a"}]), json!([null, {"text":"a"}, "x", 5])] {
            assert_eq!(fields(json!({ "many": value })).many, [digits("a")], "{value}");
        }
        assert_eq!(fields(json!({"list": [null, {"text":"a"}, [], true]})).list, [digits("a")]);
        assert_eq!(fields(json!({"object": {"text":"a"}})).object, Some(Box::new(digits("a"))));
        assert_eq!(fields(json!({"arguments": {"b":1,"a":2}})).arguments.as_deref(), Some("{\"b\":1,\"a\":2}"));
        assert_eq!(fields(json!({"arguments": "{\"b\""})).arguments.as_deref(), Some("{\"b\""));
        assert_eq!(fields(json!({"error": "x"})).error, Some(json!("x")));
    }

    #[test]
    fn fields_that_cannot_be_read_are_absent() {
        let others = [json!(null), json!(true), json!(-1), json!(1e300), json!("x"), json!([1]), json!({"x":1})];
        for name in ["text", "count", "flag", "list", "many", "object", "arguments"] {
            for other in &others {
                // Whatever value the field has, the frame is not refused.
                fields(json!({ name: other }));
            }
        }
        let nothing = Fields::default();
        for (name, value) in [
            ("text", json!([])),
            ("text", json!(true)),
            ("count", json!(-1)),
            ("count", json!("many")),
            ("count", json!(1e300)),
            ("count", json!("NaN")),
            ("count", json!(u64::MAX)),
            ("list", json!({"text":"a"})),
            ("object", json!([{}])),
            ("arguments", json!(null)),
            ("arguments", json!(5)),
            ("error", json!(null)),
            ("error", json!(false)),
            ("error", json!("")),
            ("error", json!({})),
            ("error", json!([])),
            ("error", json!(0)),
        ] {
            assert_eq!(fields(json!({ name: value })), nothing, "{name}");
        }
    }
}
