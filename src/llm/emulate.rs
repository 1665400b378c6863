//! Features that vendors with other formats than OpenAI's lack, and how they are emulated or refused. Nothing that
//! changes the answer is silently dropped.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{ChatRequest, Content, Message, ResponseFormat, Role, SchemaMode, ToolCall, Unsupported, repair, schema};
use crate::base::budget::{Bound, Budget, Limits};

/// Hints that do not noticeably change an answer: left out if the vendor does not know them. So is `seed`, which is
/// best effort at OpenAI too: refusing it would cost the caller a candidate.
const HINTS: &[&str] = &[
    "logprobs",
    "metadata",
    "modalities",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "stream_options",
    "top_logprobs",
    "verbosity",
];

/// Limits of repairing a tool call's arguments. Small, because requests are encoded on the serving threads.
const ARGUMENTS: Limits = Limits { steps: Bound::new("tool_arguments_steps", 200_000), ..repair::REPAIRING };

/// Separates a tool call's id from a vendor's signature that must be sent back with it.
const SIGNATURE: &str = "~ts~";

/// Refuses features that a vendor `lacks` (any of `n`, `logprobs`, `penalties`), and all output modalities but text.
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

/// The instruction that asks for JSON if the vendor has no mode for it. `json_mode`: it has a mode without a schema.
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

/// `reasoning.max_tokens`, as in AssemblyAI's and OpenRouter's APIs: the number of tokens that the model may use for
/// thinking.
///
/// # Errors
/// `reasoning` contains something else, which the vendor has no field for.
pub(super) fn thinking_tokens(request: &ChatRequest, vendor: &str) -> Result<Option<u64>, Unsupported> {
    let Some(reasoning) = request.rest.get("reasoning").filter(|reasoning| !reasoning.is_null()) else {
        return Ok(None);
    };
    let tokens = reasoning.get("max_tokens").and_then(Value::as_u64);
    let alone = reasoning.as_object().is_some_and(|reasoning| reasoning.len() == 1);
    if alone && tokens.is_some() {
        return Ok(tokens);
    }
    Err(Unsupported(format!(
        "{vendor} accepts either reasoning.effort or reasoning.max_tokens, and no other field of reasoning"
    )))
}

/// Returns true if a message has no content. Vendors refuse such messages, OpenAI does not.
pub(super) fn says_nothing(message: &Message) -> bool {
    message.role != Role::Tool
        && message.tool_calls.is_empty()
        && message.refusal.as_deref().unwrap_or_default().is_empty()
        && !message.rest.contains_key("thinking_blocks")
        && blank(&message.content)
}

/// Returns true if a content is empty or only white space. Vendors refuse such a text, OpenAI does not.
pub(super) fn blank(content: &Content) -> bool {
    match content {
        Content::None => true,
        Content::Text(_) | Content::Blocks(_) => content.segments().all(|segment| segment.trim().is_empty()),
        Content::Parts(parts) => parts.iter().all(blank_part),
    }
}

fn blank_part(part: &Value) -> bool {
    let text = part.get("text").or_else(|| part.get("refusal")).and_then(Value::as_str);
    matches!(part.get("type").and_then(Value::as_str), Some("text" | "refusal"))
        && text.is_some_and(|text| text.trim().is_empty())
}

/// The content parts of a message that are not blank, with the speaker's name before the first text.
pub(super) fn parts<'a>(message: &'a Message, parts: &'a [Value]) -> impl Iterator<Item = Cow<'a, Value>> {
    let mut name = message.name.as_deref().filter(|_| message.role != Role::Tool);
    parts.iter().filter(|part| !blank_part(part)).map(move |part| {
        let text = part.get("text").and_then(Value::as_str);
        match text.and_then(|text| Some((name.take()?, text))) {
            Some((name, text)) => {
                let mut named = part.clone();
                named["text"] = Value::String(format!("{name}: {text}"));
                Cow::Owned(named)
            }
            None => Cow::Borrowed(part),
        }
    })
}

