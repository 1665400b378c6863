//! Anthropic's Messages API, in both of its live versions. Sources: the `anthropic` package's types; the documentation's
//! "Versions" and "Migrating to API version 2026-10-21".

pub(super) mod cache;
mod decode;

use http::header::{HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::calls::{IdRule, unique_ids};
use super::emulate::{self, image_source, refuse_unknown};
use super::json::{self, Object};
use super::{
    AuthScheme, Call, ChatRequest, ChatResponse, Content, KeyHeader, ListCall, Marks, Message, PromptCache, Provider,
    ResponseFormat, Role, SchemaMode, StreamDecoder, StreamError, THINKING_BLOCKS, Tool, ToolChoice, Unsupported, Wire,
    models,
};

pub(super) static ANTHROPIC: Anthropic = Anthropic;

#[derive(Debug)]
pub(super) struct Anthropic;

const NEWEST: &str = "2026-10-21";
/// The version that still accepts sampling parameters, for its older models.
const OLD: &str = "2023-06-01";
/// The API requires a limit; this one is sent if the caller gives none.
const MAX_TOKENS: u64 = 4096;

/// Smallest thinking budget that the API accepts, in tokens.
const MIN_THINKING: u64 = 1024;

/// Tool call ids that Anthropic accepts: `[a-zA-Z0-9_-]+`, each once in a request.
const IDS: IdRule = IdRule {
    fits: |id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')),
    length: 24,
};

/// Native fields of the API, passed through unchanged.
const NATIVE: &[&str] =
    &["cache_control", "thinking", "container", "speed", "inference_geo", "context_management", "mcp_servers"];

impl Provider for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn base_url(&self) -> Option<&'static str> {
        Some("https://api.anthropic.com")
    }

    fn api_version(&self) -> Option<&'static str> {
        Some(NEWEST)
    }

    fn auth(&self) -> AuthScheme {
        AuthScheme::Key(KeyHeader::named("x-api-key"))
    }

    fn prompt_cache(&self, model: &str) -> Option<PromptCache> {
        Some(cache::of(model))
    }

    fn schema_modes(&self) -> &'static [SchemaMode] {
        &[SchemaMode::JsonSchema, SchemaMode::Prompt]
    }

    fn encode(&self, request: &ChatRequest, call: &Call<'_>) -> Result<Wire, Unsupported> {
        emulate::refuse(request, "Anthropic", &["n", "logprobs", "penalties"])?;
        let version = call.api_version.unwrap_or(NEWEST);
        let mut body = Vec::with_capacity(4096);
        write_body(&mut body, request, call, version)?;
        Ok(Wire { path: "/v1/messages".to_owned(), headers: headers(version)?, body })
    }

    fn list(&self, call: &ListCall<'_>) -> Result<Wire, Unsupported> {
        let after =
            call.page.map_or_else(String::new, |id| format!("&after_id={}", utf8_percent_encode(id, NON_ALPHANUMERIC)));
        let headers = headers(call.api_version.unwrap_or(NEWEST))?;
        Ok(Wire { path: format!("/v1/models?limit=1000{after}"), headers, body: Vec::new() })
    }

    fn read_list(&self, body: &[u8]) -> Result<models::Page, StreamError> {
        models::anthropic(body)
    }

    fn answer(&self, body: &[u8]) -> Result<ChatResponse, StreamError> {
        decode::answer(body)
    }

    fn stream(&self) -> Box<dyn StreamDecoder> {
        Box::new(decode::Decoder::default())
    }
}

fn headers(version: &str) -> Result<Vec<(HeaderName, HeaderValue)>, Unsupported> {
    let version = HeaderValue::from_str(version)
        .map_err(|_| Unsupported("api_version has characters that no header can hold".to_owned()))?;
    Ok(vec![(HeaderName::from_static("anthropic-version"), version)])
}

/// Opus from 4.7 and all models from the fifth family on refuse sampling parameters in either version.
fn takes_sampling(version: &str, model: &str) -> bool {
    let newer = ["opus-4-7", "opus-4-8", "opus-4-9", "-5-", "opus-5", "sonnet-5", "haiku-5"];
    let family_four = ["haiku-4-5", "sonnet-4-5", "opus-4-5"];
    version == OLD
        && (family_four.iter().any(|part| model.contains(part)) || !newer.iter().any(|part| model.contains(part)))
}

fn write_body(out: &mut Vec<u8>, request: &ChatRequest, call: &Call<'_>, version: &str) -> Result<(), Unsupported> {
    let mut object = Object::new(out);
    object.string("model", call.model);
    let thinking = thinking_tokens(request)?;
    object.value("max_tokens", &max_tokens(request, thinking)?);
    let instruction = emulate::instruction(request, call.schema_mode, false);
    write_system(&mut object, request, instruction.as_deref());
    write_messages(object.key("messages"), &unique_ids(&request.messages, IDS), call.marks)?;
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
    if let Some(tokens) = thinking {
        object.value("thinking", &json!({"type": "enabled", "budget_tokens": tokens}));
    }
    for (key, value) in &request.rest {
        if NATIVE.contains(&key.as_str()) {
            object.other(key, value);
        } else if !matches!(key.as_str(), "top_k" | "reasoning") {
            refuse_unknown(key, "Anthropic")?;
        }
    }
    object.end();
    Ok(())
}

fn thinking_tokens(request: &ChatRequest) -> Result<Option<u64>, Unsupported> {
    Ok(emulate::thinking_tokens(request, "Anthropic")?.map(|tokens| tokens.max(MIN_THINKING)))
}

