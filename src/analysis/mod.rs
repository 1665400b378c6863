//! Analyses: named questions asked of a call, as data: a folder of prompt versions, a JSON schema and settings.
//!
//! Knows no clock, no task and no LLM vendor: it makes requests out of snapshots and insights' values out of answers.
//! The built-in analyses are folders like a user's. To add one, see [`builtin`].
//!
//! A folder holds:
//! * `v1.j2`, `v2.j2`, …: prompt versions, Jinja templates. Either the file is one section `=== instructions ===`, which
//!   says what is asked in the [layout] that all analyses share, or it has messages, which begin with a line
//!   `=== system ===`, `=== user ===` or `=== assistant ===`. Variables: `transcript` (in messages), `meta`, `call_id`, and
//!   `turns` (how many), or, per turn, `turn` (its number), `speaker`, `text`, `language` and `before` (the lines of the
//!   `context_turns` turns before it). All of them come in escaped.
//! * `schema.json`: what the answer must be. Every `{turn, quote}` in an answer is checked against the transcript, and
//!   marked `"unverified": true` where the words are not there. A top-level `evidence` of `{turn, quote}` is lifted out of
//!   the value and published beside it.
//! * `analysis.toml`, which may be absent: `title`, `scope`, `route`, `prompt`, triggers, limits, and `local`: how the
//!   embedded provider answers (see [`Method`]).

mod builtin;
mod evidence;
pub mod folder;
mod layout;
mod position;
mod prompt;
mod question;
mod registry;
pub mod request;
mod settings;
pub mod trigger;

use std::sync::Arc;

use serde_json::Value;

pub use evidence::READING;
pub use folder::{Fault, Folder, load_dir};
pub use prompt::{Prompt, RenderError};
pub use question::{Question, Spoken};
pub use registry::Registry;
pub use request::Asked;
pub use settings::{On, Settings};

use crate::base::budget::{Budget, Exceeded};
use crate::base::names;
use crate::context::Snapshot;
use crate::llm::ChatRequest;
use crate::llm::local::Method;
use crate::llm::schema::{SchemaError, Validator, pointer_to};
use crate::types::{CallId, Evidence, JsonMap, TurnNo};

/// What an analysis is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole context, again and again.
    Rolling,
    /// Each final turn, once.
    Turn,
}

/// A named question.
#[derive(Debug)]
pub struct Analysis {
    /// Its name: an id.
    pub name: Arc<str>,
    /// What it is asked of.
    pub scope: Scope,
    /// How it runs.
    pub settings: Settings,
    /// What an answer must be.
    pub schema: Arc<Value>,
    /// Whether vendors' strict modes take the schema as it is.
    strict: bool,
    /// Newest last.
    prompts: Vec<Arc<Prompt>>,
}

/// What a prompt may say beside the transcript.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The call.
    pub call_id: CallId,
    /// What the producer knows of it.
    pub meta: JsonMap,
    /// The turn, where the analysis is per turn.
    pub turn: Option<TurnNo>,
}

/// An answer, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The answer, but for the evidence that was lifted out of it.
    pub value: Value,
    /// Checked against the snapshot.
    pub evidence: Vec<Evidence>,
}

/// Why an analysis could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnalysisError {
    /// A variant names a prompt version that the analysis does not have.
    #[error("analysis {analysis}: {message}")]
    UnknownVersion {
        /// The analysis.
        analysis: Arc<str>,
        /// The version asked for, and those that there are.
        message: String,
    },
}

