//! Endpoints as they run, and what was learned of each of their models, which a reload that leaves an endpoint where it was
//! does not forget.
//!
//! Knows no name that can be asked but the vendors' own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use secrecy::ExposeSecret as _;

use super::breaker::Breaker;
use super::config::EndpointConfig;
use super::gate::Gate;
use super::listing::Listings;
use super::pace::{Allowance, Pace};
use super::price::Price;
use super::rate::Told;
use crate::llm::models::Traits;
use crate::llm::{Call, ChatRequest, SchemaMode, Unsupported, Wire};

/// Most pass-through models whose state is remembered.
const MAX_TARGETS: usize = 4096;

/// An endpoint's model, and what was learned about it.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) vendor_model: Arc<str>,
    pub(super) breaker: Arc<Breaker>,
    /// What the vendor tells of its limits.
    pub(super) told: Arc<Told>,
    pub(super) pace: Arc<Pace>,
    learned: Arc<Learned>,
}

/// What the answers have shown.
#[derive(Debug)]
struct Learned {
    schema_step: AtomicU8,
    /// The mode has given an answer here: a server error is not about it.
    schema_proven: AtomicBool,
    /// A lesser mode worked right after a server error.
    schema_doubted: AtomicBool,
    /// It thinks without an opening tag, as its prompt's template holds that.
    thinks_unmarked: AtomicBool,
    /// The dearest attempt so far, pico-dollars; negative before the first.
    dearest: AtomicI64,
}

impl Default for Learned {
    fn default() -> Self {
        Self {
            schema_step: AtomicU8::new(0),
            schema_proven: AtomicBool::new(false),
            schema_doubted: AtomicBool::new(false),
            thinks_unmarked: AtomicBool::new(false),
            dearest: AtomicI64::new(-1),
        }
    }
}

impl Remote {
    fn new(endpoint: &Arc<Endpoint>, vendor_model: Arc<str>) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            vendor_model,
            breaker: Arc::default(),
            told: Arc::default(),
            pace: Arc::default(),
            learned: Arc::default(),
        }
    }

    /// The same model of an endpoint that was reloaded.
    fn after_reload(&self, endpoint: &Arc<Endpoint>) -> Self {
        let as_before = endpoint.config.structured_output == self.endpoint.config.structured_output;
        Self {
            endpoint: Arc::clone(endpoint),
            vendor_model: Arc::clone(&self.vendor_model),
            breaker: Arc::clone(&self.breaker),
            told: Arc::clone(&self.told),
            pace: Arc::clone(&self.pace),
            learned: if as_before { Arc::clone(&self.learned) } else { Arc::default() },
        }
    }

    /// Whether it is known to think without an opening tag.
    pub(super) fn thinks_unmarked(&self) -> bool {
        self.learned.thinks_unmarked.load(Ordering::Relaxed)
    }

    /// Its newest answer shows whether it does.
    pub(super) fn learn_thinking(&self, unmarked: bool) {
        self.learned.thinks_unmarked.store(unmarked, Ordering::Relaxed);
    }

    /// What an attempt has cost here at most; `None` before the first whose cost is known.
    pub(super) fn dearest(&self) -> Option<i64> {
        Some(self.learned.dearest.load(Ordering::Relaxed)).filter(|cost| *cost >= 0)
    }

    /// An attempt cost this much.
    pub(super) fn learn_cost(&self, cost: i64) {
        self.learned.dearest.fetch_max(cost, Ordering::Relaxed);
    }

    /// The price that holds now.
    pub(super) fn price(&self, now_ms: i64) -> Option<Price> {
        self.endpoint.price(&self.vendor_model, now_ms)
    }

    /// What is known of it.
    pub(super) fn traits(&self) -> Traits {
        self.endpoint.traits(&self.vendor_model)
    }

    /// The request as the vendor spells it.
    pub(super) fn encode(&self, request: &ChatRequest, schema_mode: SchemaMode) -> Result<Wire, Unsupported> {
        let call = Call {
            model: &self.vendor_model,
            key: self.endpoint.key(),
            stream: request.stream,
            schema_mode,
            api_version: self.endpoint.config.api_version.as_deref(),
        };
        self.endpoint.config.provider.encode(request, &call)
    }

    /// How an answer under a schema is had here, as far as is known, with the steps that are left below it.
    pub(super) fn schema_modes(&self) -> &'static [SchemaMode] {
        let modes = self.endpoint.schema_modes;
        let lacks = modes.first() == Some(&SchemaMode::JsonSchema) && self.traits().json_schema == Some(false);
        let step = usize::from(self.learned.schema_step.load(Ordering::Relaxed)).max(usize::from(lacks));
        let step = step.min(modes.len().saturating_sub(1));
        &modes[step..]
    }

    /// The best mode that is left has given an answer.
    pub(super) fn prove_schema_mode(&self) {
        self.learned.schema_proven.store(true, Ordering::Relaxed);
        self.learned.schema_doubted.store(false, Ordering::Relaxed);
    }

    /// Whether a server error can still be the vendor's way to refuse the mode, as some servers have it.
    pub(super) fn schema_mode_in_question(&self) -> bool {
        !self.learned.schema_proven.load(Ordering::Relaxed)
    }

    /// A lesser mode worked after a server error; whether that was so before, and is no chance.
    pub(super) fn doubt_schema_mode(&self) -> bool {
        self.learned.schema_doubted.swap(true, Ordering::Relaxed)
    }

    /// What a lesser mode gave after a server error was no use.
    pub(super) fn trust_schema_mode(&self) {
        self.learned.schema_doubted.store(false, Ordering::Relaxed);
    }

    /// A lesser mode worked where the better ones did not.
    pub(super) fn learn_schema_mode(&self, mode: SchemaMode) {
        let step = self.endpoint.schema_modes.iter().position(|known| *known == mode).unwrap_or(0);
        self.learned.schema_step.store(u8::try_from(step).unwrap_or(0), Ordering::Relaxed);
    }
}

