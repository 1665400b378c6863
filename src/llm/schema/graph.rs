//! A schema as a graph: its subschemas, and which of them each one applies to the same value, to members and to items.
//! Limits on the graph bound the cost of compiling and applying the schema.
//!
//! Compiles nothing and sees no answer. Where the dialects of JSON Schema differ, or a reference can resolve to several
//! subschemas, the graph has an edge to each of them, so costs counted on it are upper bounds. Building it takes time
//! linear in the schema's size.

use std::collections::{HashMap, VecDeque};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::SchemaError;
use super::patterns::Patterns;
use crate::base::budget::{Bound, Exceeded};

/// Maximum number of subschemas. The compiler compares each with all others.
pub(super) const SCHEMA_PARTS: Bound = Bound::new("schema_parts", 2_000);
/// Maximum total length of all subschemas' JSON pointers, bytes. The compiler keeps several copies of each.
pub(super) const SCHEMA_ADDRESS_BYTES: Bound = Bound::new("schema_address_bytes", 1024 * 1024);
/// Maximum steps to apply a schema to one value, all references followed.
pub(super) const SCHEMA_STEPS: Bound = Bound::new("schema_steps", 10_000);
/// Maximum length of a chain of subschemas that apply to the same value, each referred to by the one before. Each takes
/// stack.
pub(super) const SCHEMA_CHAIN: Bound = Bound::new("schema_chain", 40);

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

/// Index of a subschema in its [`Graph`].
pub(super) type Place = usize;

/// A subschema: its own cost, and the subschemas that it applies.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// Steps at any value, without those of other parts.
    pub(super) weight: u64,
    /// States of its `pattern`; 0 = it has none.
    pub(super) pattern: u64,
    /// It has a `format`.
    pub(super) format: bool,
    /// `uniqueItems`: all items of a list are compared with each other.
    pub(super) unique: bool,
    /// Parts that apply to the same value.
    pub(super) here: Vec<Place>,
    /// By name: the part that applies to that member.
    pub(super) properties: HashMap<Box<str>, Place>,
    /// Parts that apply to members whose name matches a pattern, each after the pattern's states.
    pub(super) patterns: Vec<(u64, Place)>,
    /// Parts that may apply to any member, whatever its name.
    pub(super) members: Vec<Place>,
    /// Parts that apply to the members' names.
    pub(super) names: Vec<Place>,
    /// By position: the part that applies to that item.
    pub(super) prefix: Vec<Place>,
    /// Parts that may apply to any item.
    pub(super) items: Vec<Place>,
}

impl Part {
    /// All parts that apply to members, names or items.
    fn below(&self) -> impl Iterator<Item = Place> + '_ {
        let properties = self.properties.values().copied();
        let patterns = self.patterns.iter().map(|(_, place)| *place);
        let others = [&self.members, &self.names, &self.prefix, &self.items];
        properties.chain(patterns).chain(others.into_iter().flatten().copied())
    }
}

/// All subschemas of a schema that can be reached; the first is the schema itself.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) parts: Vec<Part>,
    /// Some part can be reached in more than one way, so counted costs are worth caching.
    pub(super) shared: bool,
    /// It has an `unevaluated…` keyword: the validator then tracks members and items at every value.
    pub(super) unevaluated: bool,
    /// Upper bound of validation steps for each value of an answer; `u64::MAX` for a recursive schema, where the bound
    /// depends on the answer's depth.
    pub(super) reach: u64,
    /// Total states of all patterns.
    pub(super) states: u64,
    /// Number of patterns.
    pub(super) patterns: u64,
    /// Total length of all subschemas' JSON pointers, bytes.
    addresses: u64,
}

impl Graph {
    /// Builds the graph of a schema whose size and depth have been checked.
    ///
    /// # Errors
    /// The schema is over a limit, or one of its patterns is invalid.
    pub(super) fn of(schema: &Value) -> Result<Self, SchemaError> {
        let mut reader = Reader::default();
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
        let mut graph = Self {
            shared: reader.shared,
            unevaluated: reader.unevaluated,
            reach: 0,
            states: reader.patterns.states(),
            patterns: reader.patterns.count(),
            addresses: reader.addresses,
            parts: reader.parts,
        };
        SCHEMA_STEPS.check(graph.at_one_value()?)?;
        graph.reach = graph.reach();
        Ok(graph)
    }

    /// Memory of the compiled schema, bytes: measured values, doubled.
    pub(super) fn footprint(&self) -> u64 {
        64 * 1024
            + 4 * 1024 * self.parts.len() as u64
            + 8 * self.addresses
            + 32 * 1024 * self.patterns
            + 256 * self.states
    }

    /// Largest number of steps that any part takes at one value, without the values inside it.
    fn at_one_value(&self) -> Result<u64, Exceeded> {
        let mut known = vec![None; self.parts.len()];
        for place in 0..self.parts.len() {
            self.chain(place, 0, &mut known)?;
        }
        // Each part may be the first to apply to some value.
        Ok(known.iter().flatten().map(|(steps, _)| *steps).max().unwrap_or(0))
    }

    /// Steps of the parts that apply to one value from this part on, and their longest chain.
    fn chain(&self, place: Place, depth: u64, known: &mut [Option<(u64, u64)>]) -> Result<(u64, u64), Exceeded> {
        if let Some(known) = known[place] {
            return Ok(known);
        }
        // Also ends the recursion of a part that refers to itself.
        SCHEMA_CHAIN.check(depth)?;
        let (mut steps, mut length) = (self.parts[place].weight, 1);
        for next in &self.parts[place].here {
            let (more, longer) = self.chain(*next, depth + 1, known)?;
            steps = steps.saturating_add(more);
            length = length.max(longer + 1);
        }
        SCHEMA_CHAIN.check(length)?;
        known[place] = Some((steps, length));
        Ok((steps, length))
    }

    fn reach(&self) -> u64 {
        /// Deeper schemas count as recursive.
        const DEEPEST: u32 = 200;
        fn of(graph: &Graph, place: Place, depth: u32, known: &mut [Option<u64>]) -> u64 {
            if let Some(known) = known[place] {
                return known;
            }
            if depth == DEEPEST {
                return u64::MAX;
            }
            // Reached again from below itself: recursive.
            known[place] = Some(u64::MAX);
            let part = &graph.parts[place];
            let sum = part
                .here
                .iter()
                .copied()
                .chain(part.below())
                .fold(part.weight, |sum, next| sum.saturating_add(of(graph, next, depth + 1, known)));
            known[place] = Some(sum);
            sum
        }
        of(self, 0, 0, &mut vec![None; self.parts.len()])
    }
}

/// A schema while its graph is built.
#[derive(Default)]
struct Reader<'s> {
    /// Parts by the address of their JSON value.
    places: HashMap<usize, Place>,
    parts: Vec<Part>,
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
    addresses: u64,
    patterns: Patterns,
    shared: bool,
    unevaluated: bool,
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value).addr()
}

fn text<'s>(keywords: &'s Map<String, Value>, name: &str) -> Option<&'s str> {
    keywords.get(name)?.as_str()
}

impl<'s> Reader<'s> {
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
