//! Anthropic's answers and events.

use serde::Deserialize;
use serde_json::Value;

use crate::llm::complete::{self, Reason};
use crate::llm::json;
use crate::llm::{
    ChatResponse, Choice, Piece, StreamDecoder, StreamError, THINKING_BLOCKS, ToolCall, Usage, failure, response, sse,
};
use crate::types::JsonMap;

#[derive(Deserialize, Default)]
struct WireMessage {
    #[serde(default)]
    id: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    content: Vec<Value>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    usage: WireUsage,
}

#[derive(Deserialize, Default)]
struct WireUsage {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    output_tokens_details: Option<WireDetails>,
}

#[derive(Deserialize)]
struct WireDetails {
    #[serde(default)]
    thinking_tokens: Option<u64>,
}

impl WireUsage {
    /// Anthropic's `input_tokens` is exclusive: what was read from and written to the cache is counted beside it.
    fn into_usage(self) -> Usage {
        let beside = self.cache_read_input_tokens.unwrap_or(0) + self.cache_creation_input_tokens.unwrap_or(0);
        Usage {
            input: self.input_tokens.map(|tokens| tokens + beside),
            cached: self.cache_read_input_tokens,
            cache_write: self.cache_creation_input_tokens,
            output: self.output_tokens,
            reasoning: self.output_tokens_details.and_then(|details| details.thinking_tokens),
        }
    }
}

fn malformed(what: &str, error: &serde_json::Error) -> StreamError {
    StreamError::Malformed(format!("{what} is none of Anthropic's: {}", response::describe(error)))
}

fn text_of<'a>(block: &'a Value, key: &str) -> &'a str {
    block.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Reads a whole answer.
pub(super) fn answer(body: &[u8]) -> Result<ChatResponse, StreamError> {
    let value: Value = json::read(body).map_err(|error| malformed("the answer", &error))?;
    match value.get("type").and_then(Value::as_str) {
        Some("error") => return Err(StreamError::Vendor(in_band(&value))),
        Some("message") => {}
        _ => return Err(StreamError::Malformed("the answer is no message".to_owned())),
    }
    let wire: WireMessage = serde_json::from_value(value).map_err(|error| malformed("the answer", &error))?;
    let mut choice = Choice::default();
    let mut thinking = Vec::new();
    for block in wire.content {
        match block.get("type").and_then(Value::as_str) {
            Some("text") => choice.text.get_or_insert_default().push_str(text_of(&block, "text")),
            Some("thinking") => {
                choice.reasoning.get_or_insert_default().push_str(text_of(&block, "thinking"));
                thinking.push(block);
            }
            Some("redacted_thinking") => thinking.push(block),
            Some("tool_use") => choice.tool_calls.push(ToolCall {
                id: text_of(&block, "id").to_owned(),
                name: text_of(&block, "name").to_owned(),
                arguments: block.get("input").map_or_else(|| "{}".to_owned(), Value::to_string),
                rest: JsonMap::new(),
            }),
            // Server tools' own blocks stay with the vendor.
            _ => {}
        }
    }
    if !thinking.is_empty() {
        // To be sent back as they are: they are signed.
        choice.rest.insert(THINKING_BLOCKS.to_owned(), Value::Array(thinking));
    }
    let mut unknown = Vec::new();
    match complete::reason(wire.stop_reason.as_deref(), None)? {
        Reason::Known(reason) => choice.finish = Some(reason),
        Reason::Unknown(word) => unknown.push((0, word)),
        Reason::Absent => {}
    }
    let response = ChatResponse {
        id: wire.id,
        model: wire.model,
        choices: vec![choice],
        usage: wire.usage.into_usage(),
        ..ChatResponse::default()
    };
    complete::whole(response, unknown)
}

/// An error that came with status 200: its type says which status it stands for.
fn in_band(value: &Value) -> failure::VendorError {
    let status = match value.pointer("/error/type").and_then(Value::as_str) {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("billing_error") => 402,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("request_too_large") => 413,
        Some("rate_limit_error") => 429,
        Some("timeout_error") => 504,
        Some("overloaded_error") => 529,
        _ => 500,
    };
    failure::read_value(status, value)
}

/// Decodes one stream.
#[derive(Default)]
pub(super) struct Decoder {
    /// The vendor's block index of each call, in order: OpenAI counts calls, Anthropic blocks.
    calls: Vec<u64>,
    /// The input with which a call began, until a part of it comes: a call without arguments has no other.
    input: Option<String>,
    /// Prompt tokens come at the start, in parts that belong together.
    start: WireUsage,
    /// The block of thinking that is coming.
    thinking: Option<Value>,
}

