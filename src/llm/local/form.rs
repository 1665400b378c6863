//! Fits the value of an answer to the schema of a request.
//!
//! Knows no method. A schema may ask for operations on a list instead of the list, or lack members that a method
//! returns.

use serde_json::{Map, Value, json};

/// `value` without the members that `schema` does not allow, and with lists as operations if the schema asks for them.
pub(super) fn fitted(value: Value, schema: Option<&Value>) -> Value {
    let Some(schema) = schema else { return value };
    match value {
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
            let known = |name: &str| properties.and_then(|properties| properties.get(name));
            let fields = fields.into_iter().filter(|(name, _)| !closed || known(name).is_some());
            Value::Object(fields.map(|(name, value)| (name.clone(), fitted(value, known(&name)))).collect())
        }
        Value::Array(elements) => {
            let element = schema.get("items");
            let operations = element.is_some_and(|element| element.pointer("/properties/op").is_some());
            let elements = elements.into_iter().map(|value| match value {
                Value::Object(fields) if operations => fitted(added(fields), element),
                value => fitted(value, element),
            });
            elements.collect()
        }
        other => other,
    }
}

/// The operation that adds an element.
fn added(fields: Map<String, Value>) -> Value {
    let mut operation = json!({ "op": "add", "id": null });
    if let Some(operation) = operation.as_object_mut() {
        operation.extend(fields.into_iter().filter(|(name, _)| name != "id"));
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_fitted_to_what_is_asked() {
        let value = json!({"headline": "h", "points": [{"id": "", "text": "t", "speaker": null}], "outcome": null});
        let element =
            json!({"type": "object", "properties": {"text": {}, "speaker": {}}, "additionalProperties": false});
        let old = json!({"properties": {"headline": {}, "points": {"items": element}}, "additionalProperties": false});
        assert_eq!(
            fitted(value.clone(), Some(&old)),
            json!({"headline": "h", "points": [{"text": "t", "speaker": null}]})
        );
        let asked = json!({"properties": {"points": {"items": {"properties": {"op": {}, "id": {}, "text": {}, "speaker": {}}}}}});
        assert_eq!(
            fitted(value.clone(), Some(&asked))["points"],
            json!([{"op": "add", "id": null, "text": "t", "speaker": null}])
        );
        assert_eq!(fitted(value.clone(), None), value);
    }
}
