//! Google's Gemini API, `generateContent`. Sources: the `google-genai` package's types and its API client.
//!
//! Knows no other vendor's format.

mod decode;

use std::collections::HashMap;

use serde_json::{Value, json};

use super::calls::{IdRule, unique_ids};
use super::emulate::{self, image_source, refuse_unknown};
use super::json::{self, Object};
use super::{
    AuthScheme, Call, ChatRequest, ChatResponse, Content, KeyHeader, ListCall, Message, PromptCache, Provider,
    ResponseFormat, Role, SchemaMode, StreamDecoder, StreamError, Tool, ToolChoice, Unsupported, Wire, models,
};

pub(super) static GOOGLE: Google = Google;

#[derive(Debug)]
pub(super) struct Google;

const VERSION: &str = "v1beta";

/// JSON Schema keywords that `responseJsonSchema` accepts.
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

/// Gemini accepts any id, and distinguishes calls by it.
const IDS: IdRule = IdRule { fits: |id| !id.is_empty(), length: 24 };

/// Native fields of the API, passed through unchanged.
const NATIVE: &[&str] = &["safetySettings", "cachedContent", "labels"];

impl Provider for Google {
    fn name(&self) -> &'static str {
        "google"
    }

    fn base_url(&self) -> Option<&'static str> {
        Some("https://generativelanguage.googleapis.com")
    }

    fn api_version(&self) -> Option<&'static str> {
        Some(VERSION)
    }

    fn auth(&self) -> AuthScheme {
        AuthScheme::Key(KeyHeader::named("x-goog-api-key"))
    }

    /// The cache is implicit: the vendor finds the longest prefix without a mark, but not always.
    fn prompt_cache(&self, model: &str) -> Option<PromptCache> {
        let version = model.split("gemini-").nth(1)?;
        let floor_tokens = if version.starts_with('2') { 2_048 } else { 4_096 };
        Some(PromptCache { floor_tokens, ..PromptCache::IMPLICIT })
    }

    fn schema_modes(&self) -> &'static [SchemaMode] {
        &[SchemaMode::JsonSchema, SchemaMode::JsonObject, SchemaMode::Prompt]
    }

    fn encode(&self, request: &ChatRequest, call: &Call<'_>) -> Result<Wire, Unsupported> {
        emulate::refuse(request, "Gemini", &["logprobs"])?;
        let mut body = Vec::with_capacity(4096);
        write_body(&mut body, request, call)?;
        let version = call.api_version.unwrap_or(VERSION);
        let method = if call.stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
        // `models/x` and `tunedModels/x` are full names already.
        let model = match call.model.split_once('/') {
            Some((kind @ ("models" | "tunedModels"), name)) => format!("{kind}/{}", path_segment(name)),
            _ => format!("models/{}", path_segment(call.model)),
        };
        Ok(Wire { path: format!("/{version}/{model}:{method}"), headers: Vec::new(), body })
    }

    fn list(&self, call: &ListCall<'_>) -> Result<Wire, Unsupported> {
        let version = call.api_version.unwrap_or(VERSION);
        let page = call.page.map_or_else(String::new, |token| format!("&pageToken={}", path_segment(token)));
        let path = format!("/{version}/models?pageSize=1000{page}");
        Ok(Wire { path, headers: Vec::new(), body: Vec::new() })
    }

    fn read_list(&self, body: &[u8]) -> Result<models::Page, StreamError> {
        models::google(body)
    }

    fn answer(&self, body: &[u8]) -> Result<ChatResponse, StreamError> {
        decode::answer(body)
    }

    fn stream(&self) -> Box<dyn StreamDecoder> {
        Box::new(decode::Decoder::default())
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
    let system: Vec<&Message> = request
        .messages
        .iter()
        .filter(|message| message.role.instructs() && !emulate::blank(&message.content))
        .collect();
    if !system.is_empty() || instruction.is_some() {
        let mut content = Object::new(object.key("systemInstruction"));
        let texts = system.iter().map(|message| Some(*message)).chain(instruction.iter().map(|_| None));
        json::list(content.key("parts"), texts, |out, message| {
            let mut part = Object::new(out);
            match message.map(|message| &message.content) {
                Some(content @ Content::Text(_)) => json::segments(part.key("text"), content.segments()),
                Some(other) => part.string("text", &other.plain()),
                None => part.string("text", instruction.as_deref().unwrap_or_default()),
            }
            part.end();
        });
        content.end();
    }
    write_contents(object.key("contents"), &unique_ids(&request.messages, IDS))?;
    write_tools(&mut object, request)?;
    write_config(&mut object, request, call)?;
    for (key, value) in &request.rest {
        if NATIVE.contains(&key.as_str()) {
            object.other(key, value);
        } else if !matches!(key.as_str(), "top_k" | "reasoning") {
            refuse_unknown(key, "Gemini")?;
        }
    }
    object.end();
    Ok(())
}

fn write_config(object: &mut Object<'_>, request: &ChatRequest, call: &Call<'_>) -> Result<(), Unsupported> {
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
    if let Some(tokens) = emulate::thinking_tokens(request, "Gemini")? {
        config.value("thinkingConfig", &json!({ "thinkingBudget": tokens }));
    } else if let Some(effort) = &request.reasoning_effort {
        config.value("thinkingConfig", &thinking(effort, call.model));
    }
    config.end();
    Ok(())
}

