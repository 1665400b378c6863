//! Endpoints at run time, and what was learned about each of their models. A reload that leaves an endpoint's name,
//! address, provider and key unchanged keeps what was learned.
//!
//! Knows no names that can be asked except the vendors' own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::config::EndpointConfig;
use super::listing::Listings;
use super::prompt_cache::{Miss, Planned, Prefixes};
use super::token_ratio::TokenRatio;
use crate::base::sync::lock;
use crate::base::tokens::Ratio;
use crate::gateway::admission::budget::Pricing;
use crate::gateway::admission::circuit_breaker::CircuitBreaker;
use crate::gateway::admission::latency::{HedgeAllowance, LatencyTracker};
use crate::gateway::admission::limiter::Limiter;
use crate::gateway::admission::vendor_limits::VendorLimits;
use crate::gateway::error::Failure;
use crate::gateway::price::Price;
use crate::gateway::transport::destination::Destination;
use crate::llm::models::Traits;
use crate::llm::{Call, ChatRequest, Marks, PromptCache, SchemaMode, Unsupported, Wire};

/// Maximum number of models whose state is kept.
const MAX_MODELS_KEPT: usize = 4096;

/// A model of an endpoint, and what was learned about it.
#[derive(Debug)]
pub(in crate::gateway) struct EndpointModel {
    pub(in crate::gateway) endpoint: Arc<Endpoint>,
    pub(in crate::gateway) vendor_model: Arc<str>,
    pub(in crate::gateway) breaker: Arc<CircuitBreaker>,
    /// The limits that the vendor reports.
    pub(in crate::gateway) vendor_limits: Arc<VendorLimits>,
    pub(in crate::gateway) latency: Arc<LatencyTracker>,
    prefixes: Arc<Prefixes>,
    token_ratio: Arc<TokenRatio>,
    learned: Arc<Learned>,
}

/// Facts learned from a model's answers.
#[derive(Debug)]
struct Learned {
    schema_step: AtomicU8,
    /// Set once the best schema mode has given an answer here: a later server error is not caused by that mode.
    schema_proven: AtomicBool,
    /// Set once a lesser mode worked right after a server error.
    schema_doubted: AtomicBool,
    /// Set if the model thinks without an opening tag, because its prompt template contains the tag.
    thinks_unmarked: AtomicBool,
    /// Highest cost of an attempt so far, pico-dollars; negative before the first whose cost is known.
    highest_cost: AtomicI64,
}

impl Default for Learned {
    fn default() -> Self {
        Self {
            schema_step: AtomicU8::new(0),
            schema_proven: AtomicBool::new(false),
            schema_doubted: AtomicBool::new(false),
            thinks_unmarked: AtomicBool::new(false),
            highest_cost: AtomicI64::new(-1),
        }
    }
}