/// The output limit. It includes thinking tokens, so it must be larger than the thinking budget.
fn max_tokens(request: &ChatRequest, thinking: Option<u64>) -> Result<u64, Unsupported> {
    // If the caller uses Anthropic's own `thinking` field, matching the values is the caller's task; only our default
    // limit must leave room for it.
    let native =
        request.rest.get("thinking").and_then(|thinking| thinking.get("budget_tokens")).and_then(Value::as_u64);
    match (request.max_tokens, thinking) {
        (Some(most), Some(thinking)) if most <= thinking => Err(Unsupported(format!(
            "Anthropic takes max_tokens above the tokens of thinking only ({most} and {thinking}; it thinks {MIN_THINKING} at least)"
        ))),
        (Some(most), _) => Ok(most),
        (None, thinking) => Ok(MAX_TOKENS.saturating_add(thinking.or(native).unwrap_or(0))),
    }
}

/// Writes all system and developer messages, joined.
///
/// As one text, or as blocks if one of them marks the end of a prefix to be cached.
fn write_system(object: &mut Object<'_>, request: &ChatRequest, instruction: Option<&str>) {
    let instructions: Vec<&Message> = request
        .messages
        .iter()
        .filter(|message| message.role.instructs() && !emulate::blank(&message.content))
        .collect();
    if instructions.is_empty() && instruction.is_none() {
        return;
    }
    let out = object.key("system");
    let cached = |message: &&Message| match &message.content {
        Content::Parts(parts) => parts.iter().any(|part| part.get("cache_control").is_some()),
        _ => message.rest.contains_key("cache_control"),
    };
    if instructions.iter().any(cached) {
        let mut blocks = Blocks::open(out);
        for message in instructions {
            match &message.content {
                Content::Parts(parts) => {
                    for block in emulate::parts(message, parts).filter_map(|part| text_block(&part)) {
                        json::value(blocks.next(), &block);
                    }
                }
                content => write_text(&mut blocks, message, content),
            }
        }
        if let Some(instruction) = instruction {
            json::value(blocks.next(), &json!({"type": "text", "text": instruction}));
        }
        blocks.close();
        return;
    }
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

/// Writes the messages. Consecutive messages of one role are merged; tool results belong to the user's message and come
/// first in it.
fn write_messages(out: &mut Vec<u8>, messages: &[Message], marks: Marks) -> Result<(), Unsupported> {
    let spoken: Vec<&Message> =
        messages.iter().filter(|message| !message.role.instructs() && !emulate::says_nothing(message)).collect();
    if spoken.is_empty() {
        let message = "Anthropic needs at least one message that says something and is not a system message";
        return Err(Unsupported(message.to_owned()));
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
            write_result(&mut blocks, message)?;
        }
        for message in group.iter().filter(|message| message.role != Role::Tool) {
            write_blocks(&mut blocks, message, marks)?;
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

fn write_result(blocks: &mut Blocks<'_>, message: &Message) -> Result<(), Unsupported> {
    let mut object = Object::new(blocks.next());
    object.string("type", "tool_result");
    object.string("tool_use_id", emulate::bare_call_id(message.tool_call_id.as_deref().unwrap_or_default()));
    match &message.content {
        Content::Text(_) | Content::Blocks(_) => json::segments(object.key("content"), message.content.segments()),
        Content::None => object.string("content", ""),
        Content::Parts(parts) => {
            let blocks = emulate::parts(message, parts).map(|part| block(&part)).collect::<Result<Vec<_>, _>>()?;
            object.value("content", &blocks);
        }
    }
    object.end();
    Ok(())
}

fn write_blocks(blocks: &mut Blocks<'_>, message: &Message, marks: Marks) -> Result<(), Unsupported> {
    if let Some(Value::Array(thinking)) = message.rest.get(THINKING_BLOCKS) {
        for block in thinking {
            // The index is only for OpenAI's clients, which assemble the blocks of a stream by it.
            let mut block = block.clone();
            if let Value::Object(fields) = &mut block {
                fields.remove("index");
            }
            json::value(blocks.next(), &block);
        }
    }
    match &message.content {
        Content::Parts(parts) => {
            for part in emulate::parts(message, parts) {
                json::value(blocks.next(), &block(&part)?);
            }
        }
        Content::Blocks(texts) => cache::write(blocks, texts, marks),
        content => write_text(blocks, message, content),
    }
    if let Some(refusal) = message.refusal.as_deref().filter(|refusal| !refusal.is_empty()) {
        json::value(blocks.next(), &json!({"type": "text", "text": refusal}));
    }
    for call in &message.tool_calls {
        let mut object = Object::new(blocks.next());
        object.string("type", "tool_use");
        object.string("id", emulate::bare_call_id(&call.id));
        object.string("name", &call.name);
        object.value("input", &emulate::arguments(call)?);
        object.end();
    }
    Ok(())
}

/// Writes a message's text as a block; nothing if it is blank.
fn write_text(blocks: &mut Blocks<'_>, message: &Message, content: &Content) {
    let Content::Text(text) = content else { return };
    if emulate::blank(content) {
        return;
    }
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

fn text_block(part: &Value) -> Option<Value> {
    let text = part.get("text").or_else(|| part.get("refusal"))?;
    let mut block = json!({"type": "text", "text": text});
    if let Some(cache) = part.get("cache_control") {
        block["cache_control"] = cache.clone();
    }
    Some(block)
}

/// Converts a content part to a block of Anthropic's API.
fn block(part: &Value) -> Result<Value, Unsupported> {
    match part.get("type").and_then(Value::as_str) {
        Some("text" | "refusal") => {
            text_block(part).ok_or_else(|| Unsupported("a text part without a text".to_owned()))
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
            // The vendor's own tools (`web_search_…`), in the vendor's format.
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
