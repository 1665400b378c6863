//! The settings of an analysis: from its folder's `analysis.toml`, and from the configuration, which takes precedence.
//!
//! Knows no prompt and no schema.

use toml::Value;

use super::Scope;
use super::folder::{Fault, Folder};
use super::on::On;
use super::shown::{self, ListedQuestion};
use super::trigger::Triggers;
use crate::base::settings::{Problems, Section};
use crate::context::DEFAULT_BUDGET_TOKENS;
use crate::llm::local::Method;

/// Triggers of an analysis without any configured ones.
const DEFAULT_TRIGGERS: Triggers = Triggers {
    every_n_turns: Some(4),
    interval_ms: None,
    min_new_tokens: None,
    debounce_ms: Some(1_500),
    max_wait_ms: Some(8_000),
    on_end: true,
};
/// Default number of turns before the turn that a per-turn prompt shows.
const DEFAULT_CONTEXT_TURNS: u64 = 6;
/// Maximum of that number: these turns are rendered again for every turn.
const MAX_CONTEXT_TURNS: u64 = 200;
/// Keys that determine when an analysis runs.
const TRIGGER_KEYS: [&str; 8] =
    ["every_n_turns", "interval_ms", "min_new_tokens", "debounce_ms", "max_wait_ms", "on_end", "on", "gate"];
/// Keys that only an analysis that asks a model can have.
const MODEL_KEYS: [&str; 12] = [
    "route",
    "bundle",
    "prompt",
    "max_context_tokens",
    "context_turns",
    "max_output_tokens",
    "temperature",
    "local",
    "to",
    "questions",
    "lists",
    "gate",
];
/// One day, ms.
const DAY_MS: u64 = 86_400_000;

/// A value that is computed from a call's turns, without a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Computed {
    /// Shares of talk, interruptions and response times.
    Stats,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The analysis's title, for people.
    pub title: String,
    /// The whole context, or each turn.
    pub scope: Scope,
    /// The route that is asked; `None` lets the gateway choose by the analysis' name.
    pub route: Option<String>,
    /// Analyses of one route with the same bundle are asked in one request. `None`: the route's name; empty: it is asked
    /// alone.
    pub bundle: Option<String>,
    /// `on_revision = "refuse"`: a result is discarded and requested again if a turn that it covers was revised
    /// meanwhile.
    pub refuses_revised: bool,
    /// When a rolling analysis runs. Unused per turn.
    pub triggers: Triggers,
    /// Further events that make it due. Unused per turn.
    pub on: On,
    /// Turns that add nothing (see [`super::gate`]) do not make it due. Unused per turn; false for a computed analysis,
    /// because each turn changes its value.
    pub gate: bool,
    /// Maximum number of estimated transcript tokens in a prompt.
    pub max_context_tokens: u64,
    /// Per turn: maximum number of earlier turns in `before`. Unused over the whole context.
    pub context_turns: usize,
    /// Maximum number of tokens of the answer.
    pub max_output_tokens: Option<u64>,
    /// Temperature of the request, if set.
    pub temperature: Option<f64>,
    /// The prompt version if no variant names one; `None` = the newest.
    pub prompt: Option<String>,
    /// The method of the embedded provider; `None` if it cannot answer.
    pub local: Option<Method>,
    /// Set if no model is asked.
    pub computed: Option<Computed>,
    /// The language that a prompt asks for: a BCP 47 tag.
    pub to: Option<String>,
    /// The questions that a prompt lists.
    pub questions: Vec<ListedQuestion>,
    /// `lists = "whole"`: the model always answers with whole lists of items, not with operations.
    pub whole_lists: bool,
}