impl EndpointModel {
    fn new(endpoint: &Arc<Endpoint>, vendor_model: Arc<str>) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            vendor_model,
            breaker: Arc::default(),
            vendor_limits: Arc::default(),
            latency: Arc::default(),
            prefixes: Arc::default(),
            token_ratio: Arc::default(),
            learned: Arc::default(),
        }
    }

    /// The model after a reload of its endpoint. What its answers have shown is forgotten if `structured_output`
    /// changed.
    fn after_reload(&self, endpoint: &Arc<Endpoint>) -> Self {
        let as_before = endpoint.config.structured_output == self.endpoint.config.structured_output;
        Self {
            endpoint: Arc::clone(endpoint),
            vendor_model: Arc::clone(&self.vendor_model),
            breaker: Arc::clone(&self.breaker),
            vendor_limits: Arc::clone(&self.vendor_limits),
            latency: Arc::clone(&self.latency),
            prefixes: Arc::clone(&self.prefixes),
            token_ratio: Arc::clone(&self.token_ratio),
            learned: if as_before { Arc::clone(&self.learned) } else { Arc::default() },
        }
    }

    /// Returns true if the model is known to think without an opening tag.
    pub(in crate::gateway) fn thinks_unmarked(&self) -> bool {
        self.learned.thinks_unmarked.load(Ordering::Relaxed)
    }

    /// Remembers whether the newest answer thought without an opening tag.
    pub(in crate::gateway) fn learn_thinking(&self, unmarked: bool) {
        self.learned.thinks_unmarked.store(unmarked, Ordering::Relaxed);
    }

    /// What is known of the cost of an attempt at `now_ms`; `None` if no price is known.
    pub(in crate::gateway) fn pricing(&self, now_ms: i64) -> Option<Pricing> {
        Some(Pricing { price: self.price(now_ms)?, ratio: self.token_ratio(), highest: self.highest_cost() })
    }

    /// How the model counts tokens, as far as it is known.
    pub(in crate::gateway) fn token_ratio(&self) -> Ratio {
        self.token_ratio.current()
    }

    /// Estimated tokens of a prompt that is about to be sent, if the vendor's count is to be passed to
    /// [`EndpointModel::learn_tokens`].
    pub(in crate::gateway) fn sample_tokens(&self, request: &ChatRequest) -> Option<u64> {
        self.token_ratio.sample(request)
    }

    /// Corrects the model's token ratio: the vendor counted `reported` tokens in a prompt with `estimated` tokens.
    pub(in crate::gateway) fn learn_tokens(&self, estimated: u64, reported: u64) {
        self.token_ratio.learn(estimated, reported);
    }

    /// Highest cost of an attempt so far, in pico-dollars; `None` before the first whose cost is known.
    pub(in crate::gateway) fn highest_cost(&self) -> Option<i64> {
        Some(self.learned.highest_cost.load(Ordering::Relaxed)).filter(|cost| *cost >= 0)
    }

    /// Reports the cost of an attempt, in pico-dollars.
    pub(in crate::gateway) fn learn_cost(&self, cost: i64) {
        self.learned.highest_cost.fetch_max(cost, Ordering::Relaxed);
    }

    /// The price in effect at `now_ms`.
    pub(in crate::gateway) fn price(&self, now_ms: i64) -> Option<Price> {
        self.endpoint.price(&self.vendor_model, now_ms)
    }

    /// The known capabilities of the model.
    pub(in crate::gateway) fn traits(&self) -> Traits {
        self.endpoint.traits(&self.vendor_model)
    }

    /// Withholds a message that repeats the endpoint's key, in whole or in part, plain or encoded: vendors may echo it.
    pub(in crate::gateway) fn redact(&self, mut failure: Failure) -> Failure {
        let auth = &self.endpoint.destination.auth;
        if auth.as_ref().is_some_and(|auth| auth.is_repeated_in(&failure.message)) {
            failure.message = "(the vendor's message is withheld: it repeats the key)".to_owned();
        }
        failure
    }

    /// The prompt cache of the model, as the vendor documents it; configured values take precedence.
    fn prompt_cache(&self, now_ms: i64) -> Option<PromptCache> {
        let traits = self.traits();
        let documented = self.endpoint.config.provider.prompt_cache(&self.vendor_model);
        let mut cache = match (documented, traits.cache_floor_tokens) {
            (Some(cache), floor) => PromptCache { floor_tokens: floor.unwrap_or(cache.floor_tokens), ..cache },
            (None, Some(floor_tokens)) => PromptCache { floor_tokens, ..PromptCache::IMPLICIT },
            (None, None) => return None,
        };
        cache.ttl_ms = traits.cache_ttl_ms.unwrap_or(cache.ttl_ms);
        if let Some(price) = self.price(now_ms) {
            cache.apply_prices(price.input, price.cached, price.cache_write);
        }
        (cache.ttl_ms > 0).then_some(cache)
    }

    /// Plans how a request uses the model's prompt cache; `None` if the model has none, or the request shares no
    /// prefix.
    pub(in crate::gateway) fn plan_caching(
        &self,
        request: &ChatRequest,
        question: Option<&str>,
        now_ms: i64,
    ) -> Option<Planned> {
        request.caching.as_ref()?;
        let cache = self.prompt_cache(now_ms)?;
        self.prefixes.plan(&cache, request, question.unwrap_or_default(), Instant::now())
    }

    /// Records what the vendor's response says about the prompt cache.
    pub(in crate::gateway) fn learn_caching(
        &self,
        planned: Planned,
        cached: Option<u64>,
        written: Option<u64>,
    ) -> Option<Miss> {
        self.prefixes.learn(planned, cached, written)
    }

    /// Encodes the request in the vendor's format.
    pub(in crate::gateway) fn encode(
        &self,
        request: &ChatRequest,
        schema_mode: SchemaMode,
        marks: Marks,
    ) -> Result<Wire, Unsupported> {
        let call = Call {
            model: &self.vendor_model,
            stream: request.stream,
            schema_mode,
            api_version: self.endpoint.config.api_version.as_deref(),
            marks,
        };
        self.endpoint.config.provider.encode(request, &call)
    }

    /// The schema modes left to try here, best first: without those that are known not to work.
    pub(in crate::gateway) fn schema_modes(&self) -> &'static [SchemaMode] {
        let modes = self.endpoint.schema_modes;
        let lacks = modes.first() == Some(&SchemaMode::JsonSchema) && self.traits().json_schema == Some(false);
        let step = usize::from(self.learned.schema_step.load(Ordering::Relaxed)).max(usize::from(lacks));
        let step = step.min(modes.len().saturating_sub(1));
        &modes[step..]
    }

    /// Records that the best mode that is left has given an answer.
    pub(in crate::gateway) fn prove_schema_mode(&self) {
        self.learned.schema_proven.store(true, Ordering::Relaxed);
        self.learned.schema_doubted.store(false, Ordering::Relaxed);
    }

    /// Returns true if a server error may still be the vendor's way to refuse the mode, as it is with some servers.
    pub(in crate::gateway) fn schema_mode_in_question(&self) -> bool {
        !self.learned.schema_proven.load(Ordering::Relaxed)
    }

    /// Records that a lesser mode worked after a server error. Returns true if that happened before, so that it is no
    /// coincidence.
    pub(in crate::gateway) fn doubt_schema_mode(&self) -> bool {
        self.learned.schema_doubted.swap(true, Ordering::Relaxed)
    }

    /// Records that a lesser mode, used after a server error, gave an unusable answer.
    pub(in crate::gateway) fn trust_schema_mode(&self) {
        self.learned.schema_doubted.store(false, Ordering::Relaxed);
    }

    /// Records that a lesser mode worked where the better ones did not.
    pub(in crate::gateway) fn learn_schema_mode(&self, mode: SchemaMode) {
        let step = self.endpoint.schema_modes.iter().position(|known| *known == mode).unwrap_or(0);
        self.learned.schema_step.store(u8::try_from(step).unwrap_or(0), Ordering::Relaxed);
    }
}

