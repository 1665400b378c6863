//! The running catalogue: names to arms, arms to the endpoints behind them. Immutable but for what is learned about each
//! endpoint's model; a reload builds a new one and requests in flight keep theirs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use super::breaker::Breaker;
use super::config::{Balance, Candidate, Clocks, Config, EndpointConfig, Names, RETRIES, vendor_id_is_valid};
use super::error::GatewayError;
use super::gate::Gate;
use super::listing::Listings;
use super::pace::{Allowance, Pace};
use super::price::{self, Price};
use super::rate::Told;
use crate::base::queue::QueueGauges;
use crate::llm::SchemaMode;
use crate::llm::models::Traits;
use crate::types::JsonMap;

/// Most pass-through models whose state is remembered.
const MAX_TARGETS: usize = 4096;

/// Who will answer: a route's variant, or a model asked by name. Pinned by whoever needs it to stay the same.
#[derive(Debug, Clone)]
pub struct Arm {
    /// The route, or the name that was asked.
    pub route: Arc<str>,
    /// The route's variant; `default` where there is no choice.
    pub variant: Arc<str>,
    /// The logical model, or `endpoint/vendor-model`.
    pub model: Arc<str>,
    /// Version of the prompt.
    pub prompt: Option<Arc<str>>,
    /// Parameters that win over the request's.
    pub params: JsonMap,
    pub(super) candidates: Vec<Target>,
    pub(super) clocks: Clocks,
    pub(super) retries: u32,
    pub(super) balance: Balance,
    /// The quantile of an endpoint's own time to the first token after which a second attempt is made.
    pub(super) hedge: Option<f64>,
}

impl Arm {
    /// Whether only the embedded provider is behind it.
    pub fn local(&self) -> bool {
        self.candidates.iter().all(|candidate| matches!(candidate, Target::Local))
    }

    /// The same, each candidate asked but once.
    #[must_use]
    pub fn asked_once(&self) -> Self {
        Self { retries: 0, ..self.clone() }
    }

    /// Tokens that every candidate has room for, prompt and answer together, as far as is known.
    pub fn context_length(&self) -> Option<u64> {
        let lengths = self.candidates.iter().filter_map(|candidate| match candidate {
            Target::Local => None,
            Target::Remote(remote) => remote.traits().context_length,
        });
        lengths.min()
    }

    /// The arm of the embedded provider.
    pub(super) fn embedded() -> Self {
        let local: Arc<str> = Arc::from("local");
        Self {
            route: Arc::clone(&local),
            variant: Arc::from("default"),
            model: local,
            prompt: None,
            params: JsonMap::new(),
            candidates: vec![Target::Local],
            clocks: Clocks::default(),
            retries: 0,
            balance: Balance::Order,
            hedge: None,
        }
    }
}

/// One candidate.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Local,
    Remote(Arc<Remote>),
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local => formatter.write_str("local"),
            Self::Remote(remote) => write!(formatter, "{}/{}", remote.endpoint.name, remote.vendor_model),
        }
    }
}

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
    /// The dearest attempt so far, pico-dollars; negative before the first.
    dearest: AtomicI64,
}