impl Settings {
    /// Reads `analysis.toml` of a folder, if there is one.
    pub(super) fn of_folder(name: &str, folder: &Folder) -> Result<PartialSettings, Vec<Fault>> {
        const FILE: &str = "analysis.toml";
        let Some(source) = folder.file(FILE) else { return Ok(PartialSettings::default()) };
        let table: toml::Table = source.parse().map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            vec![Fault::at(FILE, source, at, error.message())]
        })?;
        let mut problems = Problems::default();
        let mut section = Section::new(name, Some(Value::Table(table)), &mut problems);
        let computed = section.choice("computed", &["stats"]).map(|_| Computed::Stats);
        let given = PartialSettings { computed, ..PartialSettings::read(&mut section) };
        section.finish();
        if problems.is_empty() {
            return Ok(given);
        }
        let faults = problems.into_vec().into_iter().map(|problem| {
            let key = problem.path.rsplit('.').next().unwrap_or_default().to_owned();
            let message = format!("{key}: {}", problem.message);
            match line_of(source, &key) {
                Some(at) => Fault::at(FILE, source, at, message),
                None => Fault::whole(FILE, message),
            }
        });
        Err(faults.collect())
    }

    /// The folder's settings, overridden by the configuration's.
    pub(super) fn merged(name: &str, folder: &PartialSettings, config: &PartialSettings) -> Self {
        let scope = config.scope.or(folder.scope).unwrap_or(Scope::Rolling);
        Self {
            title: config.title.clone().or_else(|| folder.title.clone()).unwrap_or_else(|| name.to_owned()),
            scope,
            route: config.route.clone().or_else(|| folder.route.clone()),
            bundle: config.bundle.clone().or_else(|| folder.bundle.clone()),
            refuses_revised: config.refuses_revised.or(folder.refuses_revised).unwrap_or(false),
            triggers: if scope == Scope::End { Triggers::OFF } else { triggers(folder, config) },
            on: config.on.clone().or_else(|| folder.on.clone()).unwrap_or_default(),
            gate: folder.computed.is_none() && config.gate.or(folder.gate).unwrap_or(true),
            max_context_tokens: config
                .max_context_tokens
                .or(folder.max_context_tokens)
                .unwrap_or(DEFAULT_BUDGET_TOKENS),
            context_turns: usize::try_from(
                config.context_turns.or(folder.context_turns).unwrap_or(DEFAULT_CONTEXT_TURNS),
            )
            .unwrap_or(usize::MAX),
            max_output_tokens: config.max_output_tokens.or(folder.max_output_tokens),
            temperature: config.temperature.or(folder.temperature),
            prompt: config.prompt.clone().or_else(|| folder.prompt.clone()),
            local: config.local.or(folder.local),
            computed: folder.computed,
            to: config.to.clone().or_else(|| folder.to.clone()),
            questions: config.questions.clone().or_else(|| folder.questions.clone()).unwrap_or_default(),
            whole_lists: config.whole_lists.or(folder.whole_lists).unwrap_or(false),
        }
    }
}

/// The settings of one source; `None` = not set. A number 0 means "off".
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PartialSettings {
    title: Option<String>,
    scope: Option<Scope>,
    route: Option<String>,
    bundle: Option<String>,
    refuses_revised: Option<bool>,
    every_n_turns: Option<u64>,
    interval_ms: Option<u64>,
    min_new_tokens: Option<u64>,
    debounce_ms: Option<u64>,
    max_wait_ms: Option<u64>,
    on_end: Option<bool>,
    on: Option<On>,
    gate: Option<bool>,
    max_context_tokens: Option<u64>,
    context_turns: Option<u64>,
    max_output_tokens: Option<u64>,
    temperature: Option<f64>,
    prompt: Option<String>,
    pub(super) local: Option<Method>,
    computed: Option<Computed>,
    to: Option<String>,
    questions: Option<Vec<ListedQuestion>>,
    whole_lists: Option<bool>,
    /// Keys that are set and that not every analysis can have.
    special: Vec<&'static str>,
}

impl PartialSettings {
    /// These settings, with `local` if no method is set.
    pub(super) fn or_local(self, local: Option<Method>) -> Self {
        Self { local: self.local.or(local), ..self }
    }

