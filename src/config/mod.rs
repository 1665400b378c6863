//! The configuration: one TOML file, read whole, all problems at once.
//!
//! Composes the sections that the modules own; knows no default of theirs. `Config::load` reads no network and binds
//! nothing, so that `sidetone check` and start-up say the same.

mod telemetry;

use std::path::Path;

pub use telemetry::TelemetryConfig;

use toml::{Table, Value};

use crate::analysis::Registry as Analyses;
use crate::api::config::{ServerConfig, SubscribeConfig};
use crate::base::drain::ShutdownConfig;
use crate::base::settings::{Problem, Problems, Section};
use crate::base::tls::TlsConfig;
use crate::ingest::proxy::SttConfig;
use crate::ingest::record::RecordConfig;
use crate::ingest::source::SourceConfig;
use crate::session::config::{IngestConfig, LimitsConfig};
use crate::{gateway, journal, sink};

/// Everything that a daemon is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[journal]`
    pub journal: journal::Config,
    /// `[ingest]`
    pub ingest: IngestConfig,
    /// `[subscribe]`
    pub subscribe: SubscribeConfig,
    /// `[shutdown]`
    pub shutdown: ShutdownConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[endpoints.*]`, `[models.*]`, `[routes.*]`, `[gateway]`
    pub gateway: gateway::Config,
    /// `[analyses.*]` and the built-in ones.
    pub analyses: Analyses,
    /// `[stt]`
    pub stt: SttConfig,
    /// `[tls]`
    pub tls: Option<TlsConfig>,
    /// `[telemetry]`
    pub telemetry: TelemetryConfig,
    /// `[record]`
    pub record: Option<RecordConfig>,
    /// `[[source]]`
    pub sources: Vec<SourceConfig>,
    /// `[[sink]]`
    pub sinks: Vec<sink::Config>,
}

impl Config {
    /// Reads `path`, or the defaults where there is none.
    ///
    /// # Errors
    /// Every problem of the file, in its order.
    pub fn load(path: Option<&Path>) -> Result<Self, Vec<Problem>> {
        let problem = |message: String| {
            vec![Problem { path: path.map_or_else(String::new, |path| path.display().to_string()), message }]
        };
        let text = match path {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))?,
        };
        let base = path.and_then(Path::parent).unwrap_or(Path::new("."));
        Self::parse(&text, base).map_err(|problems| match (problems.as_slice(), path) {
            ([Problem { path: at, message }], Some(_)) if at.is_empty() => problem(message.clone()),
            _ => problems,
        })
    }

    /// Reads TOML text; relative paths in it are taken from `base`.
    ///
    /// # Errors
    /// Every problem of the text.
    pub fn parse(text: &str, base: &Path) -> Result<Self, Vec<Problem>> {
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| vec![Problem { path: String::new(), message: syntax(text, &error) }])?;
        let mut problems = Problems::in_folder(base);
        let mut root = Section::new("", Some(Value::Table(table)), &mut problems);
        let value = root.take("server");
        let server = ServerConfig::read(value, root.problems());
        let value = root.take("journal");
        let journal = journal::Config::read(value, root.problems());
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
            journal,
            ingest,
            subscribe,
            shutdown,
            limits,
            gateway,
            analyses,
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

    /// What one section alone cannot see.
    fn cross_check(&self, problems: &mut Problems) {
        for name in self.ingest.analyses.iter().flatten() {
            if self.analyses.get(name).is_none() {
                problems.push(
                    "ingest.analyses",
                    format!("no analysis {name:?}; there are: {}", self.analyses.names().join(", ")),
                );
            }
        }
        for name in self.analyses.names() {
            let Some(analysis) = self.analyses.get(name) else { continue };
            let target = analysis.settings.route.as_deref();
            if let Err(message) = self.gateway.check_analysis(name, target)
                && self.wants(name)
            {
                problems.push(format!("analyses.{name}.route"), message);
            }
        }
    }

    /// Whether somebody asked for this analysis; the built-in ones are there anyway.
    fn wants(&self, analysis: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == analysis);
        self.analyses.is_given(analysis)
            || self.ingest.analyses.as_deref().is_some_and(named)
            || self.sources.iter().any(|source| named(source.analyses()))
    }

    /// What is right, and may not be meant: that nothing says whom some analyses ask.
    pub fn warning(&self) -> Option<String> {
        let asks_none = |name: &&String| self.gateway.check_analysis(name, None).is_err() && !self.wants(name);
        let unasked: Vec<&str> = self.analyses.names().iter().filter(asks_none).map(String::as_str).collect();
        (!unasked.is_empty()).then(|| {
            format!(
                "analyses {}: no route and no default_route says whom they ask, so the embedded provider (local) answers \
                 them; [routes.NAME] or [gateway] default_route gives them a model",
                unasked.join(", ")
            )
        })
    }

    /// Analyses that a call runs unless it names its own.
    pub fn default_analyses(&self) -> Vec<String> {
        self.ingest.analyses.clone().unwrap_or_else(|| self.analyses.defaults().to_vec())
    }
}

/// What is no TOML, and where: `line 3, column 9: …`.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return message };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {message}")
}

#[cfg(test)]
mod tests;