impl Default for Learned {
    fn default() -> Self {
        Self {
            schema_step: AtomicU8::new(0),
            schema_proven: AtomicBool::new(false),
            schema_doubted: AtomicBool::new(false),
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
    fn new(config: EndpointConfig, previous: Option<&Catalogue>) -> Self {
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
        let before = previous.and_then(|known| known.endpoints.iter().find(same));
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
        let of = |name: &str| {
            let mut prices = self.config.prices.iter().filter(|(model, _)| model == name).map(|(_, price)| *price);
            let first = prices.next()?;
            Some(price::at(std::iter::once(first).chain(prices), now_ms))
        };
        match of(vendor_model).or_else(|| of("*")) {
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

/// All names that can be asked.
#[derive(Debug)]
pub(super) struct Catalogue {
    endpoints: Vec<Arc<Endpoint>>,
    models: HashMap<Arc<str>, Arc<Arm>>,
    routes: HashMap<Arc<str>, Route>,
    default_route: Option<String>,
    local: Arc<Arm>,
    targets: Targets,
    names: Names,
}

#[derive(Debug)]
struct Route {
    arms: Vec<(f64, Arc<Arm>)>,
}

/// By endpoint and vendor model.
type Known = HashMap<(u64, Arc<str>), Arc<Remote>>;

#[derive(Debug, Default)]
struct Targets(Mutex<Known>);

impl Targets {
    /// What is known of models whose endpoints are still there.
    fn after_reload(&self, endpoints: &[Arc<Endpoint>]) -> Self {
        let known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = known.iter().filter_map(|((uid, model), remote)| {
            let endpoint = endpoints.iter().find(|endpoint| endpoint.uid == *uid)?;
            Some(((*uid, Arc::clone(model)), Arc::new(remote.after_reload(endpoint))))
        });
        Self(Mutex::new(kept.collect()))
    }

    fn get(&self, endpoint: &Arc<Endpoint>, vendor_model: &str) -> Arc<Remote> {
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

impl Catalogue {
    /// From a configuration; `previous` is the catalogue whose lists of models are still good, and what it learned of
    /// endpoints that are where they were.
    pub(super) fn new(config: Config, previous: Option<&Self>) -> Self {
        let names = Names::of(&config);
        let endpoints: Vec<Arc<Endpoint>> =
            config.endpoints.into_iter().map(|endpoint| Arc::new(Endpoint::new(endpoint, previous))).collect();
        let targets = previous.map_or_else(Targets::default, |previous| previous.targets.after_reload(&endpoints));
        let mut catalogue = Self {
            endpoints,
            models: HashMap::new(),
            routes: HashMap::new(),
            default_route: config.default_route,
            local: Arc::new(Arm::embedded()),
            targets,
            names,
        };
        for model in config.models {
            let name: Arc<str> = Arc::from(model.name.as_str());
            let arm = Arm {
                route: Arc::clone(&name),
                variant: Arc::from("default"),
                model: Arc::clone(&name),
                prompt: None,
                params: JsonMap::new(),
                candidates: model.candidates.iter().filter_map(|candidate| catalogue.target(candidate)).collect(),
                clocks: model.clocks,
                retries: model.retries,
                balance: model.balance,
                hedge: model.hedge_quantile,
            };
            catalogue.models.insert(name, Arc::new(arm));
        }
        for route in config.routes {
            let name: Arc<str> = Arc::from(route.name.as_str());
            let arms = route
                .variants
                .into_iter()
                .filter_map(|variant| {
                    let base = catalogue.by_model(&variant.model)?;
                    let arm = Arm {
                        route: Arc::clone(&name),
                        variant: Arc::from(variant.name),
                        model: Arc::clone(&base.model),
                        prompt: variant.prompt.map(Arc::from),
                        params: variant.params,
                        candidates: base.candidates.clone(),
                        clocks: base.clocks,
                        retries: base.retries,
                        balance: base.balance.clone(),
                        hedge: base.hedge,
                    };
                    Some((variant.weight, Arc::new(arm)))
                })
                .collect();
            catalogue.routes.insert(name, Route { arms });
        }
        catalogue
    }

    fn target(&self, candidate: &Candidate) -> Option<Target> {
        match candidate {
            Candidate::Local => Some(Target::Local),
            Candidate::Remote { endpoint, vendor_model } => {
                let endpoint = self.endpoints.iter().find(|known| *known.name == **endpoint)?;
                Some(Target::Remote(self.targets.get(endpoint, vendor_model)))
            }
        }
    }

    /// A logical model, `local`, `endpoint/vendor-model`, or a bare vendor id that an endpoint is known to have.
    fn by_model(&self, name: &str) -> Option<Arc<Arm>> {
        if let Some(arm) = self.models.get(name) {
            return Some(Arc::clone(arm));
        }
        if name == "local" {
            return Some(Arc::clone(&self.local));
        }
        let named = name.split_once('/').and_then(|(endpoint, vendor_model)| {
            let endpoint = self.endpoints.iter().find(|known| *known.name == *endpoint)?;
            Some((endpoint, vendor_model))
        });
        let bare = || {
            let has = |endpoint: &&Arc<Endpoint>| {
                endpoint.config.models.iter().any(|known| known == name) || endpoint.listings.has(name)
            };
            self.endpoints.iter().find(has).map(|endpoint| (endpoint, name))
        };
        let (endpoint, vendor_model) = named.or_else(bare)?;
        vendor_id_is_valid(vendor_model).then(|| {
            let model: Arc<str> = Arc::from(format!("{}/{vendor_model}", endpoint.name));
            Arc::new(Arm {
                route: Arc::from(name),
                variant: Arc::from("default"),
                model,
                prompt: None,
                params: JsonMap::new(),
                candidates: vec![Target::Remote(self.targets.get(endpoint, vendor_model))],
                clocks: Clocks::default(),
                retries: RETRIES,
                balance: Balance::Order,
                hedge: None,
            })
        })
    }

    /// Looks `target` up: a route, a model, `endpoint/vendor-model`, a bare vendor id, then the default route.
    pub(super) fn resolve(&self, target: &str, sticky_key: &str) -> Result<Arc<Arm>, GatewayError> {
        if let Some(arm) = self.routes.get(target).and_then(|route| route.choose(target, sticky_key)) {
            return Ok(arm);
        }
        if let Some(arm) = self.by_model(target) {
            return Ok(arm);
        }
        if let Some(name) = &self.default_route
            && let Some(arm) = self.routes.get(name.as_str()).and_then(|route| route.choose(name, sticky_key))
        {
            return Ok(arm);
        }
        if self.endpoints.is_empty() {
            return Ok(Arc::clone(&self.local));
        }
        let shown: String = target.chars().take(200).collect();
        Err(GatewayError::new("model_not_found", format!("no model {shown:?}; there are: {}", self.names().join(", "))))
    }

    /// The same, but the variant is known already. One that is no more is chosen anew.
    pub(super) fn resolve_pinned(
        &self,
        target: &str,
        sticky_key: &str,
        variant: Option<&str>,
    ) -> Result<Arc<Arm>, GatewayError> {
        let pinned = variant.and_then(|variant| {
            let default = || self.routes.get(self.default_route.as_deref()?);
            let route = self.routes.get(target).or_else(default)?;
            route.arms.iter().map(|(_, arm)| arm).find(|arm| &*arm.variant == variant)
        });
        match pinned {
            Some(arm) => Ok(Arc::clone(arm)),
            None => self.resolve(target, sticky_key),
        }
    }

    /// What an analysis asks: the embedded provider where nothing says whom.
    pub(super) fn analysis_target(&self, analysis: &str, route: Option<&str>) -> String {
        self.names.target(analysis, route).unwrap_or_else(|_| "local".to_owned())
    }

    /// Every configured name: routes, then models, then endpoints as `name/…`.
    pub(super) fn names(&self) -> Vec<String> {
        let mut routes: Vec<String> = self.routes.keys().map(|name| name.to_string()).collect();
        let mut models: Vec<String> = self.models.keys().map(|name| name.to_string()).collect();
        routes.sort_unstable();
        models.sort_unstable();
        let endpoints = self.endpoints.iter().map(|endpoint| format!("{}/…", endpoint.name));
        let local = std::iter::once("local".to_owned());
        routes.into_iter().chain(models).chain(endpoints).chain(local).collect()
    }

    /// In the order of the configuration.
    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Logical models.
    pub(super) fn models(&self) -> impl Iterator<Item = (&str, &Arc<Arm>)> {
        self.models.iter().map(|(name, arm)| (&**name, arm))
    }

    /// Routes, each with its variants.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &Arc<Arm>>)> {
        self.routes.iter().map(|(name, route)| (&**name, route.arms.iter().map(|(_, arm)| arm)))
    }

    /// Every vendor's model that the configuration names; one may come more than once.
    pub(super) fn configured(&self) -> Vec<Arc<Remote>> {
        let arms =
            self.models.values().chain(self.routes.values().flat_map(|route| route.arms.iter().map(|(_, arm)| arm)));
        let candidates = arms.flat_map(|arm| &arm.candidates).filter_map(|target| match target {
            Target::Local => None,
            Target::Remote(remote) => Some(Arc::clone(remote)),
        });
        let named = self.endpoints.iter().flat_map(|endpoint| {
            endpoint.config.models.iter().map(|vendor_model| self.targets.get(endpoint, vendor_model))
        });
        candidates.chain(named).collect()
    }

    /// Where the endpoints' queues are shown.
    pub(super) fn show(&self, gauges: &QueueGauges) {
        for endpoint in &self.endpoints {
            endpoint.gate.show(gauges);
        }
    }

    /// Whether an endpoint is one of these.
    pub(super) fn has_endpoint(&self, uid: u64) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.uid == uid)
    }

    /// The embedded provider.
    pub(super) fn local(&self) -> &Arc<Arm> {
        &self.local
    }
}

impl Route {
    /// Weighted rendezvous hashing: each variant draws a number from (route, key, variant) and the smallest
    /// `-ln(draw) / weight` wins. A change of one weight moves only the keys that must move; nothing is remembered.
    fn choose(&self, route: &str, sticky_key: &str) -> Option<Arc<Arm>> {
        if let [(_, arm)] = self.arms.as_slice() {
            return Some(Arc::clone(arm));
        }
        let score = |weight: f64, variant: &str| -draw(route, sticky_key, variant).ln() / weight;
        self.arms
            .iter()
            .filter(|(weight, _)| *weight > 0.0)
            .min_by(|(weight_a, a), (weight_b, b)| {
                score(*weight_a, &a.variant).total_cmp(&score(*weight_b, &b.variant))
            })
            .map(|(_, arm)| Arc::clone(arm))
    }
}

/// A number in (0, 1), the same on every machine for ever: SHA-256, as no hash of the standard library promises that.
fn draw(route: &str, key: &str, variant: &str) -> f64 {
    let mut hash = Sha256::new();
    for part in [route, key, variant] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let bits = digest.iter().take(8).fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept, which is what an f64 holds")]
    let fraction = (bits >> 11) as f64;
    (fraction + 0.5) / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::config::{RouteConfig, VariantConfig};

    fn split(a: f64, b: f64) -> Vec<bool> {
        let variant = |name: &str, weight| VariantConfig {
            name: name.into(),
            model: "local".into(),
            weight,
            prompt: None,
            params: JsonMap::new(),
        };
        let config = Config {
            routes: vec![RouteConfig { name: "r".into(), variants: vec![variant("a", a), variant("b", b)] }],
            ..Config::default()
        };
        let catalogue = Catalogue::new(config, None);
        (0..10_000).map(|key| &*catalogue.resolve("r", &format!("call-{key}")).expect("arm").variant == "a").collect()
    }

    #[test]
    fn shares_are_kept_and_a_change_of_weights_moves_only_what_must() {
        let before = split(90.0, 10.0);
        let share = before.iter().filter(|a| **a).count();
        assert!((8_880..=9_120).contains(&share), "{share}");
        assert_eq!(before, split(90.0, 10.0), "the same after a restart");
        assert_eq!(before, split(0.9, 0.1), "only the proportion counts");
        let after = split(80.0, 20.0);
        let to_b = before.iter().zip(&after).filter(|(was_a, is_a)| **was_a && !**is_a).count();
        let to_a = before.iter().zip(&after).filter(|(was_a, is_a)| !**was_a && **is_a).count();
        assert!((880..=1_120).contains(&to_b), "{to_b}");
        assert_eq!(to_a, 0);
    }

    #[test]
    fn a_reload_keeps_what_was_learned_of_endpoints_that_stay() {
        let read = |url: &str, key: &str, more: &str| {
            let dir = tempfile::tempdir().expect("folder");
            std::fs::write(dir.path().join("key"), key).expect("write");
            let text = format!(
                "[endpoints.e]\nprovider = \"openai_compatible\"\nbase_url = \"{url}\"\napi_key = \"file:key\"\n{more}\n\
                 [models.m]\ncandidates = [\"e/v\"]"
            );
            let mut problems = crate::base::settings::Problems::in_folder(dir.path());
            let table = toml::Value::Table(text.parse().expect("TOML"));
            let config = Config::read(&mut crate::base::settings::Section::new("", Some(table), &mut problems));
            assert!(problems.is_empty(), "{:?}", problems.into_vec());
            config
        };
        let remote = |catalogue: &Catalogue, name: &str| match &catalogue.resolve(name, "k").expect("arm").candidates[0]
        {
            Target::Remote(remote) => Arc::clone(remote),
            Target::Local => panic!("local"),
        };
        let catalogue = Catalogue::new(read("http://127.0.0.1:1/v1", "one", ""), None);
        for name in ["m", "e/passed-through"] {
            let learned = remote(&catalogue, name);
            let now = tokio::time::Instant::now();
            for _ in 0..5 {
                learned.breaker.failed(now, "refused");
            }
            learned.learn_cost(7);
        }
        let uid = catalogue.endpoints()[0].uid;
        for (url, key, more, kept) in [
            ("http://127.0.0.1:1/v1", "one", "max_concurrency = 4\ndiscover = true", true),
            ("http://127.0.0.1:2/v1", "one", "", false),
            ("http://127.0.0.1:1/v1", "two", "", false),
        ] {
            let reloaded = Catalogue::new(read(url, key, more), Some(&catalogue));
            for name in ["m", "e/passed-through"] {
                let after = remote(&reloaded, name);
                assert_eq!(after.breaker.phase() == super::super::breaker::Phase::Open, kept, "{url} {key} {name}");
                assert_eq!(after.dearest(), kept.then_some(7), "{url} {key} {name}");
                assert!(Arc::ptr_eq(&after.endpoint, &reloaded.endpoints()[0]), "its settings are the new ones");
            }
            assert_eq!(reloaded.endpoints()[0].uid == uid, kept, "its connections, too");
        }
    }

    #[test]
    fn without_endpoints_everything_is_local() {
        let catalogue = Catalogue::new(Config::default(), None);
        for name in ["summary", "gpt-5", "local", "a/b"] {
            let arm = catalogue.resolve(name, "k").expect("local");
            assert!(arm.local());
            assert_eq!((&*arm.route, &*arm.model), ("local", "local"));
        }
    }
}
