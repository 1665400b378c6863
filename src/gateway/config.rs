//! `[endpoints] [models] [routes] [gateway]`: what may be asked, where, and under which names. Knows no running state.

use std::collections::HashSet;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use toml::Value;

use super::price::{Price, per_million};
use crate::base::settings::{Secret, Section, found};
use crate::llm::{self, Provider, SchemaMode};
use crate::types::JsonMap;

/// The catalogue as configured. All names in it refer to something.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// In the order of the file.
    pub endpoints: Vec<EndpointConfig>,
    /// Logical models.
    pub models: Vec<ModelConfig>,
    /// Routes.
    pub routes: Vec<RouteConfig>,
    /// Who answers for a name that is nothing else.
    pub default_route: Option<String>,
}

/// A configured instance of a provider.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Its name.
    pub name: String,
    /// Its wire format.
    pub provider: &'static dyn Provider,
    /// As the vendor's own SDK has it, without a slash at the end.
    pub base_url: String,
    /// Its key.
    pub key: Option<Secret>,
    /// Requests at once; absent = any number.
    pub max_concurrency: Option<usize>,
    /// How answers under a schema are had; `None` = found out.
    pub structured_output: Option<SchemaMode>,
    /// The vendor's API version.
    pub api_version: Option<String>,
    /// Headers to add to every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Vendor ids that are known to be there, for bare names.
    pub models: Vec<String>,
    /// Prices by vendor id; `*` holds for those that have none of their own.
    pub prices: Vec<(String, Price)>,
}

impl std::fmt::Debug for EndpointConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EndpointConfig")
            .field("name", &self.name)
            .field("provider", &self.provider.name())
            .field("base_url", &self.base_url)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Where a request may go: `endpoint/vendor-model`, or the embedded `local`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate {
    /// The embedded provider.
    Local,
    /// An endpoint's model.
    Remote {
        /// The endpoint's name.
        endpoint: String,
        /// The vendor's name of the model.
        vendor_model: String,
    },
}

/// A logical model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Its name.
    pub name: String,
    /// In failover order.
    pub candidates: Vec<Candidate>,
    /// Its clocks.
    pub clocks: Clocks,
    /// How often one candidate may be asked again.
    pub retries: u32,
}

/// The four clocks, and the deadline that all attempts of a request share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// To a connection.
    pub connect: Duration,
    /// From the request to the response's header.
    pub header: Duration,
    /// From the header to the first token.
    pub first_token: Duration,
    /// From token to token.
    pub between_tokens: Duration,
    /// For the whole request.
    pub total: Duration,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            header: Duration::from_secs(8),
            first_token: Duration::from_secs(8),
            between_tokens: Duration::from_secs(8),
            total: Duration::from_secs(30),
        }
    }
}

/// The default of `retries`.
pub(super) const RETRIES: u32 = 2;

/// A route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    /// Its name.
    pub name: String,
    /// At least one.
    pub variants: Vec<VariantConfig>,
}

/// One arm of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantConfig {
    /// Its name, unique in the route.
    pub name: String,
    /// A logical model, or `endpoint/vendor-model`.
    pub model: String,
    /// Its share, relative to the others; 0 = never chosen.
    pub weight: f64,
    /// Version of the prompt.
    pub prompt: Option<String>,
    /// Parameters that win over the request's.
    pub params: JsonMap,
}

impl Config {
    /// Takes `endpoints`, `models`, `routes` and `gateway` out of the root table. Problems go to the root's.
    pub fn read(root: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        for (name, value) in named(root, "endpoints") {
            if let Some(endpoint) = read_endpoint(root, &name, value) {
                config.endpoints.push(endpoint);
            }
        }
        for (name, value) in named(root, "models") {
            let model = read_model(root, &name, value, &config.endpoints);
            config.models.push(model);
        }
        for (name, value) in named(root, "routes") {
            let route = read_route(root, &name, value, &config);
            config.routes.push(route);
        }
        let table = root.take("gateway");
        let mut gateway = Section::new("gateway", table, root.problems());
        config.default_route = gateway.string("default_route");
        if let Some(route) = &config.default_route
            && !config.routes.iter().any(|known| known.name == *route)
        {
            let message =
                format!("no route {route:?}; there are: {}", names(config.routes.iter().map(|known| &known.name)));
            gateway.problem("default_route", message);
        }
        gateway.finish();
        config
    }

