//! The text of an answer, as OpenAI's many imitators write it: a string, or content parts.
//!
//! Knows nothing else of an answer.

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Text, or content parts that contain text (Mistral's reasoning models).
pub(super) enum WireText {
    Text(String),
    Parts(Vec<Value>),
    /// The digits of a number in place of the text.
    Number(String),
    /// A value without any text.
    Other,
}

// Implemented by hand, because serde's untagged enums copy the text once more.
impl<'de> Deserialize<'de> for WireText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = WireText;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("text or content parts")
            }
            fn visit_str<E>(self, text: &str) -> Result<WireText, E> {
                Ok(WireText::Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<WireText, E> {
                Ok(WireText::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<WireText, A::Error> {
                let mut values = Vec::new();
                while let Some(part) = parts.next_element()? {
                    values.push(part);
                }
                Ok(WireText::Parts(values))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WireText, A::Error> {
                Ok(WireText::Parts(vec![Value::deserialize(MapAccessDeserializer::new(map))?]))
            }
            fn visit_bool<E>(self, _: bool) -> Result<WireText, E> {
                Ok(WireText::Other)
            }
            fn visit_i64<E>(self, number: i64) -> Result<WireText, E> {
                Ok(WireText::Number(number.to_string()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<WireText, E> {
                Ok(WireText::Number(number.to_string()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<WireText, E> {
                Ok(WireText::Number(number.to_string()))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

impl WireText {
    /// Splits the value into thinking and text.
    pub(super) fn split(self) -> (Option<String>, Option<String>) {
        let parts = match self {
            Self::Text(text) | Self::Number(text) => return (None, Some(text)),
            Self::Parts(parts) => parts,
            Self::Other => return (None, None),
        };
        let texts = |parts: &[Value]| parts.iter().filter_map(said).collect::<String>();
        let thinking: String = parts
            .iter()
            .filter_map(|part| part.get("thinking"))
            .map(|inner| match inner {
                Value::Array(inner) => texts(inner),
                Value::String(text) => text.clone(),
                _ => String::new(),
            })
            .collect();
        (Some(thinking).filter(|text| !text.is_empty()), Some(texts(&parts)))
    }

    /// The thinking, from a field that contains nothing else; `None` if it is empty.
    pub(super) fn thoughts(self) -> Option<String> {
        let (within, text) = self.split();
        text.filter(|text| !text.is_empty()).or(within)
    }
}

/// The text of a part. A part may also be a plain string.
fn said(part: &Value) -> Option<&str> {
    part.as_str().or_else(|| part.get("text")?.as_str())
}
