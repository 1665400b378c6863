//! One subschema of a schema: what checking it costs, and which other subschemas it applies.
//!
//! Knows no JSON.

use std::collections::HashMap;

/// Index of a subschema in its `Graph`.
pub(super) type Place = usize;

/// A subschema: its own cost, and the subschemas that it applies.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// Steps at any value, without those of other parts.
    pub(super) weight: u64,
    /// States of its `pattern`; 0 = it has none.
    pub(super) pattern: u64,
    /// The subschema has a `format`.
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
    pub(super) fn below(&self) -> impl Iterator<Item = Place> + '_ {
        let properties = self.properties.values().copied();
        let patterns = self.patterns.iter().map(|(_, place)| *place);
        let others = [&self.members, &self.names, &self.prefix, &self.items];
        properties.chain(patterns).chain(others.into_iter().flatten().copied())
    }
}
