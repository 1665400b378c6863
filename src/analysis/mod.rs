//! Analyses: named questions asked of a call, as data: a folder of prompt versions, a JSON schema and settings.
//!
//! Knows no clock, no task and no LLM vendor: it makes requests from snapshots, and insights' values from answers. The
//! built-in analyses are folders like a user's. To add one, see [`builtin`].
//!
//! A folder holds:
//! * `v1.j2`, `v2.j2`, …: prompt versions, Jinja templates. Either the file is one section `=== instructions ===`,
//!   which contains the question and is used in the [layout] that all analyses share, or it has messages, which begin
//!   with a line `=== system ===`, `=== user ===` or `=== assistant ===`. Variables: `transcript` (in messages),
//!   `meta`, `call_id`, and `turns` (how many), or, per turn, `turn` (its number), `speaker`, `text`, `language` and
//!   `before` (the lines of the `context_turns` turns before it); and the settings `to` and `questions`. All of them
//!   are inserted escaped.
//! * `schema.json`: the JSON schema of the answer. Every `{turn, quote}` in an answer is checked against the
//!   transcript, and marked `"unverified": true` if the words are not there. A top-level `evidence` of `{turn, quote}`
//!   is removed from the value and published beside it. A list whose elements have an `id` is a list of [`items`].
//! * `analysis.toml`, which may be absent: `title`, `scope`, `route`, `prompt`, triggers, limits, and `local`: how the
//!   embedded provider answers (see [`Method`]). `computed = "stats"` says that no model is asked; there is no prompt
//!   then.

mod builtin;
mod bundle;
mod computed;
pub mod digest;
mod evidence;
mod fixed;
pub mod folder;
pub mod gate;
mod growing;
pub mod items;
mod layout;
mod on;
mod position;
mod prompt;
mod question;
mod registry;
pub mod request;
mod schema;
mod settings;
mod shown;
pub mod trigger;
mod who;

use std::sync::Arc;

use serde_json::Value;

pub use evidence::{READING, quotes_turn};
pub use folder::{Fault, Folder, load_dir};
pub use growing::Growing;
pub use items::{Dropped, Form};
pub use on::On;
pub use prompt::{Prompt, RenderError, RenderErrorKind};
pub use question::{Question, Spoken};
pub use registry::Registry;
pub use request::Asked;
pub use settings::{Computed, Settings};
pub use shown::ListedQuestion;
pub use who::speakers;

use crate::base::budget::{Budget, Exceeded};
use crate::base::names;
use crate::context::Snapshot;
use crate::llm::ChatRequest;
use crate::llm::local::{self, Method};
use crate::types::insight::Change;
use crate::types::{CallId, Evidence, JsonMap, Turn, TurnNo};
use items::Lists;

/// Why the embedded provider cannot answer an analysis by the method that its settings name.
const UNFIT: &str = "local: the values of this method are not valid under the schema of the analysis";

/// What an analysis is about, and how often it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole context, repeatedly.
    Rolling,
    /// Each final turn, once.
    Turn,
    /// The whole call, when it ends and on request.
    End,
}

/// A named question.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// The analysis's name, a valid id.
    pub name: Arc<str>,
    /// What the analysis is about: the whole call, or one turn.
    pub scope: Scope,
    /// Settings of the analysis.
    pub settings: Settings,
    /// The JSON schema of its value.
    pub schema: Arc<Value>,
    /// The schema with operations in place of lists of items; the same schema if there are none.
    operations: Arc<Value>,
    /// Set if vendors' strict modes accept the schema.
    strict: bool,
    lists: Lists,
    /// Instructions how to answer with lists of items: as operations, and as whole lists.
    list_instructions: [String; 2],
    /// Prompt versions, newest last; empty if the analysis is computed.
    prompts: Vec<Arc<Prompt>>,
}

/// What an answer refers to.
#[derive(Debug, Clone, Copy)]
pub struct Answering<'a> {
    /// The newest value when the model was asked.
    pub current: Option<&'a Value>,
    /// The same with its quotes checked again ([`Analysis::recheck`]); `None` if there is no difference.
    pub checked: Option<&'a Value>,
    /// The form in which the answer gives lists of items.
    pub form: Form,
    /// The revision of the insight that it becomes.
    pub rev: u64,
}

/// Facts that a prompt may include besides the transcript.
#[derive(Debug, Clone)]
pub struct Facts {
    pub call_id: CallId,
    /// The call's metadata from the producer.
    pub meta: JsonMap,
    /// Roles and names by speaker label, as far as an earlier answer gave them (see [`speakers`]).
    pub speakers: JsonMap,
    /// The turn, if the analysis is per turn.
    pub turn: Option<TurnNo>,
}

/// An answer that was read and checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The answer without the evidence that was removed from it.
    pub value: Value,
    /// Evidence, checked against the snapshot.
    pub evidence: Vec<Evidence>,
    /// The changes from the newest value; see [`Analysis::conclude`].
    pub changes: Option<Vec<Change>>,
    /// Operations of the answer that could not be applied.
    pub dropped: Dropped,
}

