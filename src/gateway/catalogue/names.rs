//! The running catalogue: names resolve to models, and models to the endpoints behind them. Immutable except for what is
//! learned about each endpoint's model. A reload builds a new catalogue; requests in flight keep theirs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::config::{Balance, CandidateConfig, Config, Names, RETRIES, Timeouts, vendor_id_is_valid};
use super::endpoint::{Endpoint, EndpointModel, EndpointModels};
use super::nearest::{self, Known};
use super::resolved::{Candidate, Resolved};
use super::variant::Route;
use crate::base::queue::QueueGauges;
use crate::gateway::code::Code;
use crate::gateway::error::GatewayError;
use crate::types::JsonMap;
use crate::types::provider::{self, LOCAL};

/// All names that can be asked.
#[derive(Debug)]
pub(in crate::gateway) struct Catalogue {
    endpoints: Vec<Arc<Endpoint>>,
    models: HashMap<Arc<str>, Arc<Resolved>>,
    routes: HashMap<Arc<str>, Route>,
    default_route: Option<String>,
    catch_all_route: Option<String>,
    local: Arc<Resolved>,
    endpoint_models: EndpointModels,
    names: Names,
}

impl Catalogue {
    /// Builds the catalogue of a configuration. From `previous`, it takes over the lists of models and what was learned
    /// about endpoints that have not changed.
    pub(in crate::gateway) fn new(config: Config, previous: Option<&Self>) -> Self {
        let names = config.names();
        let before = previous.map_or(&[][..], |previous| &previous.endpoints);
        let endpoints: Vec<Arc<Endpoint>> =
            config.endpoints.into_iter().map(|endpoint| Arc::new(Endpoint::new(endpoint, before))).collect();
        let endpoint_models =
            previous.map_or_else(EndpointModels::default, |previous| previous.endpoint_models.after_reload(&endpoints));
        let mut catalogue = Self {
            endpoints,
            models: HashMap::new(),
            routes: HashMap::new(),
            default_route: config.default_route,
            catch_all_route: config.catch_all_route,
            local: Arc::new(Resolved::embedded()),
            endpoint_models,
            names,
        };
        for model in config.models {
            let name: Arc<str> = Arc::from(model.name.as_str());
            let resolved = Resolved {
                route: Arc::clone(&name),
                variant: Arc::from("default"),
                model: Arc::clone(&name),
                prompt: None,
                params: JsonMap::new(),
                candidates: model.candidates.iter().filter_map(|candidate| catalogue.candidate(candidate)).collect(),
                timeouts: model.timeouts,
                retries: model.retries,
                balance: model.balance,
                hedge: model.hedge_quantile,
            };
            catalogue.models.insert(name, Arc::new(resolved));
        }
        for route in config.routes {
            let name: Arc<str> = Arc::from(route.name.as_str());
            let variants = route
                .variants
                .into_iter()
                .filter_map(|variant| {
                    let base = catalogue.by_model(&variant.model)?;
                    let resolved = Resolved {
                        route: Arc::clone(&name),
                        variant: Arc::from(variant.name),
                        model: Arc::clone(&base.model),
                        prompt: variant.prompt.map(Arc::from),
                        params: variant.params,
                        candidates: base.candidates.clone(),
                        timeouts: base.timeouts,
                        retries: base.retries,
                        balance: base.balance.clone(),
                        hedge: base.hedge,
                    };
                    Some((variant.weight, Arc::new(resolved)))
                })
                .collect();
            catalogue.routes.insert(name, Route { variants });
        }
        catalogue
    }

    fn candidate(&self, config: &CandidateConfig) -> Option<Candidate> {
        match config {
            CandidateConfig::Local => Some(Candidate::Local),
            CandidateConfig::Remote { endpoint, vendor_model } => {
                let endpoint = self.endpoints.iter().find(|known| *known.name == **endpoint)?;
                Some(Candidate::Remote(self.endpoint_models.get(endpoint, vendor_model)))
            }
        }
    }

