//! `[endpoints] [models] [routes] [gateway]`: which models may be asked, at which endpoints, and under which names.
//! Knows no running state.

mod capabilities;
mod endpoints;
mod models;
mod prices;
mod routes;
mod target;
mod values;

pub use endpoints::EndpointConfig;
pub(in crate::gateway) use models::RETRIES;
pub use models::{Balance, CandidateConfig, ModelConfig, Timeouts};
pub use routes::{RouteConfig, VariantConfig};
pub(in crate::gateway) use target::Names;
use toml::Value;
pub(crate) use values::vendor_id_is_valid;

use crate::base::names;
use crate::base::settings::Section;
use crate::gateway::price;
use crate::llm::models::retires_soon;
use crate::types::provider;

/// The kinds of items in [`Config::inventory`].
pub const INVENTORY: &[&str] = &["endpoint", "model", "route", "price"];

/// The catalogue as configured. If it was read without a problem, every name that it refers to exists.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Endpoints, in the order of the file.
    pub endpoints: Vec<EndpointConfig>,
    /// Logical models.
    pub models: Vec<ModelConfig>,
    pub routes: Vec<RouteConfig>,
    /// The route of analyses that have none of their own.
    pub default_route: Option<String>,
    /// The route that answers clients if a model name is unknown.
    pub catch_all_route: Option<String>,
}