    /// Reads the settings in `section`; the caller handles its `dir` and unknown keys.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let special = TRIGGER_KEYS.iter().chain(&MODEL_KEYS).copied().filter(|key| section.has(key)).collect();
        let scope = section.choice("scope", &["rolling", "turn", "end"]);
        Self {
            special,
            title: section.string("title"),
            scope: scope.map(|scope| match scope {
                "turn" => Scope::Turn,
                "end" => Scope::End,
                _ => Scope::Rolling,
            }),
            route: section.string("route"),
            bundle: section.text("bundle"),
            refuses_revised: section.choice("on_revision", &["publish", "refuse"]).map(|choice| choice == "refuse"),
            every_n_turns: section.integer("every_n_turns", 0..=1_000_000),
            interval_ms: section.integer("interval_ms", 0..=DAY_MS),
            min_new_tokens: section.integer("min_new_tokens", 0..=10_000_000),
            debounce_ms: section.integer("debounce_ms", 0..=DAY_MS),
            max_wait_ms: section.integer("max_wait_ms", 0..=DAY_MS),
            on_end: section.boolean("on_end"),
            on: On::read(section),
            gate: section.boolean("gate"),
            max_context_tokens: section.integer("max_context_tokens", 100..=10_000_000),
            context_turns: section.integer("context_turns", 0..=MAX_CONTEXT_TURNS),
            max_output_tokens: section.integer("max_output_tokens", 1..=1_000_000),
            temperature: section.number("temperature", 0.0..=2.0),
            prompt: section.string("prompt"),
            local: section.choice("local", &Method::ALL.map(|(name, _)| name)).and_then(Method::parse),
            computed: None,
            to: shown::read_tag(section),
            questions: shown::read_questions(section),
            whole_lists: section.choice("lists", &["operations", "whole"]).map(|form| form == "whole"),
        }
    }

    /// The first key that an analysis with these settings cannot have, and why.
    pub(super) fn misplaced(&self, settings: &Settings) -> Option<(&'static str, &'static str)> {
        let first = |keys: &[&str]| self.special.iter().find(|key| keys.contains(key)).copied();
        let of_end = (settings.scope == Scope::End).then(|| first(&TRIGGER_KEYS)).flatten();
        let of_computed = settings.computed.and_then(|_| first(&MODEL_KEYS));
        let is_turn = settings.scope == Scope::Turn;
        // The empty bundle says what such an analysis does anyway.
        let is_bundled = self.bundle.as_ref().is_some_and(|bundle| !bundle.is_empty());
        let of_turn = (is_turn && is_bundled).then_some("bundle");
        let untriggered = is_turn.then(|| first(&TRIGGER_KEYS)).flatten();
        let of_others = if is_turn { None } else { first(&["context_turns"]) };
        let end = of_end.map(|key| (key, "an analysis of scope \"end\" runs when the call ends, and has no triggers"));
        end.or_else(|| of_computed.map(|key| (key, "the analysis is computed and asks no model")))
            .or_else(|| of_turn.map(|key| (key, "an analysis of scope \"turn\" is asked alone")))
            .or_else(|| {
                untriggered.map(|key| (key, "an analysis of scope \"turn\" runs for each turn, and has no triggers"))
            })
            .or_else(|| of_others.map(|key| (key, "only an analysis of scope \"turn\" shows the turns before one")))
    }

    /// Returns true if the method of the embedded provider is set.
    pub(super) fn names_method(&self) -> bool {
        self.special.contains(&"local")
    }

    /// Returns true if a prompt version is set.
    pub(super) fn names_prompt(&self) -> bool {
        self.prompt.is_some()
    }

    /// Returns true if a setting determines when the analysis becomes due.
    fn says_when(&self) -> bool {
        self.every_n_turns.is_some() || self.interval_ms.is_some() || self.on.as_ref().is_some_and(|on| !on.is_empty())
    }

    /// Returns true if any trigger is set.
    fn says_triggers(&self) -> bool {
        self.says_when()
            || self.min_new_tokens.is_some()
            || self.debounce_ms.is_some()
            || self.max_wait_ms.is_some()
            || self.on_end.is_some()
    }

    /// The triggers that are set here, and those of `base` for the others.
    fn over(&self, base: Triggers) -> Triggers {
        let lay = |given: Option<u64>, base: Option<u64>| given.or(base).filter(|value| *value > 0);
        Triggers {
            every_n_turns: lay(self.every_n_turns, base.every_n_turns),
            interval_ms: lay(self.interval_ms, base.interval_ms),
            min_new_tokens: lay(self.min_new_tokens, base.min_new_tokens),
            debounce_ms: lay(self.debounce_ms, base.debounce_ms),
            max_wait_ms: lay(self.max_wait_ms, base.max_wait_ms),
            on_end: self.on_end.unwrap_or(base.on_end),
        }
    }
}

