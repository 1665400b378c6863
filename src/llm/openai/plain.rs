//! The simplest chunks, which are nearly all of them: one piece of text for the first answer, and nothing else. Read
//! without a tree and with one copy.
//!
//! Any other chunk is left to the decoder; this never says what is wrong.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::shape;

/// A chunk in OpenAI's own [shape]. Every other field that the decoder would use must be absent or null.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chunk<'a> {
    #[serde(rename = "id")]
    _id: &'a str,
    #[serde(rename = "object")]
    _object: shape::Name,
    #[serde(rename = "created")]
    _created: u64,
    #[serde(rename = "model")]
    _model: &'a str,
    #[serde(default, rename = "system_fingerprint")]
    _system_fingerprint: IgnoredAny,
    #[serde(default, rename = "service_tier")]
    _service_tier: IgnoredAny,
    /// OpenAI's padding, which hides the length of the text from eavesdroppers.
    #[serde(default, rename = "obfuscation")]
    _obfuscation: IgnoredAny,
    /// OpenRouter's field.
    #[serde(default, rename = "provider")]
    _provider: IgnoredAny,
    #[serde(borrow)]
    choices: [Choice<'a>; 1],
    #[serde(default, rename = "usage")]
    _usage: (),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice<'a> {
    index: u32,
    #[serde(borrow, deserialize_with = "shape::object")]
    delta: Delta<'a>,
    #[serde(default, rename = "finish_reason")]
    _finish_reason: (),
    /// OpenRouter's field.
    #[serde(default, rename = "native_finish_reason")]
    _native_finish_reason: (),
    #[serde(default, rename = "logprobs")]
    _logprobs: (),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delta<'a> {
    #[serde(default, rename = "role")]
    _role: IgnoredAny,
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(default, rename = "refusal")]
    _refusal: (),
}

/// The text of a chunk that contains nothing else; `None` for any other chunk.
pub(super) fn text(data: &str) -> Option<Cow<'_, str>> {
    let Chunk { choices: [Choice { index: 0, delta, .. }], .. } = serde_json::from_str(data).ok()? else {
        return None;
    };
    Some(delta.content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_text_chunks_are_recognised() {
        let chunk = |choice: &str, more: &str| {
            let text = format!(
                "{{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{choice}]{more}}}"
            );
            text_of(&text)
        };
        fn text_of(data: &str) -> Option<String> {
            text(data).map(Cow::into_owned)
        }
        let plain = r#"{"index":0,"delta":{"content":"a\u00e9\n"},"logprobs":null,"finish_reason":null}"#;
        assert_eq!(chunk(plain, "").as_deref(), Some("a\u{e9}\n"));
        assert_eq!(chunk(r#"{"index":0,"delta":[null,"a"],"finish_reason":null}"#, ""), None, "a list");
        assert_eq!(chunk(plain, r#","usage":null,"system_fingerprint":"f""#).as_deref(), Some("a\u{e9}\n"));
        for more in [r#","usage":{"prompt_tokens":1}"#, r#","error":{"message":"x"}"#, r#","x_groq":{}"#, "}"] {
            assert_eq!(chunk(plain, more), None, "{more}");
        }
        for choice in [
            r#"{"index":1,"delta":{"content":"a"}}"#,
            r#"{"delta":{"content":"a"}}"#,
            r#"{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}"#,
            r#"{"index":0,"delta":{"content":null}}"#,
            r#"{"index":0,"delta":{"content":[]}}"#,
            r#"{"index":0,"delta":{"content":"a","tool_calls":[]}}"#,
            r#"{"index":0,"delta":{"content":"a","reasoning":"b"}}"#,
            r#"{"index":0,"delta":{}}"#,
            "",
        ] {
            assert_eq!(chunk(choice, ""), None, "{choice}");
        }
    }
}
