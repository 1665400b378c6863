//! Which model the demo asks, what its call can cost at most, and the configuration that enforces that limit.

use anyhow::{Result, bail};

use crate::analysis::{Analysis, Registry, Scope};
use crate::cli::discovery::{self, Discovery, Found, Price};
use crate::cli::{progress, render};
use crate::llm::tokens;
use crate::recording::Recording;
use crate::stt::Dialect;

/// A model and its cap.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) found: Found,
    /// Maximum cost of the call, US dollars; `None` if no price is known.
    pub(super) cap: Option<f64>,
}

/// Picks the preferred model of `discovery`, or the one of endpoint `wanted`; `None` if there is none.
///
/// # Errors
/// `wanted` was not found.
pub(super) fn choose(discovery: &Discovery, wanted: Option<&str>) -> Result<Option<Found>> {
    let Some(wanted) = wanted else { return Ok(discovery.found.first().cloned()) };
    match discovery.found.iter().find(|found| found.name == wanted) {
        Some(found) => Ok(Some(found.clone())),
        None => {
            let names: Vec<&str> = discovery.found.iter().map(|found| found.name).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let notes: String = discovery.notes.iter().map(|note| format!("; {note}")).collect();
            bail!("--endpoint {wanted}: not found; found: {names}{notes}")
        }
    }
}

/// Upper bound of what a call needs, without the repetition of failed requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) requests: u64,
    input: u64,
    output: u64,
}

impl Need {
    /// The need of the call in `recording` with the default analyses of `registry`: each run is assumed to be as long
    /// as the last one.
    ///
    /// # Errors
    /// A prompt cannot be rendered.
    pub(super) fn of(recording: &Recording, dialect: &dyn Dialect, registry: &Registry, call_id: &str) -> Result<Self> {
        let mut need = Self::default();
        for name in registry.defaults() {
            let Some(analysis) = registry.get(&name).filter(|analysis| !analysis.is_computed()) else { continue };
            let (request, turns) = render::last_request(recording, dialect, analysis, call_id)?;
            let runs = runs(analysis, turns, recording.duration().as_millis());
            let output = tokens::answer(&request);
            need.requests += runs;
            // A model may count up to half as many tokens more than estimated. The gateway learns the real ratio and
            // keeps the spending limit.
            need.input += runs * (tokens::prompt(&request) * 3 / 2);
            need.output += runs * output;
        }
        Ok(need)
    }

    /// US dollars, rounded up to a tenth of a cent.
    pub(super) fn usd(self, price: Price) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "some thousand tokens")]
        let (input, output) = (self.input as f64, self.output as f64);
        let usd = (input * price.input + output * price.output) / 1e6;
        (usd * 1000.0).ceil() / 1000.0
    }
}

/// Maximum number of runs of an analysis in a call with this many turns, including its last run.
fn runs(analysis: &Analysis, turns: u64, duration_ms: u128) -> u64 {
    if analysis.scope == Scope::Turn {
        return turns;
    }
    let triggers = analysis.settings.triggers;
    let by_turns = triggers.every_n_turns.map_or(0, |every| turns / every.max(1));
    let duration_ms = u64::try_from(duration_ms).unwrap_or(u64::MAX);
    let by_interval = triggers.interval_ms.map_or(0, |every| duration_ms / every.max(1));
    by_turns + by_interval + 1
}

/// The configuration lines for asking the model within its spending limit; the embedded provider answers if the model
/// does not.
pub(super) fn configuration(chosen: &Chosen) -> String {
    let cap = chosen.cap.filter(|cap| *cap > 0.0);
    // The limit applies to the call and to the whole daemon, so that later experiments of the user count as well.
    let limits =
        cap.map_or(String::new(), |cap| format!("\n[limits]\nusd_per_call = {cap:?}\nusd_per_day = {cap:?}\n"));
    // One attempt, and a total timeout well below the time for a call's last insights: the rest of that time is for the
    // embedded provider.
    let (clocks, ingest) = if chosen.found.slow {
        ("retries = 0\n", "\n[ingest]\nfinal_timeout_ms = 90000\n")
    } else {
        ("retries = 0\ntotal_timeout_ms = 15000\n", "")
    };
    format!("{}{limits}{ingest}", discovery::configuration_with(std::slice::from_ref(&chosen.found), clocks))
}

/// The configuration lines that replace them once the model is no longer asked. The names stay the same, because an
/// open call continues to use them.
pub(super) fn without() -> String {
    discovery::configuration_of_local()
}

