//! Applies an answer to one list of items.

use std::collections::BTreeMap;

use serde_json::Value;

use super::form::{RESERVED, STATE};
use super::similar::{ALIKE, Bag, SAME};
use super::{Dropped, ITEMS, Item, List, OPERATIONS, id_of, reconcile};
use crate::types::insight::Change;

/// Why an operation was left out.
const MALFORMED: &str = "malformed";
const UNKNOWN_ID: &str = "unknown_id";
const INCOMPLETE: &str = "incomplete";
const DUPLICATE: &str = "duplicate";
const TOO_MANY: &str = "too_many";

/// The list in its present state.
pub(super) struct Work<'a> {
    list: &'a List,
    items: Vec<Item>,
    /// The words of each item.
    bags: Vec<Bag>,
    rev: u64,
    /// Number of ids that this answer has given.
    minted: u64,
    /// The names that the answer uses for items, and their ids.
    names: BTreeMap<String, String>,
    changes: &'a mut Vec<Change>,
    dropped: &'a mut Dropped,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        list: &'a List,
        items: Vec<Item>,
        rev: u64,
        changes: &'a mut Vec<Change>,
        dropped: &'a mut Dropped,
    ) -> Self {
        let bags = items.iter().map(|item| bag(list, item)).collect();
        Self { list, items, bags, rev, minted: 0, names: BTreeMap::new(), changes, dropped }
    }

    /// The items, and the names that the answer uses for them.
    pub(super) fn done(self) -> (Vec<Item>, BTreeMap<String, String>) {
        (self.items, self.names)
    }

    /// Takes over what `checked`, the same items, marks otherwise.
    pub(super) fn mark(&mut self, checked: Vec<Item>) {
        for (index, fields) in checked.into_iter().enumerate().take(self.items.len()) {
            self.change(index, fields, false);
        }
    }

    /// Applies operations in order; an answer without the list changes nothing.
    pub(super) fn operations(&mut self, given: Option<Vec<Value>>) {
        for operation in self.bounded(given.unwrap_or_default(), OPERATIONS.most) {
            if let Err(reason) = self.operation(operation) {
                self.dropped.count(reason);
            }
        }
    }

    fn bounded(&mut self, mut given: Vec<Value>, most: u64) -> Vec<Value> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.dropped.add(TOO_MANY, given.len().saturating_sub(most));
        given.truncate(most);
        given
    }

    fn operation(&mut self, operation: Value) -> Result<(), &'static str> {
        let (op, id, fields) = parts(operation).ok_or(MALFORMED)?;
        match op.as_deref() {
            Some("add") => self.add(&id, &fields),
            Some("update") => {
                let index = self.find(&id, &fields)?;
                self.change(index, given(fields), false);
                Ok(())
            }
            Some("resolve") if self.list.has_states() => {
                let index = self.find(&id, &fields)?;
                let fields = self.settled(given(fields));
                self.change(index, fields, true);
                Ok(())
            }
            Some("retract") => {
                let index = self.find(&id, &fields)?;
                self.retract(index);
                Ok(())
            }
            _ => Err(MALFORMED),
        }
    }

    /// A new item at the end. One that says the same as an item of the list is taken for that item.
    fn add(&mut self, name: &str, fields: &Item) -> Result<(), &'static str> {
        let complete = self.complete(fields)?;
        let found = self.most_like(&bag(self.list, &complete));
        let id = if let Some(index) = found {
            let known = id_of(&self.items[index]).to_owned();
            // Only "resolve" may settle an item.
            let fields = given(fields.clone()).into_iter().filter(|(field, _)| field != STATE).collect();
            self.change(index, fields, false);
            known
        } else {
            self.insert(complete, self.items.len())?
        };
        if !name.is_empty() {
            self.names.insert(name.to_owned(), id);
        }
        Ok(())
    }

    /// All fields of a new item, in the order of the schema.
    fn complete(&self, given: &Item) -> Result<Item, &'static str> {
        let mut fields = Item::new();
        for field in &self.list.fields {
            match given.get(&field.name) {
                Some(value) if !value.is_null() => drop(fields.insert(field.name.clone(), value.clone())),
                _ if field.nullable => drop(fields.insert(field.name.clone(), Value::Null)),
                _ if field.name == STATE && !field.choices.is_empty() => {
                    fields.insert(field.name.clone(), field.choices[0].clone());
                }
                _ if field.required => return Err(INCOMPLETE),
                _ => {}
            }
        }
        for (name, value) in given.iter().filter(|(name, _)| self.list.field(name).is_none()) {
            fields.insert(name.clone(), value.clone());
        }
        Ok(fields)
    }

    /// Gives a new item its id and inserts it at an index.
    fn insert(&mut self, fields: Item, at: usize) -> Result<String, &'static str> {
        if self.items.len() as u64 >= ITEMS.most {
            return Err(TOO_MANY);
        }
        self.minted += 1;
        let letter = self.list.path.last().and_then(|name| name.chars().next());
        let letter = letter.filter(char::is_ascii_alphabetic).map_or('i', |letter| letter.to_ascii_lowercase());
        let id = format!("{letter}{}_{}", self.rev, self.minted);
        let before = self.items.get(at).map(|item| id_of(item).to_owned());
        let list = self.list.pointer.clone();
        self.changes.push(Change::Add { list, id: id.clone(), before, fields: fields.clone() });
        self.bags.insert(at, bag(self.list, &fields));
        let mut item = Item::new();
        item.insert("id".to_owned(), id.clone().into());
        item.extend(fields);
        self.items.insert(at, item);
        Ok(id)
    }

    /// Changes the fields that differ.
    fn change(&mut self, index: usize, fields: Item, resolves: bool) {
        let item = &mut self.items[index];
        let changed: Item = fields.into_iter().filter(|(name, value)| item.get(name) != Some(value)).collect();
        if changed.is_empty() {
            return;
        }
        item.extend(changed.clone());
        let (list, id) = (self.list.pointer.clone(), id_of(item).to_owned());
        self.bags[index] = bag(self.list, item);
        self.changes.push(if resolves {
            Change::Resolve { list, id, fields: changed }
        } else {
            Change::Update { list, id, fields: changed }
        });
    }

    /// The fields of an operation that settles an item, including a state that marks it as settled.
    fn settled(&self, mut fields: Item) -> Item {
        let choices = self.list.field(STATE).map(|state| state.choices.as_slice()).unwrap_or_default();
        if let [open, settled, ..] = choices
            && fields.get(STATE).is_none_or(|state| state == open)
        {
            fields.insert(STATE.to_owned(), settled.clone());
        }
        fields
    }

    fn retract(&mut self, index: usize) {
        let item = self.items.remove(index);
        self.bags.remove(index);
        self.changes.push(Change::Retract { list: self.list.pointer.clone(), id: id_of(&item).to_owned() });
    }

    /// The item that an operation refers to: by its id, by the name that the answer gave it, or, if neither is known,
    /// by its words, if they match exactly one item.
    fn find(&self, id: &str, fields: &Item) -> Result<usize, &'static str> {
        let by_id = |id: &str| self.items.iter().position(|item| id_of(item) == id);
        if let Some(index) = by_id(id).or_else(|| by_id(self.names.get(id)?)) {
            return Ok(index);
        }
        let wanted = bag(self.list, fields);
        let alike = |index: &usize| self.bags[*index].likeness(&wanted) >= ALIKE;
        let mut alike = (0..self.items.len()).filter(alike);
        match (alike.next(), alike.next()) {
            (Some(index), None) => Ok(index),
            _ => Err(UNKNOWN_ID),
        }
    }

    /// The item that says the same as `wanted`.
    fn most_like(&self, wanted: &Bag) -> Option<usize> {
        let scored = self.bags.iter().enumerate().map(|(index, bag)| (index, bag.likeness(wanted)));
        let best = scored.filter(|(_, likeness)| *likeness >= SAME);
        best.reduce(|best, other| if other.1 > best.1 { other } else { best }).map(|(index, _)| index)
    }

    /// Replaces the list by that of the answer: items that exist already keep their ids and their order, and a new item
    /// follows the one before it in the answer. An answer without the list changes nothing.
    pub(super) fn whole(&mut self, given: Option<Vec<Value>>) {
        let Some(elements) = given else { return };
        let mut wanted = Vec::new();
        for element in self.bounded(elements, ITEMS.most) {
            match parts(element) {
                Some((None, id, fields)) => wanted.push((id, fields)),
                Some((Some(op), id, fields)) if op == "add" => wanted.push((id, fields)),
                _ => self.dropped.count(MALFORMED),
            }
        }
        let keys: Vec<(String, Bag)> = wanted.iter().map(|(id, fields)| (id.clone(), bag(self.list, fields))).collect();
        let old: Vec<String> = self.items.iter().map(|item| id_of(item).to_owned()).collect();
        let matched = reconcile::matching(&keys, &old, &self.bags);
        for (index, _) in old.iter().enumerate().rev().filter(|(index, _)| !matched.contains(&Some(*index))) {
            self.retract(index);
        }
        let mut last: Option<String> = None;
        for ((name, fields), matched) in wanted.into_iter().zip(matched) {
            let placed = match matched {
                Some(index) => {
                    self.replace(&old[index], fields);
                    Ok(old[index].clone())
                }
                None => self.place(&fields, last.as_deref()),
            };
            match placed {
                Ok(id) => {
                    if !name.is_empty() {
                        self.names.insert(name, id.clone());
                    }
                    last = Some(id);
                }
                Err(reason) => self.dropped.count(reason),
            }
        }
    }

    /// Changes the fields of an item that a whole list contains.
    fn replace(&mut self, id: &str, fields: Item) {
        let Some(index) = self.items.iter().position(|item| id_of(item) == id) else { return };
        let open = self.list.field(STATE).and_then(|state| state.choices.first());
        let resolves = self.list.has_states()
            && self.items[index].get(STATE) == open
            && fields.get(STATE).is_some_and(|state| Some(state) != open);
        self.change(index, fields, resolves);
    }

    /// Inserts a new item of a whole list after the item `last`, or at the start.
    fn place(&mut self, fields: &Item, last: Option<&str>) -> Result<String, &'static str> {
        let complete = self.complete(fields)?;
        if self.most_like(&bag(self.list, &complete)).is_some() {
            return Err(DUPLICATE);
        }
        let behind = last.and_then(|last| self.items.iter().position(|item| id_of(item) == last));
        self.insert(complete, behind.map_or(0, |index| index + 1))
    }
}

/// Operation, id and fields.
fn parts(operation: Value) -> Option<(Option<String>, String, Item)> {
    let Value::Object(mut fields) = operation else { return None };
    let mut text = |name: &str| match fields.shift_remove(name) {
        Some(Value::String(text)) => Some(text.trim().to_owned()),
        _ => None,
    };
    let (op, id) = (text("op"), text("id").unwrap_or_default());
    fields.retain(|name, _| !RESERVED.contains(&name.as_str()));
    Some((op, id, fields))
}

/// The fields that have a value.
fn given(fields: Item) -> Item {
    fields.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// The words of an item.
fn bag(list: &List, item: &Item) -> Bag {
    let text = list.text.as_ref().and_then(|name| item.get(name)).and_then(Value::as_str);
    Bag::of(text.unwrap_or_default())
}