/// A tool call's arguments as a JSON value, repaired if needed: models often write almost valid JSON.
pub(super) fn arguments(call: &ToolCall) -> Result<Value, Unsupported> {
    if call.arguments.trim().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let read = match serde_json::from_str(&call.arguments) {
        Ok(value) => Some(value),
        Err(_) => repair::parse(&call.arguments, &mut Budget::new(ARGUMENTS))
            .map_err(|exceeded| {
                Unsupported(format!("the arguments of a tool call are not JSON; repairing them is {exceeded}"))
            })?
            .map(|(value, _)| value),
    };
    match read {
        Some(value @ Value::Object(_)) => Ok(value),
        _ => Err(Unsupported(format!("the arguments of tool call {:?} are not a JSON object", bare_call_id(&call.id)))),
    }
}

/// The content of an image part: `(Some(media type), base64)` for a data URL, `(None, url)` for any other.
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

/// Hides a vendor's signature in a tool call's id, the only field that every client sends back.
pub(super) fn signed_call_id(id: &str, signature: Option<&str>) -> String {
    match signature {
        Some(signature) => format!("{id}{SIGNATURE}{signature}"),
        None => id.to_owned(),
    }
}

/// The id without a signature, for vendors that did not create the signature.
pub(super) fn bare_call_id(id: &str) -> &str {
    id.split_once(SIGNATURE).map_or(id, |(id, _)| id)
}

/// A replacement of letters and digits for an id that a vendor does not accept. The same id always gets the same one.
pub(super) fn digest(id: &str, length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let hash = Sha256::digest(id.as_bytes());
    hash.iter().take(length).map(|byte| char::from(ALPHABET[usize::from(byte % 62)])).collect()
}

/// The signature in an id, if there is one.
pub(super) fn call_signature(id: &str) -> Option<&str> {
    id.split_once(SIGNATURE).map(|(_, signature)| signature)
}

/// The schema as strict vendors require it: every object is closed, and constraints that they refuse are removed. The
/// answer is still checked against the caller's whole schema.
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

/// The schema with only the `allowed` keywords. `const` and `definitions` are first written in their other spelling, as
/// `enum` and `$defs`.
pub(super) fn only(schema: &Value, allowed: &[&str]) -> Value {
    strip(&respelled(schema), &|key| allowed.contains(&key), false)
}

fn respelled(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => {
            let mut out = serde_json::Map::new();
            for (key, value) in map {
                let (key, value) = match (key.as_str(), value) {
                    ("properties" | "$defs" | "definitions", Value::Object(named)) => {
                        let named = named.iter().map(|(name, schema)| (name.clone(), respelled(schema))).collect();
                        (if key == "properties" { "properties" } else { "$defs" }, Value::Object(named))
                    }
                    ("const", value) if !value.is_object() => ("enum", Value::Array(vec![value.clone()])),
                    ("$ref", Value::String(target)) => {
                        ("$ref", Value::String(target.replacen("#/definitions/", "#/$defs/", 1)))
                    }
                    // These are the caller's values, not schemas.
                    ("enum" | "default" | "examples", value) => (key.as_str(), value.clone()),
                    (key, value) => (key, respelled(value)),
                };
                out.insert(key.to_owned(), value);
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.iter().map(respelled).collect()),
        other => other.clone(),
    }
}

fn strip(schema: &Value, keep: &dyn Fn(&str) -> bool, close: bool) -> Value {
    let Value::Object(map) = schema else { return schema.clone() };
    let mut out = serde_json::Map::new();
    for (key, value) in map {
        if !keep(key) {
            continue;
        }
        let stripped = match (key.as_str(), value) {
            // These are names that the caller chose, not keywords.
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
    fn unsupported_keywords_are_removed_only_from_schemas() {
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
    fn keyword_with_a_supported_equivalent_is_rewritten() {
        let schema = json!({
            "type":"object","minProperties":1,
            "properties":{"const":{"const":"a"},"definitions":{"$ref":"#/definitions/x"}},
            "definitions":{"x":{"enum":[{"const":1}]}}});
        let allowed = ["type", "properties", "enum", "$ref", "$defs"];
        assert_eq!(
            only(&schema, &allowed),
            json!({
                "type":"object",
                "properties":{"const":{"enum":["a"]},"definitions":{"$ref":"#/$defs/x"}},
                "$defs":{"x":{"enum":[{"const":1}]}}})
        );
    }

    #[test]
    fn signatures_travel_in_ids() {
        let id = signed_call_id("c1", Some("aGk="));
        assert_eq!((bare_call_id(&id), call_signature(&id)), ("c1", Some("aGk=")));
        assert_eq!((bare_call_id("c1"), call_signature("c1")), ("c1", None));
    }
}
