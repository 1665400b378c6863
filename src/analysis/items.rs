//! Lists of items: elements of an analysis's value that have a permanent `id`, and are changed by operations.
//!
//! A model is asked for operations on the current list (`add`, `update`, `resolve`, `retract`), or for the whole list.
//! Both are converted to the new value and to the changes that lead from the old value to it. Ids are assigned here:
//! the list's first letter, the insight's revision and a number (`p4_1`), so that none is ever used twice. An operation
//! that cannot be applied is repaired if only one meaning is possible, otherwise it is left out and counted.
//!
//! Knows no model, no prompt and no journal, and trusts an answer only to be valid under its schema.

mod apply;
mod form;
mod reconcile;
mod similar;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::budget::Bound;
use crate::types::JsonMap;
use crate::types::insight::Change;

/// Maximum number of items of one list.
const ITEMS: Bound = Bound::new("insight_items", 200);
/// Maximum number of operations on one list in one answer.
const OPERATIONS: Bound = Bound::new("insight_operations", 400);

/// A value as it is shown to a model that must update it: without its quotes, which were checked already.
pub fn shown(value: &Value) -> Value {
    let is_quote = |value: &Value| value.get("quote").is_some() && value.get("turn").is_some();
    let is_evidence = |value: &Value| match value {
        Value::Array(items) => !items.is_empty() && items.iter().all(is_quote),
        value => is_quote(value),
    };
    match value {
        Value::Array(items) => items.iter().map(shown).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !is_evidence(value));
            Value::Object(fields.map(|(name, value)| (name.clone(), shown(value))).collect())
        }
        other => other.clone(),
    }
}

/// The lists of items in a schema.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Lists(Vec<List>);

/// One list of items in a schema.
#[derive(Debug, Clone, PartialEq)]
struct List {
    /// Names of the members that lead to it.
    path: Vec<String>,
    /// The list's path as a JSON pointer.
    pointer: String,
    /// Fields of an item except its id, in the order of the schema.
    fields: Vec<Field>,
    /// The field by whose words two items are compared.
    text: Option<String>,
    /// Set if a member `current` beside the list names one of its items.
    has_current: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    name: String,
    required: bool,
    nullable: bool,
    /// The values that the field can have, if the schema lists them.
    choices: Vec<Value>,
}

/// The form of a list of items in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Operations on the current list.
    Operations,
    /// The list itself. Its elements may have the form of `add` operations.
    Whole,
}

/// A new value, and the changes that lead to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Applied {
    pub(super) value: Value,
    /// `None` if there is no earlier value of this form.
    pub(super) changes: Option<Vec<Change>>,
    pub(super) dropped: Dropped,
}

/// How many operations were left out, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped(BTreeMap<&'static str, u64>);

impl Dropped {
    /// Counts one operation more.
    fn count(&mut self, reason: &'static str) {
        self.add(reason, 1);
    }

    fn add(&mut self, reason: &'static str, operations: usize) {
        if operations > 0 {
            *self.0.entry(reason).or_default() += operations as u64;
        }
    }

    /// Reasons and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(reason, count)| (*reason, *count))
    }

    /// Total number.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// The items of a list: id first, then the other fields.
type Item = JsonMap;

fn id_of(item: &Item) -> &str {
    item.get("id").and_then(Value::as_str).unwrap_or_default()
}

impl Lists {
    /// Returns true if the schema has no list of items, so that answers are values as they are.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value after applying `answer` to `current`; `rev` is the revision of the insight that will have it. `checked` is
    /// the current value whose quotes were checked again: the same items, some of which may be marked otherwise.
    pub(super) fn apply(
        &self,
        (current, checked): (Option<&Value>, Option<&Value>),
        mut answer: Value,
        form: Form,
        rev: u64,
    ) -> Applied {
        let current = current.filter(|value| self.0.iter().all(|list| list.items(value).is_some()));
        let (mut changes, mut dropped) = (Vec::new(), Dropped::default());
        for list in &self.0 {
            let given = list.take(&mut answer);
            let items = current.and_then(|value| list.items(value)).unwrap_or_default();
            let mut work = apply::Work::new(list, items, rev, &mut changes, &mut dropped);
            work.mark(checked.and_then(|value| list.items(value)).unwrap_or_default());
            match form {
                Form::Operations => work.operations(given),
                Form::Whole => work.whole(given),
            }
            let (items, names) = work.done();
            list.put(&mut answer, items, &names);
        }
        let changes = current.and_then(|old| {
            self.set_fields(Some(old), &answer, &mut Vec::new(), &mut changes)?;
            Some(changes)
        });
        Applied { value: answer, changes, dropped }
    }