/// A configured endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Names its connection pools, and what was learned of its models: kept over a reload that leaves it where it was.
    pub(super) uid: u64,
    pub(super) name: Arc<str>,
    pub(super) config: EndpointConfig,
    pub(super) gate: Arc<Gate>,
    /// How many of its requests may be hedged.
    pub(super) hedges: Allowance,
    /// What the vendor says of its models.
    pub(super) listings: Arc<Listings>,
    schema_modes: &'static [SchemaMode],
}

impl Endpoint {
    /// From a configuration; what stays of an endpoint of the same name and place is taken over from `previous`.
    pub(super) fn new(config: EndpointConfig, previous: &[Arc<Self>]) -> Self {
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
        // What was learned under another key may not hold for this one.
        let key = |config: &EndpointConfig| config.key.as_ref().map(|key| key.value.expose_secret().to_owned());
        let kept = before.filter(|before| key(&before.config) == key(&config));
        // A minute's count and a queue go on over a reload.
        let gate = before.filter(|before| before.config.limits == config.limits).map(|before| Arc::clone(&before.gate));
        let before = before.filter(|_| config.discover.is_some());
        Self {
            uid: kept.map_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed), |kept| kept.uid),
            name: Arc::from(config.name.as_str()),
            gate: gate.unwrap_or_else(|| Arc::new(Gate::new(config.limits))),
            hedges: Allowance::default(),
            listings: before.map_or_else(Arc::default, |before| Arc::clone(&before.listings)),
            schema_modes,
            config,
        }
    }

    /// The price of a model that holds at a time: its own, that of `*`, else what the vendor lists.
    pub(super) fn price(&self, vendor_model: &str, now_ms: i64) -> Option<Price> {
        match self.config.price(vendor_model, now_ms) {
            Some(price) => price,
            None => self.listings.current()?.get(vendor_model)?.price,
        }
    }

    /// What is known of a model: as configured for it, for `*`, and as the vendor lists it.
    pub(super) fn traits(&self, vendor_model: &str) -> Traits {
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

    /// The key itself.
    pub(super) fn key(&self) -> Option<&str> {
        self.config.key.as_ref().map(|key| key.value.expose_secret())
    }
}

/// By endpoint and vendor model.
type Known = HashMap<(u64, Arc<str>), Arc<Remote>>;

/// The models that were asked, each with what was learned about it.
#[derive(Debug, Default)]
pub(super) struct Targets(Mutex<Known>);

impl Targets {
    /// What is known of models whose endpoints are still there.
    pub(super) fn after_reload(&self, endpoints: &[Arc<Endpoint>]) -> Self {
        let known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = known.iter().filter_map(|((uid, model), remote)| {
            let endpoint = endpoints.iter().find(|endpoint| endpoint.uid == *uid)?;
            Some(((*uid, Arc::clone(model)), Arc::new(remote.after_reload(endpoint))))
        });
        Self(Mutex::new(kept.collect()))
    }

    /// One of them, from now on one of them.
    pub(super) fn get(&self, endpoint: &Arc<Endpoint>, vendor_model: &str) -> Arc<Remote> {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let name: Arc<str> = Arc::from(vendor_model);
        if let Some(remote) = known.get(&(endpoint.uid, Arc::clone(&name))) {
            return Arc::clone(remote);
        }
        let remote = Arc::new(Remote::new(endpoint, Arc::clone(&name)));
        // Beyond the cap a name that nobody configured has no memory of its own.
        if known.len() < MAX_TARGETS {
            known.insert((endpoint.uid, name), Arc::clone(&remote));
        }
        remote
    }
}
