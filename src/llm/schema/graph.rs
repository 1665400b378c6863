//! A schema as a graph: its subschemas, and which of them each one applies to the same value, to members and to items.
//! Limits on the graph bound the cost of compiling and applying the schema.
//!
//! Compiles nothing and sees no answer. Where the dialects of JSON Schema differ, or a reference can resolve to several
//! subschemas, the graph has an edge to each of them, so costs counted on it are upper bounds. Building it takes time
//! linear in the schema's size.

use serde_json::Value;

use super::SchemaError;
use super::part::{Part, Place};
use super::reader::Reader;
use crate::base::budget::{Bound, Exceeded};

/// Maximum steps to apply a schema to one value, all references followed.
pub(super) const SCHEMA_STEPS: Bound = Bound::new("schema_steps", 10_000);
/// Maximum length of a chain of subschemas that apply to the same value, each referred to by the one before. Each takes
/// stack.
pub(super) const SCHEMA_CHAIN: Bound = Bound::new("schema_chain", 40);

/// All subschemas of a schema that can be reached; the first is the schema itself.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) parts: Vec<Part>,
    /// Some part can be reached in more than one way, so counted costs are worth caching.
    pub(super) shared: bool,
    /// The schema has an `unevaluated…` keyword: the validator then tracks members and items at every value.
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
        let reader = Reader::of(schema)?;
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
