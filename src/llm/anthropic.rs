//! Anthropic's Messages API, in both of its live versions. Sources: the `anthropic` package's types; the documentation's
//! "Versions" and "Migrating to API version 2026-10-21".

use http::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::emulate::{self, image_source, refuse_unknown};
use super::json::{self, Object};
use super::{
    Call, ChatRequest, ChatResponse, Choice, Content, Finish, Message, Piece, Provider, ResponseFormat, Role,
    SchemaMode, StreamDecoder, StreamError, Tool, ToolCall, ToolChoice, Unsupported, Usage, Wire, failure, response,
    secret_header, sse,
};
use crate::types::JsonMap;

/// Anthropic.
pub(super) static ANTHROPIC: Anthropic = Anthropic;

#[derive(Debug)]
pub(super) struct Anthropic;

const NEWEST: &str = "2026-10-21";
/// The version that still takes sampling parameters, of its older models.
const OLD: &str = "2023-06-01";
/// Required by the API; what is sent where the caller says nothing.
const MAX_TOKENS: u64 = 4096;

/// Fields of the API that go through as they came.
const NATIVE: &[&str] =
    &["cache_control", "thinking", "container", "speed", "inference_geo", "context_management", "mcp_servers"];

impl Provider for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn base_url(&self) -> Option<&'static str> {
        Some("https://api.anthropic.com")
    }

    fn schema_modes(&self) -> &'static [SchemaMode] {
        &[SchemaMode::JsonSchema, SchemaMode::Prompt]
    }

    fn encode(&self, request: &ChatRequest, call: &Call<'_>) -> Result<Wire, Unsupported> {
        emulate::refuse(request, "Anthropic", &["n", "logprobs", "penalties"])?;
        let version = call.api_version.unwrap_or(NEWEST);
        let mut body = Vec::with_capacity(4096);
        write_body(&mut body, request, call, version)?;
        let version = HeaderValue::from_str(version)
            .map_err(|_| Unsupported("api_version has characters that no header can hold".to_owned()))?;
        let mut headers = vec![(HeaderName::from_static("anthropic-version"), version)];
        if let Some(key) = call.key {
            headers.push(secret_header(HeaderName::from_static("x-api-key"), key)?);
        }
        Ok(Wire { path: "/v1/messages".to_owned(), headers, body })
    }

    fn answer(&self, body: &[u8]) -> Result<ChatResponse, StreamError> {
        answer(body)
    }

    fn stream(&self) -> Box<dyn StreamDecoder> {
        Box::new(Decoder::default())
    }
}

/// Opus from 4.7 and the fifth family on refuse sampling parameters in either version.
fn takes_sampling(version: &str, model: &str) -> bool {
    let newer = ["opus-4-7", "opus-4-8", "opus-4-9", "-5-", "opus-5", "sonnet-5", "haiku-5"];
    let family_four = ["haiku-4-5", "sonnet-4-5", "opus-4-5"];
    version == OLD
        && (family_four.iter().any(|part| model.contains(part)) || !newer.iter().any(|part| model.contains(part)))
}

fn write_body(out: &mut Vec<u8>, request: &ChatRequest, call: &Call<'_>, version: &str) -> Result<(), Unsupported> {
    let mut object = Object::new(out);
    object.string("model", call.model);
    object.value("max_tokens", &request.max_tokens.unwrap_or(MAX_TOKENS));
    let instruction = emulate::instruction(request, call.schema_mode, false);
    write_system(&mut object, request, instruction.as_deref());
    write_messages(object.key("messages"), &request.messages)?;
    if call.stream {
        object.value("stream", &true);
    }
    if takes_sampling(version, call.model) {
        object.option("temperature", request.temperature.map(|warmth| warmth.min(1.0)).as_ref());
        object.option("top_p", request.top_p.as_ref());
        object.option("top_k", request.rest.get("top_k"));
    }
    if !request.stop.is_empty() {
        object.value("stop_sequences", &request.stop);
    }
    write_tools(&mut object, request)?;
    let schema = match (&request.response_format, call.schema_mode) {
        (Some(ResponseFormat::JsonSchema { schema, .. }), SchemaMode::JsonSchema) => Some(emulate::closed(schema)),
        _ => None,
    };
    let effort = request.reasoning_effort.as_deref().map(|effort| match effort {
        "none" | "minimal" => "low",
        other => other,
    });
    if schema.is_some() || effort.is_some() {
        let mut config = Object::new(object.key("output_config"));
        if let Some(effort) = effort {
            config.string("effort", effort);
        }
        if let Some(schema) = schema {
            config.value("format", &json!({"type": "json_schema", "schema": schema}));
        }
        config.end();
    }
    if let Some(user) = &request.user {
        object.value("metadata", &json!({ "user_id": user }));
    }
    for (key, value) in &request.rest {
        if NATIVE.contains(&key.as_str()) {
            object.value(key, value);
        } else if key != "top_k" {
            refuse_unknown(key, "Anthropic")?;
        }
    }
    object.end();
    Ok(())
}

