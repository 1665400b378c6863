//! The configuration: one TOML file, read as a whole; all its problems are reported at once.
//!
//! Composes the sections that the modules own; knows none of their defaults. `Config::load` uses no network and binds
//! nothing, so that `sidetone check` and start-up report the same.

mod bundles;
mod rules;
mod storage;
mod telemetry;
mod windows;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use storage::StorageConfig;
pub use telemetry::TelemetryConfig;

use toml::{Table, Value};

use crate::analysis::{Analysis, Registry as Analyses};
use crate::api::config::{ServerConfig, SubscribeConfig};
use crate::base::drain::ShutdownConfig;
use crate::base::settings::{Problem, Problems, Section};
use crate::base::tls::TlsConfig;
use crate::call::config::{IngestConfig, LimitsConfig};
use crate::ingest::proxy::SttConfig;
use crate::ingest::record::RecordConfig;
use crate::ingest::source::SourceConfig;
use crate::rules::Rules;
use crate::{gateway, journal, sink};

/// The whole configuration of a daemon.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: ServerConfig,
    pub storage: StorageConfig,
    pub journal: journal::Config,
    pub ingest: IngestConfig,
    pub subscribe: SubscribeConfig,
    pub shutdown: ShutdownConfig,
    pub limits: LimitsConfig,
    /// `[endpoints.*]`, `[models.*]`, `[routes.*]`, `[gateway]`
    pub gateway: gateway::Config,
    /// `[analyses.*]` and the built-in ones.
    pub analyses: Analyses,
    pub rules: Arc<Rules>,
    pub stt: SttConfig,
    pub tls: Option<TlsConfig>,
    pub telemetry: TelemetryConfig,
    pub record: Option<RecordConfig>,
    pub sources: Vec<SourceConfig>,
    pub sinks: Vec<sink::Config>,
}

impl Config {
    /// Reads `path`, or uses the defaults without one.
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn load(path: Option<&Path>) -> Result<Self, Vec<Problem>> {
        Self::read(path, Self::parse)
    }

    /// `[storage]` of a daemon with this configuration. Reads only the keys that say where the data is, so that a key
    /// command does not need what other sections need, such as a variable that only the daemon has.
    ///
    /// # Errors
    /// The file cannot be read or is not TOML, or `[storage]` or `[journal]` is invalid.
    pub fn storage(path: Option<&Path>) -> Result<StorageConfig, Vec<Problem>> {
        Self::read(path, |text, base| {
            let mut table = parse_toml(text)?;
            let mut problems = Problems::in_folder(base);
            let mut journal = table.remove("journal");
            let storage = StorageConfig::read(table.remove("storage"), &mut journal, &mut problems);
            journal::Config::read(journal, &mut problems);
            if problems.is_empty() { Ok(storage) } else { Err(problems.into_vec()) }
        })
    }

