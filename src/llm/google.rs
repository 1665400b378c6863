//! Google's Gemini API, `generateContent`. Sources: the `google-genai` package's types and its API client.

use http::header::HeaderName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::emulate::{self, image_source, refuse_unknown};
use super::json::{self, Object};
use super::{
    Call, ChatRequest, ChatResponse, Content, Finish, Message, Piece, Provider, ResponseFormat, Role, SchemaMode,
    StreamDecoder, StreamError, Tool, ToolChoice, Unsupported, Usage, VendorError, Wire, failure, response,
    secret_header, sse,
};

/// Gemini.
pub(super) static GOOGLE: Google = Google;

#[derive(Debug)]
pub(super) struct Google;

/// Keywords of JSON Schema that `responseJsonSchema` takes.
const SCHEMA_KEYWORDS: &[&str] = &[
    "$id",
    "$defs",
    "$ref",
    "$anchor",
    "type",
    "format",
    "title",
    "description",
    "enum",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "anyOf",
    "oneOf",
    "properties",
    "additionalProperties",
    "required",
    "propertyOrdering",
];

/// Fields of the API that go through as they came.
const NATIVE: &[&str] = &["safetySettings", "cachedContent", "labels"];

impl Provider for Google {
    fn name(&self) -> &'static str {
        "google"
    }

    fn base_url(&self) -> Option<&'static str> {
        Some("https://generativelanguage.googleapis.com")
    }

    fn schema_modes(&self) -> &'static [SchemaMode] {
        &[SchemaMode::JsonSchema, SchemaMode::JsonObject, SchemaMode::Prompt]
    }

    fn encode(&self, request: &ChatRequest, call: &Call<'_>) -> Result<Wire, Unsupported> {
        emulate::refuse(request, "Gemini", &["logprobs"])?;
        if request.parallel_tool_calls == Some(false) && !request.tools.is_empty() {
            return Err(Unsupported("Gemini does not support parallel_tool_calls = false".to_owned()));
        }
        let mut body = Vec::with_capacity(4096);
        write_body(&mut body, request, call)?;
        let version = call.api_version.unwrap_or("v1beta");
        let method = if call.stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
        let mut headers = Vec::new();
        if let Some(key) = call.key {
            headers.push(secret_header(HeaderName::from_static("x-goog-api-key"), key)?);
        }
        // `models/x` and `tunedModels/x` are names of their own.
        let model = match call.model.split_once('/') {
            Some((kind @ ("models" | "tunedModels"), name)) => format!("{kind}/{}", path_segment(name)),
            _ => format!("models/{}", path_segment(call.model)),
        };
        Ok(Wire { path: format!("/{version}/{model}:{method}"), headers, body })
    }

    fn answer(&self, body: &[u8]) -> Result<ChatResponse, StreamError> {
        let wire = read(body, "the answer")?;
        let mut pieces = Vec::new();
        let mut decoder = Decoder::default();
        let mut answer = ChatResponse::default();
        let extras = decoder.take(wire, &mut pieces)?;
        for piece in &pieces {
            answer.absorb(piece);
        }
        if answer.choices.is_empty() {
            return Err(StreamError::Malformed("the answer has no candidates".to_owned()));
        }
        for (choice, index, signature) in extras {
            let choice = answer.choices.iter_mut().find(|known| known.index == choice);
            if let Some(call) = choice.and_then(|choice| choice.tool_calls.get_mut(index as usize)) {
                call.rest.insert("extra_content".to_owned(), json!({"google": {"thought_signature": signature}}));
            }
        }
        for choice in &mut answer.choices {
            choice.finish = choice.finish.or(Some(Finish::Stop));
        }
        Ok(answer)
    }

    fn stream(&self) -> Box<dyn StreamDecoder> {
        Box::new(Decoder::default())
    }
}

/// Percent-encodes a vendor's model id as one path segment.
fn path_segment(model: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(model, KEPT).to_string()
}