/// System and developer messages, wherever they stand, joined.
fn write_system(object: &mut Object<'_>, request: &ChatRequest, instruction: Option<&str>) {
    let instructions: Vec<&Message> =
        request.messages.iter().filter(|message| message.role.instructs() && !message.content.is_empty()).collect();
    if instructions.is_empty() && instruction.is_none() {
        return;
    }
    let out = object.key("system");
    out.push(b'"');
    for (position, message) in instructions.iter().enumerate() {
        if position > 0 {
            out.extend_from_slice(b"\\n\\n");
        }
        match &message.content {
            Content::Text(text) => text.segments().iter().for_each(|segment| json::escape(out, segment)),
            other => json::escape(out, &other.plain()),
        }
    }
    if let Some(instruction) = instruction {
        if !instructions.is_empty() {
            out.extend_from_slice(b"\\n\\n");
        }
        json::escape(out, instruction);
    }
    out.push(b'"');
}

/// Consecutive messages of one role become one; tools' results are the user's, and come first in their message.
fn write_messages(out: &mut Vec<u8>, messages: &[Message]) -> Result<(), Unsupported> {
    let spoken: Vec<&Message> = messages.iter().filter(|message| !message.role.instructs()).collect();
    if spoken.is_empty() {
        return Err(Unsupported("Anthropic needs at least one message that is not a system message".to_owned()));
    }
    out.push(b'[');
    let mut from = 0;
    while from < spoken.len() {
        let assistant = spoken[from].role == Role::Assistant;
        let length = spoken[from..].iter().take_while(|message| (message.role == Role::Assistant) == assistant).count();
        let group = &spoken[from..from + length];
        if from > 0 {
            out.push(b',');
        }
        from += length;
        let mut object = Object::new(out);
        object.string("role", if assistant { "assistant" } else { "user" });
        let mut blocks = Blocks::open(object.key("content"));
        for message in group.iter().filter(|message| message.role == Role::Tool) {
            write_result(&mut blocks, message);
        }
        for message in group.iter().filter(|message| message.role != Role::Tool) {
            write_blocks(&mut blocks, message)?;
        }
        blocks.close();
        object.end();
    }
    out.push(b']');
    Ok(())
}

/// A list of content blocks that is being written.
struct Blocks<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Blocks<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'[');
        Self { out, first: true }
    }

    fn next(&mut self) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out
    }

    fn close(self) {
        self.out.push(b']');
    }
}

fn write_result(blocks: &mut Blocks<'_>, message: &Message) {
    let mut object = Object::new(blocks.next());
    object.string("type", "tool_result");
    object.string("tool_use_id", &call_id(message.tool_call_id.as_deref().unwrap_or_default()));
    match &message.content {
        Content::Text(text) => json::text(object.key("content"), text),
        other => object.string("content", &other.plain()),
    }
    object.end();
}

/// Anthropic's ids are `[A-Za-z0-9_-]+`; other vendors' may not be.
fn call_id(id: &str) -> String {
    let id = emulate::bare_call_id(id);
    id.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).collect()
}

fn write_blocks(blocks: &mut Blocks<'_>, message: &Message) -> Result<(), Unsupported> {
    if let Some(Value::Array(thinking)) = message.rest.get("thinking_blocks") {
        for block in thinking {
            json::value(blocks.next(), block);
        }
    }
    match &message.content {
        Content::None => {}
        Content::Text(text) if text.is_empty() => {}
        Content::Text(text) => {
            let mut object = Object::new(blocks.next());
            object.string("type", "text");
            let out = object.key("text");
            out.push(b'"');
            if let Some(name) = &message.name {
                json::escape(out, &format!("{name}: "));
            }
            text.segments().iter().for_each(|segment| json::escape(out, segment));
            out.push(b'"');
            object.option("cache_control", message.rest.get("cache_control"));
            object.end();
        }
        Content::Parts(parts) => {
            for part in parts {
                json::value(blocks.next(), &block(part)?);
            }
        }
    }
    for call in &message.tool_calls {
        let mut object = Object::new(blocks.next());
        object.string("type", "tool_use");
        object.string("id", &call_id(&call.id));
        object.string("name", &call.name);
        object.value("input", &emulate::arguments(call)?);
        object.end();
    }
    Ok(())
}