    /// Reads the text at `path`, and passes it to `parse` with its folder as an absolute path.
    fn read<T>(
        path: Option<&Path>,
        parse: impl FnOnce(&str, &Path) -> Result<T, Vec<Problem>>,
    ) -> Result<T, Vec<Problem>> {
        let path = path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let at = path.as_ref().map_or_else(String::new, |path| path.display().to_string());
        let problem = |message: String| vec![Problem { path: at.clone(), message }];
        let text = match &path {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))?,
        };
        let base = match path.as_deref().and_then(Path::parent) {
            Some(base) => base.to_owned(),
            None => std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        };
        parse(&text, &base).map_err(|problems| match (problems.as_slice(), &path) {
            ([Problem { path: at, message }], Some(_)) if at.is_empty() => problem(message.clone()),
            _ => problems,
        })
    }

    /// Parses TOML text; relative paths in it are relative to `base`.
    ///
    /// # Errors
    /// Every problem of the text.
    pub fn parse(text: &str, base: &Path) -> Result<Self, Vec<Problem>> {
        let table = parse_toml(text)?;
        let mut problems = Problems::in_folder(base);
        let mut root = Section::new("", Some(Value::Table(table)), &mut problems);
        let value = root.take("server");
        let server = ServerConfig::read(value, root.problems());
        let value = root.take("storage");
        let mut journal = root.take("journal");
        let storage = StorageConfig::read(value, &mut journal, root.problems());
        let journal = journal::Config::read(journal, root.problems());
        let value = root.take("ingest");
        let ingest = IngestConfig::read(value, root.problems());
        let value = root.take("subscribe");
        let subscribe = SubscribeConfig::read(value, root.problems());
        let value = root.take("shutdown");
        let shutdown = ShutdownConfig::read(value, root.problems());
        let value = root.take("limits");
        let limits = LimitsConfig::read(value, root.problems());
        let gateway = gateway::Config::read(&mut root);
        let value = root.take("analyses");
        let analyses = Analyses::read(value, base, root.problems());
        let value = root.take("rules");
        let rules = Arc::new(Rules::read(value, root.problems()));
        let value = root.take("stt");
        let stt = SttConfig::read(value, root.problems());
        let value = root.take("tls");
        let tls = TlsConfig::read(value, base, root.problems());
        let value = root.take("telemetry");
        let telemetry = TelemetryConfig::read(value, root.problems());
        let value = root.take("record");
        let record = RecordConfig::read(value, base, root.problems());
        let value = root.take("source");
        let sources = SourceConfig::read(value, analyses.names(), root.problems());
        let value = root.take("sink");
        let sinks = sink::Config::read_all(value, analyses.names(), root.problems());
        root.finish();
        let config = Self {
            server,
            storage,
            journal,
            ingest,
            subscribe,
            shutdown,
            limits,
            gateway,
            analyses,
            rules,
            stt,
            tls,
            telemetry,
            record,
            sources,
            sinks,
        };
        config.cross_check(&mut problems);
        if problems.is_empty() { Ok(config) } else { Err(problems.into_vec()) }
    }

    /// The checks that involve several sections.
    fn cross_check(&self, problems: &mut Problems) {
        for name in self.ingest.analyses.iter().flatten() {
            if !self.analyses.names().contains(name) {
                problems.push("ingest.analyses", self.analyses.unknown(name));
            }
        }
        for name in self.analyses.names() {
            if let Some(message) = self.unanswerable(name).filter(|_| self.wants(name)) {
                problems.push(format!("analyses.{name}.route"), message);
            }
        }
        rules::check(&self.rules, &self.analyses, problems);
        bundles::check(self.asking(), problems);
        windows::check(self.analyses.names().iter().filter_map(|name| self.analyses.get(name)), problems);
        for (key, message, certain) in self.missing_prompts() {
            if certain {
                problems.push(key, message);
            }
        }
    }

    /// The reason why no configured model can answer an analysis, if there is one.
    pub fn unanswerable(&self, name: &str) -> Option<String> {
        let analysis = self.analyses.get(name).filter(|analysis| !analysis.is_computed())?;
        match self.gateway.target(name, analysis.settings.route.as_deref()) {
            Err(message) => Some(message),
            Ok(target) if analysis.settings.local.is_none() && self.gateway.is_local(&target) => {
                let answered: Vec<&str> = self.answered_locally().collect();
                Some(format!(
                    "{name} needs a model, but only the embedded provider (local) answers {target:?}, and it can answer \
                     only {}; configure [endpoints.NAME] and [models.NAME], and name the model or its route here",
                    answered.join(", ")
                ))
            }
            Ok(_) => None,
        }
    }

    /// The analyses that calls may run, each with its route or model; without those for which no setting names one.
    fn asking(&self) -> Vec<(&Arc<Analysis>, String)> {
        let defaults = self.default_analyses();
        let runs = |name: &&String| self.wants(name) || defaults.contains(name);
        let analyses = self.analyses.names().iter().filter(runs).filter_map(|name| self.analyses.get(name));
        let target =
            |analysis: &Arc<Analysis>| self.gateway.target(&analysis.name, analysis.settings.route.as_deref()).ok();
        analyses.filter_map(|analysis| Some((analysis, target(analysis)?))).collect()
    }

    /// The analyses that the embedded provider can answer.
    fn answered_locally(&self) -> impl Iterator<Item = &str> {
        let names = self.analyses.names().iter().map(String::as_str);
        names.filter(|name| self.analyses.get(name).is_some_and(|analysis| analysis.settings.local.is_some()))
    }

    /// Prompt versions in variants of routes that an analysis with that route does not have. Returns key, message, and true
    /// if calls run the analysis by default or the configuration names it.
    fn missing_prompts(&self) -> Vec<(String, String, bool)> {
        let analyses = self.analyses.names().iter().filter_map(|name| self.analyses.get(name));
        let analyses: Vec<_> = analyses.filter(|analysis| !analysis.is_computed()).collect();
        let defaults = self.default_analyses();
        let mut missing = Vec::new();
        for route in &self.gateway.routes {
            let asks = |analysis: &&&Arc<Analysis>| {
                let target = self.gateway.target(&analysis.name, analysis.settings.route.as_deref());
                target.is_ok_and(|target| target == route.name)
            };
            let asking: Vec<_> = analyses.iter().filter(asks).collect();
            for (index, variant) in route.variants.iter().enumerate() {
                let Some(version) = variant.prompt.as_deref() else { continue };
                let key = format!("routes.{}.variants[{index}].prompt", route.name);
                for analysis in &asking {
                    if let Err(error) = analysis.prompt(Some(version)) {
                        let runs = self.wants(&analysis.name) || defaults.iter().any(|name| **name == *analysis.name);
                        missing.push((key.clone(), error.to_string(), runs));
                    }
                }
                if asking.is_empty() && analyses.iter().all(|analysis| analysis.prompt(Some(version)).is_err()) {
                    let message = format!("no analysis asks this route, and none has a prompt version {version:?}");
                    missing.push((key, message, true));
                }
            }
        }
        missing
    }

    /// Returns true if the configuration asks for this analysis; the built-in ones exist in any case.
    fn wants(&self, analysis: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == analysis);
        self.analyses.is_given(analysis)
            || self.ingest.analyses.as_deref().is_some_and(named)
            || self.sources.iter().any(|source| named(source.analyses()))
            || self.rules.iter().any(|(_, rule)| named(&rule.runs))
    }

    /// Settings that are valid but may not be intended.
    pub fn warnings(&self) -> Vec<String> {
        let uncertain = self.missing_prompts().into_iter().filter(|(.., certain)| !certain);
        let prompts =
            uncertain.map(|(key, message, _)| format!("{key}: {message}; a call that names it gets no insight"));
        let misspelt = self.gateway.misspelt().into_iter().map(|(key, message)| format!("{key}: {message}"));
        self.unasked().into_iter().chain(self.uncounted()).chain(prompts).chain(misspelt).collect()
    }

    /// Warns of a spending limit that does not count some models, because their prices are unknown.
    fn uncounted(&self) -> Option<String> {
        let caps = [("usd_per_call", self.limits.usd_per_call), ("usd_per_day", self.limits.usd_per_day)];
        let caps: Vec<&str> = caps.iter().filter(|(_, cap)| cap.is_some()).map(|(name, _)| *name).collect();
        let unpriced = self.gateway.unpriced(crate::base::time::unix_ms());
        (!caps.is_empty() && !unpriced.is_empty()).then(|| {
            format!(
                "limits.{}: no price is known for {}, so their cost is not counted; set it in [endpoints.NAME] \
                 prices, unless the vendor's list of models (discover) has it",
                caps.join(" and limits."),
                unpriced.join(", ")
            )
        })
    }

    /// Warns of analyses for which no setting chooses a model.
    fn unasked(&self) -> Option<String> {
        let asks_none = |name: &&str| self.gateway.target(name, None).is_err() && !self.wants(name);
        let run = self.default_analyses();
        let runs = |name: &&str| run.iter().any(|known| known == name);
        let unasked: Vec<&str> = self.answered_locally().filter(runs).filter(asks_none).collect();
        (!unasked.is_empty()).then(|| {
            format!(
                "analyses {}: no route and no default_route chooses a model for them, so the embedded provider \
                 (local) answers; set [routes.NAME] or [gateway] default_route",
                unasked.join(", ")
            )
        })
    }

    /// Analyses that a call runs unless it names its own.
    pub fn default_analyses(&self) -> Vec<String> {
        self.ingest.analyses.clone().unwrap_or_else(|| self.analyses.defaults().to_vec())
    }
}

fn parse_toml(text: &str) -> Result<Table, Vec<Problem>> {
    text.parse().map_err(|error: toml::de::Error| vec![Problem { path: String::new(), message: syntax(text, &error) }])
}

/// A syntax error with its position: `line 3, column 9: …`.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return message };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {message}")
}

#[cfg(test)]
mod tests;
