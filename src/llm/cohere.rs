//! Cohere's chat API, version 2. Sources: the `cohere` package's types; the documentation's "Streaming" and "Tool use".

use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::{Calls, IdRule, unique_ids};
use super::complete;
use super::emulate::{self, refuse_unknown};
use super::json::{self, Object};
use super::lenient;
use super::{
    Call, ChatRequest, ChatResponse, Content, Message, Piece, Provider, ResponseFormat, Role, SchemaMode,
    StreamDecoder, StreamError, Tool, ToolChoice, Unsupported, Usage, Wire, response, sse,
};

pub(super) static COHERE: Cohere = Cohere;

#[derive(Debug)]
pub(super) struct Cohere;

/// Cohere accepts any id, and distinguishes calls by it.
const IDS: IdRule = IdRule { fits: |id| !id.is_empty(), length: 24 };

/// Native fields of the API, passed through unchanged.
const NATIVE: &[&str] = &["documents", "citation_options", "safety_mode", "priority"];

impl Provider for Cohere {
    fn name(&self) -> &'static str {
        "cohere"
    }

    fn base_url(&self) -> Option<&'static str> {
        Some("https://api.cohere.com")
    }

    fn schema_modes(&self) -> &'static [SchemaMode] {
        &[SchemaMode::JsonSchema, SchemaMode::Prompt]
    }

    fn encode(&self, request: &ChatRequest, call: &Call<'_>) -> Result<Wire, Unsupported> {
        emulate::refuse(request, "Cohere", &["n", "logprobs"])?;
        let mut body = Vec::with_capacity(4096);
        write_body(&mut body, request, call)?;
        Ok(Wire { path: "/v2/chat".to_owned(), headers: Vec::new(), body })
    }

    fn answer(&self, body: &[u8]) -> Result<ChatResponse, StreamError> {
        let wire: WireAnswer = json::read(body).map_err(|error| malformed("the answer", &error))?;
        let Some(mut message) = wire.message else {
            return Err(StreamError::Malformed("the answer has no message".to_owned()));
        };
        let mut answer = ChatResponse::default();
        let mut pieces = vec![Piece::Start { id: wire.id.unwrap_or_default(), model: String::new(), created: None }];
        pieces.extend(message.tool_plan.take().map(|text| Piece::Reasoning { choice: 0, text }));
        let mut decoder = Decoder::default();
        let tool_calls = std::mem::take(&mut message.tool_calls);
        pieces.extend(message.into_contents());
        tool_calls.into_iter().try_for_each(|call| decoder.begin(None, call, &mut pieces))?;
        decoder.calls.check(0)?;
        pieces.extend(wire.usage.map(|usage| Piece::Usage(usage.into_usage())));
        complete::finish(0, wire.finish_reason.as_deref(), false, &mut pieces)?;
        pieces.iter().for_each(|piece| answer.absorb(piece));
        let unknown = pieces.into_iter().filter_map(|piece| match piece {
            Piece::UnknownFinish { choice, word } => Some((choice, word)),
            _ => None,
        });
        complete::whole(answer, unknown.collect())
    }

    fn stream(&self) -> Box<dyn StreamDecoder> {
        Box::<Decoder>::default()
    }
}

fn write_body(out: &mut Vec<u8>, request: &ChatRequest, call: &Call<'_>) -> Result<(), Unsupported> {
    let mut object = Object::new(out);
    object.string("model", call.model);
    let instruction = emulate::instruction(request, call.schema_mode, true);
    let added = instruction.map(|text| Message::text(Role::System, text));
    let messages = unique_ids(&request.messages, IDS);
    let spoken: Vec<&Message> =
        added.iter().chain(&*messages).filter(|message| !emulate::says_nothing(message)).collect();
    let mut refused = Ok(());
    json::list(object.key("messages"), spoken, |out, message| {
        let written = write_message(out, message);
        refused = std::mem::replace(&mut refused, Ok(())).and(written);
    });
    refused?;
    object.value("stream", &call.stream);
    object.option("temperature", request.temperature.as_ref());
    object.option("p", request.top_p.as_ref());
    object.option("k", request.rest.get("top_k"));
    object.option("max_tokens", request.max_tokens.as_ref());
    if !request.stop.is_empty() {
        object.value("stop_sequences", &request.stop);
    }
    object.option("seed", request.seed.as_ref());
    object.option("presence_penalty", request.presence_penalty.as_ref());
    object.option("frequency_penalty", request.frequency_penalty.as_ref());
    write_tools(&mut object, request)?;
    match (&request.response_format, call.schema_mode) {
        (Some(ResponseFormat::JsonSchema { schema, .. }), SchemaMode::JsonSchema) => {
            object.value("response_format", &json!({"type": "json_object", "json_schema": schema}));
        }
        (Some(ResponseFormat::JsonObject), _) => object.value("response_format", &json!({"type": "json_object"})),
        _ => {}
    }
    if let Some(tokens) = emulate::thinking_tokens(request, "Cohere")? {
        object.value("thinking", &json!({"type": "enabled", "token_budget": tokens}));
    } else if let Some(effort) = request.reasoning_effort.as_deref() {
        object.value("thinking", &json!({"type": if effort == "none" { "disabled" } else { "enabled" }}));
    }
    for (key, value) in &request.rest {
        if NATIVE.contains(&key.as_str()) {
            object.other(key, value);
        } else if !matches!(key.as_str(), "top_k" | "reasoning") {
            refuse_unknown(key, "Cohere")?;
        }
    }
    object.end();
    Ok(())
}