/// A source that sets when an analysis becomes due (`every_n_turns`, `interval_ms` or `on`) replaces all of these
/// settings: absent ones are off. A section with other keys only changes just those of the folder's. Without any, the
/// analysis runs by [`DEFAULT_TRIGGERS`].
fn triggers(folder: &PartialSettings, config: &PartialSettings) -> Triggers {
    let of_folder = if folder.says_triggers() { folder.over(Triggers::OFF) } else { Triggers::OFF };
    if config.says_when() {
        return config.over(Triggers { on_end: of_folder.on_end, ..Triggers::OFF });
    }
    if !folder.says_triggers() && !config.says_triggers() {
        return DEFAULT_TRIGGERS;
    }
    config.over(of_folder)
}

/// Offset at which the line of `key` begins.
fn line_of(source: &str, key: &str) -> Option<usize> {
    let mut offset = 0;
    for line in source.split_inclusive('\n') {
        if line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')) {
            return Some(offset);
        }
        offset += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(source: &str) -> PartialSettings {
        Settings::of_folder("x", &Folder::new([("analysis.toml", source)])).expect("settings")
    }

    #[test]
    fn trigger_key_replaces_all_trigger_keys() {
        let folder = given("every_n_turns = 4\ndebounce_ms = 1500\nmax_wait_ms = 8000\non_end = true");
        let merged = |config: &str| Settings::merged("x", &folder, &given(config)).triggers;
        let every = merged("every_n_turns = 1");
        assert_eq!(
            (every.every_n_turns, every.debounce_ms, every.max_wait_ms, every.on_end),
            (Some(1), None, None, true)
        );
        let quicker = merged("debounce_ms = 10");
        assert_eq!((quicker.every_n_turns, quicker.debounce_ms, quicker.max_wait_ms), (Some(4), Some(10), Some(8_000)));
        assert_eq!(merged("debounce_ms = 0").debounce_ms, None, "0 is off");
        assert_eq!(merged("").every_n_turns, Some(4));
    }

    #[test]
    fn analysis_without_trigger_keys_runs_by_the_defaults() {
        let none = PartialSettings::default();
        assert_eq!(Settings::merged("x", &none, &none).triggers, DEFAULT_TRIGGERS);
        let only_end = Settings::merged("x", &none, &given("on_end = true")).triggers;
        assert_eq!(only_end, Triggers::OFF);
        let turns = Settings::merged("x", &none, &given("every_n_turns = 2")).triggers;
        assert_eq!((turns.every_n_turns, turns.debounce_ms, turns.on_end), (Some(2), None, true));
    }

    #[test]
    fn faults_name_line_and_column() {
        let read = |source: &str| {
            let faults = Settings::of_folder("x", &Folder::new([("analysis.toml", source)])).expect_err("faults");
            faults.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            read("title = \"T\"\nscope = \"call\"\nspeed = 1\n"),
            [
                "analysis.toml:2:1: scope: expected one of rolling, turn, end, found \"call\"",
                "analysis.toml:3:1: speed: unknown key; there are: bundle, computed, context_turns, debounce_ms, every_n_turns, \
                 gate, interval_ms, lists, local, max_context_tokens, max_output_tokens, max_wait_ms, min_new_tokens, on, on_end, \
                 on_revision, prompt, questions, route, scope, temperature, title, to",
            ]
        );
        assert!(read("title = \n")[0].starts_with("analysis.toml:1:9: "), "{:?}", read("title = \n"));
    }
}