fn write_body(out: &mut Vec<u8>, request: &ChatRequest, call: &Call<'_>) -> Result<(), Unsupported> {
    let mut object = Object::new(out);
    let instruction = emulate::instruction(request, call.schema_mode, true);
    let system: Vec<&Message> =
        request.messages.iter().filter(|message| message.role.instructs() && !message.content.is_empty()).collect();
    if !system.is_empty() || instruction.is_some() {
        let mut content = Object::new(object.key("systemInstruction"));
        let texts = system.iter().map(|message| Some(*message)).chain(instruction.iter().map(|_| None));
        json::list(content.key("parts"), texts, |out, message| {
            let mut part = Object::new(out);
            match message.map(|message| &message.content) {
                Some(Content::Text(text)) => json::text(part.key("text"), text),
                Some(other) => part.string("text", &other.plain()),
                None => part.string("text", instruction.as_deref().unwrap_or_default()),
            }
            part.end();
        });
        content.end();
    }
    write_contents(object.key("contents"), &request.messages)?;
    write_tools(&mut object, request)?;
    write_config(&mut object, request, call);
    for (key, value) in &request.rest {
        if NATIVE.contains(&key.as_str()) {
            object.value(key, value);
        } else if key != "top_k" {
            refuse_unknown(key, "Gemini")?;
        }
    }
    object.end();
    Ok(())
}

fn write_config(object: &mut Object<'_>, request: &ChatRequest, call: &Call<'_>) {
    let mut config = Object::new(object.key("generationConfig"));
    config.option("temperature", request.temperature.as_ref());
    config.option("topP", request.top_p.as_ref());
    config.option("topK", request.rest.get("top_k"));
    config.option("maxOutputTokens", request.max_tokens.as_ref());
    if !request.stop.is_empty() {
        config.value("stopSequences", &request.stop);
    }
    config.option("candidateCount", request.n.as_ref());
    config.option("seed", request.seed.as_ref());
    config.option("presencePenalty", request.presence_penalty.as_ref());
    config.option("frequencyPenalty", request.frequency_penalty.as_ref());
    match (&request.response_format, call.schema_mode) {
        (Some(ResponseFormat::JsonSchema { schema, .. }), SchemaMode::JsonSchema) => {
            config.string("responseMimeType", "application/json");
            config.value("responseJsonSchema", &emulate::only(schema, SCHEMA_KEYWORDS));
        }
        (Some(ResponseFormat::JsonSchema { .. }), SchemaMode::JsonObject) | (Some(ResponseFormat::JsonObject), _) => {
            config.string("responseMimeType", "application/json");
        }
        _ => {}
    }
    if let Some(effort) = &request.reasoning_effort {
        config.value("thinkingConfig", &thinking(effort, call.model));
    }
    config.end();
}

/// Gemini 2.5 takes a budget of tokens, later ones a level.
fn thinking(effort: &str, model: &str) -> Value {
    if model.contains("2.5") {
        let budget = match effort {
            "none" => 0,
            "minimal" => 512,
            "low" => 1024,
            "medium" => 8192,
            _ => 24576,
        };
        return json!({ "thinkingBudget": budget });
    }
    let level = if effort == "none" { "MINIMAL".to_owned() } else { effort.to_ascii_uppercase() };
    json!({ "thinkingLevel": level })
}

/// Consecutive messages of one role become one.
fn write_contents(out: &mut Vec<u8>, messages: &[Message]) -> Result<(), Unsupported> {
    let spoken: Vec<&Message> = messages.iter().filter(|message| !message.role.instructs()).collect();
    if spoken.is_empty() {
        return Err(Unsupported("Gemini needs at least one message that is not a system message".to_owned()));
    }
    out.push(b'[');
    let mut from = 0;
    while from < spoken.len() {
        let model = spoken[from].role == Role::Assistant;
        let length = spoken[from..].iter().take_while(|message| (message.role == Role::Assistant) == model).count();
        if from > 0 {
            out.push(b',');
        }
        let mut content = Object::new(out);
        content.string("role", if model { "model" } else { "user" });
        let parts = content.key("parts");
        parts.push(b'[');
        let mut first = true;
        for message in &spoken[from..from + length] {
            write_parts(parts, message, messages, &mut first)?;
        }
        parts.push(b']');
        content.end();
        from += length;
    }
    out.push(b']');
    Ok(())
}