impl StreamDecoder for Decoder {
    fn decode(&mut self, event: sse::Event<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        if complete::is_mark(event.data) {
            out.push(Piece::Done);
            return Ok(());
        }
        let value: Value = json::read(event.data).map_err(|error| malformed("an event", &error))?;
        let index = value.get("index").and_then(Value::as_u64).unwrap_or(0);
        match value.get("type").and_then(Value::as_str) {
            Some("message_start") => {
                let message = value.get("message").cloned().unwrap_or_default();
                let message: WireMessage =
                    serde_json::from_value(message).map_err(|error| malformed("message_start", &error))?;
                out.push(Piece::Start { id: message.id, model: message.model, created: None });
                self.start = message.usage;
                self.usage(&value, out);
            }
            Some("content_block_start") => {
                self.flush_input(out);
                let block = value.get("content_block").unwrap_or(&Value::Null);
                match block.get("type").and_then(Value::as_str) {
                    Some("tool_use") => {
                        self.calls.push(index);
                        self.input = Some(block.get("input").map_or_else(|| "{}".to_owned(), Value::to_string));
                        out.push(Piece::ToolCall {
                            choice: 0,
                            index: self.call(index),
                            id: Some(text_of(block, "id").to_owned()),
                            name: Some(text_of(block, "name").to_owned()),
                            arguments: String::new(),
                        });
                    }
                    Some("thinking" | "redacted_thinking") => self.thinking = Some(block.clone()),
                    Some("text") if !text_of(block, "text").is_empty() => {
                        out.push(Piece::Text { choice: 0, text: text_of(block, "text").to_owned() });
                    }
                    _ => {}
                }
            }
            Some("content_block_delta") => {
                let delta = value.get("delta").unwrap_or(&Value::Null);
                match delta.get("type").and_then(Value::as_str) {
                    Some("text_delta") => {
                        out.push(Piece::Text { choice: 0, text: text_of(delta, "text").to_owned() });
                    }
                    Some("thinking_delta") => {
                        self.think("thinking", text_of(delta, "thinking"));
                        out.push(Piece::Reasoning { choice: 0, text: text_of(delta, "thinking").to_owned() });
                    }
                    Some("signature_delta") => self.think("signature", text_of(delta, "signature")),
                    Some("input_json_delta") if self.calls.contains(&index) => {
                        let part = text_of(delta, "partial_json");
                        if !part.is_empty() {
                            self.input = None;
                            out.push(self.arguments(index, part.to_owned()));
                        }
                    }
                    _ => {}
                }
            }
            Some("content_block_stop") => {
                out.extend(self.thinking.take().map(|block| Piece::Thinking { choice: 0, block }));
                self.flush_input(out);
            }
            Some("message_delta") => {
                self.flush_input(out);
                self.usage(&value, out);
                let reason = value.pointer("/delta/stop_reason").and_then(Value::as_str);
                complete::finish(0, reason, false, out)?;
            }
            Some("message_stop") => out.push(Piece::Done),
            Some("error") => return Err(StreamError::Vendor(in_band(&value))),
            // `ping`, and what is yet to come.
            _ => {}
        }
        Ok(())
    }
}

impl Decoder {
    fn call(&self, block: u64) -> u32 {
        let position = self.calls.iter().position(|known| *known == block).unwrap_or(0);
        u32::try_from(position).unwrap_or(u32::MAX)
    }

    /// Gives a call that has got no arguments those with which it began.
    fn flush_input(&mut self, out: &mut Vec<Piece>) {
        if let (Some(input), Some(block)) = (self.input.take(), self.calls.last()) {
            out.push(self.arguments(*block, input));
        }
    }

    fn arguments(&self, block: u64, arguments: String) -> Piece {
        Piece::ToolCall { choice: 0, index: self.call(block), id: None, name: None, arguments }
    }

    /// Lays a delta onto the block of thinking.
    fn think(&mut self, key: &str, more: &str) {
        if let Some(Value::Object(block)) = &mut self.thinking
            && let Value::String(text) = block.entry(key).or_insert_with(|| Value::String(String::new()))
        {
            text.push_str(more);
        }
    }

    /// `message_delta.usage` is cumulative; what it leaves out stands as at the start.
    fn usage(&mut self, value: &Value, out: &mut Vec<Piece>) {
        if let Some(Ok(later)) = value.get("usage").map(|usage| serde_json::from_value::<WireUsage>(usage.clone())) {
            let start = &mut self.start;
            start.input_tokens = later.input_tokens.or(start.input_tokens);
            start.cache_creation_input_tokens = later.cache_creation_input_tokens.or(start.cache_creation_input_tokens);
            start.cache_read_input_tokens = later.cache_read_input_tokens.or(start.cache_read_input_tokens);
            start.output_tokens = later.output_tokens.or(start.output_tokens);
            start.output_tokens_details = later.output_tokens_details.or(start.output_tokens_details.take());
        }
        let now = &self.start;
        let usage = WireUsage {
            input_tokens: now.input_tokens,
            cache_creation_input_tokens: now.cache_creation_input_tokens,
            cache_read_input_tokens: now.cache_read_input_tokens,
            output_tokens: now.output_tokens,
            output_tokens_details: now
                .output_tokens_details
                .as_ref()
                .map(|details| WireDetails { thinking_tokens: details.thinking_tokens }),
        };
        out.push(Piece::Usage(usage.into_usage()));
    }
}