/// Says which model is asked, its maximum cost, and how to ask none.
pub(super) fn announce(chosen: &Chosen, discovery: &Discovery, need: Need) {
    let Chosen { found, cap } = chosen;
    progress::step(&format!("Found {}: {}", found.title, found.reason()));
    for other in discovery.found.iter().filter(|other| other.name != found.name) {
        let name = other.name;
        progress::detail(&format!("also found {}: {}; --endpoint {name} selects it", other.title, other.reason()));
    }
    progress::step(&format!(
        "Insights come from {}; the embedded provider answers where it does not",
        found.candidate()
    ));
    progress::detail(&cost(found, *cap, need));
    if let Some(variable) = found.redirected_by {
        progress::detail(&format!("{variable} names another server, which may have other prices"));
    }
    progress::detail("to use no model at all: sidetone demo --local");
}

/// The maximum cost of the call, as a line for people.
fn cost(found: &Found, cap: Option<f64>, need: Need) -> String {
    let requests = need.requests;
    match cap {
        Some(0.0) => format!("cost: none, it runs on this machine ({requests} requests at most)"),
        Some(cap) => format!(
            "cost: at most {cap:.3} USD for {requests} requests at {}'s list price, a limit that the daemon enforces",
            found.title
        ),
        None => format!("cost: unknown, because the model's price is not known ({requests} requests at most)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::discovery::Probe;
    use crate::config::Config;
    use crate::{recording, stt};

    fn need() -> Need {
        let recording = recording::parse(super::super::CALL).expect("recording");
        let dialect = stt::dialect(&recording.header.dialect).expect("dialect");
        let config = Config::parse(super::super::CONFIG, std::path::Path::new(".")).expect("config");
        Need::of(&recording, dialect, &config.analyses, "demo").expect("need")
    }

    fn chosen(variable: &str, model_cap: bool) -> Chosen {
        let discovery = discovery::discover(&|name| (name == variable).then(|| "k".to_owned()), &Probe::Absent);
        let found = discovery.found.into_iter().next().expect("found");
        let cap = found.price.filter(|_| model_cap).map(|price| need().usd(price));
        Chosen { found, cap }
    }

    #[test]
    fn bound_covers_every_run_and_stays_small() {
        let need = need();
        // 37 turns: summary after every 5, sentiment after every 3, each once more at the end.
        assert_eq!(need.requests, 8 + 13);
        assert!((20_000..120_000).contains(&need.input) && (5_000..30_000).contains(&need.output), "{need:?}");
        let usd = need.usd(Price { input: 1.0, output: 5.0 });
        assert!((0.05..0.30).contains(&usd), "{usd}");
        assert!((need.usd(Price { input: 0.0, output: 0.0 })).abs() < f64::EPSILON);
    }

    #[test]
    fn configuration_holds_the_daemon_to_the_bound() {
        let chosen = chosen("OPENAI_API_KEY", true);
        let text = configuration(&chosen).replace("env:OPENAI_API_KEY", "env:PATH");
        let config = Config::parse(&text, std::path::Path::new(".")).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!(config.limits.usd_per_call, chosen.cap);
        assert_eq!(config.limits.usd_per_day, chosen.cap);
        assert_eq!(config.gateway.models[0].retries, 0);
        let names = |config: &Config| (config.gateway.models[0].name.clone(), config.gateway.routes[0].clone());
        let without = Config::parse(&without(), std::path::Path::new(".")).expect("config");
        assert_eq!(names(&without), names(&config));
        assert_eq!(without.gateway.models[0].candidates.len(), 1);
    }

    #[test]
    fn unknown_price_is_reported_and_not_zero() {
        let unknown = Chosen { cap: None, ..chosen("GROQ_API_KEY", false) };
        assert!(cost(&unknown.found, None, need()).contains("unknown"));
        assert!(cost(&unknown.found, Some(0.0), need()).contains("none"));
        assert!(!configuration(&unknown).contains("usd_per"));
    }

    #[test]
    fn endpoint_that_is_not_there_is_an_error_that_names_what_is() {
        let discovery = discovery::discover(&|name| (name == "GROQ_API_KEY").then(|| "k".to_owned()), &Probe::Absent);
        assert!(choose(&discovery, None).expect("any").is_some());
        assert_eq!(choose(&discovery, Some("groq")).expect("named").map(|found| found.name), Some("groq"));
        let error = choose(&discovery, Some("openai")).expect_err("not there").to_string();
        assert_eq!(error, "--endpoint openai: not found; found: groq");
    }
}
