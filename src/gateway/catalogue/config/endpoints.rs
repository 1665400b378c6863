//! `[endpoints.NAME]`: where requests may be sent, and with which key. Knows no model's candidates.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use toml::Value;

use super::capabilities::read_capabilities;
use super::prices::read_prices;
use super::values::name_is_valid;
use crate::base::secret::{Secret, outline};
use crate::base::settings::Section;
use crate::gateway::admission::limiter::Limits;
use crate::gateway::price::{self, Price};
use crate::gateway::transport::auth::{self, Auth};
use crate::llm::models::Traits;
use crate::llm::{self, ListCall, Provider, SchemaMode, ThinkTags};
use crate::types::provider;

/// Default interval at which a list of models is read.
const DISCOVER_INTERVAL: Duration = Duration::from_secs(3600);

/// A configured instance of a provider.
#[derive(Clone)]
pub struct EndpointConfig {
    pub name: String,
    /// The wire format.
    pub provider: &'static dyn Provider,
    /// Base URL as in the vendor's own SDK, without a trailing slash.
    pub base_url: String,
    pub key: Option<Secret>,
    /// Authenticates its requests; `None` without a key.
    pub(in crate::gateway) auth: Option<Arc<dyn Auth>>,
    pub limits: Limits,
    /// The schema mode; `None` = found out at run time.
    pub structured_output: Option<SchemaMode>,
    /// What happens to thinking that a model writes into its text.
    pub think_tags: ThinkTags,
    /// The vendor's API version.
    pub api_version: Option<String>,
    /// Headers that are added to every request.
    pub headers: HeaderMap,
    /// Vendor ids that the endpoint is known to have, for requests that name no endpoint.
    pub models: Vec<String>,
    /// Interval at which the vendor's own list of models is read; `None` = never.
    pub discover: Option<Duration>,
    /// Capabilities of models, by vendor id; `*` applies to all.
    pub capabilities: Vec<(String, Traits)>,
    /// Prices by vendor id; `*` applies to models without a price of their own.
    pub prices: Vec<(String, Price)>,
}

impl EndpointConfig {
    /// The configured price of a vendor model at `now_ms`; `*` applies to models without a price of their own. `None`:
    /// no price is configured for it. `Some(None)`: none of its prices has begun.
    pub(in crate::gateway) fn price(&self, vendor_model: &str, now_ms: i64) -> Option<Option<Price>> {
        let of = |name: &str| {
            let mut prices = self.prices.iter().filter(|(model, _)| model == name).map(|(_, price)| *price);
            let first = prices.next()?;
            Some(price::at(std::iter::once(first).chain(prices), now_ms))
        };
        of(vendor_model).or_else(|| of("*"))
    }
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

pub(in crate::gateway) fn read_endpoint(root: &mut Section<'_>, name: &str, value: Value) -> Option<EndpointConfig> {
    let path = format!("endpoints.{name}");
    if !name_is_valid(name) || provider::is_local(name) {
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
    let key = section.secret("api_key");
    let auth = match (provider, &base_url) {
        (Some(provider), Some(base_url)) => {
            let built = auth::build(&provider.auth(), key.as_ref().map(|key| &key.value), base_url);
            built.unwrap_or_else(|error| {
                // A key that cannot be read was reported already.
                if key.is_some() || !section.has("api_key") {
                    section.problem("api_key", error.message);
                }
                None
            })
        }
        _ => None,
    };
    let endpoint = EndpointConfig {
        name: name.to_owned(),
        provider: provider.unwrap_or(llm::PROVIDERS[0]),
        base_url: base_url.clone().unwrap_or_default(),
        key,
        auth,
        limits: read_limits(&mut section),
        structured_output: match section.choice("structured_output", &["auto", "json_schema", "json_object", "prompt"])
        {
            Some("json_schema") => Some(SchemaMode::JsonSchema),
            Some("json_object") => Some(SchemaMode::JsonObject),
            Some("prompt") => Some(SchemaMode::Prompt),
            _ => None,
        },
        think_tags: section.choice("think_tags", &ThinkTags::NAMES).and_then(ThinkTags::parse).unwrap_or_default(),
        api_version: read_version(&mut section, provider),
        headers: section.headers("headers"),
        models: section.strings("models").unwrap_or_default(),
        discover: read_discover(&mut section, provider),
        capabilities: read_capabilities(&mut section),
        prices: read_prices(&mut section),
    };
    section.finish();
    (provider.is_some() && base_url.is_some()).then_some(endpoint)
}

fn read_version(section: &mut Section<'_>, provider: Option<&'static dyn Provider>) -> Option<String> {
    let version = section.string("api_version")?;
    if let Some(provider) = provider.filter(|provider| provider.api_version().is_none()) {
        let versioned = llm::PROVIDERS.iter().filter(|known| known.api_version().is_some());
        let versioned: Vec<&str> = versioned.map(|known| known.name()).collect();
        let message = format!("has a meaning only with provider {}, found {}", versioned.join(" or "), provider.name());
        section.problem("api_version", message);
    }
    Some(version)
}

fn read_discover(section: &mut Section<'_>, provider: Option<&'static dyn Provider>) -> Option<Duration> {
    let discover = section.boolean("discover").unwrap_or(false);
    let interval = section.millis("discover_interval_ms", 1_000..=604_800_000).unwrap_or(DISCOVER_INTERVAL);
    let asked = ListCall { api_version: None, page: None };
    if let Some(Err(error)) = provider.filter(|_| discover).map(|provider| provider.list(&asked)) {
        section.problem("discover", error.to_string());
    }
    discover.then_some(interval)
}

fn read_limits(section: &mut Section<'_>) -> Limits {
    let count = |number: u64| usize::try_from(number).ok();
    let defaults = Limits::default();
    Limits {
        concurrency: section.integer("max_concurrency", 1..=1_000_000).and_then(count),
        requests: section.integer("requests_per_minute", 1..=10_000_000),
        tokens: section.integer("tokens_per_minute", 1..=1_000_000_000_000),
        max_waiting: section.integer("max_waiting", 0..=1_000_000).and_then(count).unwrap_or(defaults.max_waiting),
        max_wait: section.millis("max_wait_ms", 0..=3_600_000).unwrap_or(defaults.max_wait),
    }
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
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() && is_bare(&url) => {
            Some(text.trim_end_matches('/').to_owned())
        }
        _ => {
            let message = format!("expected an http or https URL without user and query, found {}", outline(&text));
            section.problem("base_url", message);
            None
        }
    }
}

/// Returns true if the URL has no user, password or query: a key belongs in `api_key`, where it is known to be a
/// secret.
fn is_bare(url: &url::Url) -> bool {
    url.query().is_none() && url.username().is_empty() && url.password().is_none()
}