fn write_message(out: &mut Vec<u8>, message: &Message) -> Result<(), Unsupported> {
    let mut object = Object::new(out);
    let role = if message.role == Role::Developer { Role::System } else { message.role };
    object.string("role", role.as_str());
    let named = message.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    match &message.content {
        content @ (Content::Text(_) | Content::Blocks(_)) if !content.is_empty() => {
            let out = object.key("content");
            out.push(b'"');
            json::escape(out, &named);
            content.segments().for_each(|segment| json::escape(out, segment));
            out.push(b'"');
        }
        Content::Parts(parts) => {
            let known = |part: &&Value| matches!(part.get("type").and_then(Value::as_str), Some("text" | "image_url"));
            if let Some(part) = parts.iter().find(|part| !known(part)) {
                let kind = part.get("type").and_then(Value::as_str).unwrap_or("none");
                return Err(Unsupported(format!("Cohere takes no content part of type {kind:?}")));
            }
            object.value("content", &emulate::parts(message, parts).collect::<Vec<_>>());
        }
        // A tool result must have a content.
        _ if message.role == Role::Tool => object.string("content", ""),
        _ => object.option("content", message.refusal.as_ref()),
    }
    if !message.tool_calls.is_empty() {
        json::list(object.key("tool_calls"), &message.tool_calls, |out, call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json::value(out, &json!({"id": emulate::bare_call_id(&call.id), "type": "function", "function": function}));
        });
    }
    object.option("tool_call_id", message.tool_call_id.as_deref().map(emulate::bare_call_id).as_ref());
    object.end();
    Ok(())
}

