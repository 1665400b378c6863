//! Reads a schema's subschemas, and resolves the references between them.
//!
//! Knows no cost of a graph and no answer.

use std::collections::{HashMap, VecDeque};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::SchemaError;
use super::part::{Part, Place};
use super::patterns::Patterns;
use crate::base::budget::{Bound, Exceeded};

/// Maximum number of subschemas. The compiler compares each with all others.
const SCHEMA_PARTS: Bound = Bound::new("schema_parts", 2_000);
/// Maximum total length of all subschemas' JSON pointers, bytes. The compiler keeps several copies of each.
const SCHEMA_ADDRESS_BYTES: Bound = Bound::new("schema_address_bytes", 1024 * 1024);
/// Keywords whose value is a schema.
const ONE: [&str; 12] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
const LISTS: [&str; 5] = ["allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// Keywords whose value is an object of schemas.
const MAPS: [&str; 6] = ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];
/// Keywords whose value refers to a schema.
const REFERENCES: [&str; 3] = ["$dynamicRef", "$recursiveRef", "$ref"];

/// A schema while its graph is built.
#[derive(Default)]
pub(super) struct Reader<'s> {
    /// Parts by the address of their JSON value.
    places: HashMap<usize, Place>,
    pub(super) parts: Vec<Part>,
    queue: VecDeque<(&'s Value, Place)>,
    /// Subschemas by anchor, static or dynamic.
    anchors: HashMap<&'s str, Vec<&'s Value>>,
    /// By the address of a subschema: the schema resource (nearest enclosing `$id`) that it belongs to.
    resources: HashMap<usize, &'s Value>,
    /// Resources with `$recursiveAnchor`.
    recursive: Vec<&'s Value>,
    /// Parts with `$recursiveRef`.
    recurring: Vec<Place>,
    /// Parts of such resources that a reference leads to. The validator resolves a `$recursiveRef` to the part through
    /// which the resource was entered.
    entered: Vec<Place>,
    surveyed: u64,
    pub(super) addresses: u64,
    pub(super) patterns: Patterns,
    pub(super) shared: bool,
    pub(super) unevaluated: bool,
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value).addr()
}

fn text<'s>(keywords: &'s Map<String, Value>, name: &str) -> Option<&'s str> {
    keywords.get(name)?.as_str()
}

impl<'s> Reader<'s> {
    /// Reads a schema whose size and depth have been checked.
    ///
    /// # Errors
    /// The schema is over a limit, or one of its patterns is invalid.
    pub(super) fn of(schema: &'s Value) -> Result<Self, SchemaError> {
        let mut reader = Self::default();
        reader.survey(schema, schema, 0)?;
        reader.place(schema);
        while let Some((value, place)) = reader.queue.pop_front() {
            SCHEMA_PARTS.check(reader.parts.len() as u64)?;
            if let Value::Object(keywords) = value {
                let part = reader.part(schema, value, keywords, place)?;
                reader.parts[place] = part;
            }
        }
        reader.tie_recursion();
        Ok(reader)
    }

