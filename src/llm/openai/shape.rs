//! Checks if a chunk has the shape of OpenAI's own, so that it can be passed to an OpenAI client unchanged: every field
//! that clients read is there, with its own type. Additional fields are allowed.
//!
//! Reads without a tree and without copies; never says what is wrong.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

/// Exactly the text `chat.completion.chunk`.
pub(super) struct Name;

/// Any text.
struct Text;

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named;
        impl Visitor<'_> for Named {
            type Value = Name;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("chat.completion.chunk")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Name, E> {
                if text == "chat.completion.chunk" { Ok(Name) } else { Err(E::custom("another object")) }
            }
        }
        deserializer.deserialize_str(Named)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("text")
            }
            fn visit_str<E>(self, _: &str) -> Result<Text, E> {
                Ok(Text)
            }
        }
        deserializer.deserialize_str(Any)
    }
}

/// Reads a `T` from an object. Serde's derived structs would also accept a list.
pub(super) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_map(Object(PhantomData))
}

/// An object that matches `T`.
struct Only<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Only<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer).map(|_: T| Only(PhantomData))
    }
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(rename = "id")]
    _id: Text,
    #[serde(rename = "object")]
    _object: Name,
    #[serde(rename = "created")]
    _created: u64,
    #[serde(rename = "model")]
    _model: Text,
    #[serde(rename = "choices")]
    _choices: Vec<Only<Choice>>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(rename = "index")]
    _index: u32,
    #[serde(rename = "delta")]
    _delta: Only<Delta>,
    /// Must be null: the chunk that ends an answer is always written by us.
    #[serde(default, rename = "finish_reason")]
    _finish_reason: (),
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default, rename = "role")]
    _role: Option<Text>,
    #[serde(default, rename = "content")]
    _content: Option<Text>,
    #[serde(default, rename = "refusal")]
    _refusal: Option<Text>,
    #[serde(default, rename = "reasoning_content")]
    _reasoning_content: Option<Text>,
    #[serde(default, rename = "tool_calls")]
    _tool_calls: Option<Vec<Only<Call>>>,
}

#[derive(Deserialize)]
struct Call {
    #[serde(rename = "index")]
    _index: u32,
    #[serde(default, rename = "id")]
    _id: Option<Text>,
    #[serde(default, rename = "type")]
    _type: Option<Text>,
    #[serde(default, rename = "function")]
    _function: Option<Only<Function>>,
}

#[derive(Deserialize)]
struct Function {
    #[serde(default, rename = "name")]
    _name: Option<Text>,
    #[serde(default, rename = "arguments")]
    _arguments: Option<Text>,
}

