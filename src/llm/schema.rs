//! Answers under a JSON schema: the validator, what a caller's schema may be, and the words that ask for it where the
//! vendor has no mode of its own.
//!
//! Never fetches anything: a remote `$ref` is refused.

use std::error::Error;
use std::sync::Arc;

use boon::{CompileError, Compiler, SchemaIndex, Schemas, UrlLoader, ValidationError};
use serde_json::Value;

use super::repair;

/// Largest schema of a caller, in bytes of JSON.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Deepest schema of a caller.
pub const MAX_SCHEMA_DEPTH: usize = 32;

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// More than [`MAX_SCHEMA_BYTES`].
    #[error("schema has {0} bytes; at most {MAX_SCHEMA_BYTES} are allowed")]
    TooLarge(usize),
    /// Deeper than [`MAX_SCHEMA_DEPTH`].
    #[error("schema is nested deeper than {MAX_SCHEMA_DEPTH} levels")]
    TooDeep,
    /// A `$ref` that leads out of the schema.
    #[error("schema has the remote $ref {0:?}; only references within the schema (\"#…\") are allowed")]
    RemoteRef(String),
    /// No valid JSON schema.
    #[error("no valid JSON schema: {message}")]
    Invalid {
        /// JSON pointer to the wrong part, where it is known.
        at: Option<String>,
        /// What is wrong.
        message: String,
    },
}

/// The address of a schema while it is compiled. Nothing is ever loaded from it.
const ADDRESS: &str = "https://schema.invalid/";
/// Errors that a model is shown at most.
const MAX_ERRORS: usize = 5;

/// A compiled schema.
#[derive(Clone)]
pub struct Validator(Arc<Compiled>);

struct Compiled {
    schemas: Schemas,
    root: SchemaIndex,
}

impl std::fmt::Debug for Validator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Validator")
    }
}

/// What a text is under a schema.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is JSON and valid; this is its text, repaired where that was needed, and what it says.
    Valid(String, Value),
    /// It is not, and this is why: for the model, in its own terms (it may quote the answer).
    Invalid(String),
}

impl Validator {
    /// Compiles a schema.
    ///
    /// # Errors
    /// It is too large, too deep, refers out of itself, or is none.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        check_limits(schema)?;
        let mut compiler = Compiler::new();
        compiler.use_loader(Box::new(Nothing));
        let mut schemas = Schemas::new();
        let compiled = match compiler.add_resource(ADDRESS, schema.clone()) {
            Ok(()) => compiler.compile(ADDRESS, &mut schemas),
            Err(error) => Err(error),
        };
        let root = compiled.map_err(|error| invalid(&error))?;
        Ok(Self(Arc::new(Compiled { schemas, root })))
    }

    /// Checks a model's text, repairing nearly-JSON first.
    pub fn check(&self, text: &str) -> Verdict {
        let Some((value, clean)) = repair::parse_as(text, |value| self.errors(value).is_empty()) else {
            return Verdict::Invalid("the answer is not JSON".to_owned());
        };
        let errors = self.errors(&value);
        if errors.is_empty() {
            return Verdict::Valid(if clean { text.trim().to_owned() } else { value.to_string() }, value);
        }
        Verdict::Invalid(errors.join("\n"))
    }

    /// What is wrong with a value, a line an error, [`MAX_ERRORS`] at most.
    fn errors(&self, value: &Value) -> Vec<String> {
        let Err(error) = self.0.schemas.validate(value, self.0.root) else { return Vec::new() };
        let mut leaves = Vec::new();
        collect_leaves(&error, &mut leaves);
        let line = |error: &&ValidationError<'_, '_>| {
            let path = error.instance_location.to_string();
            let place = if path.is_empty() { "the answer" } else { path.as_str() };
            let mut message = error.kind.to_string();
            if message.len() > 300 {
                super::cut(&mut message, 300);
                message.push('…');
            }
            format!("{place}: {message}")
        };
        leaves.iter().map(line).collect()
    }
}

/// The errors that have no other as their cause, [`MAX_ERRORS`] at most.
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

/// Loads nothing: the validator would read files.
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
    // The address is ours and says nothing to the reader.
    SchemaError::Invalid { at: None, message: format!("{error:#}").replace(ADDRESS, "") }
}

/// Checks size, depth and references of a caller's schema.
///
/// # Errors
/// As [`Validator::compile`], but for validity.
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

/// The instruction that stands for a schema mode which the vendor lacks. Constant for a schema, so that it never breaks
/// a cached prefix.
pub fn instruction(schema: &Value) -> String {
    format!(
        "Answer with one JSON value and nothing else: no explanation, no code fence. It must be valid under this JSON \
         schema:\n{schema}"
    )
}

/// What the model is told after an answer that was not valid.
pub fn repair_request(errors: &str) -> String {
    format!(
        "That answer is not valid under the schema:\n{errors}\nAnswer again with the corrected JSON value and nothing \
         else."
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn valid_repaired_and_invalid() {
        let schema = json!({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]});
        let validator = Validator::compile(&schema).expect("schema");
        assert_eq!(validator.check(" {\"a\": 1}\n"), Verdict::Valid("{\"a\": 1}".into(), json!({"a": 1})));
        assert_eq!(validator.check("```\n{\"a\":1,}\n```"), Verdict::Valid("{\"a\":1}".into(), json!({"a": 1})));
        let Verdict::Invalid(errors) = validator.check("{\"a\":\"x\"}") else { panic!("valid") };
        assert!(errors.starts_with("/a: "), "{errors}");
        assert!(matches!(validator.check("hm"), Verdict::Invalid(_)));
    }

    #[test]
    fn limits_of_a_callers_schema() {
        assert!(matches!(Validator::compile(&json!({"$ref":"http://example.com/x"})), Err(SchemaError::RemoteRef(_))));
        assert!(Validator::compile(&json!({"$defs":{"a":{}},"$ref":"#/$defs/a"})).is_ok());
        let mut deep = json!({});
        for _ in 0..40 {
            deep = json!({"properties":{"a":deep}});
        }
        assert_eq!(Validator::compile(&deep).map(|_| ()), Err(SchemaError::TooDeep));
        let large = json!({"description":"x".repeat(MAX_SCHEMA_BYTES)});
        assert!(matches!(Validator::compile(&large), Err(SchemaError::TooLarge(_))));
        assert!(matches!(Validator::compile(&json!({"type":"nonsense"})), Err(SchemaError::Invalid { .. })));
    }
}