impl Analysis {
    /// Reads an analysis from its folder, and what the configuration says over it. `local` is how the embedded provider
    /// answers if neither says it.
    ///
    /// # Errors
    /// All that is wrong with its files, with line and column.
    fn of_folder(
        name: &str,
        folder: &Folder,
        config: &settings::Given,
        local: Option<Method>,
    ) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let given = Settings::of_folder(name, folder).unwrap_or_else(|found| {
            faults.extend(found);
            settings::Given::default()
        });
        let given = given.or_local(local);
        let settings = Settings::laid(name, &given, config);
        let compiled = folder
            .file("schema.json")
            .ok_or_else(|| Fault::whole("schema.json", "there is none; it says what an answer must be"))
            .and_then(compile);
        let source = folder.file("schema.json").unwrap_or_default();
        let mut prompts = Vec::new();
        for (file, text) in folder.files().filter(|(file, _)| folder::version_of(file).is_some()) {
            match Prompt::read(name, file, text, source, settings.scope) {
                Ok(prompt) => prompts.push(Arc::new(prompt)),
                Err(fault) => faults.push(fault),
            }
        }
        prompts.sort_by_key(|prompt| age(&prompt.version));
        if prompts.is_empty() && faults.is_empty() {
            faults.push(Fault::whole("v1.j2", "there is none; it is the prompt"));
        }
        if let Some(wanted) = &settings.prompt
            && faults.is_empty()
            && prompts.iter().all(|prompt| *prompt.version != **wanted)
        {
            // Report where the version is named: in the configuration or in the folder's file.
            let file = if config.names_prompt() { "" } else { "analysis.toml" };
            faults.push(Fault::whole(file, format!("prompt: {}", unknown_version(wanted, &prompts))));
        }
        match compiled {
            Ok(schema) if faults.is_empty() => {
                let strict = is_strict(&schema);
                let (name, scope) = (Arc::from(name), settings.scope);
                Ok(Self { name, scope, settings, schema: Arc::new(schema), strict, prompts })
            }
            Ok(_) => Err(faults),
            Err(fault) => {
                faults.push(fault);
                Err(faults)
            }
        }
    }

    /// A prompt version; without a name, the one that the settings name, else the newest.
    ///
    /// # Errors
    /// There is no such version.
    pub fn prompt(&self, version: Option<&str>) -> Result<Arc<Prompt>, AnalysisError> {
        let wanted = version.or(self.settings.prompt.as_deref());
        let found = match wanted {
            Some(wanted) => self.prompts.iter().find(|prompt| *prompt.version == *wanted),
            None => self.prompts.last(),
        };
        found.cloned().ok_or_else(|| AnalysisError::UnknownVersion {
            analysis: Arc::clone(&self.name),
            message: unknown_version(wanted.unwrap_or_default(), &self.prompts),
        })
    }

    /// The request that asks this analysis alone, without a value that stands. The transcript's text is shared with the
    /// snapshot.
    ///
    /// # Errors
    /// The template fails on what is known of this call.
    pub fn request(&self, prompt: &Prompt, snapshot: &Snapshot, facts: &Facts) -> Result<ChatRequest, RenderError> {
        request::request(&[Asked { analysis: self, prompt, current: None }], snapshot, facts)
    }

    /// Upper estimate of the steps of [`Analysis::read`].
    pub fn reading_work(value: &Value, snapshot: &Snapshot) -> u64 {
        evidence::work(value, snapshot)
    }

    /// Reads an answer to `snapshot`, `value`, which is valid under the schema: its evidence is lifted out and verified.
    ///
    /// # Errors
    /// The answer has too many quotes, or the budget is used up.
    pub fn read(mut value: Value, snapshot: &Snapshot, budget: &mut Budget) -> Result<Reading, Exceeded> {
        let evidence = evidence::lift(&mut value, snapshot, budget)?;
        Ok(Reading { value, evidence })
    }
}

fn unknown_version(wanted: &str, prompts: &[Arc<Prompt>]) -> String {
    let known: Vec<&str> = prompts.iter().map(|prompt| &*prompt.version).collect();
    names::unknown("prompt version", wanted, &known)
}

/// Reads `schema.json` and sees that it can be compiled.
fn compile(source: &str) -> Result<Value, Fault> {
    const FILE: &str = "schema.json";
    let schema: Value = serde_json::from_str(source).map_err(|error| {
        // The parser's own words end with the place that the fault names already.
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message).to_owned();
        Fault { file: FILE.to_owned(), at: Some((error.line(), error.column())), message }
    })?;
    if !schema.is_object() {
        return Err(Fault::at(FILE, source, 0, "expected a JSON schema: an object"));
    }
    match Validator::compile(&schema) {
        Ok(_) => Ok(schema),
        Err(error) => {
            let place = match &error {
                SchemaError::RemoteRef(target) => {
                    pointer_to(&schema, &|key, value| key.ends_with("ef") && value.as_str() == Some(target))
                }
                SchemaError::Invalid { at, .. } => at.clone(),
                SchemaError::TooDeep | SchemaError::TooLarge(_) | SchemaError::TooComplex(_) => None,
            };
            let offset = position::json(source, place.as_deref().unwrap_or_default());
            Err(Fault::at(FILE, source, offset, error.to_string()))
        }
    }
}

/// Whether vendors' strict modes take a schema: every object closed, all its properties required.
fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            let closed = map.get("properties").and_then(Value::as_object).is_none_or(|properties| {
                let required = map.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                map.get("additionalProperties") == Some(&Value::Bool(false))
                    && properties.keys().all(|key| required.iter().any(|name| name == key))
            });
            closed && map.values().all(is_strict)
        }
        Value::Array(items) => items.iter().all(is_strict),
        _ => true,
    }
}

/// The analysis' name as vendors want a schema's: `[A-Za-z0-9_-]{1,64}`.
fn schema_name(name: &str) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    name.chars().take(64).map(|character| if allowed(character) { character } else { '_' }).collect()
}

/// Sorts versions: `v2` before `v10`, other names before numbered ones.
fn age(version: &str) -> (u64, String) {
    (version.strip_prefix('v').and_then(|number| number.parse().ok()).unwrap_or(0), version.to_owned())
}

#[cfg(test)]
mod tests;
