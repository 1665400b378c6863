//! Answers under a JSON schema: the validator, the limits on a caller's schema, and the instruction that asks for JSON
//! if the vendor has no schema mode.
//!
//! Never fetches anything: a remote `$ref` is refused.

mod cost;
mod graph;
mod part;
mod patterns;
mod reader;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use boon::{CompileError, Compiler, SchemaIndex, Schemas, UrlLoader, ValidationError};
use serde_json::Value;

use self::graph::Graph;
use super::json::VALUE_BYTES;
use super::repair;
use crate::base::budget::{Bound, Budget, Exceeded, Limits};

/// Largest schema of a caller, in bytes of JSON.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Deepest schema of a caller.
pub const MAX_SCHEMA_DEPTH: usize = 32;

/// Limits of compiling a schema. The limits on the schema itself bound its cost in advance.
pub const COMPILING: Limits = Limits {
    steps: Bound::new("compiling_steps", 10_000_000),
    bytes: Bound::new("compiling_bytes", 64 * 1024 * 1024),
    time: Bound::new("compiling_ms", 10_000),
};

/// Limits of checking one answer against a schema, including parsing and repairing it. The validator may keep an error
/// of about 300 bytes for each step, even if the caller wants no errors.
pub const CHECKING: Limits = Limits {
    steps: Bound::new("answer_steps", 250_000),
    bytes: Bound::new("answer_memory_bytes", 64 * 1024 * 1024),
    time: Bound::new("answer_ms", 10_000),
};

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The schema is larger than [`MAX_SCHEMA_BYTES`].
    #[error("schema has {0} bytes; at most {MAX_SCHEMA_BYTES} are allowed (schema_bytes)")]
    TooLarge(usize),
    /// The schema is nested deeper than [`MAX_SCHEMA_DEPTH`].
    #[error("schema is nested deeper than {MAX_SCHEMA_DEPTH} levels (schema_depth)")]
    TooDeep,
    /// Compiling it, or applying it to a value, is over a limit.
    #[error("too_complex: the schema is {0}")]
    TooComplex(Exceeded),
    /// A `$ref` refers to something outside the schema.
    #[error("schema has the remote $ref {0:?}; only references within the schema (\"#…\") are allowed")]
    RemoteRef(String),
    /// The value is not a valid JSON schema.
    #[error("not a valid JSON schema: {message}")]
    Invalid {
        /// JSON pointer to the invalid part, if known.
        at: Option<String>,
        /// What is wrong.
        message: String,
    },
}

/// The address of a schema while it is compiled. Nothing is ever loaded from it.
const ADDRESS: &str = "https://schema.invalid/";
/// Address of the schema `{"not": {"$ref": ADDRESS}}`. Under `not`, the validator stops at the first error and keeps none.
const DENIED: &str = "https://denied.schema.invalid/";
/// Maximum number of errors that are shown to a model.
const MAX_ERRORS: usize = 5;
/// Maximum length of an error's location and of its message, bytes.
const MAX_ERROR_BYTES: usize = 300;
/// Maximum memory for errors, bytes: the validator collects all of them before [`MAX_ERRORS`] are picked.
const MAX_ERRORS_BYTES: u64 = 16 * 1024 * 1024;
/// Memory of one error, and of each level of its location, bytes.
const ERROR_BYTES: u64 = 320;
const ERROR_LEVEL_BYTES: u64 = 32;
/// Growth of a pattern's cache for each byte matched, and its maximum, bytes (the lazy DFA of the `regex` crate).
const MATCHED_BYTES: u64 = 256;
const MATCHER_BYTES: u64 = 2 * 1024 * 1024;

/// A compiled schema. Clones share it.
#[derive(Clone)]
pub struct Validator(Arc<Compiled>);

struct Compiled {
    schemas: Schemas,
    root: SchemaIndex,
    denied: SchemaIndex,
    graph: Graph,
    /// Total bytes of text that patterns were matched against.
    matched: AtomicU64,
}

impl std::fmt::Debug for Validator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Validator")
    }
}

/// The result of checking a text against a schema.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The text is valid JSON under the schema: the text, repaired if necessary, and its value.
    Valid(String, Value),
    /// The text is not valid. The reason is written for the model and may quote its answer.
    Invalid(String),
}

