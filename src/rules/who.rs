//! Determines who speaks: labels of speakers, and their roles.
//!
//! Knows no turn. A role comes from the call's `meta.roles`, an object from label to role, or from the newest insight
//! of the analysis `speakers`; `meta` takes precedence.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::text;
use crate::types::JsonMap;

/// The analysis whose insights give roles.
pub const SPEAKERS: &str = "speakers";

/// A label or a role, as a rule names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker(String);

impl Speaker {
    /// Letter case and normal form are ignored.
    pub fn new(name: &str) -> Self {
        Self(text::fold(name.trim()).into_owned())
    }

    fn is(&self, name: &str) -> bool {
        *text::fold(name.trim()) == self.0
    }
}

/// The roles of a call's speakers, by label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles(BTreeMap<String, String>);

impl Roles {
    /// Roles from the call's `meta` and from the value of the newest insight of `speakers`.
    pub fn of(meta: &JsonMap, speakers: Option<&Value>) -> Self {
        let mut roles = BTreeMap::new();
        let found = speakers.and_then(|value| value.get("speakers")).and_then(Value::as_array);
        for entry in found.into_iter().flatten() {
            let text = |key: &str| entry.get(key).and_then(Value::as_str);
            if let (Some(label), Some(role)) = (text("speaker"), text("role")) {
                roles.insert(label.to_owned(), role.to_owned());
            }
        }
        for (label, role) in meta.get("roles").and_then(Value::as_object).into_iter().flatten() {
            if let Some(role) = role.as_str() {
                roles.insert(label.clone(), role.to_owned());
            }
        }
        Self(roles)
    }

    /// Returns true if the speaker with this label is the one that a rule names.
    pub fn is(&self, label: Option<&str>, speaker: &Speaker) -> bool {
        let Some(label) = label else { return false };
        speaker.is(label) || self.0.get(label).is_some_and(|role| speaker.is(role))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn speaker_is_known_by_label_and_by_role_and_meta_wins() {
        let meta: JsonMap = serde_json::from_value(json!({"roles": {"A": "Agent", "C": 7}})).expect("json");
        let insight =
            json!({"speakers": [{"speaker": "A", "role": "customer"}, {"speaker": "B", "role": "customer"}, 5]});
        let roles = Roles::of(&meta, Some(&insight));
        for (label, wanted, expected) in [
            (Some("A"), "agent", true),
            (Some("A"), "a", true),
            (Some("A"), "customer", false),
            (Some("B"), "Customer", true),
            (Some("C"), "c", true),
            (None, "agent", false),
        ] {
            assert_eq!(roles.is(label, &Speaker::new(wanted)), expected, "{label:?} {wanted}");
        }
        assert_eq!(Roles::of(&JsonMap::new(), None), Roles::default());
    }
}
