//! The gateway's metrics, by endpoint, model, route and variant. A call id is never a label.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::price::usd;
use crate::base::metric::Register as _;
use crate::base::queue::{QueueGauges, QueueMetrics};
use crate::base::sync::lock;
use crate::types::{AttemptBegun, AttemptDone, Outcome};

/// Label of the queues before the endpoints.
const QUEUE: &str = "gateway";

type Counters<L> = Family<L, Counter<u64, AtomicU64>>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The gateway's metrics. Cheap to clone; clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    meters: Arc<Mutex<HashMap<Place, Arc<Meters>>>>,
    attempts: Counters<OutcomeLabels>,
    inflight: Family<AttemptLabels, Gauge>,
    first_token: Histograms<AttemptLabels>,
    duration: Histograms<AttemptLabels>,
    tokens: Counters<TokenLabels>,
    pub(in crate::gateway) implausible: Counters<EndpointLabels>,
    pub(in crate::gateway) cache_missed: Counters<EndpointLabels>,
    cost: Family<AttemptLabels, Counter<f64, AtomicU64>>,
    pub(in crate::gateway) breakers_opened: Counters<EndpointLabels>,
    breakers: Family<BreakerLabels, Gauge>,
    hedges: Counters<HedgeLabels>,
    shifts: Counters<ShiftLabels>,
    waits: Histograms<EndpointLabels>,
    /// The queues before the endpoints, all together.
    pub(in crate::gateway) queue: QueueGauges,
    listings: Counters<ListingLabels>,
    listed: Family<EndpointLabels, Gauge>,
    retires: Family<ModelLabels, Gauge>,
    /// Money that budgets hold for attempts in progress, US dollars.
    pub(in crate::gateway) reserved: Gauge<f64, AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListingLabels {
    endpoint: Arc<str>,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    endpoint: Arc<str>,
    vendor_model: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(in crate::gateway) struct AttemptLabels {
    endpoint: Arc<str>,
    model: Arc<str>,
    route: Arc<str>,
    variant: Arc<str>,
}

/// Addresses of the labels' texts: the same for every attempt of one variant at one endpoint.
type Place = [usize; 4];

/// The metrics of attempts with the same labels: each is looked up once, and only when there is something to count.
#[derive(Debug)]
pub(in crate::gateway) struct Meters {
    /// Keeps the texts at their addresses.
    labels: AttemptLabels,
    inflight: Gauge,
    duration: Histogram,
    first_token: OnceLock<Histogram>,
    cost: OnceLock<Counter<f64, AtomicU64>>,
    tokens: [OnceLock<Counter<u64, AtomicU64>>; KINDS.len()],
    succeeded: OnceLock<Counter<u64, AtomicU64>>,
}

/// Kinds of tokens, in the order of [`Meters::tokens`].
const KINDS: [&str; 5] = ["input", "cached", "cache_write", "output", "reasoning"];
/// Maximum number of meters kept; when it is reached, all are dropped. Those of a pass-through name serve one request
/// only.
const MAX_METERS: usize = 1024;

impl AttemptLabels {
    pub(in crate::gateway) fn new(begun: &AttemptBegun) -> Self {
        Self {
            endpoint: Arc::clone(&begun.endpoint),
            model: Arc::clone(&begun.model),
            route: Arc::clone(&begun.route),
            variant: Arc::clone(&begun.variant),
        }
    }

    fn place(&self) -> Place {
        [&self.endpoint, &self.model, &self.route, &self.variant].map(|text| text.as_ptr().addr())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    endpoint: Arc<str>,
    model: Arc<str>,
    route: Arc<str>,
    variant: Arc<str>,
    outcome: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    endpoint: Arc<str>,
    model: Arc<str>,
    route: Arc<str>,
    variant: Arc<str>,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(in crate::gateway) struct EndpointLabels {
    pub(in crate::gateway) endpoint: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BreakerLabels {
    endpoint: Arc<str>,
    model: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HedgeLabels {
    endpoint: Arc<str>,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShiftLabels {
    endpoint: Arc<str>,
    cause: &'static str,
}

fn seconds() -> Histogram {
    // 1 ms to 65 s.
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

/// Metrics that are not registered anywhere.
impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let queues = QueueMetrics::register(&mut registry);
        Self::register(&mut registry, &queues)
    }
}

impl Metrics {
    /// Registers all metrics; those of the queue are part of `queues`.
    pub fn register(registry: &mut Registry, queues: &QueueMetrics) -> Self {
        Self {
            meters: Arc::default(),
            attempts: registry.metric("sidetone_gateway_attempts", "HTTP calls to LLM endpoints that ended"),
            inflight: registry.metric("sidetone_gateway_inflight_attempts", "HTTP calls in progress"),
            reserved: registry.metric(
                "sidetone_gateway_reserved_usd",
                "Money that usd_per_call and usd_per_day reserve for attempts in progress, US dollars",
            ),
            first_token: registry.add(
                "sidetone_gateway_first_token_seconds",
                "From the request to the first token",
                Family::new_with_constructor(seconds as fn() -> Histogram),
            ),
            duration: registry.add(
                "sidetone_gateway_duration_seconds",
                "From the request to its end",
                Family::new_with_constructor(seconds as fn() -> Histogram),
            ),
            tokens: registry.metric("sidetone_gateway_tokens", "Tokens as the vendors counted them"),
            implausible: registry.metric(
                "sidetone_gateway_implausible_counts",
                "Token counts over 10^9 in vendors' answers, treated as unknown",
            ),
            cache_missed: registry.metric(
                "sidetone_gateway_prompt_cache_misses",
                "Prompts that began like the previous one, but of which the vendor's prompt cache had fewer tokens",
            ),
            cost: registry.metric("sidetone_gateway_cost_dollars", "US dollars, of the attempts whose cost is known"),
            breakers_opened: registry
                .metric("sidetone_gateway_breakers_opened", "How often an endpoint's circuit breaker opened"),
            listings: registry.metric("sidetone_gateway_model_lists", "Reads of a vendor's list of models, by outcome"),
            listed: registry.metric("sidetone_gateway_listed_models", "Models in the newest list"),
            retires: registry.metric(
                "sidetone_gateway_model_retires_timestamp_seconds",
                "When a configured model will be retired, Unix time",
            ),
            breakers: registry.metric(
                "sidetone_gateway_breaker_state",
                "Circuit breakers that were ever open: 0 closed, 1 half open, 2 open",
            ),
            hedges: registry.metric(
                "sidetone_gateway_hedges",
                "Requests to a slow endpoint, by outcome of the hedge: won, lost, failed, refused (not allowed)",
            ),
            shifts: registry
                .metric("sidetone_gateway_shifts", "Candidates that were passed over without being asked, by cause"),
            waits: registry.add(
                "sidetone_gateway_wait_seconds",
                "Waits for an endpoint's concurrency or rate that were granted",
                Family::new_with_constructor(seconds as fn() -> Histogram),
            ),
            queue: queues.queue(QUEUE),
        }
    }

    /// Counts the reading of a list, with its number of models; `None` if it could not be read.
    pub(in crate::gateway) fn listed(&self, endpoint: &Arc<str>, models: Option<usize>) {
        let outcome = if models.is_some() { "ok" } else { "failed" };
        self.listings.get_or_create(&ListingLabels { endpoint: Arc::clone(endpoint), outcome }).inc();
        if let Some(models) = models {
            let labels = EndpointLabels { endpoint: Arc::clone(endpoint) };
            self.listed.get_or_create(&labels).set(i64::try_from(models).unwrap_or(i64::MAX));
        }
    }

    /// Sets when a configured model is retired, Unix ms.
    pub(in crate::gateway) fn retires(&self, endpoint: &Arc<str>, vendor_model: &Arc<str>, retires_ms: i64) {
        let labels = ModelLabels { endpoint: Arc::clone(endpoint), vendor_model: Arc::clone(vendor_model) };
        self.retires.get_or_create(&labels).set(retires_ms / 1000);
    }

    /// Sets the state of the circuit breaker of an endpoint's model: 0 closed, 1 half open, 2 open.
    pub(in crate::gateway) fn breaker(&self, endpoint: &Arc<str>, vendor_model: &Arc<str>, state: i64) {
        let labels = BreakerLabels { endpoint: Arc::clone(endpoint), model: Arc::clone(vendor_model) };
        self.breakers.get_or_create(&labels).set(state);
    }

    /// Counts a slow endpoint's request by the outcome of its hedge: `won`, `lost`, `failed`, `refused`.
    pub(in crate::gateway) fn hedge(&self, endpoint: &Arc<str>, outcome: &'static str) {
        self.hedges.get_or_create(&HedgeLabels { endpoint: Arc::clone(endpoint), outcome }).inc();
    }

    /// Counts a candidate that was not asked, by cause.
    pub(in crate::gateway) fn passed_over(&self, endpoint: &Arc<str>, cause: &'static str) {
        self.shifts.get_or_create(&ShiftLabels { endpoint: Arc::clone(endpoint), cause }).inc();
    }

    /// Counts this many implausible token counts in an answer.
    pub(in crate::gateway) fn implausible(&self, endpoint: &Arc<str>, counts: u64) {
        self.implausible.get_or_create(&EndpointLabels { endpoint: Arc::clone(endpoint) }).inc_by(counts);
    }

    /// Counts a prompt of which the vendor's prompt cache had less than the request before wrote.
    pub(in crate::gateway) fn cache_missed(&self, endpoint: &Arc<str>) {
        self.cache_missed.get_or_create(&EndpointLabels { endpoint: Arc::clone(endpoint) }).inc();
    }

    /// Records a wait for a slot or a rate that was granted.
    pub(in crate::gateway) fn waited(&self, endpoint: &Arc<str>, waited: Duration) {
        self.waits.get_or_create(&EndpointLabels { endpoint: Arc::clone(endpoint) }).observe(waited.as_secs_f64());
    }

    /// Counts an attempt as in progress until [`Metrics::done`].
    pub(in crate::gateway) fn begun(&self, labels: AttemptLabels) -> Arc<Meters> {
        let place = labels.place();
        let mut known = lock(&self.meters);
        let meters = match known.get(&place) {
            Some(meters) => Arc::clone(meters),
            None => {
                if known.len() >= MAX_METERS {
                    known.clear();
                }
                let meters = Arc::new(Meters {
                    inflight: self.inflight.get_or_create_owned(&labels),
                    duration: self.duration.get_or_create_owned(&labels),
                    first_token: OnceLock::new(),
                    cost: OnceLock::new(),
                    tokens: Default::default(),
                    succeeded: OnceLock::new(),
                    labels,
                });
                known.insert(place, Arc::clone(&meters));
                meters
            }
        };
        drop(known);
        meters.inflight.inc();
        meters
    }

    /// Records the end of an attempt.
    pub(in crate::gateway) fn done(&self, meters: &Meters, done: &AttemptDone) {
        let labels = &meters.labels;
        meters.inflight.dec();
        #[expect(clippy::cast_precision_loss, reason = "a histogram needs no exact values")]
        let seconds = |us: u64| us as f64 / 1e6;
        meters.duration.observe(seconds(done.total_us));
        if let Some(us) = done.first_token_us {
            let first_token = || self.first_token.get_or_create_owned(labels);
            meters.first_token.get_or_init(first_token).observe(seconds(us));
        }
        if let Some(pico) = done.cost_pico {
            meters.cost.get_or_init(|| self.cost.get_or_create_owned(labels)).inc_by(usd(pico));
        }
        let AttemptLabels { endpoint, model, route, variant } = labels;
        let counts = [done.input, done.cached, done.cache_write, done.output, done.reasoning];
        for ((kind, counter), tokens) in KINDS.iter().zip(&meters.tokens).zip(counts) {
            let Some(tokens) = tokens else { continue };
            let counter = counter.get_or_init(|| {
                let (endpoint, model) = (Arc::clone(endpoint), Arc::clone(model));
                let (route, variant) = (Arc::clone(route), Arc::clone(variant));
                self.tokens.get_or_create_owned(&TokenLabels { endpoint, model, route, variant, kind })
            });
            counter.inc_by(tokens);
        }
        let ended = || {
            let (endpoint, model) = (Arc::clone(endpoint), Arc::clone(model));
            let (route, variant) = (Arc::clone(route), Arc::clone(variant));
            let (outcome, code) = (done.outcome.as_str(), done.code.unwrap_or_default());
            self.attempts.get_or_create_owned(&OutcomeLabels { endpoint, model, route, variant, outcome, code })
        };
        if done.outcome == Outcome::Ok && done.code.is_none() {
            meters.succeeded.get_or_init(ended).inc();
        } else {
            ended().inc();
        }
    }
}

#[cfg(test)]
mod tests;
