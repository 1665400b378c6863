//! The body of a request in Anthropic's format.
//!
//! Knows no message: `messages` writes them.

use serde_json::{Value, json};

use super::messages::{write_messages, write_system};
use crate::llm::calls::{IdRule, unique_ids};
use crate::llm::emulate::{self, refuse_unknown};
use crate::llm::json::Object;
use crate::llm::{Call, ChatRequest, ResponseFormat, SchemaMode, Tool, ToolChoice, Unsupported};

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

/// Opus from 4.7 and all models from the fifth family on refuse sampling parameters in either version.
fn takes_sampling(version: &str, model: &str) -> bool {
    let newer = ["opus-4-7", "opus-4-8", "opus-4-9", "-5-", "opus-5", "sonnet-5", "haiku-5"];
    let family_four = ["haiku-4-5", "sonnet-4-5", "opus-4-5"];
    version == OLD
        && (family_four.iter().any(|part| model.contains(part)) || !newer.iter().any(|part| model.contains(part)))
}

/// Writes the body for this `version` of the API.
pub(super) fn write_body(
    out: &mut Vec<u8>,
    request: &ChatRequest,
    call: &Call<'_>,
    version: &str,
) -> Result<(), Unsupported> {
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
            "Anthropic requires max_tokens above the thinking budget (at least {MIN_THINKING}): expected more than {thinking}, found {most}"
        ))),
        (Some(most), _) => Ok(most),
        (None, thinking) => Ok(MAX_TOKENS.saturating_add(thinking.or(native).unwrap_or(0))),
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
                return Err(Unsupported("Anthropic does not accept a tool of type \"custom\"".to_owned()));
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
            return Err(Unsupported("Anthropic accepts tool_choice none, auto, required or a function".to_owned()));
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