/// Why an analysis cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnalysisError {
    /// A variant names a prompt version that the analysis does not have.
    #[error("analysis {analysis}: {message}")]
    UnknownVersion {
        analysis: Arc<str>,
        /// The requested version, and the existing ones.
        message: String,
    },
}

impl Analysis {
    /// Makes an analysis from its folder and the configuration, which takes precedence. `method` is that of the
    /// embedded provider if neither names one.
    ///
    /// # Errors
    /// All errors in its files, with line and column.
    fn of_folder(
        name: &str,
        folder: &Folder,
        config: &settings::PartialSettings,
        method: Option<Method>,
    ) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let given = Settings::of_folder(name, folder).unwrap_or_else(|found| {
            faults.extend(found);
            settings::PartialSettings::default()
        });
        let given = given.or_local(method);
        let mut settings = Settings::merged(name, &given, config);
        for (given, file) in [(&given, "analysis.toml"), (config, "")] {
            if let Some((key, why)) = given.misplaced(&settings) {
                faults.push(Fault::whole(file, format!("{key}: {why}")));
            }
        }
        let compiled = folder
            .file("schema.json")
            .ok_or_else(|| Fault::whole("schema.json", "missing; expected the JSON schema of the answer"))
            .and_then(schema::compile);
        let source = folder.file("schema.json").unwrap_or_default();
        let mut prompts = Vec::new();
        for (file, text) in folder.files().filter(|(file, _)| folder::version_of(file).is_some()) {
            match Prompt::read(name, file, text, source, settings.scope) {
                Ok(prompt) => prompts.push(Arc::new(prompt)),
                Err(fault) => faults.push(fault),
            }
        }
        prompts.sort_by_key(|prompt| age(&prompt.version));
        match (settings.computed, prompts.first()) {
            (None, None) if faults.is_empty() => {
                faults.push(Fault::whole("v1.j2", "missing; expected the prompt"));
            }
            (Some(_), Some(_)) => {
                faults.push(Fault::whole("analysis.toml", "computed: no model is asked, so there is no prompt"))
            }
            _ => {}
        }
        if faults.is_empty() {
            faults.extend(shown_settings(&settings, &prompts));
        }
        if let Some(wanted) = &settings.prompt
            && faults.is_empty()
            && prompts.iter().all(|prompt| *prompt.version != **wanted)
        {
            // The error is reported where the version is named: in the configuration or in the folder's file.
            let file = if config.names_prompt() { "" } else { "analysis.toml" };
            faults.push(Fault::whole(file, format!("prompt: {}", unknown_version(wanted, &prompts))));
        }
        let compiled = compiled.and_then(|schema| Ok((schema::lists(&schema, source, settings.scope)?, schema)));
        let compiled = compiled.map(|(lists, mut schema)| {
            schema::narrow(&mut schema, &settings.questions);
            (lists, Arc::new(schema))
        });
        if let (Some(method), Ok((_, schema))) = (settings.local, &compiled)
            && !local::fits(method, schema)
        {
            // That of a built-in analysis is only assumed for a folder that replaces it.
            settings.local = None;
            let named = [(config, ""), (&given, "analysis.toml")].into_iter().find(|(given, _)| given.names_method());
            faults.extend(named.map(|(_, file)| Fault::whole(file, UNFIT)));
        }
        match compiled {
            Ok((lists, schema)) if faults.is_empty() => {
                let strict = schema::is_strict(&schema);
                let (name, scope) = (Arc::from(name), settings.scope);
                let operations =
                    if lists.is_empty() { Arc::clone(&schema) } else { Arc::new(lists.operations_schema(&schema)) };
                let list_instructions = [Form::Operations, Form::Whole]
                    .map(|form| if lists.is_empty() { String::new() } else { lists.explanation(form) });
                Ok(Self { name, scope, settings, schema, operations, strict, lists, list_instructions, prompts })
            }
            Ok(_) => Err(faults),
            Err(fault) => {
                faults.push(fault);
                Err(faults)
            }
        }
    }

    /// Returns true if no model is asked: then [`Analysis::compute`] gives the value.
    pub fn is_computed(&self) -> bool {
        self.settings.computed.is_some()
    }

    /// The value computed from all turns of a call; `None` if a model is asked.
    pub fn compute<'a>(&self, turns: impl IntoIterator<Item = &'a Turn>) -> Option<Value> {
        match self.settings.computed? {
            Computed::Stats => Some(computed::stats(turns)),
        }
    }

    /// A reader for the text of an answer while it is being written, if the value has a top-level string `text`.
    /// `member`: the member of the answer that holds the value, if the answer is not the value itself.
    pub fn growing(&self, member: Option<&str>) -> Option<Growing> {
        let kind = self.schema.pointer("/properties/text/type");
        let path: Vec<&str> = member.into_iter().chain(["text"]).collect();
        (kind.and_then(Value::as_str) == Some("string")).then(|| Growing::at(&path))
    }

    /// The form of lists of items in an answer to `prompt`. `last`: it is the last run of the call. A prompt with
    /// messages of its own does not explain operations, so it gets whole lists.
    pub fn form(&self, prompt: &Prompt, last: bool) -> Form {
        let whole = last || self.settings.whole_lists || self.lists.is_empty() || !prompt.bundles();
        if whole { Form::Whole } else { Form::Operations }
    }

    /// The JSON schema of an answer of this form.
    pub fn asked_schema(&self, form: Form) -> &Arc<Value> {
        match form {
            Form::Operations => &self.operations,
            Form::Whole => &self.schema,
        }
    }

    /// The changes of a value that stays as it is; `None` if its values have no lists of items.
    pub fn unchanged(&self) -> Option<Vec<Change>> {
        (!self.lists.is_empty()).then(Vec::new)
    }

    /// Instructions how to answer with lists of items; empty if there are none.
    pub fn list_instructions(&self, form: Form) -> &str {
        let [operations, whole] = &self.list_instructions;
        match form {
            Form::Operations => operations,
            Form::Whole => whole,
        }
    }

    /// The prompt of a version; without a name, the version in the settings, else the newest.
    ///
    /// # Errors
    /// The version does not exist.
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

    /// The request that asks only this analysis, without a current value. Shares the transcript's text with the
    /// snapshot.
    ///
    /// # Errors
    /// The template fails with the facts of this call.
    pub fn request(&self, prompt: &Prompt, snapshot: &Snapshot, facts: &Facts) -> Result<ChatRequest, RenderError> {
        request::request(&[Asked { analysis: self, prompt, current: None, last: false, due: true }], snapshot, facts)
    }

    /// Upper estimate of the steps of [`Analysis::read`].
    pub fn reading_work(value: &Value, snapshot: &Snapshot) -> u64 {
        evidence::work(value, snapshot)
    }

    /// Checks the quotes of an insight's value and evidence again, in a later snapshot. A quote from a turn that the snapshot
    /// does not hold keeps its mark.
    ///
    /// # Errors
    /// The budget is used up.
    pub fn recheck(
        mut value: Value,
        mut evidence: Vec<Evidence>,
        snapshot: &Snapshot,
        budget: &mut Budget,
    ) -> Result<Reading, Exceeded> {
        evidence::recheck(&mut value, &mut evidence, snapshot, budget)?;
        Ok(Reading { value, evidence, ..Reading::default() })
    }

    /// Reads `value`, an answer to `snapshot` that is valid under the schema: removes and verifies its evidence.
    ///
    /// # Errors
    /// The answer has too many quotes, or the budget is used up.
    pub fn read(mut value: Value, snapshot: &Snapshot, budget: &mut Budget) -> Result<Reading, Exceeded> {
        let evidence = evidence::lift(&mut value, snapshot, budget)?;
        Ok(Reading { value, evidence, ..Reading::default() })
    }

    /// Upper estimate of the steps of [`Analysis::conclude`]: each item may have to be compared with every other.
    pub fn concluding_work(&self, value: &Value, current: Option<&Value>) -> u64 {
        self.lists.work(value, current)
    }

    /// Makes the new value from an answer: applies its lists of items to those of the newest value.
    #[must_use]
    pub fn conclude(&self, reading: Reading, answering: &Answering<'_>) -> Reading {
        if self.lists.is_empty() {
            return reading;
        }
        let Answering { current, checked, form, rev } = *answering;
        let applied = self.lists.apply((current, checked.or(current)), reading.value, form, rev);
        Reading { value: applied.value, changes: applied.changes, dropped: applied.dropped, ..reading }
    }
}

