//! Reads and compiles `schema.json`, and derives facts from it.
//!
//! Knows no prompt and no settings.

use serde_json::{Value, json};

use super::items::Lists;
use super::shown::ListedQuestion;
use super::{Fault, Scope, position};
use crate::llm::schema::{SchemaError, Validator, pointer_to};

/// Reads `schema.json` and checks that it can be compiled.
pub(super) fn compile(source: &str) -> Result<Value, Fault> {
    const FILE: &str = "schema.json";
    let schema: Value = serde_json::from_str(source).map_err(|error| {
        // The parser's message already ends with the place that the error names.
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message).to_owned();
        Fault { file: FILE.to_owned(), at: Some((error.line(), error.column())), message }
    })?;
    if !schema.is_object() {
        return Err(Fault::at(FILE, source, 0, "expected a JSON schema: an object"));
    }
    match Validator::compile(&schema) {
        Ok(_) => Ok(schema),
        Err(error) => {
            let place = match &error {
                SchemaError::RemoteRef(target) => {
                    pointer_to(&schema, &|key, value| key.ends_with("ef") && value.as_str() == Some(target))
                }
                SchemaError::Invalid { at, .. } => at.clone(),
                SchemaError::TooDeep | SchemaError::TooLarge(_) | SchemaError::TooComplex(_) => None,
            };
            let offset = position::json(source, place.as_deref().unwrap_or_default());
            Err(Fault::at(FILE, source, offset, error.to_string()))
        }
    }
}

/// Returns true if vendors' strict modes accept a schema: every object is closed, and all its properties are required.
pub(super) fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            let closed = map.get("properties").and_then(Value::as_object).is_none_or(|properties| {
                let required = map.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                map.get("additionalProperties") == Some(&Value::Bool(false))
                    && properties.keys().all(|key| required.iter().any(|name| name == key))
            });
            closed && map.values().all(is_strict)
        }
        Value::Array(items) => items.iter().all(is_strict),
        _ => true,
    }
}

/// Narrows a list of answers to questions, whose elements have an `id` and a `question`: as many as there are questions, each
/// with the id of one.
pub(super) fn narrow(schema: &mut Value, questions: &[ListedQuestion]) {
    let ids: Vec<&str> = questions.iter().map(|question| question.id.as_str()).collect();
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for list in properties.into_iter().flat_map(|properties| properties.values_mut()) {
        let Some(fields) = list.pointer_mut("/items/properties").and_then(Value::as_object_mut) else { continue };
        if !ids.is_empty() && fields.contains_key("question") && fields.contains_key("id") {
            fields.insert("id".to_owned(), json!({"type": "string", "enum": ids}));
            list["minItems"] = ids.len().into();
            list["maxItems"] = ids.len().into();
        }
    }
}

/// The analysis' name in the form that vendors require of a schema's name: `[A-Za-z0-9_-]{1,64}`.
pub(super) fn name(name: &str) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    name.chars().take(64).map(|character| if allowed(character) { character } else { '_' }).collect()
}

/// The lists of items in a schema. Only an analysis that runs repeatedly has any.
pub(super) fn lists(schema: &Value, source: &str, scope: Scope) -> Result<Lists, Fault> {
    if scope != Scope::Rolling {
        return Ok(Lists::default());
    }
    Lists::of(schema)
        .map_err(|(place, message)| Fault::at("schema.json", source, position::json(source, &place), message))
}