/// A content part as one of Anthropic's blocks.
fn block(part: &Value) -> Result<Value, Unsupported> {
    match part.get("type").and_then(Value::as_str) {
        Some("text" | "refusal") => {
            let text = part.get("text").or_else(|| part.get("refusal")).cloned().unwrap_or_default();
            let mut block = json!({"type": "text", "text": text});
            if let Some(cache) = part.get("cache_control") {
                block["cache_control"] = cache.clone();
            }
            Ok(block)
        }
        Some("image_url") => match image_source(part) {
            Some((Some(media), data)) => {
                Ok(json!({"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}))
            }
            Some((None, url)) => Ok(json!({"type": "image", "source": {"type": "url", "url": url}})),
            None => Err(Unsupported("an image_url part without a url".to_owned())),
        },
        other => Err(Unsupported(format!("Anthropic takes no content part of type {:?}", other.unwrap_or("none")))),
    }
}

fn write_tools(object: &mut Object<'_>, request: &ChatRequest) -> Result<(), Unsupported> {
    if request.tools.is_empty() {
        return Ok(());
    }
    let mut tools = Vec::with_capacity(request.tools.len());
    for tool in &request.tools {
        tools.push(match tool {
            Tool::Other(value) if value.get("type").and_then(Value::as_str) == Some("custom") => {
                return Err(Unsupported("Anthropic takes no tool of type \"custom\"".to_owned()));
            }
            // The vendor's own tools (`web_search_…`), asked for in its own words.
            Tool::Other(value) => value.clone(),
            Tool::Function(function) => {
                let schema = function.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
                let mut tool = json!({"name": function.name, "input_schema": schema});
                if let Some(description) = &function.description {
                    tool["description"] = json!(description);
                }
                if let Some(strict) = function.strict {
                    tool["strict"] = json!(strict);
                }
                tool
            }
        });
    }
    object.value("tools", &tools);
    let mut choice = match &request.tool_choice {
        None | Some(ToolChoice::Auto) => json!({"type": "auto"}),
        Some(ToolChoice::None) => json!({"type": "none"}),
        Some(ToolChoice::Required) => json!({"type": "any"}),
        Some(ToolChoice::Named(name)) => json!({"type": "tool", "name": name}),
        Some(ToolChoice::Other(_)) => {
            return Err(Unsupported("Anthropic takes tool_choice none, auto, required or a function".to_owned()));
        }
    };
    let serial = request.parallel_tool_calls == Some(false) && choice["type"] != "none";
    if serial {
        choice["disable_parallel_tool_use"] = json!(true);
    }
    if serial || request.tool_choice.is_some() {
        object.value("tool_choice", &choice);
    }
    Ok(())
}

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

fn answer(body: &[u8]) -> Result<ChatResponse, StreamError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| malformed("the answer", &error))?;
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
        choice.rest.insert("thinking_blocks".to_owned(), Value::Array(thinking));
    }
    choice.finish = Some(finish(wire.stop_reason.as_deref()));
    Ok(ChatResponse {
        id: wire.id,
        model: wire.model,
        choices: vec![choice],
        usage: wire.usage.into_usage(),
        ..ChatResponse::default()
    })
}

fn finish(reason: Option<&str>) -> Finish {
    reason.and_then(Finish::parse).unwrap_or(Finish::Stop)
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
struct Decoder {
    /// The vendor's block index of each call, in order: OpenAI counts calls, Anthropic blocks.
    calls: Vec<u64>,
    /// Prompt tokens come at the start, in parts that belong together.
    start: WireUsage,
}

impl StreamDecoder for Decoder {
    fn decode(&mut self, event: sse::Event<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        let value: Value = serde_json::from_slice(event.data).map_err(|error| malformed("an event", &error))?;
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
                let block = value.get("content_block").unwrap_or(&Value::Null);
                match block.get("type").and_then(Value::as_str) {
                    Some("tool_use") => {
                        self.calls.push(index);
                        out.push(Piece::ToolCall {
                            choice: 0,
                            index: self.call(index),
                            id: Some(text_of(block, "id").to_owned()),
                            name: Some(text_of(block, "name").to_owned()),
                            arguments: String::new(),
                        });
                    }
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
                        out.push(Piece::Reasoning { choice: 0, text: text_of(delta, "thinking").to_owned() });
                    }
                    Some("input_json_delta") if self.calls.contains(&index) => out.push(Piece::ToolCall {
                        choice: 0,
                        index: self.call(index),
                        id: None,
                        name: None,
                        arguments: text_of(delta, "partial_json").to_owned(),
                    }),
                    _ => {}
                }
            }
            Some("message_delta") => {
                self.usage(&value, out);
                if let Some(reason) = value.pointer("/delta/stop_reason").and_then(Value::as_str) {
                    out.push(Piece::Finish { choice: 0, reason: finish(Some(reason)) });
                }
            }
            Some("message_stop") => out.push(Piece::Done),
            Some("error") => return Err(StreamError::Vendor(in_band(&value))),
            // `ping`, `content_block_stop`, and what is yet to come.
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