    /// Endpoints, models, routes and prices as `(kind, name, detail)`, for the bill. No secret is in it: of a key only
    /// where it comes from.
    pub fn inventory(&self) -> Vec<(&'static str, String, String)> {
        let mut items = Vec::new();
        for endpoint in &self.endpoints {
            let key = endpoint.key.as_ref().map_or("none", |key| key.source.as_str());
            let detail = format!("{} {} key {key}", endpoint.provider.name(), endpoint.base_url);
            items.push(("endpoint", endpoint.name.clone(), detail));
            for (model, price) in &endpoint.prices {
                let name = format!("{}/{model} from {}", endpoint.name, crate::base::time::rfc3339_ms(price.from_ms));
                items.push(("price", name, super::price::to_json(*price).to_string()));
            }
        }
        for model in &self.models {
            items.push(("model", model.name.clone(), format!("{:?} {:?}", model.candidates, model.clocks)));
        }
        for route in &self.routes {
            items.push(("route", route.name.clone(), format!("{:?}", route.variants)));
        }
        items
    }

    /// Whether an analysis has somebody to ask, by its own `route` or without one.
    ///
    /// # Errors
    /// What is wrong with `analyses.NAME.route`, and what is allowed.
    pub fn check_analysis(&self, analysis: &str, route: Option<&str>) -> Result<(), String> {
        Names::of(self).target(analysis, route).map(|_| ())
    }
}

/// Which names there are, and which of them an analysis asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    routes: Vec<String>,
    models: Vec<String>,
    endpoints: Vec<String>,
    default_route: Option<String>,
}

impl Names {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            routes: config.routes.iter().map(|route| route.name.clone()).collect(),
            models: config.models.iter().map(|model| model.name.clone()).collect(),
            endpoints: config.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect(),
            default_route: config.default_route.clone(),
        }
    }

    /// The target of an analysis: its own `route`, a route of its name, the default route, the only model; without
    /// endpoints the embedded provider. `Err` says what is missing.
    pub(super) fn target(&self, analysis: &str, route: Option<&str>) -> Result<String, String> {
        if let Some(route) = route {
            let endpoint = route.split_once('/').map(|(endpoint, _)| endpoint);
            let known = route == "local"
                || self.endpoints.is_empty()
                || self.routes.iter().chain(&self.models).any(|name| name == route)
                || endpoint.is_some_and(|endpoint| self.endpoints.iter().any(|name| name == endpoint));
            return if known {
                Ok(route.to_owned())
            } else {
                let routes = names(self.routes.iter());
                let models = names(self.models.iter());
                Err(format!(
                    "no route or model {route:?}; routes: {routes}; models: {models}; or \"endpoint/vendor-model\""
                ))
            };
        }
        if self.routes.iter().any(|name| name == analysis) {
            return Ok(analysis.to_owned());
        }
        if let Some(route) = &self.default_route {
            return Ok(route.clone());
        }
        if self.endpoints.is_empty() {
            return Ok("local".to_owned());
        }
        match self.models.as_slice() {
            [model] => Ok(model.clone()),
            _ => Err(format!(
                "missing; expected a route or model, or a route named {analysis:?}, or [gateway] default_route (\"local\" is \
                 the embedded provider)"
            )),
        }
    }
}

