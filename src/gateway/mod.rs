//! The LLM gateway: resolves a name to a model and a model to its endpoints, and sends a request to one endpoint after
//! the other until one answers.
//!
//! It has five parts, each of which knows only those before it: [`admission`], [`transport`], [`catalogue`],
//! [`attempt`], [`schedule`]. Knows no client's protocol and no session. Callers ask with [`Gateway::complete`] and
//! [`Gateway::stream`]. Reports every HTTP request that it makes to a [`Recorder`].

mod admission;
mod answer;
mod attempt;
mod catalogue;
mod code;
mod error;
pub mod exchanges;
mod metrics;
pub mod price;
mod recorder;
mod request;
mod schedule;
pub mod transcript;
pub mod transport;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

pub use admission::budget::{Budget, SpentByCall, UNKNOWN_SPENT};
pub use admission::limiter::Limits;
pub use answer::{Answer, Delta, Deltas, Provenance};
pub use attempt::decoding::Frame;
pub use catalogue::config::{self, Config};
pub use catalogue::model_list::{EndpointEntry, ModelEntry};
pub use catalogue::resolved::Resolved;
pub use code::Code;
pub use error::{AttemptFailure, GatewayError};
pub use metrics::Metrics;
pub use recorder::Recorder;
pub use request::{Fallback, MakeTranscript, Origin, Part, Request};
pub use schedule::stream::Stream;

use self::catalogue::discovery::Discovery;
use self::catalogue::model_list;
use self::catalogue::names::Catalogue;
use self::exchanges::Exchanges;
use self::schedule::fallbacks;
use self::schedule::shared::Shared;
use self::transport::client::Client;

/// Handle to the gateway; clones share its state.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    catalogue: ArcSwap<Catalogue>,
    shared: Shared,
    /// Notified when [`Gateway::reload`] has replaced the catalogue.
    reloaded: Notify,
}

impl Gateway {
    /// Creates a gateway from a validated configuration, without a recorder and without a budget.
    ///
    /// # Errors
    /// None at present; reserved for a catalogue that cannot be built.
    pub fn new(config: Config, metrics: Metrics) -> Result<Self, GatewayError> {
        Ok(Self::build(config, metrics, None, None, None))
    }

    /// Like [`Gateway::new`], but reports every attempt to `recorder` and enforces `budget`.
    ///
    /// # Errors
    /// As [`Gateway::new`].
    pub fn recorded(
        config: Config,
        metrics: Metrics,
        recorder: Arc<dyn Recorder>,
        budget: Option<Budget>,
    ) -> Result<Self, GatewayError> {
        Ok(Self::build(config, metrics, Some(recorder), budget, None))
    }

    /// A gateway for calls that are not live: results come from `exchanges` or are recorded there, and nowhere else.
    pub fn offline(config: Config, metrics: Metrics, budget: Budget, exchanges: Arc<Exchanges>) -> Self {
        Self::build(config, metrics, None, Some(budget), Some(exchanges))
    }

    fn build(
        config: Config,
        metrics: Metrics,
        recorder: Option<Arc<dyn Recorder>>,
        budget: Option<Budget>,
        exchanges: Option<Arc<Exchanges>>,
    ) -> Self {
        let catalogue = Catalogue::new(config, None);
        catalogue.show(&metrics.queue);
        let shared = Shared {
            client: Client::default(),
            budget: budget.map(|budget| Arc::new(budget.metered(metrics.reserved.clone()))),
            metrics: Arc::new(metrics),
            recorder,
            validators: Arc::default(),
            exchanges,
        };
        Self { inner: Arc::new(Inner { catalogue: ArcSwap::from_pointee(catalogue), shared, reloaded: Notify::new() }) }
    }

    /// Replaces the catalogue. Requests in flight, and what callers have resolved before, keep the old one.
    pub fn reload(&self, config: Config) {
        let catalogue = Arc::new(Catalogue::new(config, Some(&self.inner.catalogue.load())));
        catalogue.show(&self.inner.shared.metrics.queue);
        self.inner.catalogue.store(Arc::clone(&catalogue));
        self.inner.shared.client.retain(|uid| catalogue.has_endpoint(uid));
        self.inner.reloaded.notify_one();
    }

    /// Replaces the spending limits, in US dollars. `spent_today` is the amount spent since the start of the UTC day,
    /// in pico-dollars. Does nothing if the gateway was built without a budget.
    pub fn cap(&self, usd_per_call: Option<f64>, usd_per_day: Option<f64>, spent_today: i64) {
        if let Some(budget) = &self.inner.shared.budget {
            budget.cap(usd_per_call, usd_per_day, spent_today);
        }
    }