/// Reports settings that a prompt uses and that are missing, and settings that no prompt uses.
fn shown_settings(settings: &Settings, prompts: &[Arc<Prompt>]) -> Vec<Fault> {
    let given = [
        ("to", settings.to.is_some(), "a language tag such as \"es\""),
        (
            "questions",
            !settings.questions.is_empty(),
            "[{ id = \"greeting\", text = \"Did the agent greet the customer?\" }]",
        ),
    ];
    let fault = |(key, is_given, example): (&str, bool, &str)| {
        let shows = prompts.iter().find(|prompt| prompt.shows(key));
        match (is_given, shows) {
            (false, Some(prompt)) => {
                Some(format!("{key}: missing; the prompt {} shows it: expected {example}", prompt.version))
            }
            (true, None) => Some(format!("{key}: no prompt of this analysis shows it")),
            _ => None,
        }
    };
    given.into_iter().filter_map(fault).map(|message| Fault::whole("", message)).collect()
}

fn unknown_version(wanted: &str, prompts: &[Arc<Prompt>]) -> String {
    let known: Vec<&str> = prompts.iter().map(|prompt| &*prompt.version).collect();
    names::unknown("prompt version", wanted, &known)
}

/// Sorts versions: `v2` before `v10`, other names before numbered ones.
fn age(version: &str) -> (u64, String) {
    (version.strip_prefix('v').and_then(|number| number.parse().ok()).unwrap_or(0), version.to_owned())
}

#[cfg(test)]
mod tests;