fn write_parts(out: &mut Vec<u8>, message: &Message, all: &[Message], first: &mut bool) -> Result<(), Unsupported> {
    let mut next = |out: &mut Vec<u8>| {
        if !*first {
            out.push(b',');
        }
        *first = false;
    };
    if message.role == Role::Tool {
        next(out);
        let id = message.tool_call_id.as_deref().unwrap_or_default();
        let name = all
            .iter()
            .flat_map(|message| &message.tool_calls)
            .find(|call| call.id == id)
            .map(|call| call.name.as_str())
            .or(message.name.as_deref())
            .ok_or_else(|| Unsupported(format!("no tool call {:?} before its result", emulate::bare_call_id(id))))?;
        // The response must be an object: anything else is wrapped.
        let result = match serde_json::from_str::<Value>(&message.content.plain()) {
            Ok(object @ Value::Object(_)) => object,
            Ok(other) => json!({ "result": other }),
            Err(_) => json!({ "result": message.content.plain() }),
        };
        let response = json!({"id": emulate::bare_call_id(id), "name": name, "response": result});
        json::value(out, &json!({ "functionResponse": response }));
        return Ok(());
    }
    match &message.content {
        Content::Text(text) if !text.is_empty() => {
            next(out);
            let mut part = Object::new(out);
            let text_out = part.key("text");
            text_out.push(b'"');
            if let Some(name) = &message.name {
                json::escape(text_out, &format!("{name}: "));
            }
            text.segments().iter().for_each(|segment| json::escape(text_out, segment));
            text_out.push(b'"');
            part.end();
        }
        Content::None | Content::Text(_) => {}
        Content::Parts(parts) => {
            for part in parts {
                next(out);
                json::value(out, &write_part(part)?);
            }
        }
    }
    for call in &message.tool_calls {
        next(out);
        let id = emulate::bare_call_id(&call.id);
        let mut part = json!({"functionCall": {"id": id, "name": call.name, "args": emulate::arguments(call)?}});
        let extra = call.rest.get("extra_content").and_then(|extra| extra.pointer("/google/thought_signature"));
        if let Some(signature) = extra.and_then(Value::as_str).or_else(|| emulate::call_signature(&call.id)) {
            part["thoughtSignature"] = json!(signature);
        }
        json::value(out, &part);
    }
    Ok(())
}

fn write_part(part: &Value) -> Result<Value, Unsupported> {
    match part.get("type").and_then(Value::as_str) {
        Some("text") => Ok(json!({ "text": part.get("text") })),
        Some("image_url") => match image_source(part) {
            Some((Some(media), data)) => Ok(json!({"inlineData": {"mimeType": media, "data": data}})),
            Some((None, url)) => Ok(json!({"fileData": {"fileUri": url}})),
            None => Err(Unsupported("an image_url part without a url".to_owned())),
        },
        Some("input_audio") => {
            let format = part.pointer("/input_audio/format").and_then(Value::as_str).unwrap_or("wav");
            let data = part.pointer("/input_audio/data");
            Ok(json!({"inlineData": {"mimeType": format!("audio/{format}"), "data": data}}))
        }
        other => Err(Unsupported(format!("Gemini takes no content part of type {:?}", other.unwrap_or("none")))),
    }
}