    /// Upper estimate of the steps of [`Lists::apply`].
    pub(super) fn work(&self, answer: &Value, current: Option<&Value>) -> u64 {
        /// Steps to compare two items.
        const COMPARING: u64 = 10;
        let length = |value: &Value, list: &List| {
            value.pointer(&list.pointer).and_then(Value::as_array).map_or(0, Vec::len) as u64
        };
        let work = |list: &List| {
            let (given, known) = (length(answer, list), current.map_or(0, |current| length(current, list)));
            given.saturating_mul(given.saturating_add(known)).saturating_mul(COMPARING)
        };
        self.0.iter().map(work).sum()
    }

    /// Changes of all members that are not lists of items; `None` if a member is missing in the new value, which no
    /// change can express.
    fn set_fields(
        &self,
        old: Option<&Value>,
        new: &Value,
        path: &mut Vec<String>,
        changes: &mut Vec<Change>,
    ) -> Option<()> {
        if self.0.iter().any(|list| list.path == *path) || old == Some(new) {
            return Some(());
        }
        match (old, new) {
            (Some(Value::Object(old)), Value::Object(new)) if self.0.iter().any(|list| list.path.starts_with(path)) => {
                if old.keys().any(|name| !new.contains_key(name)) {
                    return None;
                }
                for (name, value) in new {
                    path.push(name.clone());
                    self.set_fields(old.get(name), value, path, changes)?;
                    path.pop();
                }
            }
            _ => changes.push(Change::Set { field: pointer(path), value: new.clone() }),
        }
        Some(())
    }
}

/// The JSON pointer of a path of members.
fn pointer(path: &[String]) -> String {
    path.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect()
}

impl List {
    /// The items in `value`; `None` if it has no list there, or one with a missing or repeated id.
    fn items(&self, value: &Value) -> Option<Vec<Item>> {
        let elements = value.pointer(&self.pointer)?.as_array()?;
        let items: Vec<Item> = elements.iter().map(|element| element.as_object().cloned()).collect::<Option<_>>()?;
        let mut ids: Vec<&str> = items.iter().map(id_of).collect();
        ids.sort_unstable();
        let sound = ids.iter().all(|id| !id.is_empty()) && ids.windows(2).all(|pair| pair[0] != pair[1]);
        sound.then_some(items)
    }

    /// Removes the list from an answer; `None` if the answer does not have it.
    fn take(&self, answer: &mut Value) -> Option<Vec<Value>> {
        match answer.pointer_mut(&self.pointer)? {
            Value::Array(given) => Some(std::mem::take(given)),
            _ => None,
        }
    }

    /// Puts the items into the value, and ensures that `current` names one of them. `names`: the names that the answer
    /// uses for new ones.
    fn put(&self, value: &mut Value, items: Vec<Item>, names: &BTreeMap<String, String>) {
        let Some((last, parents)) = self.path.split_last() else { return };
        let mut object = value;
        for name in parents {
            let Some(inner) = object.get_mut(name) else { return };
            object = inner;
        }
        let Some(object) = object.as_object_mut() else { return };
        if self.has_current
            && let Some(Value::String(named)) = object.get_mut("current")
        {
            if let Some(id) = names.get(named.as_str()) {
                named.clone_from(id);
            }
            if items.iter().all(|item| id_of(item) != named.as_str()) {
                object.insert("current".to_owned(), Value::Null);
            }
        }
        object.insert(last.clone(), items.into_iter().map(Value::Object).collect());
    }
}
