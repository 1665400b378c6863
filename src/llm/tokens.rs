//! Estimates the tokens that a request uses, for any model. Knows no model: a model's
//! [`Ratio`](crate::base::tokens::Ratio) converts the estimate.

use serde_json::Value;

use super::{ChatRequest, Content, ResponseFormat, Tool};
use crate::base::tokens::estimate;

/// Assumed tokens of an answer that its request does not limit.
pub const ANSWER: u64 = 1_024;
/// Tokens that the chat format adds to each prompt, and to each of its messages.
const PER_PROMPT: u64 = 11;
const PER_MESSAGE: u64 = 4;
/// For a part that is not text, such as an image, one token is assumed for this many bytes. The real number differs by
/// vendor.
const BYTES_PER_TOKEN: usize = 3;

/// Estimated tokens of a prompt: its messages, its tools and its schema.
pub fn prompt(request: &ChatRequest) -> u64 {
    let messages = request.messages.iter().map(|message| {
        let calls = message.tool_calls.iter().map(|call| estimate(&call.name) + estimate(&call.arguments));
        PER_MESSAGE + content(&message.content) + calls.sum::<u64>()
    });
    let tools = request.tools.iter().map(|tool| match tool {
        Tool::Function(function) => {
            let description = function.description.as_deref().unwrap_or_default();
            let parameters = function.parameters.as_ref().map(Value::to_string).unwrap_or_default();
            estimate(&function.name) + estimate(description) + estimate(&parameters)
        }
        Tool::Other(tool) => estimate(&tool.to_string()),
    });
    let schema = match &request.response_format {
        Some(ResponseFormat::JsonSchema { schema, .. }) => estimate(&schema.to_string()),
        _ => 0,
    };
    PER_PROMPT + messages.sum::<u64>() + tools.sum::<u64>() + schema
}

/// Maximum number of tokens of the answers: what the request allows, or else [`ANSWER`].
pub fn answer(request: &ChatRequest) -> u64 {
    request.max_tokens.unwrap_or(ANSWER).saturating_mul(u64::from(request.n.unwrap_or(1)))
}

/// Returns true if the whole prompt is text. Only then do all tokenizers give similar counts.
pub fn is_text(request: &ChatRequest) -> bool {
    request.messages.iter().all(|message| match &message.content {
        Content::Parts(parts) => parts.iter().all(|part| text(part).is_some()),
        Content::None | Content::Text(_) | Content::Blocks(_) => true,
    })
}

fn text(part: &Value) -> Option<&str> {
    part.get("text")?.as_str()
}

fn content(content: &Content) -> u64 {
    match content {
        Content::None => 0,
        Content::Text(_) | Content::Blocks(_) => content.segments().map(|segment| estimate(segment)).sum(),
        Content::Parts(parts) => {
            let other = |part: &Value| (part.to_string().len() / BYTES_PER_TOKEN) as u64;
            parts.iter().map(|part| text(part).map_or_else(|| other(part), estimate)).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(body: Value) -> ChatRequest {
        ChatRequest::from_json(body.to_string().as_bytes()).expect("request").0
    }

    #[test]
    fn everything_that_a_prompt_holds_is_counted() {
        let mut body = json!({"model":"m","messages":[{"role":"user","content":"Hello"}]});
        let mut before = prompt(&request(body.clone()));
        assert_eq!((before, answer(&request(body.clone()))), (PER_PROMPT + PER_MESSAGE + 1, ANSWER));
        for (key, value) in [
            ("messages", json!([{"role":"user","content":[{"type":"text","text":"Hello there"}]}])),
            ("tools", json!([{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}])),
            ("response_format", json!({"type":"json_schema","json_schema":{"name":"s","schema":{"type":"object"}}})),
        ] {
            body[key] = value;
            let now = prompt(&request(body.clone()));
            assert!(now > before, "{key}: {now} after {before}");
            before = now;
        }
        body["max_tokens"] = json!(7);
        body["n"] = json!(3);
        assert_eq!(answer(&request(body)), 21);
    }

    #[test]
    fn prompt_with_an_image_is_no_text() {
        let image = json!([{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"https://x/y.png"}}]);
        for (content, is) in [(json!("x"), true), (json!([{"type":"text","text":"x"}]), true), (image, false)] {
            let request = request(json!({"model":"m","messages":[{"role":"user","content":content}]}));
            assert_eq!(is_text(&request), is);
        }
    }
}
