//! The `type` members of frames. Each has a type of its own with one value, which is written as the frame's `type` and
//! read only from that text. So a frame's struct declares its `type` at its place on the wire, and one frame cannot be
//! read as another.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Reads a string that must equal `expected`.
struct Exactly {
    expected: &'static str,
}

impl Visitor<'_> for Exactly {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the string {:?}", self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if text == self.expected { Ok(()) } else { Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)) }
    }
}

macro_rules! tags {
    ($($name:ident = $text:literal,)*) => {$(
        #[doc = concat!("`", $text, "`")]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name;

        impl $name {
            /// The `type` on the wire.
            pub const TEXT: &'static str = $text;
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(Self::TEXT)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Exactly { expected: Self::TEXT }).map(|()| Self)
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "const": $text })
            }
        }
    )*};
}

tags! {
    Welcome = "welcome",
    Ack = "ack",
    Error = "error",
    Reconnect = "reconnect",
    Subscribed = "subscribed",
    Unsubscribed = "unsubscribed",
    Snapshot = "snapshot",
    Lagged = "lagged",
    Pong = "pong",
    TurnPartial = "turn.partial",
    InsightDelta = "insight.delta",
    Subscribe = "subscribe",
    Unsubscribe = "unsubscribe",
    Ping = "ping",
    Turn = "turn",
    Partial = "partial",
    Revise = "revise",
    Meta = "meta",
    End = "end",
    All = "*",
}

/// Reads the `type` of a frame.
///
/// # Errors
/// The text is not a JSON object with a string `type`.
pub fn of(frame: &str) -> Result<std::borrow::Cow<'_, str>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Tagged<'a> {
        #[serde(borrow, rename = "type")]
        tag: std::borrow::Cow<'a, str>,
    }
    // A derived struct would also accept an array of its fields.
    if !frame.trim_ascii_start().starts_with('{') {
        return Err(serde_json::Error::custom("expected a JSON object"));
    }
    serde_json::from_str::<Tagged<'_>>(frame).map(|tagged| tagged.tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_is_read_only_from_its_own_type() {
        assert_eq!(serde_json::to_string(&TurnPartial).expect("json"), "\"turn.partial\"");
        assert_eq!(serde_json::from_str::<Ack>("\"ack\"").expect("ack"), Ack);
        assert!(serde_json::from_str::<Ack>("\"error\"").is_err());
    }

    #[test]
    fn type_of_a_frame_is_found_at_any_position() {
        assert_eq!(of(r#" {"id":"1","type":"pong"}"#).expect("type"), "pong");
        for bad in ["", "[]", r#"["pong"]"#, "{}", r#"{"type":1}"#, "7"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
