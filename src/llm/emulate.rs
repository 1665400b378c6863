//! What vendors that do not speak OpenAI's format lack, and how it is made up for or refused: never dropped in silence.

use std::sync::Arc;

use serde_json::Value;

use super::{ChatRequest, ResponseFormat, SchemaMode, ToolCall, Unsupported, repair, schema};

/// Hints that change no answer that anybody could tell: left out where the vendor does not know them.
const HINTS: &[&str] = &[
    "logprobs",
    "metadata",
    "modalities",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream_options",
    "top_logprobs",
    "verbosity",
];

/// What separates a tool call's id from a vendor's signature that must come back with it.
const SIGNATURE: &str = "~ts~";

/// Refuses what cannot be had from a vendor: any of `n`, `logprobs`, `penalties`.
pub(super) fn refuse(request: &ChatRequest, vendor: &str, lacks: &[&str]) -> Result<(), Unsupported> {
    let no = |what: &str| Err(Unsupported(format!("{vendor} does not support {what}")));
    if lacks.contains(&"n") && request.n.is_some_and(|n| n > 1) {
        return no("n above 1");
    }
    if lacks.contains(&"logprobs") && request.rest.get("logprobs") == Some(&Value::Bool(true)) {
        return no("logprobs");
    }
    let penalties = [request.presence_penalty, request.frequency_penalty];
    if lacks.contains(&"penalties") && penalties.iter().flatten().any(|penalty| *penalty != 0.0) {
        return no("presence_penalty and frequency_penalty");
    }
    let audio = request.rest.get("modalities").and_then(Value::as_array);
    if audio.is_some_and(|kinds| kinds.iter().any(|kind| kind != "text")) {
        return no("modalities other than text");
    }
    Ok(())
}

/// Refuses a field that the vendor does not know, unless it is only a hint.
pub(super) fn refuse_unknown(key: &str, vendor: &str) -> Result<(), Unsupported> {
    if HINTS.contains(&key) { Ok(()) } else { Err(Unsupported(format!("{vendor} does not support {key}"))) }
}

/// The words that ask for JSON where the vendor has no mode for it. `json_mode`: it has one without a schema.
pub(super) fn instruction(request: &ChatRequest, mode: SchemaMode, json_mode: bool) -> Option<String> {
    match (&request.response_format, mode) {
        (Some(ResponseFormat::JsonSchema { schema, .. }), SchemaMode::JsonObject | SchemaMode::Prompt) => {
            Some(schema::instruction(schema))
        }
        (Some(ResponseFormat::JsonObject), _) if !json_mode => {
            Some("Answer with one JSON object and nothing else: no explanation, no code fence.".to_owned())
        }
        _ => None,
    }
}

/// A tool call's arguments as a value; models are told to write JSON, and nearly do.
pub(super) fn arguments(call: &ToolCall) -> Result<Value, Unsupported> {
    if call.arguments.trim().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    match repair::parse(&call.arguments) {
        Some((value @ Value::Object(_), _)) => Ok(value),
        _ => Err(Unsupported(format!("the arguments of tool call {:?} are no JSON object", bare_call_id(&call.id)))),
    }
}

/// An image part's content: `(Some(media type), base64)` of a data URL, `(None, url)` of any other.
pub(super) fn image_source(part: &Value) -> Option<(Option<&str>, &str)> {
    let url = part.pointer("/image_url/url").or_else(|| part.get("image_url")).and_then(Value::as_str)?;
    match url.strip_prefix("data:") {
        None => Some((None, url)),
        Some(data) => {
            let (media, data) = data.split_once(";base64,")?;
            Some((Some(media), data))
        }
    }
}

/// Hides a vendor's signature in a tool call's id: the one thing that every client sends back.
pub(super) fn signed_call_id(id: &str, signature: Option<&str>) -> String {
    match signature {
        Some(signature) => format!("{id}{SIGNATURE}{signature}"),
        None => id.to_owned(),
    }
}

/// The id without a signature: for vendors that did not give it.
pub(super) fn bare_call_id(id: &str) -> &str {
    id.split_once(SIGNATURE).map_or(id, |(id, _)| id)
}

/// The signature in an id.
pub(super) fn call_signature(id: &str) -> Option<&str> {
    id.split_once(SIGNATURE).map(|(_, signature)| signature)
}

/// The schema as strict vendors want it: every object closed, constraints that they refuse left out. The answer is
/// checked against the caller's whole schema all the same.
pub(super) fn closed(schema: &Arc<Value>) -> Value {
    const REFUSED: &[&str] = &[
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "pattern",
        "propertyNames",
        "patternProperties",
    ];
    strip(schema, &|key| !REFUSED.contains(&key), true)
}

/// The schema with only those keywords that a vendor takes.
pub(super) fn only(schema: &Arc<Value>, allowed: &[&str]) -> Value {
    strip(schema, &|key| allowed.contains(&key), false)
}

fn strip(schema: &Value, keep: &dyn Fn(&str) -> bool, close: bool) -> Value {
    let Value::Object(map) = schema else { return schema.clone() };
    let mut out = serde_json::Map::new();
    for (key, value) in map {
        if !keep(key) {
            continue;
        }
        let stripped = match (key.as_str(), value) {
            // Names of the caller's own, not keywords.
            ("properties" | "$defs" | "definitions" | "dependentSchemas", Value::Object(named)) => {
                Value::Object(named.iter().map(|(name, schema)| (name.clone(), strip(schema, keep, close))).collect())
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(items)) => {
                Value::Array(items.iter().map(|item| strip(item, keep, close)).collect())
            }
            ("items" | "additionalProperties" | "not" | "if" | "then" | "else" | "contains", value) => {
                strip(value, keep, close)
            }
            (_, value) => value.clone(),
        };
        out.insert(key.clone(), stripped);
    }
    let object = out.get("type").is_some_and(|kind| {
        kind == "object" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "object"))
    });
    if close && (object || out.contains_key("properties")) {
        out.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_are_stripped_where_they_are_schemas_only() {
        let schema = Arc::new(json!({
            "type":"object",
            "properties":{"minimum":{"type":"integer","minimum":1},"list":{"type":"array","items":{"type":"object","properties":{}},"minItems":1}},
            "required":["minimum"]}));
        assert_eq!(
            closed(&schema),
            json!({
                "type":"object","additionalProperties":false,
                "properties":{"minimum":{"type":"integer"},"list":{"type":"array","items":{"type":"object","properties":{},"additionalProperties":false}}},
                "required":["minimum"]})
        );
    }

    #[test]
    fn signatures_travel_in_ids() {
        let id = signed_call_id("c1", Some("aGk="));
        assert_eq!((bare_call_id(&id), call_signature(&id)), ("c1", Some("aGk=")));
        assert_eq!((bare_call_id("c1"), call_signature("c1")), ("c1", None));
    }
}