/// Returns true if the data of an event is such a chunk.
pub(super) fn is_chunk(data: &[u8]) -> bool {
    std::str::from_utf8(data).is_ok_and(|text| serde_json::from_str::<Only<Chunk>>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::base::testing::kept;
    use crate::llm::Provider as _;
    use crate::llm::sse::Event;

    #[test]
    fn only_chunks_in_openais_format_are_recognised() {
        let chunk = |choices: &str, more: &str| {
            format!(
                r#"{{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":{choices}{more}}}"#
            )
        };
        let choice = |delta: &str| format!(r#"[{{"index":0,"delta":{delta},"finish_reason":null}}]"#);
        let call = r#"{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}"#;
        for good in [
            chunk(&choice(r#"{"content":"a\u00e9"}"#), ""),
            chunk(&choice(r#"{"role":null,"content":null,"tool_calls":null}"#), r#","usage":null"#),
            chunk(&choice(&format!(r#"{{"tool_calls":[{call}]}}"#)), ""),
            chunk(&choice(r#"{"reasoning_content":"hm","anything":[[1]]}"#), r#","x_vendor":{"a":[]}"#),
            chunk(r#"[{"index":0,"delta":{}},{"index":1,"delta":{}}]"#, ""),
        ] {
            assert!(is_chunk(good.as_bytes()), "{good}");
        }
        let plain = chunk(&choice(r#"{"content":"a"}"#), "");
        for bad in [
            plain.replace(r#""id":"c","#, ""),
            plain.replace(r#""id":"c""#, r#""id":7"#),
            plain.replace("chat.completion.chunk", "chat.completion"),
            plain.replace(r#""object":"chat.completion.chunk","#, ""),
            plain.replace(r#""created":1"#, r#""created":1.0"#),
            plain.replace(r#""created":1"#, r#""created":"1""#),
            plain.replace(r#""model":"m""#, r#""model":null"#),
            plain.replace(r#""index":0"#, r#""index":"0""#),
            plain.replace(r#""index":0,"#, ""),
            plain.replace(r#""finish_reason":null"#, r#""finish_reason":"""#),
            plain.replace(r#"{"content":"a"}"#, "null"),
            plain.replace(r#"{"content":"a"}"#, "[]"),
            plain.replace(r#"{"content":"a"}"#, r#"{"content":[{"type":"text","text":"a"}]}"#),
            plain.replace(r#"{"content":"a"}"#, r#"{"content":"\ud83d"}"#),
            plain.replace(r#"{"content":"a"}"#, r#"{"tool_calls":{}}"#),
            plain.replace(r#"{"content":"a"}"#, r#"{"tool_calls":[{"id":"c"}]}"#),
            plain.replace(r#"{"content":"a"}"#, r#"{"tool_calls":[{"index":0,"function":{"arguments":{}}}]}"#),
            chunk("null", ""),
            chunk("{}", ""),
            chunk(r#""none""#, ""),
            r#"{"tool":"terminal"}"#.to_owned(),
            r#"["c","chat.completion.chunk",1,"m",[]]"#.to_owned(),
            "5".to_owned(),
            r#""ping""#.to_owned(),
            "null".to_owned(),
            "ping".to_owned(),
            String::new(),
        ] {
            assert!(!is_chunk(bad.as_bytes()), "{bad}");
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            "[a-z]{0,4}".prop_map(Value::from),
            Just(Value::from(Vec::<Value>::new())),
            Just(json!({})),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::hash_map("[a-z]{1,4}", inner, 0..3).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #![proptest_config(kept())]

        /// A valid chunk with any one field removed or replaced never stops a stream. Its text is lost only if the text
        /// or its position was changed, and it is passed on unchanged only if it still has OpenAI's format.
        #[test]
        fn chunk_with_one_field_changed_goes_on_as_it_came_only_in_openais_shape(
            place in 0usize..9,
            with in proptest::option::of(json_value()),
        ) {
            let mut chunk = json!({"id":"c","object":"chat.completion.chunk","created":1,"model":"m",
                "choices":[{"index":0,"delta":{"role":"assistant","content":"a"},"finish_reason":null}]});
            let good = chunk.to_string();
            let (parent, key) = [
                ("", "id"), ("", "object"), ("", "created"), ("", "model"), ("", "choices"),
                ("/choices/0", "index"), ("/choices/0", "delta"), ("/choices/0/delta", "content"),
                ("/choices/0", "finish_reason"),
            ][place];
            let fields = chunk.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
            match with {
                Some(value) => drop(fields.insert(key.to_owned(), value)),
                None => drop(fields.remove(key)),
            }
            let data = chunk.to_string();
            let (mut decoder, mut out) = (super::super::COMPATIBLE.stream(), Vec::new());
            decoder.decode(Event { name: "", data: good.as_bytes() }, &mut out).expect("a good chunk");
            let decoded = decoder.decode(Event { name: "", data: data.as_bytes() }, &mut out);
            if decoded.is_ok() && decoder.as_openai(data.as_bytes()) {
                prop_assert_eq!(&chunk["object"], "chat.completion.chunk", "{}", data);
                prop_assert!(chunk["id"].is_string() && chunk["model"].is_string() && chunk["created"].is_u64());
                for choice in chunk["choices"].as_array().expect("a list") {
                    prop_assert!(choice["index"].is_u64() && choice["delta"].is_object(), "{}", data);
                    prop_assert!(choice["finish_reason"].is_null(), "{}", data);
                    let content = &choice["delta"]["content"];
                    prop_assert!(content.is_null() || content.is_string(), "{}", data);
                }
            }
        }
    }
}