/// A configured endpoint.
#[derive(Debug)]
pub(in crate::gateway) struct Endpoint {
    /// Identifies its connection pools and what was learned of its models; kept over a reload that leaves name,
    /// address, provider and key unchanged.
    pub(in crate::gateway) uid: u64,
    pub(in crate::gateway) name: Arc<str>,
    pub(in crate::gateway) config: EndpointConfig,
    /// Where the endpoint's requests go.
    pub(in crate::gateway) destination: Destination,
    pub(in crate::gateway) limiter: Arc<Limiter>,
    /// Limits how many of its requests are hedged.
    pub(in crate::gateway) hedges: HedgeAllowance,
    /// The vendor's list of models.
    pub(in crate::gateway) listings: Arc<Listings>,
    schema_modes: &'static [SchemaMode],
}

impl Endpoint {
    /// Creates an endpoint from its configuration. Takes over what still applies from an endpoint in `previous` with
    /// the same name, address and provider.
    pub(in crate::gateway) fn new(config: EndpointConfig, previous: &[Arc<Self>]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let schema_modes = match config.structured_output {
            None => config.provider.schema_modes(),
            Some(SchemaMode::JsonSchema) => &[SchemaMode::JsonSchema],
            Some(SchemaMode::JsonObject) => &[SchemaMode::JsonObject],
            Some(SchemaMode::Prompt) => &[SchemaMode::Prompt],
        };
        let same = |known: &&Arc<Self>| {
            *known.name == *config.name
                && known.config.base_url == config.base_url
                && known.config.provider.name() == config.provider.name()
        };
        let before = previous.iter().find(same);
        // What was learned with another key may not hold for this one.
        let key = |config: &EndpointConfig| config.key.as_ref().map(|key| key.value.expose_secret().to_owned());
        let kept = before.filter(|before| key(&before.config) == key(&config));
        // The counts of the current minute and the queue continue over a reload.
        let same_limits = before.filter(|before| before.config.limits == config.limits);
        let limiter = same_limits.map(|before| Arc::clone(&before.limiter));
        let before = before.filter(|_| config.discover.is_some());
        let uid = kept.map_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed), |kept| kept.uid);
        Self {
            uid,
            name: Arc::from(config.name.as_str()),
            destination: Destination {
                id: uid,
                base_url: config.base_url.clone(),
                headers: config.headers.clone(),
                auth: config.auth.clone(),
            },
            limiter: limiter.unwrap_or_else(|| Arc::new(Limiter::new(config.limits))),
            hedges: HedgeAllowance::default(),
            listings: before.map_or_else(Arc::default, |before| Arc::clone(&before.listings)),
            schema_modes,
            config,
        }
    }

    /// The price of a model at `now_ms`: the one configured for the model, else the one configured for `*`, else the
    /// one that the vendor lists.
    pub(in crate::gateway) fn price(&self, vendor_model: &str, now_ms: i64) -> Option<Price> {
        match self.config.price(vendor_model, now_ms) {
            Some(price) => price,
            None => self.listings.current()?.get(vendor_model)?.price,
        }
    }

    /// Capabilities of a model: as configured for it, then for `*`, then as the vendor lists them; the first that is
    /// set wins.
    pub(in crate::gateway) fn traits(&self, vendor_model: &str) -> Traits {
        let configured = |name| self.config.capabilities.iter().filter(move |(model, _)| model == name).map(|(_, t)| t);
        let mut traits = Traits::default();
        for own in configured(vendor_model).chain(configured("*")) {
            traits = traits.or(own);
        }
        match self.listings.current().as_ref().and_then(|listing| listing.get(vendor_model)) {
            Some(listed) => traits.or(&listed.traits),
            None => traits,
        }
    }
}