/// Gemini 2.5 accepts a token budget for thinking, later models a level.
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
    // The levels range from MINIMAL to XHIGH.
    let level = match effort {
        "none" => "MINIMAL".to_owned(),
        "max" => "XHIGH".to_owned(),
        other => other.to_ascii_uppercase(),
    };
    json!({ "thinkingLevel": level })
}

/// Writes the messages. Consecutive messages of one role are merged.
fn write_contents(out: &mut Vec<u8>, messages: &[Message]) -> Result<(), Unsupported> {
    let spoken: Vec<&Message> =
        messages.iter().filter(|message| !message.role.instructs() && !emulate::says_nothing(message)).collect();
    if spoken.is_empty() {
        let message = "Gemini needs at least one message with content that is not a system message";
        return Err(Unsupported(message.to_owned()));
    }
    let calls = messages.iter().flat_map(|message| &message.tool_calls);
    let names: Names<'_> = calls.map(|call| (emulate::bare_call_id(&call.id), call.name.as_str())).collect();
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
            write_parts(parts, message, &names, &mut first)?;
        }
        parts.push(b']');
        content.end();
        from += length;
    }
    out.push(b']');
    Ok(())
}

/// Names of the called functions, by the call's id.
type Names<'m> = HashMap<&'m str, &'m str>;

fn write_parts(out: &mut Vec<u8>, message: &Message, names: &Names<'_>, first: &mut bool) -> Result<(), Unsupported> {
    let mut next = |out: &mut Vec<u8>| {
        if !*first {
            out.push(b',');
        }
        *first = false;
    };
    if message.role == Role::Tool {
        next(out);
        let id = emulate::bare_call_id(message.tool_call_id.as_deref().unwrap_or_default());
        let name = names
            .get(id)
            .copied()
            .or(message.name.as_deref())
            .ok_or_else(|| Unsupported(format!("no tool call {id:?} before its result")))?;
        // Gemini accepts only an object as a function's response, so any other value is put into one.
        let result = match serde_json::from_str::<Value>(&message.content.plain()) {
            Ok(object @ Value::Object(_)) => object,
            Ok(other) => json!({ "result": other }),
            Err(_) => json!({ "result": message.content.plain() }),
        };
        let response = json!({"id": id, "name": name, "response": result});
        json::value(out, &json!({ "functionResponse": response }));
        return Ok(());
    }
    match &message.content {
        content @ (Content::Text(_) | Content::Blocks(_)) if !emulate::blank(content) => {
            next(out);
            let mut part = Object::new(out);
            let text_out = part.key("text");
            text_out.push(b'"');
            if let Some(name) = &message.name {
                json::escape(text_out, &format!("{name}: "));
            }
            content.segments().for_each(|segment| json::escape(text_out, segment));
            text_out.push(b'"');
            part.end();
        }
        Content::None | Content::Text(_) | Content::Blocks(_) => {}
        Content::Parts(parts) => {
            for part in emulate::parts(message, parts) {
                next(out);
                json::value(out, &write_part(&part)?);
            }
        }
    }
    if let Some(refusal) = message.refusal.as_deref().filter(|refusal| !refusal.is_empty()) {
        next(out);
        json::value(out, &json!({ "text": refusal }));
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
        Some("text" | "refusal") => Ok(json!({ "text": part.get("text").or_else(|| part.get("refusal")) })),
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
        other => Err(Unsupported(format!("Gemini does not accept content of type {:?}", other.unwrap_or("none")))),
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
                return Err(Unsupported("Gemini does not accept a tool of type \"custom\"".to_owned()));
            }
            Tool::Other(value) => tools.push(value.clone()),
            Tool::Function(function) => {
                let mut declaration = json!({ "name": function.name });
                if let Some(description) = &function.description {
                    declaration["description"] = json!(description);
                }
                if let Some(parameters) = &function.parameters {
                    declaration["parametersJsonSchema"] = emulate::only(parameters, SCHEMA_KEYWORDS);
                }
                declarations.push(declaration);
            }
        }
    }
    if !declarations.is_empty() {
        tools.insert(0, json!({ "functionDeclarations": declarations }));
    }
    object.value("tools", &tools);
    // Arguments must follow their schema strictly: in this mode Gemini ensures that.
    let strict =
        request.tools.iter().any(|tool| matches!(tool, Tool::Function(function) if function.strict == Some(true)));
    let config = match &request.tool_choice {
        None | Some(ToolChoice::Auto) if strict => json!({"mode": "VALIDATED"}),
        None => return Ok(()),
        Some(ToolChoice::None) => json!({"mode": "NONE"}),
        Some(ToolChoice::Auto) => json!({"mode": "AUTO"}),
        Some(ToolChoice::Required) => json!({"mode": "ANY"}),
        Some(ToolChoice::Named(name)) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
        Some(ToolChoice::Other(_)) => {
            return Err(Unsupported("Gemini accepts tool_choice none, auto, required or a function".to_owned()));
        }
    };
    object.value("toolConfig", &json!({ "functionCallingConfig": config }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_ids_are_one_path_segment() {
        assert_eq!(path_segment("gemini-3.5-flash"), "gemini-3.5-flash");
        assert_eq!(path_segment("a/b:c"), "a%2Fb%3Ac");
    }
}
