//! Decodes Anthropic's answers and stream events.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::llm::calls::Calls;
use crate::llm::complete::{self, Reason};
use crate::llm::{
    ChatResponse, Choice, Piece, StreamDecoder, StreamError, THINKING_BLOCKS, ToolCall, Usage, failure, response, sse,
};
use crate::llm::{json, lenient};
use crate::types::JsonMap;

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireMessage {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    model: Option<String>,
    content: Value,
    #[serde(deserialize_with = "lenient::text")]
    stop_reason: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    usage: Option<WireUsage>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireUsage {
    #[serde(deserialize_with = "lenient::tokens")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    cache_read_input_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    output_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::object")]
    output_tokens_details: Option<WireDetails>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireDetails {
    #[serde(deserialize_with = "lenient::tokens")]
    thinking_tokens: Option<u64>,
}

impl WireUsage {
    /// Anthropic's `input_tokens` excludes the tokens read from and written to the cache; [`Usage::input`] includes
    /// them.
    fn into_usage(self) -> Usage {
        let (read, written) = (self.cache_read_input_tokens, self.cache_creation_input_tokens);
        let beside = read.unwrap_or(0).saturating_add(written.unwrap_or(0));
        Usage {
            input: self.input_tokens.map(|tokens| tokens.saturating_add(beside)),
            cached: read,
            cache_write: written,
            output: self.output_tokens,
            reasoning: self.output_tokens_details.and_then(|details| details.thinking_tokens),
        }
    }
}

fn malformed(what: &str, error: &serde_json::Error) -> StreamError {
    StreamError::Malformed(format!("{what} is not in Anthropic's format: {}", response::describe(error)))
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The field as text, if there is any.
fn some_text(value: &Value, key: &str) -> Option<String> {
    lenient::text_of(value.get(key)?)
}

/// The type of an event, a block or a delta. If it is missing, it follows from the field that is present.
fn kind_of<'a>(value: &'a Value, by_field: &[(&str, &'a str)]) -> &'a str {
    let given = value.get("type").and_then(Value::as_str);
    let told = || by_field.iter().find(|(field, _)| value.get(field).is_some_and(|field| !field.is_null()));
    given.or_else(|| told().map(|(_, kind)| *kind)).unwrap_or_default()
}

const BLOCKS: &[(&str, &str)] = &[("text", "text"), ("thinking", "thinking"), ("input", "tool_use")];
const DELTAS: &[(&str, &str)] = &[
    ("text", "text_delta"),
    ("thinking", "thinking_delta"),
    ("signature", "signature_delta"),
    ("partial_json", "input_json_delta"),
];

/// The arguments of a call. The vendor gives an object, or its JSON as text.
fn input_of(block: &Value) -> String {
    match block.get("input") {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(Value::String(text)) if text.trim().is_empty() => "{}".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(input) => input.to_string(),
    }
}

/// Returns true if an answer or an event reports an error in place of its content.
fn error_in(value: &Value) -> bool {
    let reported = |error: &Value| lenient::reported(error.clone()).is_some();
    value.get("type").and_then(Value::as_str) == Some("error") || value.get("error").is_some_and(reported)
}

/// Reads a whole answer.
pub(super) fn answer(body: &[u8]) -> Result<ChatResponse, StreamError> {
    let value: Value = json::read(body).map_err(|error| malformed("the answer", &error))?;
    if error_in(&value) {
        return Err(StreamError::Vendor(in_band(&value)));
    }
    let is_message = value.get("type").and_then(Value::as_str) == Some("message");
    if !is_message && !matches!(value.get("content"), Some(Value::Array(_) | Value::String(_))) {
        return Err(StreamError::Malformed("the answer is not a message: it has no content".to_owned()));
    }
    let wire: WireMessage = serde_json::from_value(value).map_err(|error| malformed("the answer", &error))?;
    let mut choice = Choice::default();
    let mut calls = Calls::default();
    let mut pieces = Vec::new();
    let mut thinking = Vec::new();
    let blocks = match wire.content {
        Value::Array(blocks) => blocks,
        Value::String(text) => vec![json!({ "text": text })],
        _ => Vec::new(),
    };
    for block in blocks {
        match kind_of(&block, BLOCKS) {
            "text" => choice.text.get_or_insert_default().push_str(text_of(&block, "text")),
            "thinking" => {
                choice.reasoning.get_or_insert_default().push_str(text_of(&block, "thinking"));
                thinking.push(block);
            }
            "redacted_thinking" => thinking.push(block),
            "tool_use" => {
                let (id, name) = (some_text(&block, "id"), some_text(&block, "name"));
                calls.begin(0, id, name, input_of(&block), &mut pieces)?;
                if let Some(Piece::ToolCall { id: Some(id), name: Some(name), arguments, .. }) = pieces.pop() {
                    choice.tool_calls.push(ToolCall { id, name, arguments, rest: JsonMap::new() });
                }
            }
            // Blocks of the vendor's own server tools are not passed on.
            _ => {}
        }
    }
    calls.check(0)?;
    if !thinking.is_empty() {
        // The client must send them back unchanged, because they are signed.
        choice.rest.insert(THINKING_BLOCKS.to_owned(), Value::Array(thinking));
    }
    let mut unknown = Vec::new();
    match complete::reason(wire.stop_reason.as_deref(), None)? {
        Reason::Known(reason) => choice.finish = Some(reason),
        Reason::Unknown(word) => unknown.push((0, word)),
        Reason::Absent => {}
    }
    let response = ChatResponse {
        id: wire.id.unwrap_or_default(),
        model: wire.model.unwrap_or_default(),
        choices: vec![choice],
        usage: wire.usage.unwrap_or_default().into_usage(),
        ..ChatResponse::default()
    };
    complete::whole(response, unknown)
}

/// An error that came with status 200. Its type shows which status it stands for.
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
    calls: Calls,
    /// The blocks that have begun and not ended: the vendor's number, and our index of the tool call if the block is
    /// one.
    open: Vec<(Option<u64>, Option<u32>)>,
    /// A tool call and the input given at its start, until its first part arrives. A call without parts has that input.
    input: Option<(u32, String)>,
    /// The usage so far. The start of the stream has the prompt tokens, in parts that add up.
    start: WireUsage,
    /// The thinking block that is being received.
    thinking: Option<Value>,
}

impl StreamDecoder for Decoder {
    fn decode(&mut self, event: sse::Event<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        if complete::is_mark(event.data) {
            out.push(Piece::Done);
            return Ok(());
        }
        let value: Value = json::read(event.data).map_err(|error| malformed("an event", &error))?;
        if error_in(&value) {
            return Err(StreamError::Vendor(in_band(&value)));
        }
        let index = value.get("index").and_then(lenient::count_of);
        let kind = value.get("type").and_then(Value::as_str).unwrap_or(event.name);
        match kind {
            "message_start" => {
                let message = value.get("message").cloned().filter(Value::is_object);
                let message: WireMessage = serde_json::from_value(message.unwrap_or_else(|| json!({})))
                    .map_err(|error| malformed("message_start", &error))?;
                let (id, model) = (message.id.unwrap_or_default(), message.model.unwrap_or_default());
                out.push(Piece::Start { id, model, created: None });
                self.start = message.usage.unwrap_or_default();
                self.usage(&value, out);
            }
            "content_block_start" => self.begin(index, value.get("content_block").unwrap_or(&Value::Null), out)?,
            "content_block_delta" => self.delta(index, value.get("delta").unwrap_or(&Value::Null), out),
            "content_block_stop" => {
                out.extend(self.thinking.take().map(|block| Piece::Thinking { choice: 0, block }));
                self.flush_input(out);
                let ended = self.open.iter().rposition(|(known, _)| *known == index);
                let ended = ended.or(self.open.len().checked_sub(1));
                ended.map(|position| self.open.remove(position));
            }
            "message_delta" => {
                self.flush_input(out);
                self.usage(&value, out);
                let reason = value.pointer("/delta/stop_reason").and_then(Value::as_str);
                complete::finish(0, reason, false, out)?;
                self.calls.check_end(0, out)?;
            }
            "message_stop" => out.push(Piece::Done),
            // `ping`, and event types that are added in the future.
            _ => {}
        }
        Ok(())
    }
}

impl Decoder {
    fn begin(&mut self, index: Option<u64>, block: &Value, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        self.flush_input(out);
        // Blocks come one after the other, so a repeated number belongs to a new block.
        self.open.retain(|(known, _)| *known != index);
        let mut call = None;
        match kind_of(block, BLOCKS) {
            "tool_use" => {
                let begun =
                    self.calls.begin(0, some_text(block, "id"), some_text(block, "name"), String::new(), out)?;
                self.input = Some((begun, input_of(block)));
                call = Some(begun);
            }
            "thinking" | "redacted_thinking" => self.thinking = Some(block.clone()),
            "text" if !text_of(block, "text").is_empty() => {
                out.push(Piece::Text { choice: 0, text: text_of(block, "text").to_owned() });
            }
            _ => {}
        }
        self.open.push((index, call));
        Ok(())
    }

    fn delta(&mut self, index: Option<u64>, delta: &Value, out: &mut Vec<Piece>) {
        match kind_of(delta, DELTAS) {
            "text_delta" => out.push(Piece::Text { choice: 0, text: text_of(delta, "text").to_owned() }),
            "thinking_delta" => {
                self.think("thinking", text_of(delta, "thinking"));
                out.push(Piece::Reasoning { choice: 0, text: text_of(delta, "thinking").to_owned() });
            }
            "signature_delta" => self.think("signature", text_of(delta, "signature")),
            "input_json_delta" => {
                let of_index = self.open.iter().rev().find(|(known, _)| *known == index);
                let block = of_index.or(self.open.last());
                let part = text_of(delta, "partial_json");
                if let Some((_, Some(call))) = block
                    && !part.is_empty()
                {
                    self.input = None;
                    self.calls.more(0, *call, part.to_owned(), out);
                }
            }
            _ => {}
        }
    }

    /// Appends the input given at the start of a call, if the call got no other arguments.
    fn flush_input(&mut self, out: &mut Vec<Piece>) {
        if let Some((call, input)) = self.input.take() {
            self.calls.more(0, call, input, out);
        }
    }

    /// Appends a delta to the thinking block.
    fn think(&mut self, key: &str, more: &str) {
        if let Some(Value::Object(block)) = &mut self.thinking
            && let Value::String(text) = block.entry(key).or_insert_with(|| Value::String(String::new()))
        {
            text.push_str(more);
        }
    }

    /// `message_delta.usage` is cumulative. Counts that it leaves out keep their values from the start.
    fn usage(&mut self, value: &Value, out: &mut Vec<Piece>) {
        let later = value.get("usage").filter(|usage| usage.is_object()).cloned();
        if let Some(Ok(later)) = later.map(serde_json::from_value::<WireUsage>) {
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