fn write_tools(object: &mut Object<'_>, request: &ChatRequest) -> Result<(), Unsupported> {
    if request.tools.is_empty() {
        return Ok(());
    }
    let mut declarations = Vec::new();
    let mut tools = Vec::new();
    for tool in &request.tools {
        match tool {
            Tool::Other(value) if value.get("type").and_then(Value::as_str) == Some("custom") => {
                return Err(Unsupported("Gemini takes no tool of type \"custom\"".to_owned()));
            }
            Tool::Other(value) => tools.push(value.clone()),
            Tool::Function(function) => {
                let mut declaration = json!({ "name": function.name });
                if let Some(description) = &function.description {
                    declaration["description"] = json!(description);
                }
                if let Some(parameters) = &function.parameters {
                    declaration["parametersJsonSchema"] = parameters.clone();
                }
                declarations.push(declaration);
            }
        }
    }
    if !declarations.is_empty() {
        tools.insert(0, json!({ "functionDeclarations": declarations }));
    }
    object.value("tools", &tools);
    let config = match &request.tool_choice {
        None => return Ok(()),
        Some(ToolChoice::None) => json!({"mode": "NONE"}),
        Some(ToolChoice::Auto) => json!({"mode": "AUTO"}),
        Some(ToolChoice::Required) => json!({"mode": "ANY"}),
        Some(ToolChoice::Named(name)) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
        Some(ToolChoice::Other(_)) => {
            return Err(Unsupported("Gemini takes tool_choice none, auto, required or a function".to_owned()));
        }
    };
    object.value("toolConfig", &json!({ "functionCallingConfig": config }));
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAnswer {
    #[serde(default)]
    candidates: Vec<WireCandidate>,
    #[serde(default)]
    usage_metadata: Option<WireUsage>,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    response_id: Option<String>,
    #[serde(default)]
    prompt_feedback: Option<WireFeedback>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCandidate {
    #[serde(default)]
    index: u32,
    #[serde(default)]
    content: Option<WireContent>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct WireContent {
    #[serde(default)]
    parts: Vec<WirePart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePart {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    #[serde(default)]
    function_call: Option<WireCall>,
    #[serde(default)]
    thought_signature: Option<String>,
}

#[derive(Deserialize)]
struct WireCall {
    #[serde(default)]
    id: Option<String>,
    name: String,
    #[serde(default)]
    args: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFeedback {
    #[serde(default)]
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    #[serde(default)]
    prompt_token_count: Option<u64>,
    #[serde(default)]
    tool_use_prompt_token_count: Option<u64>,
    #[serde(default)]
    cached_content_token_count: Option<u64>,
    #[serde(default)]
    candidates_token_count: Option<u64>,
    #[serde(default)]
    thoughts_token_count: Option<u64>,
}

impl WireUsage {
    /// Gemini's prompt count includes the cached tokens; its candidates' count leaves the thoughts out.
    fn into_usage(self) -> Usage {
        let output = match (self.candidates_token_count, self.thoughts_token_count) {
            (None, None) => None,
            (answer, thoughts) => Some(answer.unwrap_or(0) + thoughts.unwrap_or(0)),
        };
        Usage {
            input: self.prompt_token_count.map(|tokens| tokens + self.tool_use_prompt_token_count.unwrap_or(0)),
            cached: self.cached_content_token_count,
            cache_write: None,
            output,
            reasoning: self.thoughts_token_count,
        }
    }
}

fn read(body: &[u8], what: &str) -> Result<WireAnswer, StreamError> {
    let malformed = |error: serde_json::Error| {
        StreamError::Malformed(format!("{what} is none of Gemini's: {}", response::describe(&error)))
    };
    let wire: WireAnswer = if body.trim_ascii_start().starts_with(b"[") {
        let mut items: Vec<WireAnswer> = serde_json::from_slice(body).map_err(malformed)?;
        items.pop().ok_or_else(|| StreamError::Malformed(format!("{what} is an empty list")))?
    } else {
        serde_json::from_slice(body).map_err(malformed)?
    };
    match wire.error {
        Some(error) => {
            let status = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
            let status = status.filter(|status| *status >= 400).unwrap_or(500);
            Err(StreamError::Vendor(failure::read_value(status, &json!({ "error": error }))))
        }
        None => Ok(wire),
    }
}

/// Decodes one stream; a whole answer is a stream of one event.
#[derive(Default)]
struct Decoder {
    started: bool,
    id: String,
    /// Function calls so far, by candidate.
    calls: Vec<(u32, u32)>,
}

impl StreamDecoder for Decoder {
    fn decode(&mut self, event: sse::Event<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        if event.data.is_empty() {
            return Ok(());
        }
        let wire = read(event.data, "a chunk")?;
        self.take(wire, out).map(|_| ())
    }
}

/// Choice, call, and the signature that must come back with it.
type Signatures = Vec<(u32, u32, String)>;

impl Decoder {
    fn take(&mut self, wire: WireAnswer, out: &mut Vec<Piece>) -> Result<Signatures, StreamError> {
        if !self.started {
            self.started = true;
            self.id = wire.response_id.unwrap_or_default();
            let model = wire.model_version.unwrap_or_default();
            out.push(Piece::Start { id: self.id.clone(), model, created: None });
        }
        if let Some(usage) = wire.usage_metadata {
            out.push(Piece::Usage(usage.into_usage()));
        }
        let blocked = wire.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some());
        if blocked && wire.candidates.is_empty() {
            out.push(Piece::Finish { choice: 0, reason: Finish::ContentFilter });
        }
        let mut signatures = Vec::new();
        for candidate in wire.candidates {
            self.candidate(candidate, out, &mut signatures)?;
        }
        Ok(signatures)
    }

    fn candidate(
        &mut self,
        candidate: WireCandidate,
        out: &mut Vec<Piece>,
        signatures: &mut Signatures,
    ) -> Result<(), StreamError> {
        let choice = candidate.index;
        for part in candidate.content.into_iter().flat_map(|content| content.parts) {
            if let Some(call) = part.function_call {
                let index = self.count(choice);
                let minted =
                    || format!("call_{}_{choice}_{index}", self.id.replace(|c: char| !c.is_alphanumeric(), ""));
                let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(minted);
                out.push(Piece::ToolCall {
                    choice,
                    index,
                    id: Some(emulate::signed_call_id(&id, part.thought_signature.as_deref())),
                    name: Some(call.name),
                    arguments: call.args.map_or_else(|| "{}".to_owned(), |args| args.to_string()),
                });
                signatures.extend(part.thought_signature.map(|signature| (choice, index, signature)));
            } else if let Some(text) = part.text.filter(|text| !text.is_empty()) {
                out.push(if part.thought { Piece::Reasoning { choice, text } } else { Piece::Text { choice, text } });
            }
        }
        match candidate.finish_reason.as_deref() {
            None | Some("FINISH_REASON_UNSPECIFIED") => {}
            Some(
                reason @ ("MALFORMED_FUNCTION_CALL"
                | "MALFORMED_RESPONSE"
                | "OTHER"
                | "UNEXPECTED_TOOL_CALL"
                | "TOO_MANY_TOOL_CALLS"),
            ) => {
                let message = format!("the answer ended with {reason}");
                return Err(StreamError::Vendor(VendorError::new(500, Some(reason.to_owned()), message)));
            }
            Some(reason @ "MISSING_THOUGHT_SIGNATURE") => {
                let message = "a tool call came back without the signature that was in its id";
                return Err(StreamError::Vendor(VendorError::new(400, Some(reason.to_owned()), message)));
            }
            Some(reason) => {
                let called = self.calls.iter().any(|(of, count)| *of == choice && *count > 0);
                let reason = match Finish::parse(reason) {
                    Some(Finish::Stop) | None if called => Finish::ToolCalls,
                    Some(reason) => reason,
                    None if reason.starts_with("IMAGE_") || reason == "MODEL_ARMOR" => Finish::ContentFilter,
                    None => Finish::Stop,
                };
                out.push(Piece::Finish { choice, reason });
            }
        }
        Ok(())
    }

    /// The number of the candidate's next call.
    fn count(&mut self, choice: u32) -> u32 {
        let position = match self.calls.iter().position(|(of, _)| *of == choice) {
            Some(position) => position,
            None => {
                self.calls.push((choice, 0));
                self.calls.len() - 1
            }
        };
        self.calls[position].1 += 1;
        self.calls[position].1 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{Choice, ToolCall};
    use crate::types::JsonMap;

    #[test]
    fn model_ids_are_one_path_segment() {
        assert_eq!(path_segment("gemini-3.5-flash"), "gemini-3.5-flash");
        assert_eq!(path_segment("a/b:c"), "a%2Fb%3Ac");
    }

    #[test]
    fn a_call_without_id_gets_one() {
        let body = br#"{"responseId":"r-1","candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]}}]}"#;
        let answer = GOOGLE.answer(body).expect("answer");
        let expected =
            ToolCall { id: "call_r1_0_0".into(), name: "f".into(), arguments: "{}".into(), rest: JsonMap::new() };
        assert_eq!(
            answer.choices,
            [Choice { tool_calls: vec![expected], finish: Some(Finish::Stop), ..Choice::default() }]
        );
    }
}
