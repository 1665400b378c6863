//! The body of a request in Cohere's format.
//!
//! Knows no answer.

use serde_json::{Value, json};

use crate::llm::calls::{IdRule, unique_ids};
use crate::llm::emulate::{self, refuse_unknown};
use crate::llm::json::{self, Object};
use crate::llm::{
    Call, ChatRequest, Content, Message, ResponseFormat, Role, SchemaMode, Tool, ToolChoice, Unsupported,
};

/// Cohere accepts any id, and distinguishes calls by it.
const IDS: IdRule = IdRule { fits: |id| !id.is_empty(), length: 24 };

/// Native fields of the API, passed through unchanged.
const NATIVE: &[&str] = &["documents", "citation_options", "safety_mode", "priority"];

/// Writes the body.
pub(super) fn write_body(out: &mut Vec<u8>, request: &ChatRequest, call: &Call<'_>) -> Result<(), Unsupported> {
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
                return Err(Unsupported(format!("Cohere does not accept content of type {kind:?}")));
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
            return Err(Unsupported("Cohere accepts only tools that are functions".to_owned()));
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
            return Err(Unsupported("Cohere accepts tool_choice none, auto, required or a function".to_owned()));
        }
    }
    Ok(())
}
