//! Upper bound of the cost of validating one answer, counted before the validator runs: it cannot be interrupted, and it
//! visits a value once for every path through the schema that leads there.
//!
//! Counting visits each pair of part and value once, however many paths lead there. Knows only what keywords cost, not
//! what they mean.

use std::collections::HashMap;

use serde_json::Value;

use super::graph::Graph;
use super::part::{Part, Place};
use crate::base::budget::{Bound, Budget, Exceeded};

/// Maximum recursion depth of the validator, in parts applied one inside the other. In a debug build each takes more than
/// 10 KiB of a stack of 2 MiB.
pub(super) const VALIDATION_DEPTH: Bound = Bound::new("validation_depth", 100);

/// 2^53: from here on, distinct integers can have the same floating-point value, which is what the validator hashes.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Counted cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Steps of the validator.
    pub(super) steps: u64,
    /// Bytes of text that were matched against patterns.
    pub(super) matched: u64,
    /// Recursion depth of the validator.
    pub(super) depth: u64,
}

/// Counts the cost of validating `value`. Counting spends steps itself, at most as many as it returns.
///
/// # Errors
/// The budget is used up, or the recursion is too deep.
pub(super) fn of(graph: &Graph, value: &Value, budget: &mut Budget) -> Result<Cost, Exceeded> {
    let mut meter = Meter { graph, budget, known: HashMap::new(), cost: Cost::default() };
    let steps = meter.visit(0, value, 1)?;
    Ok(Cost { steps, ..meter.cost })
}

struct Meter<'m> {
    graph: &'m Graph,
    budget: &'m mut Budget,
    /// Steps by part and address of the value.
    known: HashMap<(Place, usize), u64>,
    cost: Cost,
}

impl Meter<'_> {
    fn visit(&mut self, place: Place, value: &Value, depth: u64) -> Result<u64, Exceeded> {
        let key = (place, std::ptr::from_ref(value).addr());
        if self.graph.shared
            && let Some(known) = self.known.get(&key)
        {
            return Ok(*known);
        }
        VALIDATION_DEPTH.check(depth)?;
        self.cost.depth = self.cost.depth.max(depth);
        let graph = self.graph;
        let part = &graph.parts[place];
        self.budget.spend(1)?;
        let mut steps = part.weight;
        let mut add = |more: u64| steps = steps.saturating_add(more);
        for next in &part.here {
            add(self.visit(*next, value, depth + 1)?);
        }
        match value {
            Value::Object(members) => {
                if graph.unevaluated {
                    add(members.len() as u64);
                }
                for (name, inner) in members {
                    add(1);
                    if let Some(next) = part.properties.get(name.as_str()) {
                        add(self.visit(*next, inner, depth + 1)?);
                    }
                    for (states, next) in &part.patterns {
                        add(self.matching(name, *states));
                        add(self.visit(*next, inner, depth + 1)?);
                    }
                    for next in &part.members {
                        add(self.visit(*next, inner, depth + 1)?);
                    }
                    for next in &part.names {
                        // The validator copies each name and collects its errors separately.
                        add(4);
                        add(self.name(*next, name, depth + 1)?);
                    }
                }
            }
            Value::Array(items) => {
                if graph.unevaluated {
                    add(items.len() as u64);
                }
                if part.unique {
                    add(self.comparing(items)?);
                }
                for (position, inner) in items.iter().enumerate() {
                    add(1);
                    for next in part.prefix.get(position).into_iter().chain(&part.items) {
                        add(self.visit(*next, inner, depth + 1)?);
                    }
                }
            }
            Value::String(text) => add(self.text(part, text)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        if self.graph.shared {
            self.known.insert(key, steps);
        }
        Ok(steps)
    }

    /// Steps of a part at a member's name.
    fn name(&mut self, place: Place, name: &str, depth: u64) -> Result<u64, Exceeded> {
        VALIDATION_DEPTH.check(depth)?;
        self.budget.spend(1)?;
        let graph = self.graph;
        let part = &graph.parts[place];
        let mut steps = part.weight.saturating_add(self.text(part, name));
        for next in &part.here {
            steps = steps.saturating_add(self.name(*next, name, depth + 1)?);
        }
        Ok(steps)
    }

    fn text(&mut self, part: &Part, text: &str) -> u64 {
        let length = text.len() as u64;
        let mut steps = length / 256;
        if part.pattern > 0 {
            steps += self.matching(text, part.pattern);
        }
        if part.format {
            // The format `regex` parses the text again for each class in it.
            let classes = text.bytes().filter(|byte| *byte == b'\\').count() as u64;
            steps += length.saturating_mul(1 + classes + length / 256) / 8;
        }
        steps
    }

    fn matching(&mut self, text: &str, states: u64) -> u64 {
        let length = text.len() as u64;
        self.cost.matched = self.cost.matched.saturating_add(length);
        1 + length.saturating_mul(1 + states / 64) / 8
    }

    /// Steps to compare all items with each other.
    fn comparing(&mut self, items: &[Value]) -> Result<u64, Exceeded> {
        let mut size = 0;
        let mut inexact = false;
        for item in items {
            size += self.size(item, &mut inexact)?;
        }
        let each = if inexact { items.len() as u64 } else { 20.min(items.len() as u64) };
        Ok(size.saturating_mul(1 + each / 4))
    }

    fn size(&mut self, value: &Value, inexact: &mut bool) -> Result<u64, Exceeded> {
        self.budget.spend(1)?;
        let mut size = 1;
        match value {
            Value::Array(items) => {
                for item in items {
                    size += self.size(item, inexact)?;
                }
            }
            Value::Object(members) => {
                for member in members.values() {
                    size += self.size(member, inexact)?;
                }
            }
            Value::String(text) => size += text.len() as u64 / 256,
            Value::Number(number) => *inexact |= number.as_f64().is_none_or(|number| number.abs() >= EXACT),
            Value::Null | Value::Bool(_) => {}
        }
        Ok(size)
    }
}