    /// Resolves a logical model, `local`, `endpoint/vendor-model`, or a bare vendor id that an endpoint is known to
    /// have.
    fn by_model(&self, name: &str) -> Option<Arc<Resolved>> {
        if let Some(resolved) = self.models.get(name) {
            return Some(Arc::clone(resolved));
        }
        if provider::is_local(name) {
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
            Arc::new(Resolved {
                route: Arc::from(name),
                variant: Arc::from("default"),
                model,
                prompt: None,
                params: JsonMap::new(),
                candidates: vec![Candidate::Remote(self.endpoint_models.get(endpoint, vendor_model))],
                timeouts: Timeouts::default(),
                retries: RETRIES,
                balance: Balance::Order,
                hedge: None,
            })
        })
    }

    /// Resolves a client's `target`: a route, a model, `endpoint/vendor-model`, a bare vendor id, then the catch-all
    /// route.
    pub(in crate::gateway) fn resolve(&self, target: &str, sticky_key: &str) -> Result<Arc<Resolved>, GatewayError> {
        self.resolve_or(target, sticky_key, self.catch_all_route.as_deref())
    }

    fn resolve_or(
        &self,
        target: &str,
        sticky_key: &str,
        otherwise: Option<&str>,
    ) -> Result<Arc<Resolved>, GatewayError> {
        if let Some(resolved) = self.routes.get(target).and_then(|route| route.choose(target, sticky_key)) {
            return Ok(resolved);
        }
        if let Some(resolved) = self.by_model(target) {
            return Ok(resolved);
        }
        if let Some(name) = otherwise
            && let Some(resolved) = self.routes.get(name).and_then(|route| route.choose(name, sticky_key))
        {
            return Ok(resolved);
        }
        let shown: String = target.chars().take(200).collect();
        let mut message = format!("no model {shown:?}; there are: {}", self.names().join(", "));
        if let Some(meant) = nearest::nearest(target, &self.known()) {
            // Writing to a String cannot fail.
            let _ = write!(message, "; did you mean {meant:?}?");
        }
        Err(GatewayError::new(Code::ModelNotFound, message))
    }

    /// The names that a misspelt one is compared with.
    fn known(&self) -> Known {
        let names = self.routes.keys().chain(self.models.keys()).map(|name| name.to_string());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names.push(LOCAL.to_owned());
        let configured = self.configured();
        let of_endpoint = |endpoint: &Arc<Endpoint>| {
            let mut ids = endpoint.config.models.clone();
            let named = configured.iter().filter(|remote| remote.endpoint.uid == endpoint.uid);
            ids.extend(named.map(|remote| remote.vendor_model.to_string()));
            if let Some(listing) = endpoint.listings.current() {
                let mut listed: Vec<String> = listing.names().map(str::to_owned).collect();
                // A list has no order of its own: sorted, the same name always gets the same answer.
                listed.sort_unstable();
                ids.extend(listed);
            }
            (Arc::clone(&endpoint.name), ids)
        };
        Known { names, endpoints: self.endpoints.iter().map(of_endpoint).collect() }
    }

    /// Like [`Self::resolve`], for an analysis whose variant was chosen before. If the variant no longer exists,
    /// another is chosen; if the route no longer exists, the default route answers.
    pub(in crate::gateway) fn resolve_pinned(
        &self,
        target: &str,
        sticky_key: &str,
        variant: Option<&str>,
    ) -> Result<Arc<Resolved>, GatewayError> {
        let pinned = variant.and_then(|variant| {
            let default = || self.routes.get(self.default_route.as_deref()?);
            let route = self.routes.get(target).or_else(default)?;
            route.variants.iter().map(|(_, resolved)| resolved).find(|resolved| &*resolved.variant == variant)
        });
        match pinned {
            Some(resolved) => Ok(Arc::clone(resolved)),
            None => self.resolve_or(target, sticky_key, self.default_route.as_deref()),
        }
    }

    /// Checks that `route` has the variant.
    ///
    /// # Errors
    /// A message for people that lists what exists.
    pub(in crate::gateway) fn check_variant(&self, route: &str, variant: &str) -> Result<(), String> {
        let Some(found) = self.routes.get(route) else {
            let mut names: Vec<&str> = self.routes.keys().map(|name| &**name).collect();
            names.sort_unstable();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(format!("no route {route:?}; there are: {names}"));
        };
        if found.variants.iter().any(|(_, resolved)| &*resolved.variant == variant) {
            return Ok(());
        }
        let names: Vec<&str> = found.variants.iter().map(|(_, resolved)| &*resolved.variant).collect();
        Err(format!("no variant {variant:?} of route {route:?}; there are: {}", names.join(", ")))
    }

    /// The name that an analysis asks; `local` where the configuration does not decide it.
    pub(in crate::gateway) fn analysis_target(&self, analysis: &str, route: Option<&str>) -> String {
        self.names.target(analysis, route).unwrap_or_else(|_| LOCAL.to_owned())
    }

    /// Every configured name: routes, then models, then endpoints as `name/…`, then `local`.
    pub(in crate::gateway) fn names(&self) -> Vec<String> {
        let mut routes: Vec<String> = self.routes.keys().map(|name| name.to_string()).collect();
        let mut models: Vec<String> = self.models.keys().map(|name| name.to_string()).collect();
        routes.sort_unstable();
        models.sort_unstable();
        let endpoints = self.endpoints.iter().map(|endpoint| format!("{}/…", endpoint.name));
        let local = std::iter::once(LOCAL.to_owned());
        routes.into_iter().chain(models).chain(endpoints).chain(local).collect()
    }

    /// The endpoints, in the order of the configuration.
    pub(in crate::gateway) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Logical models, by name.
    pub(in crate::gateway) fn models(&self) -> impl Iterator<Item = (&str, &Arc<Resolved>)> {
        self.models.iter().map(|(name, resolved)| (&**name, resolved))
    }

    /// Routes by name, each with its variants.
    pub(in crate::gateway) fn routes(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &Arc<Resolved>>)> {
        self.routes.iter().map(|(name, route)| (&**name, route.variants.iter().map(|(_, resolved)| resolved)))
    }

    /// Every vendor model that the configuration names; one may occur more than once.
    pub(in crate::gateway) fn configured(&self) -> Vec<Arc<EndpointModel>> {
        let variants = self
            .models
            .values()
            .chain(self.routes.values().flat_map(|route| route.variants.iter().map(|(_, resolved)| resolved)));
        let candidates = variants.flat_map(|resolved| &resolved.candidates).filter_map(|target| match target {
            Candidate::Local => None,
            Candidate::Remote(remote) => Some(Arc::clone(remote)),
        });
        let named = self.endpoints.iter().flat_map(|endpoint| {
            endpoint.config.models.iter().map(|vendor_model| self.endpoint_models.get(endpoint, vendor_model))
        });
        candidates.chain(named).collect()
    }

    /// Sets the gauges that show the endpoints' queues.
    pub(in crate::gateway) fn show(&self, gauges: &QueueGauges) {
        for endpoint in &self.endpoints {
            endpoint.limiter.show(gauges);
        }
    }

    /// Returns true if the catalogue has the endpoint with this `uid`.
    pub(in crate::gateway) fn has_endpoint(&self, uid: u64) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.uid == uid)
    }

    /// The embedded provider.
    pub(in crate::gateway) fn local(&self) -> &Arc<Resolved> {
        &self.local
    }
}

#[cfg(test)]
mod tests;