    /// Sets the amount spent today, in pico-dollars, once it is known; until then [`UNKNOWN_SPENT`] is used.
    pub fn learn_spent(&self, today: i64) {
        if let Some(budget) = &self.inner.shared.budget {
            budget.learn(today);
        }
    }

    /// Resolves a name, in this order: a route (its variant chosen by weighted rendezvous hashing over the route,
    /// `sticky_key` and the variants' names), a logical model, `endpoint/vendor-model`, a bare vendor id, then
    /// `catch_all_route`.
    ///
    /// # Errors
    /// `model_not_found`; the message lists the configured names.
    pub fn resolve(&self, target: &str, sticky_key: &str) -> Result<Arc<Resolved>, GatewayError> {
        self.inner.catalogue.load().resolve(target, sticky_key)
    }

    /// Like [`Gateway::resolve`], for an analysis that has chosen a variant before: keeps `variant` while the route has
    /// it, and falls back to `default_route` instead of `catch_all_route`.
    ///
    /// # Errors
    /// As [`Gateway::resolve`].
    pub fn resolve_pinned(
        &self,
        target: &str,
        sticky_key: &str,
        variant: Option<&str>,
    ) -> Result<Arc<Resolved>, GatewayError> {
        self.inner.catalogue.load().resolve_pinned(target, sticky_key, variant)
    }

    /// Checks that `route` has the variant.
    ///
    /// # Errors
    /// A message for people that lists what exists.
    pub fn check_variant(&self, route: &str, variant: &str) -> Result<(), String> {
        self.inner.catalogue.load().check_variant(route, variant)
    }

    /// The name that an analysis asks: its own `route`, a route of its name, the default route, the only model, or
    /// `local`.
    pub fn target(&self, analysis: &str, route: Option<&str>) -> String {
        self.inner.catalogue.load().analysis_target(analysis, route)
    }

    /// The embedded provider.
    pub fn local(&self) -> Arc<Resolved> {
        Arc::clone(self.inner.catalogue.load().local())
    }

    /// Every name that can be listed: routes, models, and vendor models that are configured or in a vendor's list.
    pub fn models(&self) -> Vec<ModelEntry> {
        model_list::all(&self.inner.catalogue.load())
    }

    /// Every configured name that [`Gateway::resolve`] accepts, for messages.
    pub fn names(&self) -> Vec<String> {
        self.inner.catalogue.load().names()
    }

    /// Asks for a whole answer.
    ///
    /// # Errors
    /// The request is invalid, or no model gave a usable answer within the deadline.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the request upstream; its attempt is reported as aborted.
    pub async fn complete(&self, request: Request) -> Result<Answer, GatewayError> {
        fallbacks::complete(&self.inner.shared, &self.inner.catalogue.load_full(), request).await
    }

    /// Asks for a stream. Returns at the commit point: the first token has arrived, and no other model can take over any
    /// more. Sets `answering` once a vendor has sent a successful response header: from then on the caller is waiting for
    /// a model that is thinking, although another candidate may still take over.
    ///
    /// # Errors
    /// As [`Gateway::complete`].
    ///
    /// # Cancel safety
    /// As [`Gateway::complete`]; dropping the stream also aborts the request.
    pub async fn stream(&self, request: Request, answering: &AtomicBool) -> Result<Stream, GatewayError> {
        fallbacks::open(&self.inner.shared, &self.inner.catalogue.load_full(), request, answering).await
    }

    /// Reads the lists of all endpoints with `discover` whenever they are due, and warns about configured models that
    /// will be retired, until `stop` is cancelled. No request waits for it.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the reads in progress.
    pub async fn keep_listings(self, stop: CancellationToken) {
        loop {
            let round = async {
                let catalogue = self.inner.catalogue.load_full();
                let discovery = self.discovery();
                discovery.refresh(&catalogue, false).await;
                discovery.warn_of_retirements(&catalogue);
                sleep_until(Discovery::next(&catalogue)).await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.inner.reloaded.notified() => {}
                () = round => {}
            }
        }
    }

    /// Reads all lists now, due or not.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the reads in progress.
    pub async fn list_now(&self) {
        self.discovery().refresh(&self.inner.catalogue.load_full(), true).await;
    }

    /// Estimated memory of the cache of compiled schemas, bytes.
    pub fn schema_cache_bytes(&self) -> u64 {
        self.inner.shared.validators.bytes()
    }

    /// Every endpoint, with the state of its list.
    pub fn endpoints(&self) -> Vec<EndpointEntry> {
        self.inner.catalogue.load().endpoints().iter().map(|endpoint| EndpointEntry::of(endpoint)).collect()
    }

    fn discovery(&self) -> Discovery<'_> {
        let Shared { client, metrics, recorder, .. } = &self.inner.shared;
        Discovery { client, metrics, recorder: recorder.as_ref() }
    }
}

#[cfg(test)]
pub(crate) mod tests;