fn write_tools(object: &mut Object<'_>, request: &ChatRequest) -> Result<(), Unsupported> {
    let mut tools = Vec::with_capacity(request.tools.len());
    for tool in &request.tools {
        let Tool::Function(function) = tool else {
            return Err(Unsupported("Cohere takes no tools but functions".to_owned()));
        };
        // If one named function must be called, only that function is offered.
        if matches!(&request.tool_choice, Some(ToolChoice::Named(name)) if *name != function.name) {
            continue;
        }
        let parameters = function.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
        let mut declared = json!({"name": function.name, "parameters": parameters});
        if let Some(description) = &function.description {
            declared["description"] = json!(description);
        }
        tools.push(json!({"type": "function", "function": declared}));
    }
    if tools.is_empty() {
        return Ok(());
    }
    object.value("tools", &tools);
    if request.tools.iter().any(|tool| matches!(tool, Tool::Function(function) if function.strict == Some(true))) {
        object.value("strict_tools", &true);
    }
    match &request.tool_choice {
        None | Some(ToolChoice::Auto) => {}
        Some(ToolChoice::None) => object.string("tool_choice", "NONE"),
        Some(ToolChoice::Required | ToolChoice::Named(_)) => object.string("tool_choice", "REQUIRED"),
        Some(ToolChoice::Other(_)) => {
            return Err(Unsupported("Cohere takes tool_choice none, auto, required or a function".to_owned()));
        }
    }
    Ok(())
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireAnswer {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    finish_reason: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    message: Option<WireMessage>,
    #[serde(deserialize_with = "lenient::object")]
    usage: Option<WireUsage>,
}

/// Whole answers have lists where events have a single item.
#[derive(Deserialize, Default)]
#[serde(default)]
struct WireMessage {
    content: Value,
    #[serde(deserialize_with = "lenient::text")]
    tool_plan: Option<String>,
    #[serde(deserialize_with = "lenient::one_or_many")]
    tool_calls: Vec<WireCall>,
}

impl WireMessage {
    fn into_contents(self) -> Vec<Piece> {
        let contents = match self.content {
            Value::Array(contents) => contents,
            Value::Null => Vec::new(),
            one => vec![one],
        };
        contents.into_iter().filter_map(WireContent::read).flat_map(WireContent::into_pieces).collect()
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireContent {
    #[serde(deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    thinking: Option<String>,
}

impl WireContent {
    /// Reads a content object, or a plain text in its place.
    fn read(value: Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self { text: Some(text), thinking: None }),
            value @ Value::Object(_) => serde_json::from_value(value).ok(),
            _ => None,
        }
    }

    fn into_pieces(self) -> impl Iterator<Item = Piece> {
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let thinking = said(self.thinking).map(|text| Piece::Reasoning { choice: 0, text });
        thinking.into_iter().chain(said(self.text).map(|text| Piece::Text { choice: 0, text }))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireCall {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    function: Option<WireFunction>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireFunction {
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient::arguments")]
    arguments: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireUsage {
    #[serde(deserialize_with = "lenient::object")]
    billed_units: Option<WireTokens>,
    #[serde(deserialize_with = "lenient::object")]
    tokens: Option<WireTokens>,
    #[serde(deserialize_with = "lenient::tokens")]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireTokens {
    #[serde(deserialize_with = "lenient::tokens")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient::tokens")]
    output_tokens: Option<u64>,
}

impl WireUsage {
    /// Billed tokens exclude those that Cohere itself adds to the prompt. The prompt tokens include the cached ones.
    fn into_usage(self) -> Usage {
        let billed = self.billed_units.filter(|billed| billed.input_tokens.is_some() || billed.output_tokens.is_some());
        let tokens = billed.or(self.tokens);
        Usage {
            input: tokens.as_ref().and_then(|tokens| tokens.input_tokens),
            cached: self.cached_tokens,
            output: tokens.as_ref().and_then(|tokens| tokens.output_tokens),
            ..Usage::default()
        }
    }
}

fn malformed(what: &str, error: &serde_json::Error) -> StreamError {
    StreamError::Malformed(format!("{what} is none of Cohere's: {}", response::describe(error)))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireEvent {
    #[serde(deserialize_with = "lenient::text")]
    r#type: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    index: Option<u64>,
    #[serde(deserialize_with = "lenient::object")]
    delta: Option<WireDelta>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireDelta {
    #[serde(deserialize_with = "lenient::object")]
    message: Option<WireMessage>,
    #[serde(deserialize_with = "lenient::text")]
    finish_reason: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    error: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    usage: Option<WireUsage>,
}

/// Decodes one stream.
#[derive(Default)]
struct Decoder {
    calls: Calls,
    /// The vendor's number and our index of each call that has begun.
    begun: Vec<(Option<u64>, u32)>,
}

impl Decoder {
    fn begin(&mut self, index: Option<u64>, call: WireCall, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        let function = call.function.unwrap_or_default();
        let arguments = function.arguments.unwrap_or_default();
        let begun = self.calls.begin(0, call.id, function.name, arguments, out)?;
        self.begun.push((index, begun));
        Ok(())
    }

    fn more(&mut self, index: Option<u64>, call: WireCall, out: &mut Vec<Piece>) {
        let of_index = self.begun.iter().rev().find(|(known, _)| *known == index);
        let arguments = call.function.and_then(|function| function.arguments);
        if let (Some((_, begun)), Some(arguments)) = (of_index.or(self.begun.last()), arguments) {
            self.calls.more(0, *begun, arguments, out);
        }
    }
}

impl StreamDecoder for Decoder {
    fn decode(&mut self, event: sse::Event<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        if complete::is_mark(event.data) {
            out.push(Piece::Done);
            return Ok(());
        }
        if event.data.is_empty() {
            return Ok(());
        }
        let name = event.name;
        let event: WireEvent = json::read(event.data).map_err(|error| malformed("an event", &error))?;
        let delta = event.delta.unwrap_or_default();
        match (event.r#type.as_deref().unwrap_or(name), delta.message) {
            ("message-start", _) => {
                out.push(Piece::Start { id: event.id.unwrap_or_default(), model: String::new(), created: None });
            }
            ("content-start" | "content-delta", Some(message)) => {
                out.extend(message.into_contents());
            }
            ("tool-plan-delta", Some(message)) => {
                out.extend(message.tool_plan.map(|text| Piece::Reasoning { choice: 0, text }));
            }
            ("tool-call-start", Some(message)) => {
                message.tool_calls.into_iter().try_for_each(|call| self.begin(event.index, call, out))?;
            }
            ("tool-call-delta", Some(message)) => {
                message.tool_calls.into_iter().for_each(|call| self.more(event.index, call, out));
            }
            ("message-end", _) => {
                out.extend(delta.usage.map(|usage| Piece::Usage(usage.into_usage())));
                let why = delta.error.as_deref().filter(|why| !why.is_empty());
                // An error without a finish reason is an error too.
                let word = delta.finish_reason.as_deref().or(why.map(|_| "ERROR"));
                complete::reason(word, why)?;
                complete::finish(0, word, false, out)?;
                self.calls.check_end(0, out)?;
                out.push(Piece::Done);
            }
            // Ends of contents and calls, citations, and event types that are added in the future.
            _ => {}
        }
        Ok(())
    }
}
