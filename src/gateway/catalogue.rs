//! The running catalogue: names resolve to arms, and arms to the endpoints behind them. Immutable except for what is
//! learned about each endpoint's model. A reload builds a new catalogue; requests in flight keep theirs.

mod nearest;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::config::{Balance, Candidate, Clocks, Config, Names, RETRIES, vendor_id_is_valid};
use super::endpoint::{Endpoint, Remote, Targets};
use super::error::GatewayError;
use crate::base::queue::QueueGauges;
use crate::llm::SchemaMode;
use crate::types::JsonMap;

/// The model that answers a request: a variant of a route, or a model asked by name. Callers that need the choice to
/// stay the same keep their arm.
#[derive(Debug, Clone)]
pub struct Arm {
    /// The route, or the name that was asked for.
    pub route: Arc<str>,
    /// The route's variant; `default` where there is no choice.
    pub variant: Arc<str>,
    /// The logical model, or `endpoint/vendor-model`.
    pub model: Arc<str>,
    /// Version of the prompt.
    pub prompt: Option<Arc<str>>,
    /// Parameters that override the request's.
    pub params: JsonMap,
    pub(super) candidates: Vec<Target>,
    pub(super) clocks: Clocks,
    pub(super) retries: u32,
    pub(super) balance: Balance,
    /// Quantile of an endpoint's own times to the first token; a second attempt is made after that time.
    pub(super) hedge: Option<f64>,
}

impl Arm {
    /// Returns true if only the embedded provider is behind it.
    pub fn local(&self) -> bool {
        self.candidates.iter().all(|candidate| matches!(candidate, Target::Local))
    }

    /// The same arm without retries: each candidate is asked only once.
    #[must_use]
    pub fn asked_once(&self) -> Self {
        Self { retries: 0, ..self.clone() }
    }

    /// The smallest known context length of the candidates, in tokens, prompt and answer together; `None` if none is
    /// known.
    pub fn context_length(&self) -> Option<u64> {
        let lengths = self.candidates.iter().filter_map(|candidate| match candidate {
            Target::Local => None,
            Target::Remote(remote) => remote.traits().context_length,
        });
        lengths.min()
    }