    /// Counts subschemas, and collects anchors and resources. `length` is the length of the subschema's JSON pointer.
    fn survey(&mut self, value: &'s Value, resource: &'s Value, length: u64) -> Result<(), Exceeded> {
        self.surveyed += 1;
        SCHEMA_PARTS.check(self.surveyed)?;
        self.addresses += length;
        SCHEMA_ADDRESS_BYTES.check(self.addresses)?;
        let Value::Object(keywords) = value else { return Ok(()) };
        let id = text(keywords, "$id").or_else(|| text(keywords, "id"));
        let resource = if id.is_some_and(|id| !id.starts_with('#')) { value } else { resource };
        let of_id = id.and_then(|id| id.strip_prefix('#'));
        for anchor in [text(keywords, "$anchor"), text(keywords, "$dynamicAnchor"), of_id].into_iter().flatten() {
            self.anchors.entry(anchor).or_default().push(value);
        }
        if keywords.get("$recursiveAnchor") == Some(&Value::Bool(true)) {
            self.recursive.push(resource);
        }
        self.resources.insert(address(value), resource);
        for (keyword, inner) in keywords {
            let name = keyword.as_str();
            // A slash before each token. Escapes make a pointer longer; they are rare.
            let length = length + 1 + name.len() as u64;
            if ONE.contains(&name) && !inner.is_array() {
                self.survey(inner, resource, length)?;
            }
            match inner {
                Value::Array(items) if LISTS.contains(&name) => {
                    for item in items {
                        self.survey(item, resource, length + 5)?;
                    }
                }
                Value::Object(members) if MAPS.contains(&name) => {
                    for (member, inner) in members {
                        self.survey(inner, resource, length + 1 + member.len() as u64)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Index of a value's part. A new part is queued to be read.
    fn place(&mut self, value: &'s Value) -> Place {
        let next = self.parts.len();
        let place = *self.places.entry(address(value)).or_insert(next);
        if place == next {
            self.parts.push(Part { weight: 1, ..Part::default() });
            self.queue.push_back((value, place));
        } else {
            self.shared = true;
        }
        place
    }

    fn part(
        &mut self,
        root: &'s Value,
        value: &'s Value,
        keywords: &'s Map<String, Value>,
        place: Place,
    ) -> Result<Part, SchemaError> {
        let mut part = Part { weight: 1, ..Part::default() };
        let resource = self.resource(value, root);
        for (keyword, inner) in keywords {
            match (keyword.as_str(), inner) {
                (reference, Value::String(target)) if REFERENCES.contains(&reference) => {
                    for found in self.targets(target, resource, root) {
                        let target = self.place(found);
                        part.here.push(target);
                        if self.recursive.iter().any(|other| std::ptr::eq(*other, self.resource(found, root))) {
                            self.entered.push(target);
                        }
                    }
                    if reference == "$recursiveRef" {
                        self.recurring.push(place);
                    }
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(items)) => {
                    part.here.extend(items.iter().map(|item| self.place(item)));
                }
                ("not" | "if" | "then" | "else", inner) => part.here.push(self.place(inner)),
                ("dependentSchemas" | "dependencies", Value::Object(members)) => {
                    for inner in members.values().filter(|inner| !inner.is_array()) {
                        part.here.push(self.place(inner));
                    }
                    part.weight += weigh(inner);
                }
                ("properties", Value::Object(members)) => {
                    for (name, inner) in members {
                        part.properties.insert(name.as_str().into(), self.place(inner));
                    }
                }
                ("patternProperties", Value::Object(members)) => {
                    for (pattern, inner) in members {
                        part.patterns.push((self.pattern(pattern, root)?, self.place(inner)));
                    }
                }
                ("additionalProperties" | "unevaluatedProperties", inner) => {
                    self.unevaluated |= keyword.starts_with('u');
                    part.members.push(self.place(inner));
                }
                ("propertyNames", inner) => part.names.push(self.place(inner)),
                ("items" | "prefixItems", Value::Array(items)) => {
                    part.prefix.extend(items.iter().map(|item| self.place(item)));
                }
                ("items" | "additionalItems" | "contains" | "unevaluatedItems", inner) => {
                    self.unevaluated |= keyword.starts_with('u');
                    part.items.push(self.place(inner));
                }
                ("pattern", Value::String(pattern)) => part.pattern = self.pattern(pattern, root)?,
                ("format", Value::String(_)) => part.format = true,
                ("uniqueItems", inner) => part.unique = *inner == Value::Bool(true),
                ("enum" | "const" | "required" | "dependentRequired", inner) => part.weight += weigh(inner),
                _ => {}
            }
        }
        Ok(part)
    }

    /// The resource that a subschema belongs to.
    fn resource(&self, value: &Value, root: &'s Value) -> &'s Value {
        self.resources.get(&address(value)).copied().unwrap_or(root)
    }

    fn pattern(&mut self, pattern: &str, root: &Value) -> Result<u64, SchemaError> {
        self.patterns.add(pattern).map_err(|error| match error {
            SchemaError::Invalid { message, .. } => {
                let is_it = |name: &str, value: &Value| name == pattern || value.as_str() == Some(pattern);
                let at = super::pointer_to(root, &is_it);
                let place = at.as_deref().map(|at| format!("{at}: ")).unwrap_or_default();
                SchemaError::Invalid { message: format!("{place}{message}"), at }
            }
            other => other,
        })
    }

    /// All subschemas that a reference may resolve to, without the dynamic part of `$recursiveRef`.
    fn targets(&self, target: &str, resource: &'s Value, root: &'s Value) -> Vec<&'s Value> {
        let Ok(fragment) = percent_decode_str(target.trim_start_matches('#')).decode_utf8() else { return Vec::new() };
        let mut found: Vec<&Value> = if fragment.is_empty() || fragment.starts_with('/') {
            // Whether `$id` beside `$ref` starts a resource depends on the dialect.
            [resource, root].into_iter().filter_map(|from| from.pointer(&fragment)).collect()
        } else {
            self.anchors.get(fragment.as_ref()).cloned().unwrap_or_default()
        };
        found.sort_unstable_by_key(|value| address(value));
        found.dedup_by_key(|value| address(value));
        found
    }

    /// Adds the dynamic targets of every `$recursiveRef`: the whole schema if it has `$recursiveAnchor`, else each
    /// resource that has one, and each part through which one is entered.
    fn tie_recursion(&mut self) {
        if self.recurring.is_empty() {
            return;
        }
        let mut back: Vec<Place> =
            self.recursive.iter().filter_map(|value| self.places.get(&address(value))).copied().collect();
        if back.contains(&0) {
            back = vec![0];
        } else {
            back.append(&mut self.entered);
        }
        for place in std::mem::take(&mut self.recurring) {
            let here = &mut self.parts[place].here;
            here.extend(&back);
            here.sort_unstable();
            here.dedup();
        }
        self.shared = true;
    }
}

/// Upper bound of the steps to compare a value with a listed value, or to look up listed names.
fn weigh(value: &Value) -> u64 {
    1 + match value {
        Value::Array(items) => items.iter().map(weigh).sum::<u64>() / 4,
        Value::Object(members) => members.values().map(weigh).sum(),
        Value::String(text) => text.len() as u64 / 256,
        _ => 0,
    }
}
