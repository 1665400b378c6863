//! Counts in the values of insights: added, changed and removed items, and quotes; and the text of a summary.
//!
//! Knows no schema: users define their own.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::types::Evidence;

/// Differences between the list items of a value and those of the value before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Items {
    pub added: u64,
    /// Items with an id that existed before and with changed fields.
    pub changed: u64,
    pub retracted: u64,
}

impl Items {
    /// The differences between two values. For the first value, all items count as added.
    pub fn between(before: Option<&Value>, after: &Value) -> Self {
        let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
        if let Some(before) = before {
            collect(before, "", &mut old);
        }
        collect(after, "", &mut new);
        let added = new.keys().filter(|key| !old.contains_key(*key)).count();
        let changed = new.iter().filter(|(key, item)| old.get(*key).is_some_and(|known| known != *item)).count();
        let retracted = old.keys().filter(|key| !new.contains_key(*key)).count();
        Self { added: added as u64, changed: changed as u64, retracted: retracted as u64 }
    }

    /// Adds the counts of another step.
    pub fn add(&mut self, other: Self) {
        self.added += other.added;
        self.changed += other.changed;
        self.retracted += other.retracted;
    }
}

/// Finds the elements of lists that have an `id`, by list and id.
fn collect<'a>(value: &'a Value, path: &str, items: &mut BTreeMap<(String, String), &'a Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(value, &format!("{path}/{name}"), items);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                match element.get("id").and_then(Value::as_str) {
                    Some(id) => drop(items.insert((path.to_owned(), id.to_owned()), element)),
                    None => collect(element, path, items),
                }
            }
        }
        _ => {}
    }
}

/// Counts of quotes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Quotes {
    pub all: u64,
    /// Quotes whose words are in the turn that they name.
    pub verified: u64,
}

impl Quotes {
    /// The quotes of one insight, in its value and beside it.
    pub fn of(value: &Value, evidence: &[Evidence]) -> Self {
        let mut quotes = Self::default();
        evidence.iter().for_each(|quote| quotes.count(!quote.unverified));
        quotes.find(value);
        quotes
    }

    /// Adds the counts of another insight.
    pub fn add(&mut self, other: Self) {
        self.all += other.all;
        self.verified += other.verified;
    }

    /// Share of verified quotes; `None` without quotes.
    pub fn precision(self) -> Option<f64> {
        (self.all > 0).then(|| self.verified as f64 / self.all as f64)
    }

    fn count(&mut self, verified: bool) {
        self.all += 1;
        self.verified += u64::from(verified);
    }

    fn find(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                if fields.contains_key("turn") && fields.get("quote").is_some_and(Value::is_string) {
                    self.count(fields.get("unverified") != Some(&Value::Bool(true)));
                }
                fields.values().for_each(|value| self.find(value));
            }
            Value::Array(elements) => elements.iter().for_each(|element| self.find(element)),
            _ => {}
        }
    }
}

/// The text of a summary: its headline and its points; `None` for a value of another form.
pub fn summary_text(value: &Value) -> Option<String> {
    let headline = value.get("headline")?.as_str()?;
    let points = value.get("points").and_then(Value::as_array).into_iter().flatten();
    let points = points.filter_map(|point| point.get("text").unwrap_or(point).as_str());
    Some(std::iter::once(headline).chain(points).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_are_counted_by_list_and_id() {
        let before =
            json!({"items": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}], "other": {"list": [{"id": "a"}]}});
        let after =
            json!({"items": [{"id": "b", "text": "z"}, {"id": "c", "text": "w"}], "other": {"list": [{"id": "a"}]}});
        assert_eq!(Items::between(Some(&before), &after), Items { added: 1, changed: 1, retracted: 1 });
        assert_eq!(Items::between(None, &before), Items { added: 3, changed: 0, retracted: 0 });
        assert_eq!(Items::between(Some(&after), &after), Items::default());
        assert_eq!(Items::between(None, &json!({"tags": ["a"], "speakers": [{"speaker": "A"}]})), Items::default());
    }

    #[test]
    fn quotes_are_counted_at_any_depth() {
        let evidence = [
            Evidence { turn: 1, quote: "yes".into(), unverified: false },
            Evidence { turn: 2, quote: "no".into(), unverified: true },
        ];
        let value = json!({"items": [{"id": "a", "evidence": {"turn": 3, "quote": "q"}},
            {"id": "b", "evidence": [{"turn": 3, "quote": "r", "unverified": true}]}], "turn": 3});
        let quotes = Quotes::of(&value, &evidence);
        assert_eq!(quotes, Quotes { all: 4, verified: 2 });
        assert_eq!((quotes.precision(), Quotes::default().precision()), (Some(0.5), None));
    }

    #[test]
    fn summary_is_its_headline_and_its_points() {
        let value =
            json!({"headline": "A.", "points": [{"id": "p", "text": "B.", "speaker": null}, "C."], "outcome": "D"});
        assert_eq!(summary_text(&value).as_deref(), Some("A. B. C."));
        assert_eq!(summary_text(&json!({"overall": {}})), None);
    }
}
