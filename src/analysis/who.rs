//! The roles and names of a call's speakers, for prompts.
//!
//! Knows no call and no prompt. They are shown after the turns, never in them: a name that becomes known later changes no
//! line.

use serde_json::Value;

use crate::types::JsonMap;

/// Entries of the insight about speakers that are less sure than this are left out.
const LEAST_CONFIDENCE: f64 = 0.5;

/// Role and name by label, from the newest value of the analysis `speakers`. A role in `meta.roles` wins. Empty if there
/// is no such value: `meta` is in prompts anyway.
pub fn speakers(meta: &JsonMap, value: Option<&Value>) -> JsonMap {
    let mut known = JsonMap::new();
    let entries = value.and_then(|value| value.get("speakers")).and_then(Value::as_array);
    for entry in entries.into_iter().flatten() {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let sure = entry.get("confidence").and_then(Value::as_f64).is_none_or(|sure| sure >= LEAST_CONFIDENCE);
        let Some(label) = text("speaker").filter(|_| sure) else { continue };
        let told = meta.get("roles").and_then(|roles| roles.get(label)).and_then(Value::as_str);
        let facts = [("role", told.or_else(|| text("role"))), ("name", text("name"))];
        let facts = facts.into_iter().filter_map(|(key, fact)| Some((key.to_owned(), Value::from(fact?))));
        let facts: JsonMap = facts.collect();
        if !facts.is_empty() {
            known.insert(label.to_owned(), Value::Object(facts));
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn roles_come_from_meta_before_the_insight() {
        let meta = json!({"roles": {"A": "supervisor", "C": "agent"}}).as_object().cloned().expect("an object");
        let value = json!({"speakers": [
            {"speaker": "A", "role": "agent", "name": "Ada", "confidence": 0.9},
            {"speaker": "B", "role": "customer", "name": null, "confidence": 0.5},
            {"speaker": "C", "role": null, "name": null, "confidence": 1},
            {"speaker": "D", "role": "customer", "name": "Bo", "confidence": 0.4},
            {"speaker": "E", "role": null, "name": ""}, 5,
        ]});
        let expected =
            json!({"A": {"role": "supervisor", "name": "Ada"}, "B": {"role": "customer"}, "C": {"role": "agent"}});
        assert_eq!(Value::Object(speakers(&meta, Some(&value))), expected);
        assert!(speakers(&meta, None).is_empty());
    }
}