/// The named tables under `key`, in the order of their names.
fn named(root: &mut Section<'_>, key: &'static str) -> Vec<(String, Value)> {
    let table = root.take(key);
    Section::new(key, table, root.problems()).take_rest()
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn name_is_valid(name: &str) -> bool {
    crate::types::id::check(name).is_ok()
}

fn read_endpoint(root: &mut Section<'_>, name: &str, value: Value) -> Option<EndpointConfig> {
    let path = format!("endpoints.{name}");
    if !name_is_valid(name) || name == "local" {
        let rule = "expected a name of A-Z a-z 0-9 _ . ~ : - other than \"local\", which is built in";
        root.problems().push(path, rule);
        return None;
    }
    let mut section = Section::new(path, Some(value), root.problems());
    let choices: Vec<&'static str> = llm::PROVIDERS.iter().map(|provider| provider.name()).collect();
    let provider = match section.has("provider") {
        true => section.choice("provider", &choices),
        false => {
            section.take("provider");
            section.problem("provider", format!("missing; expected one of {}", choices.join(", ")));
            None
        }
    };
    let provider = provider.and_then(llm::provider);
    let base_url = read_base_url(&mut section, provider);
    let endpoint = EndpointConfig {
        name: name.to_owned(),
        provider: provider.unwrap_or(llm::PROVIDERS[0]),
        base_url: base_url.clone().unwrap_or_default(),
        key: section.secret("api_key"),
        max_concurrency: section
            .integer("max_concurrency", 1..=1_000_000)
            .and_then(|number| usize::try_from(number).ok()),
        structured_output: match section.choice("structured_output", &["auto", "json_schema", "json_object", "prompt"])
        {
            Some("json_schema") => Some(SchemaMode::JsonSchema),
            Some("json_object") => Some(SchemaMode::JsonObject),
            Some("prompt") => Some(SchemaMode::Prompt),
            _ => None,
        },
        api_version: section.string("api_version"),
        headers: read_headers(&mut section),
        models: section.strings("models").unwrap_or_default(),
        prices: read_prices(&mut section),
    };
    section.finish();
    (provider.is_some() && base_url.is_some()).then_some(endpoint)
}

fn read_base_url(section: &mut Section<'_>, provider: Option<&'static dyn Provider>) -> Option<String> {
    let configured = section.string("base_url");
    let text = match (configured, provider.and_then(Provider::base_url)) {
        (Some(text), _) => text,
        (None, Some(default)) => default.to_owned(),
        (None, None) => {
            if let Some(provider) = provider {
                let message = format!("missing; {} has no base URL of its own", provider.name());
                section.problem("base_url", message);
            }
            return None;
        }
    };
    match url::Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.query().is_none() => {
            Some(text.trim_end_matches('/').to_owned())
        }
        _ => {
            section.problem("base_url", format!("expected an http or https URL without a query, found {text:?}"));
            None
        }
    }
}

fn read_headers(section: &mut Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let Some(value) = section.take("headers") else { return Vec::new() };
    let Value::Table(table) = value else {
        section.problem("headers", format!("expected a table of strings, found {}", found(&value)));
        return Vec::new();
    };
    let mut headers = Vec::new();
    for (name, value) in table {
        let header = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .zip(value.as_str().and_then(|value| HeaderValue::from_str(value).ok()));
        match header {
            Some(header) => headers.push(header),
            None => section.problem(&format!("headers.{name}"), "expected a header name and a string that fits it"),
        }
    }
    headers
}

/// `prices = [{model, from, input, cached, cache_write, output}]`, US dollars a million tokens.
fn read_prices(section: &mut Section<'_>) -> Vec<(String, Price)> {
    let mut prices = Vec::new();
    for (path, table) in section.tables("prices").unwrap_or_default() {
        let mut price = Section::new(path, Some(table), section.problems());
        let model = price.string("model");
        if model.is_none() && !price.has("model") {
            price.problem("model", "missing; expected a vendor's model id, or \"*\" for all others");
        }
        let from = price.string("from");
        let from_ms = from.as_deref().map_or(Some(0), |date| {
            let date: jiff::civil::Date = date.parse().ok()?;
            Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond())
        });
        if from_ms.is_none() {
            price.problem("from", format!("expected a date as 2026-01-31 (it begins in UTC), found {from:?}"));
        }
        let range = 0.0..=1e6;
        let input = price.number("input", range.clone());
        let output = price.number("output", range.clone());
        for (key, value) in [("input", input), ("output", output)] {
            if value.is_none() && !price.has(key) {
                price.problem(key, "expected US dollars a million tokens");
            }
        }
        let cached = price.number("cached", range.clone()).or(input);
        let cache_write = price.number("cache_write", range).or(input);
        price.finish();
        if let (Some(model), Some(from_ms), Some(input), Some(cached), Some(cache_write), Some(output)) =
            (model, from_ms, input, cached, cache_write, output)
        {
            let [input, cached, cache_write, output] = [input, cached, cache_write, output].map(per_million);
            prices.push((model, Price { from_ms, input, cached, cache_write, output }));
        }
    }
    prices
}

