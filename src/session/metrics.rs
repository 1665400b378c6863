//! Metrics of sessions: turns, insights, jobs. No label contains a call id.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::analysis::Dropped;
use crate::base::metric::Register as _;
use crate::protocol::event::Kind;
use crate::types::{Insight, Severity};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabel {
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnalysisLabel {
    analysis: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabel {
    analysis: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabel {
    analysis: String,
    reason: &'static str,
}

#[derive(Debug, Clone)]
pub struct Metrics {
    events: Family<EventLabel, Counter<u64, AtomicU64>>,
    jobs: Family<JobLabel, Counter<u64, AtomicU64>>,
    stages: Family<StageLabel, Histogram, fn() -> Histogram>,
    degraded: Family<AnalysisLabel, Counter<u64, AtomicU64>>,
    raised: Family<RaisedLabel, Counter<u64, AtomicU64>>,
    cleared: Family<RuleLabel, Counter<u64, AtomicU64>>,
    refused: Family<RuleLabel, Counter<u64, AtomicU64>>,
    skipped: Family<RuleLabel, Counter<u64, AtomicU64>>,
    dropped: Family<DroppedLabel, Counter<u64, AtomicU64>>,
    digests_stopped: Counter<u64, AtomicU64>,
    /// Jobs in progress.
    pub jobs_running: Gauge,
    /// Jobs that wait for a permit.
    pub permits_waiting: Gauge,
    /// Sessions in memory.
    pub sessions: Gauge,
    /// Partials received.
    pub partials: Counter<u64, AtomicU64>,
    /// Vendor messages of a type that their dialect does not know.
    pub unknown_messages: Counter<u64, AtomicU64>,
    /// Errors that STT vendors reported.
    pub vendor_errors: Counter<u64, AtomicU64>,
    /// Turns that made an analysis not due because they add nothing, once for each analysis.
    pub gated: Counter<u64, AtomicU64>,
    /// Sessions that panicked and were rebuilt, or failed.
    pub panics: Counter<u64, AtomicU64>,
    /// Sessions that lost the fence of their call's log to another writer.
    pub fenced: Counter<u64, AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabel {
    rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RaisedLabel {
    rule: String,
    severity: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

fn stage_histogram() -> Histogram {
    // 1 ms to 33 s.
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Metrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            events: registry.metric("sidetone_session_events", "Sequenced events by type"),
            jobs: registry.metric("sidetone_session_jobs", "Jobs ended, by analysis and outcome"),
            stages: registry.add(
                "sidetone_session_insight_seconds",
                "Duration of the steps of an insight",
                Family::new_with_constructor(stage_histogram as fn() -> Histogram),
            ),
            degraded: registry
                .metric("sidetone_session_degraded_insights", "Insights made by the embedded provider as a fallback"),
            raised: registry.metric("sidetone_rules_alerts_raised", "Alerts raised, by rule and severity"),
            cleared: registry.metric("sidetone_rules_alerts_cleared", "Alerts cleared, by rule"),
            refused: registry.metric(
                "sidetone_rules_alerts_refused",
                "Alerts not raised because a call had the maximum number, by rule",
            ),
            skipped: registry.metric("sidetone_rules_skipped_turns", "Turns that a rule was not applied to, by rule"),
            dropped: registry.metric(
                "sidetone_session_dropped_operations",
                "Operations on items in models' answers that could not be carried out, by analysis and reason",
            ),
            digests_stopped: registry.metric(
                "sidetone_session_digests_stopped",
                "Calls that stopped making digests for five minutes after three failures in a row",
            ),
            jobs_running: registry.metric("sidetone_session_jobs_running", "Jobs in progress"),
            permits_waiting: registry.metric("sidetone_session_permits_waiting", "Jobs that wait for a permit"),
            sessions: registry.metric("sidetone_session_sessions", "Sessions in memory"),
            partials: registry.metric("sidetone_session_partials", "Partials received"),
            unknown_messages: registry
                .metric("sidetone_session_unknown_messages", "Vendor messages of an unknown type"),
            vendor_errors: registry.metric("sidetone_session_vendor_errors", "Errors that STT vendors reported"),
            gated: registry.metric(
                "sidetone_session_gated",
                "Turns that did not make an analysis due because they add nothing, counted once per analysis",
            ),
            panics: registry.metric("sidetone_session_panics", "Sessions that panicked"),
            fenced: registry.metric(
                "sidetone_session_fenced",
                "Sessions that ended because another writer took over the call's log",
            ),
        }
    }

    /// Counts an event of the type `kind`, and what the insight contains if it is one.
    pub fn event(&self, kind: Kind, insight: Option<&Insight>) {
        self.events.get_or_create(&EventLabel { r#type: kind.as_str() }).inc();
        if let Some(insight) = insight {
            let latency = &insight.latency_ms;
            let stages = [
                ("debounce", Some(latency.debounce)),
                ("queue", Some(latency.queue)),
                ("first_token", latency.first_token),
                ("model", Some(latency.model)),
                ("total", Some(latency.total)),
            ];
            for (stage, ms) in stages {
                if let Some(ms) = ms {
                    #[expect(clippy::cast_precision_loss, reason = "a histogram of ms")]
                    let seconds = ms as f64 / 1000.0;
                    self.stages.get_or_create(&StageLabel { stage }).observe(seconds);
                }
            }
            if insight.degraded {
                self.degraded.get_or_create(&AnalysisLabel { analysis: insight.analysis.clone() }).inc();
            }
        }
    }

    /// Counts an alert that was raised.
    pub fn alert_raised(&self, rule: &str, severity: Severity) {
        let labels = RaisedLabel { rule: rule.to_owned(), severity: severity.as_str() };
        self.raised.get_or_create(&labels).inc();
    }

    /// Counts an alert that was cleared.
    pub fn alert_cleared(&self, rule: &str) {
        self.cleared.get_or_create(&RuleLabel { rule: rule.to_owned() }).inc();
    }

    /// Counts an alert that was not raised because its call had too many.
    pub fn alert_refused(&self, rule: &str) {
        self.refused.get_or_create(&RuleLabel { rule: rule.to_owned() }).inc();
    }

    /// Counts a turn to which a rule was not applied because that would exceed a limit on work.
    pub fn rule_skipped(&self, rule: &str) {
        self.skipped.get_or_create(&RuleLabel { rule: rule.to_owned() }).inc();
    }

    /// Counts operations on a list that were invalid and were left out.
    pub fn dropped(&self, analysis: &str, dropped: &Dropped) {
        for (reason, operations) in dropped.iter() {
            self.dropped.get_or_create(&DroppedLabel { analysis: analysis.to_owned(), reason }).inc_by(operations);
        }
    }

    /// Counts a call that stops making digests. Single failures are counted as jobs.
    pub fn digest_failed(&self, stops: bool) {
        self.digests_stopped.inc_by(u64::from(stops));
    }

    /// Counts a job's end.
    pub fn job(&self, analysis: &str, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        self.jobs.get_or_create(&JobLabel { analysis: analysis.to_owned(), outcome }).inc();
    }
}
