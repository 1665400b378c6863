//! Applies a changed configuration while the daemon runs, and reports the changes that need a restart.
//!
//! Endpoints, models, routes, prices, the default route and the spending limits change at once; requests in flight and
//! pinned variants keep the old ones. Everything else is fixed when the daemon is built, and changes at the next start.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::accounting::ConfigAudit;
use crate::base::metric::Register as _;
use crate::call::config::LimitsConfig;
use crate::config::Config;
use crate::gateway::Gateway;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: &'static str,
}

/// Metrics of reloads.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    reloads: Family<Labels, Counter>,
    valid: Gauge,
    loaded: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reloads: registry.metric("sidetone_config_reloads", "Reloads of the configuration"),
            valid: registry.metric(
                "sidetone_config_valid",
                "1: the newest configuration is in use; 0: it is invalid, and the previous one is in use",
            ),
            loaded: registry.metric(
                "sidetone_config_loaded_timestamp_seconds",
                "When the configuration in use was loaded, Unix time",
            ),
        };
        metrics.loaded();
        metrics
    }

    fn loaded(&self) {
        self.valid.set(1);
        self.loaded.set(crate::base::time::unix_ms() / 1000);
    }

    fn count(&self, outcome: &'static str) {
        self.reloads.get_or_create(&Labels { outcome }).inc();
    }
}

/// The sections that cannot change while the daemon runs, each by name, as they were at the start.
pub(super) struct Sections(Vec<(&'static str, String)>);

impl Sections {
    pub(super) fn of(config: &Config) -> Self {
        // The spending limits can change at run time, so they are left out of the comparison.
        let limits = LimitsConfig { usd_per_call: None, usd_per_day: None, ..config.limits.clone() };
        Self(vec![
            ("server", format!("{:?}", config.server)),
            ("storage", format!("{:?}", config.storage)),
            ("journal", format!("{:?}", config.journal)),
            ("ingest", format!("{:?}", config.ingest)),
            ("subscribe", format!("{:?}", config.subscribe)),
            ("shutdown", format!("{:?}", config.shutdown)),
            ("limits", format!("{limits:?}")),
            ("analyses", format!("{:?}", config.analyses)),
            ("rules", format!("{:?}", config.rules)),
            ("stt", format!("{:?}", config.stt)),
            ("tls", format!("{:?}", config.tls)),
            ("record", format!("{:?}", config.record)),
            ("source", format!("{:?}", config.sources)),
            ("telemetry", format!("{:?}", config.telemetry)),
            ("sink", format!("{:?}", config.sinks)),
        ])
    }

    fn changed(&self, other: &Self) -> Vec<&'static str> {
        let pairs = self.0.iter().zip(&other.0);
        pairs.filter(|(was, is)| was.1 != is.1).map(|(was, _)| was.0).collect()
    }
}

/// Applies configurations.
pub(super) struct Reloader {
    started: Sections,
    gateway: Gateway,
    pub(super) audit: ConfigAudit,
    metrics: Metrics,
}

impl Reloader {
    pub(super) fn new(started: Sections, gateway: Gateway, audit: ConfigAudit, metrics: Metrics) -> Self {
        Self { started, gateway, audit, metrics }
    }

    pub(super) fn take_over(&self, config: &Config) {
        self.gateway.reload(config.gateway.clone());
        match self.audit.spent_today() {
            Ok(spent) => self.gateway.cap(config.limits.usd_per_call, config.limits.usd_per_day, spent),
            Err(error) => tracing::error!(%error, "the spending limits are not changed: the ledger cannot be read"),
        }
        if let Err(error) = self.audit.note_config(&config.gateway) {
            tracing::error!(%error, "the new configuration could not be written to the ledger");
        }
        self.metrics.count("ok");
        self.metrics.loaded();
        tracing::info!("endpoints, models, routes, prices and spending limits were reloaded");
        config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let changed = self.started.changed(&Sections::of(config));
        if !changed.is_empty() {
            tracing::warn!(sections = changed.join(", "), "changes in these sections take effect at the next start");
        }
    }

    pub(super) fn refused(&self) {
        self.metrics.count("refused");
        self.metrics.valid.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn sections_that_need_a_start_are_named() {
        let sections = |text: &str| Sections::of(&Config::parse(text, Path::new(".")).expect("configuration"));
        let plain = sections("");
        let other = sections("[limits]\nusd_per_day = 5\nopen_calls = 7\n[ingest]\nlinger_ms = 1\n");
        assert_eq!(plain.changed(&other), ["ingest", "limits"]);
        let capped = sections(
            "[limits]\nusd_per_day = 5\n[endpoints.a]\nprovider = \"openai\"\n\
             [models.m]\ncandidates = [\"a/x\"]\n",
        );
        assert_eq!(plain.changed(&capped), [""; 0]);
        let sink = |batch: u32| {
            let text = format!("[[sink]]\nkind = \"webhook\"\nname = \"a\"\nurl = \"http://h/\"\nbatch = {batch}\n");
            sections(&text)
        };
        assert_eq!(sink(1).changed(&sink(1)), [""; 0]);
        assert_eq!(sink(1).changed(&sink(2)), ["sink"]);
    }
}