/// Vendor ids: `[A-Za-z0-9._:@/+-]{1,200}`, no `..`.
pub(super) fn vendor_id_is_valid(id: &str) -> bool {
    (1..=200).contains(&id.len())
        && !id.contains("..")
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'@' | b'/' | b'+' | b'-'))
}

/// Reads `endpoint/vendor-model` or `local`.
fn read_candidate(text: &str, endpoints: &[EndpointConfig]) -> Result<Candidate, String> {
    if text == "local" {
        return Ok(Candidate::Local);
    }
    let Some((endpoint, vendor_model)) = text.split_once('/') else {
        return Err(format!("expected \"endpoint/vendor-model\" or \"local\", found {text:?}"));
    };
    if !endpoints.iter().any(|known| known.name == endpoint) {
        let known = names(endpoints.iter().map(|known| &known.name));
        return Err(format!("no endpoint {endpoint:?}; there are: {known}"));
    }
    if !vendor_id_is_valid(vendor_model) {
        return Err(format!("expected a vendor's model id of A-Z a-z 0-9 . _ : @ / + -, found {vendor_model:?}"));
    }
    Ok(Candidate::Remote { endpoint: endpoint.to_owned(), vendor_model: vendor_model.to_owned() })
}

fn read_model(root: &mut Section<'_>, name: &str, value: Value, endpoints: &[EndpointConfig]) -> ModelConfig {
    let mut section = Section::new(format!("models.{name}"), Some(value), root.problems());
    if !name_is_valid(name) || name == "local" {
        section.problem("", "expected a name of A-Z a-z 0-9 _ . ~ : - other than \"local\", which is built in");
    }
    let mut candidates = Vec::new();
    let texts = section.strings("candidates");
    if texts.as_ref().is_none_or(Vec::is_empty) {
        section.problem("candidates", "expected at least one \"endpoint/vendor-model\"");
    }
    for (position, text) in texts.unwrap_or_default().iter().enumerate() {
        match read_candidate(text, endpoints) {
            Ok(candidate) => candidates.push(candidate),
            Err(message) => section.problem(&format!("candidates[{position}]"), message),
        }
    }
    let defaults = Clocks::default();
    let range = 1..=3_600_000;
    let clocks = Clocks {
        connect: section.millis("connect_timeout_ms", range.clone()).unwrap_or(defaults.connect),
        header: section.millis("header_timeout_ms", range.clone()).unwrap_or(defaults.header),
        first_token: section.millis("first_token_timeout_ms", range.clone()).unwrap_or(defaults.first_token),
        between_tokens: section.millis("between_tokens_timeout_ms", range.clone()).unwrap_or(defaults.between_tokens),
        total: section.millis("total_timeout_ms", range).unwrap_or(defaults.total),
    };
    let retries = section.integer("retries", 0..=10).and_then(|number| u32::try_from(number).ok()).unwrap_or(RETRIES);
    section.finish();
    ModelConfig { name: name.to_owned(), candidates, clocks, retries }
}