impl Config {
    /// Takes `endpoints`, `models`, `routes` and `gateway` out of the root table. Problems are added to those of the
    /// root.
    pub fn read(root: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let tables = named(root, "endpoints");
        // Includes endpoints with errors of their own: a reference to one of them is not an error too.
        let endpoints: Vec<String> = tables.iter().map(|(name, _)| name.clone()).collect();
        for (name, value) in tables {
            if let Some(endpoint) = endpoints::read_endpoint(root, &name, value) {
                config.endpoints.push(endpoint);
            }
        }
        for (name, value) in named(root, "models") {
            let model = models::read_model(root, &name, value, &endpoints);
            config.models.push(model);
        }
        for (name, value) in named(root, "routes") {
            let route = routes::read_route(root, &name, value, &config.models, &endpoints);
            config.routes.push(route);
        }
        let table = root.take("gateway");
        let mut gateway = Section::new("gateway", table, root.problems());
        let routes: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
        let mut route = |key: &'static str| {
            let name = gateway.string(key)?;
            if !routes.contains(&name.as_str()) {
                gateway.problem(key, names::unknown("route", &name, &routes));
            }
            Some(name)
        };
        config.default_route = route("default_route");
        config.catch_all_route = route("catch_all_route");
        gateway.finish();
        config
    }

    /// Endpoints, models, routes and prices as `(kind, name, detail)`, for the ledger. Contains no secret: of a key,
    /// only where it comes from.
    pub fn inventory(&self) -> Vec<(&'static str, String, String)> {
        let mut items = Vec::new();
        for endpoint in &self.endpoints {
            let key = endpoint.key.as_ref().map_or("none", |key| key.source.as_str());
            let detail = format!("{} {} key {key}", endpoint.provider.name(), endpoint.base_url);
            items.push(("endpoint", endpoint.name.clone(), detail));
            for (model, price) in &endpoint.prices {
                let name = format!("{}/{model} from {}", endpoint.name, crate::base::time::rfc3339_ms(price.from_ms));
                items.push(("price", name, price::to_json(*price).to_string()));
            }
        }
        for model in &self.models {
            items.push(("model", model.name.clone(), model.to_json().to_string()));
        }
        for route in &self.routes {
            let variants: Vec<serde_json::Value> = route.variants.iter().map(VariantConfig::to_json).collect();
            items.push(("route", route.name.clone(), serde_json::Value::from(variants).to_string()));
        }
        items
    }

    /// Models whose configured retirement date is near or past, as `(endpoint/model, date)`.
    pub fn retiring(&self, now_ms: i64) -> Vec<(String, String)> {
        let all = self.endpoints.iter().flat_map(|endpoint| {
            endpoint
                .capabilities
                .iter()
                .map(|(model, traits)| (format!("{}/{model}", endpoint.name), traits.retires_ms))
        });
        let near = all.filter_map(|(name, retires_ms)| Some((name, retires_ms?)));
        near.filter(|(_, retires_ms)| retires_soon(*retires_ms, now_ms))
            .map(|(name, retires_ms)| (name, crate::base::time::rfc3339_ms(retires_ms)))
            .collect()
    }

    /// Vendor models that are named here without a price in effect, as `endpoint/model`: their cost is not counted.
    pub fn unpriced(&self, now_ms: i64) -> Vec<String> {
        let candidates = self.models.iter().flat_map(|model| &model.candidates).filter_map(CandidateConfig::remote);
        let variants = self.routes.iter().flat_map(|route| &route.variants);
        let variants = variants.filter_map(|variant| variant.model.split_once('/'));
        let listed = self.endpoints.iter().flat_map(|endpoint| {
            endpoint.models.iter().map(|vendor_model| (endpoint.name.as_str(), vendor_model.as_str()))
        });
        let mut unpriced: Vec<String> = Vec::new();
        for (name, vendor_model) in candidates.chain(variants).chain(listed) {
            let Some(endpoint) = self.endpoints.iter().find(|endpoint| endpoint.name == name) else { continue };
            let full = format!("{name}/{vendor_model}");
            if endpoint.price(vendor_model, now_ms).flatten().is_none() && !unpriced.contains(&full) {
                unpriced.push(full);
            }
        }
        unpriced
    }

    /// Resolves the target of an analysis, with or without a `route` of its own: a route, a model, or
    /// `endpoint/vendor-model`.
    ///
    /// # Errors
    /// The problem with `analyses.NAME.route`, and what is allowed.
    pub fn target(&self, analysis: &str, route: Option<&str>) -> Result<String, String> {
        self.names().target(analysis, route)
    }

    /// Returns true if only the embedded provider answers `target` (see [`Config::target`]) or one of its variants.
    pub fn is_local(&self, target: &str) -> bool {
        let is_local = |name: &str| {
            let model = self.models.iter().find(|model| model.name == name);
            model.map_or(provider::is_local(name), |model| {
                !model.candidates.is_empty() && model.candidates.iter().all(|candidate| candidate.remote().is_none())
            })
        };
        match self.routes.iter().find(|route| route.name == target) {
            Some(route) => route.variants.iter().any(|variant| is_local(&variant.model)),
            None => is_local(target),
        }
    }

    /// The configured names.
    pub(in crate::gateway) fn names(&self) -> Names {
        Names {
            routes: self.routes.iter().map(|route| route.name.clone()).collect(),
            models: self.models.iter().map(|model| model.name.clone()).collect(),
            endpoints: self.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect(),
            default_route: self.default_route.clone(),
        }
    }

    /// Prices and capabilities whose model is configured nowhere but is close to a configured one. Returns key and message.
    pub fn misspelt(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for endpoint in &self.endpoints {
            let candidates = self.models.iter().flat_map(|model| &model.candidates).filter_map(CandidateConfig::remote);
            let variants = self.routes.iter().flat_map(|route| &route.variants);
            let variants = variants.filter_map(|variant| variant.model.split_once('/'));
            let of_endpoint = candidates.chain(variants).filter(|(name, _)| *name == endpoint.name);
            let listed = endpoint.models.iter().map(String::as_str);
            let known: Vec<&str> = of_endpoint.map(|(_, vendor_model)| vendor_model).chain(listed).collect();
            let priced = endpoint.prices.iter().map(|(model, _)| ("prices", model));
            let described = endpoint.capabilities.iter().map(|(model, _)| ("capabilities", model));
            for (key, model) in priced.chain(described) {
                if known.contains(&model.as_str()) {
                    continue;
                }
                if let Some(meant) = names::nearest(model, &known) {
                    let message = format!("no model {} is configured; did you mean {meant:?}?", names::shown(model));
                    all.push((format!("endpoints.{}.{key}", endpoint.name), message));
                }
            }
        }
        all
    }
}

/// The named tables under `key`, in the order of the file.
fn named(root: &mut Section<'_>, key: &'static str) -> Vec<(String, Value)> {
    let table = root.take(key);
    Section::new(key, table, root.problems()).take_rest()
}

#[cfg(test)]
mod tests;