impl Validator {
    /// Compiles a schema.
    ///
    /// # Errors
    /// The schema is too large, too deep, too complex or invalid, or refers to something outside itself.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        check_limits(schema)?;
        let graph = Graph::of(schema)?;
        let mut compiler = Compiler::new();
        compiler.use_loader(Box::new(Nothing));
        let mut schemas = Schemas::new();
        let denied = serde_json::json!({"not": {"$ref": ADDRESS}});
        for (address, schema) in [(ADDRESS, schema.clone()), (DENIED, denied)] {
            compiler.add_resource(address, schema).map_err(|error| invalid(&error))?;
        }
        let root = compiler.compile(ADDRESS, &mut schemas).map_err(|error| invalid(&error))?;
        let denied = compiler.compile(DENIED, &mut schemas).map_err(|error| invalid(&error))?;
        Ok(Self(Arc::new(Compiled { schemas, root, denied, graph, matched: AtomicU64::new(0) })))
    }

    /// Upper estimate of the steps of [`Validator::check`], in time linear in the text.
    pub fn work(&self, text: &str) -> u64 {
        let graph = &self.0.graph;
        let (values, length) = (values(text), text.len() as u64);
        let matching = if graph.patterns > 0 { length.saturating_mul(1 + graph.states / 64) } else { 0 };
        values.saturating_mul(graph.reach.saturating_add(2)).saturating_add(matching).saturating_add(repair::work(text))
    }

    /// Checks a model's text; almost valid JSON is repaired first.
    ///
    /// # Errors
    /// The budget is used up, or schema and answer are nested too deep.
    pub fn check(&self, text: &str, budget: &mut Budget) -> Result<Verdict, Exceeded> {
        budget.hold(values(text).saturating_mul(VALUE_BYTES).saturating_add(text.len() as u64))?;
        let read = repair::parse_as(text, budget, |value, budget| self.holds(value, budget))?;
        let Some((value, clean)) = read else { return Ok(Verdict::Invalid("the answer is not JSON".to_owned())) };
        if self.holds(&value, budget)? {
            let text = if clean { text.trim().to_owned() } else { value.to_string() };
            return Ok(Verdict::Valid(text, value));
        }
        self.errors(&value, budget).map(Verdict::Invalid)
    }

    /// Estimated memory, bytes; an upper estimate. Grows as its patterns match text.
    pub fn footprint(&self) -> u64 {
        let graph = &self.0.graph;
        let matched = self.0.matched.load(Ordering::Relaxed).saturating_mul(MATCHED_BYTES);
        graph.footprint() + matched.min(graph.patterns * MATCHER_BYTES)
    }

    /// Returns true if [`Validator::footprint`] grows with use.
    pub fn grows(&self) -> bool {
        self.0.graph.patterns > 0
    }

    fn cost(&self, value: &Value, budget: &mut Budget) -> Result<cost::Cost, Exceeded> {
        let cost = cost::of(&self.0.graph, value, budget)?;
        budget.spend(cost.steps)?;
        self.0.matched.fetch_add(cost.matched, Ordering::Relaxed);
        Ok(cost)
    }

    /// Returns true if a value is valid.
    fn holds(&self, value: &Value, budget: &mut Budget) -> Result<bool, Exceeded> {
        self.cost(value, budget)?;
        Ok(self.0.schemas.validate(value, self.0.denied).is_err())
    }

    /// Errors of a value, one per line, at most [`MAX_ERRORS`].
    fn errors(&self, value: &Value, budget: &mut Budget) -> Result<String, Exceeded> {
        let cost = self.cost(value, budget)?;
        if cost.steps.saturating_mul(ERROR_BYTES + ERROR_LEVEL_BYTES * cost.depth) > MAX_ERRORS_BYTES {
            return Ok("the answer violates the schema in more places than can be listed".to_owned());
        }
        let Err(error) = self.0.schemas.validate(value, self.0.root) else { return Ok(String::new()) };
        let mut leaves = Vec::new();
        collect_leaves(&error, &mut leaves);
        let line = |error: &&ValidationError<'_, '_>| {
            let path = error.instance_location.to_string();
            let place = if path.is_empty() { "the answer".to_owned() } else { shortened(path) };
            format!("{place}: {}", shortened(error.kind.to_string()))
        };
        Ok(leaves.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

/// Estimated steps of [`Validator::compile`].
pub fn compiling_work(schema: &Value) -> u64 {
    /// Steps for one value, to which the meta-schema is applied.
    const STEPS: u64 = 60;
    /// Counting stops at this number of values, far more than a schema within its limits has.
    const ENOUGH: u64 = 1_000_000;
    fn count(value: &Value, sum: &mut u64) {
        if *sum > ENOUGH {
            return;
        }
        *sum += STEPS;
        match value {
            Value::Object(members) => members.values().for_each(|member| count(member, sum)),
            Value::Array(items) => items.iter().for_each(|item| count(item, sum)),
            Value::String(text) => *sum += text.len() as u64 / 16,
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut sum = 0;
    count(schema, &mut sum);
    sum
}

/// Upper bound of the number of values in a JSON text: each but the first follows one of these bytes.
fn values(text: &str) -> u64 {
    1 + text.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() as u64
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_ERROR_BYTES {
        super::cut(&mut text, MAX_ERROR_BYTES);
        text.push('…');
    }
    text
}

/// The errors that are not caused by another error, at most [`MAX_ERRORS`].
fn collect_leaves<'e, 's, 'v>(error: &'e ValidationError<'s, 'v>, into: &mut Vec<&'e ValidationError<'s, 'v>>) {
    if into.len() >= MAX_ERRORS {
        return;
    }
    if error.causes.is_empty() {
        into.push(error);
    }
    for cause in &error.causes {
        collect_leaves(cause, into);
    }
}

/// Loads nothing: without it, the validator would read files.
struct Nothing;

impl UrlLoader for Nothing {
    fn load(&self, _: &str) -> Result<Value, Box<dyn Error>> {
        Err("only references within the schema (\"#…\") and the standard meta-schemas are allowed".into())
    }
}

fn invalid(error: &CompileError) -> SchemaError {
    if let CompileError::ValidationError { src, .. } = error {
        let mut leaves = Vec::new();
        collect_leaves(src, &mut leaves);
        if let Some(first) = leaves.first() {
            let at = first.instance_location.to_string();
            let place = if at.is_empty() { String::new() } else { format!("{at}: ") };
            return SchemaError::Invalid { message: format!("{place}{}", first.kind), at: Some(at) };
        }
    }
    // The address is internal and means nothing to the reader.
    SchemaError::Invalid { at: None, message: format!("{error:#}").replace(ADDRESS, "") }
}

/// The JSON pointer of the first member that `wanted` accepts.
pub(crate) fn pointer_to(value: &Value, wanted: &dyn Fn(&str, &Value) -> bool) -> Option<String> {
    let below = |key: &str, value: &Value| {
        let step = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
        if wanted(key, value) { Some(step) } else { pointer_to(value, wanted).map(|rest| step + &rest) }
    };
    match value {
        Value::Object(map) => map.iter().find_map(|(key, value)| below(key, value)),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, value)| below(&index.to_string(), value)),
        _ => None,
    }
}

/// Checks size, depth and references of a caller's schema.
///
/// # Errors
/// As [`Validator::compile`], except for validity.
pub fn check_limits(schema: &Value) -> Result<(), SchemaError> {
    fn walk(value: &Value, depth: usize) -> Result<(), SchemaError> {
        if depth > MAX_SCHEMA_DEPTH {
            return Err(SchemaError::TooDeep);
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if matches!(key.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef")
                        && let Some(target) = value.as_str()
                        && !target.starts_with('#')
                    {
                        return Err(SchemaError::RemoteRef(target.chars().take(200).collect()));
                    }
                    walk(value, depth + 1)?;
                }
                Ok(())
            }
            Value::Array(items) => items.iter().try_for_each(|item| walk(item, depth + 1)),
            _ => Ok(()),
        }
    }
    walk(schema, 0)?;
    let bytes = schema.to_string().len();
    if bytes > MAX_SCHEMA_BYTES { Err(SchemaError::TooLarge(bytes)) } else { Ok(()) }
}

/// The instruction in the prompt that replaces a schema mode which the vendor lacks. It is the same for each use of a
/// schema, so that a cached prefix stays valid.
pub fn instruction(schema: &Value) -> String {
    format!(
        "Answer with one JSON value and nothing else: no explanation, no code fence. It must be valid under this JSON \
         schema:\n{schema}"
    )
}

/// The message to the model after an invalid answer.
pub fn repair_request(errors: &str) -> String {
    format!(
        "That answer is not valid under the schema:\n{errors}\nAnswer again with the corrected JSON value and nothing \
         else."
    )
}

#[cfg(test)]
mod tests;