    /// Returns true if the first candidate is asked for the schema only in its prompt: the answer must be read to its
    /// end, and perhaps repaired, before any of it can be passed on.
    pub(super) fn keeps_schemas_by_words(&self) -> bool {
        self.candidates.first().is_some_and(|candidate| match candidate {
            Target::Local => false,
            Target::Remote(remote) => remote.schema_modes().first() == Some(&SchemaMode::Prompt),
        })
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

/// All names that can be asked.
#[derive(Debug)]
pub(super) struct Catalogue {
    endpoints: Vec<Arc<Endpoint>>,
    models: HashMap<Arc<str>, Arc<Arm>>,
    routes: HashMap<Arc<str>, Route>,
    default_route: Option<String>,
    catch_all_route: Option<String>,
    local: Arc<Arm>,
    targets: Targets,
    names: Names,
}

#[derive(Debug)]
struct Route {
    arms: Vec<(f64, Arc<Arm>)>,
}

impl Catalogue {
    /// Builds the catalogue of a configuration. From `previous`, it takes over the lists of models and what was learned
    /// about endpoints that have not changed.
    pub(super) fn new(config: Config, previous: Option<&Self>) -> Self {
        let names = Names::of(&config);
        let before = previous.map_or(&[][..], |previous| &previous.endpoints);
        let endpoints: Vec<Arc<Endpoint>> =
            config.endpoints.into_iter().map(|endpoint| Arc::new(Endpoint::new(endpoint, before))).collect();
        let targets = previous.map_or_else(Targets::default, |previous| previous.targets.after_reload(&endpoints));
        let mut catalogue = Self {
            endpoints,
            models: HashMap::new(),
            routes: HashMap::new(),
            default_route: config.default_route,
            catch_all_route: config.catch_all_route,
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

    /// Resolves a logical model, `local`, `endpoint/vendor-model`, or a bare vendor id that an endpoint is known to
    /// have.
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

    /// Resolves a client's `target`: a route, a model, `endpoint/vendor-model`, a bare vendor id, then the catch-all
    /// route.
    pub(super) fn resolve(&self, target: &str, sticky_key: &str) -> Result<Arc<Arm>, GatewayError> {
        self.resolve_or(target, sticky_key, self.catch_all_route.as_deref())
    }

    fn resolve_or(&self, target: &str, sticky_key: &str, otherwise: Option<&str>) -> Result<Arc<Arm>, GatewayError> {
        if let Some(arm) = self.routes.get(target).and_then(|route| route.choose(target, sticky_key)) {
            return Ok(arm);
        }
        if let Some(arm) = self.by_model(target) {
            return Ok(arm);
        }
        if let Some(name) = otherwise
            && let Some(arm) = self.routes.get(name).and_then(|route| route.choose(name, sticky_key))
        {
            return Ok(arm);
        }
        let shown: String = target.chars().take(200).collect();
        let mut message = format!("no model {shown:?}; there are: {}", self.names().join(", "));
        if let Some(meant) = self.nearest(target) {
            // Writing to a String cannot fail.
            let _ = write!(message, "; did you mean {meant:?}?");
        }
        Err(GatewayError::new("model_not_found", message))
    }

    /// Like [`Self::resolve`], for an analysis whose variant was chosen before. If the variant no longer exists,
    /// another is chosen; if the route no longer exists, the default route answers.
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
            None => self.resolve_or(target, sticky_key, self.default_route.as_deref()),
        }
    }

    /// Checks that `route` has the variant.
    ///
    /// # Errors
    /// A message for people that lists what exists.
    pub(super) fn check_variant(&self, route: &str, variant: &str) -> Result<(), String> {
        let Some(found) = self.routes.get(route) else {
            let mut names: Vec<&str> = self.routes.keys().map(|name| &**name).collect();
            names.sort_unstable();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(format!("no route {route:?}; there are: {names}"));
        };
        if found.arms.iter().any(|(_, arm)| &*arm.variant == variant) {
            return Ok(());
        }
        let names: Vec<&str> = found.arms.iter().map(|(_, arm)| &*arm.variant).collect();
        Err(format!("no variant {variant:?} of route {route:?}; there are: {}", names.join(", ")))
    }

    /// The name that an analysis asks; `local` where the configuration does not decide it.
    pub(super) fn analysis_target(&self, analysis: &str, route: Option<&str>) -> String {
        self.names.target(analysis, route).unwrap_or_else(|_| "local".to_owned())
    }

    /// Every configured name: routes, then models, then endpoints as `name/…`, then `local`.
    pub(super) fn names(&self) -> Vec<String> {
        let mut routes: Vec<String> = self.routes.keys().map(|name| name.to_string()).collect();
        let mut models: Vec<String> = self.models.keys().map(|name| name.to_string()).collect();
        routes.sort_unstable();
        models.sort_unstable();
        let endpoints = self.endpoints.iter().map(|endpoint| format!("{}/…", endpoint.name));
        let local = std::iter::once("local".to_owned());
        routes.into_iter().chain(models).chain(endpoints).chain(local).collect()
    }

    /// The endpoints, in the order of the configuration.
    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Logical models, by name.
    pub(super) fn models(&self) -> impl Iterator<Item = (&str, &Arc<Arm>)> {
        self.models.iter().map(|(name, arm)| (&**name, arm))
    }

    /// Routes by name, each with its variants.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &Arc<Arm>>)> {
        self.routes.iter().map(|(name, route)| (&**name, route.arms.iter().map(|(_, arm)| arm)))
    }

    /// Every vendor model that the configuration names; one may occur more than once.
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

    /// Sets the gauges that show the endpoints' queues.
    pub(super) fn show(&self, gauges: &QueueGauges) {
        for endpoint in &self.endpoints {
            endpoint.gate.show(gauges);
        }
    }

    /// Returns true if the catalogue has the endpoint with this `uid`.
    pub(super) fn has_endpoint(&self, uid: u64) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.uid == uid)
    }

    /// The arm of the embedded provider.
    pub(super) fn local(&self) -> &Arc<Arm> {
        &self.local
    }
}

impl Route {
    /// Chooses a variant by weighted rendezvous hashing: each variant draws a number from (route, key, variant), and
    /// the smallest `-ln(draw) / weight` wins. Changing one weight moves only the keys that must move; no state is
    /// kept.
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

/// A number in (0, 1), the same on every machine forever: SHA-256, because no hash of the standard library promises
/// that.
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
                assert_eq!(after.breaker.phase() == crate::gateway::breaker::Phase::Open, kept, "{url} {key} {name}");
                assert_eq!(after.dearest(), kept.then_some(7), "{url} {key} {name}");
                assert!(Arc::ptr_eq(&after.endpoint, &reloaded.endpoints()[0]), "its settings are the new ones");
            }
            assert_eq!(reloaded.endpoints()[0].uid == uid, kept, "its connections, too");
        }
    }

    #[test]
    fn without_endpoints_there_is_only_the_embedded_provider() {
        let catalogue = Catalogue::new(Config::default(), None);
        let arm = catalogue.resolve("local", "k").expect("local");
        assert!(arm.local());
        assert_eq!((&*arm.route, &*arm.model), ("local", "local"));
        assert_eq!(catalogue.analysis_target("summary", None), "local");
        let error = catalogue.resolve("gpt-5", "k").expect_err("no such model");
        assert_eq!((error.code(), error.message()), ("model_not_found", "no model \"gpt-5\"; there are: local"));
    }
}