/// Keyed by the endpoint's `uid` and the vendor model.
type Known = HashMap<(u64, Arc<str>), Arc<EndpointModel>>;

/// The models asked so far, each with what was learned about it.
#[derive(Debug, Default)]
pub(in crate::gateway) struct EndpointModels(Mutex<Known>);

impl EndpointModels {
    /// Keeps the models whose endpoints still exist.
    pub(in crate::gateway) fn after_reload(&self, endpoints: &[Arc<Endpoint>]) -> Self {
        let known = lock(&self.0);
        let kept = known.iter().filter_map(|((uid, model), remote)| {
            let endpoint = endpoints.iter().find(|endpoint| endpoint.uid == *uid)?;
            Some(((*uid, Arc::clone(model)), Arc::new(remote.after_reload(endpoint))))
        });
        Self(Mutex::new(kept.collect()))
    }

    /// The model's state; created if it is not known yet.
    pub(in crate::gateway) fn get(&self, endpoint: &Arc<Endpoint>, vendor_model: &str) -> Arc<EndpointModel> {
        let mut known = lock(&self.0);
        let name: Arc<str> = Arc::from(vendor_model);
        if let Some(remote) = known.get(&(endpoint.uid, Arc::clone(&name))) {
            return Arc::clone(remote);
        }
        let remote = Arc::new(EndpointModel::new(endpoint, Arc::clone(&name)));
        // Beyond the maximum, the state of a new model is not kept here.
        if known.len() < MAX_MODELS_KEPT {
            known.insert((endpoint.uid, name), Arc::clone(&remote));
        }
        remote
    }
}