fn read_route(root: &mut Section<'_>, name: &str, value: Value, config: &Config) -> RouteConfig {
    let mut section = Section::new(format!("routes.{name}"), Some(value), root.problems());
    if !name_is_valid(name) {
        section.problem("", "expected a name of A-Z a-z 0-9 _ . ~ : -");
    }
    let tables = section.tables("variants");
    if tables.as_ref().is_none_or(Vec::is_empty) {
        section.problem("variants", "expected a list with at least one {name, model, weight, prompt, params}");
    }
    let mut variants = Vec::new();
    let mut seen = HashSet::new();
    for (path, table) in tables.unwrap_or_default() {
        let mut variant = Section::new(path, Some(table), section.problems());
        let name = variant.string("name").unwrap_or_else(|| "default".to_owned());
        if !seen.insert(name.clone()) {
            variant.problem("name", format!("{name:?} is there twice"));
        }
        let model = match variant.string("model") {
            Some(model) => {
                let known = model == "local"
                    || config.models.iter().any(|known| known.name == model)
                    || (model.contains('/') && read_candidate(&model, &config.endpoints).is_ok());
                if !known {
                    let known = names(config.models.iter().map(|known| &known.name));
                    variant.problem(
                        "model",
                        format!("no model {model:?}; there are: {known}, local, and any \"endpoint/vendor-model\""),
                    );
                }
                model
            }
            None => {
                if !variant.has("model") {
                    variant.problem("model", "missing; expected a model's name or \"endpoint/vendor-model\"");
                }
                String::new()
            }
        };
        let weight = variant.number("weight", 0.0..=1e6).unwrap_or(1.0);
        let prompt = variant.string("prompt");
        let params = read_params(&mut variant);
        variant.finish();
        variants.push(VariantConfig { name, model, weight, prompt, params });
    }
    if !variants.is_empty() && variants.iter().all(|variant| variant.weight <= 0.0) {
        section.problem("variants", "expected at least one variant with a weight above 0");
    }
    section.finish();
    RouteConfig { name: name.to_owned(), variants }
}

fn read_params(variant: &mut Section<'_>) -> JsonMap {
    let Some(value) = variant.take("params") else { return JsonMap::new() };
    match serde_json::to_value(&value) {
        Ok(serde_json::Value::Object(params)) => {
            if let Err(error) = llm::ChatRequest::default().apply_params(&params) {
                variant.problem("params", error.message);
            }
            params
        }
        _ => {
            variant.problem("params", format!("expected a table of request parameters, found {}", found(&value)));
            JsonMap::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::settings::Problems;

    fn read(text: &str) -> (Config, Vec<String>) {
        let table: toml::Table = toml::from_str(text).expect("TOML");
        let mut problems = Problems::default();
        let mut root = Section::new("", Some(Value::Table(table)), &mut problems);
        let config = Config::read(&mut root);
        root.finish();
        (config, problems.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_whole_catalogue() {
        let (config, problems) = read(
            r#"
            [endpoints.a]
            provider = "openai_compatible"
            base_url = "http://127.0.0.1:9/v1/"
            max_concurrency = 4
            structured_output = "json_object"
            [models.fast]
            candidates = ["a/some/model:1", "local"]
            total_timeout_ms = 9000
            [routes.summary]
            variants = [{name = "x", model = "fast", weight = 0.9, params = {temperature = 0.1}}, {name = "y", model = "a/other"}]
            [gateway]
            default_route = "summary"
            "#,
        );
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(config.endpoints[0].base_url, "http://127.0.0.1:9/v1");
        assert_eq!(config.models[0].clocks.total, Duration::from_secs(9));
        assert_eq!(config.models[0].candidates.len(), 2);
        assert_eq!(config.routes[0].variants[0].params["temperature"], 0.1);
    }

    #[test]
    fn all_problems_at_once_with_their_places() {
        let (_, problems) = read(
            r#"
            [endpoints.a]
            provider = "openai_compatible"
            [endpoints.b]
            provider = "openay"
            [models.m]
            candidates = ["c/x", "noslash"]
            [routes.r]
            variants = [{name = "x", model = "mm", weight = -1}, {name = "x", model = "m", params = {temperature = "hot"}}]
            [gateway]
            default_route = "q"
            speed = 1
            "#,
        );
        let places: Vec<&str> =
            problems.iter().filter_map(|line| line.split_once(": ").map(|(place, _)| place)).collect();
        assert_eq!(
            places,
            [
                "endpoints.a.base_url",
                "endpoints.b.provider",
                "models.m.candidates[0]",
                "models.m.candidates[1]",
                "routes.r.variants[0].model",
                "routes.r.variants[0].weight",
                "routes.r.variants[1].name",
                "routes.r.variants[1].params",
                "gateway.default_route",
                "gateway.speed",
            ],
            "{problems:#?}"
        );
    }
}
