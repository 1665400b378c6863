//! Vendors' own lists of models (`discover = true`): read in the background, so that neither startup nor a request
//! waits for one. If a list cannot be read, the last one stays in use and the failure is reported.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::future::join_all;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::catalogue::Catalogue;
use super::config::{Clocks, vendor_id_is_valid};
use super::endpoint::Endpoint;
use super::error::Failure;
use super::price::{self, Price, per_million};
use super::{Gateway, Inner};
use crate::base::time::{rfc3339_ms, unix_ms};
use crate::llm::models::{Listed, Traits};
use crate::llm::{ListCall, StreamError};

/// Timeout of one page of a list.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of pages of one list.
const MAX_PAGES: usize = 50;
/// Maximum number of models of one list.
const MAX_MODELS: usize = 10_000;
/// First wait after a failure; doubles, up to the configured interval.
const BACKOFF: Duration = Duration::from_secs(15);
/// How long before its retirement a configured model is warned about.
const NOTICE_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// How often the loop runs when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// One vendor's list, as it was read at one time.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) at_ms: i64,
    models: HashMap<Box<str>, Known>,
}

/// A listed model.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) traits: Traits,
    pub(super) price: Option<Price>,
    retired: bool,
}

impl Listing {
    fn new(listed: Vec<Listed>) -> Self {
        let models = listed.into_iter().filter(|model| vendor_id_is_valid(&model.id)).map(|model| {
            let price = model.price.map(|price| Price {
                from_ms: 0,
                input: per_million(price.input),
                cached: per_million(price.cached.unwrap_or(price.input)),
                cache_write: per_million(price.cache_write.unwrap_or(price.input)),
                output: per_million(price.output),
            });
            (model.id.into_boxed_str(), Known { traits: model.traits, price, retired: model.retired })
        });
        Self { at_ms: unix_ms(), models: models.collect() }
    }

    pub(super) fn get(&self, vendor_model: &str) -> Option<&Known> {
        self.models.get(vendor_model)
    }

    /// The vendor ids that can be asked: those that are not retired.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.models.iter().filter(|(_, known)| !known.retired).map(|(id, _)| &**id)
    }
}

/// An endpoint's list and the state of its reading. Kept over a reload that leaves the endpoint's name, address and
/// provider unchanged.
#[derive(Debug, Default)]
pub(super) struct Listings {
    current: ArcSwapOption<Listing>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the list is read next; `None` = at once.
    due: Option<Instant>,
    failures: u32,
    error: Option<String>,
}

impl Listings {
    pub(super) fn current(&self) -> Option<Arc<Listing>> {
        self.current.load_full()
    }

    /// Returns true if the vendor lists this model and has not retired it.
    pub(super) fn has(&self, vendor_model: &str) -> bool {
        let current = self.current.load();
        current.as_ref().and_then(|listing| listing.get(vendor_model)).is_some_and(|known| !known.retired)
    }

    fn due(&self) -> Option<Instant> {
        self.lock().due
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State of an endpoint's list, for `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointEntry {
    /// Name of the endpoint.
    pub name: String,
    /// Name of its wire format.
    pub provider: &'static str,
    /// Set if its list of models is read.
    pub discover: bool,
    /// Number of models in the newest list that can be asked.
    pub models: usize,
    /// When that list was read, RFC 3339.
    pub listed_at: Option<String>,
    /// Why the newest attempt to read it failed.
    pub error: Option<String>,
}

impl EndpointEntry {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let listing = endpoint.listings.current();
        Self {
            name: endpoint.name.to_string(),
            provider: endpoint.config.provider.name(),
            discover: endpoint.config.discover.is_some(),
            models: listing.as_ref().map_or(0, |listing| listing.names().count()),
            listed_at: listing.map(|listing| rfc3339_ms(listing.at_ms)),
            error: endpoint.listings.lock().error.clone(),
        }
    }
}

impl Gateway {
    /// Reads the lists of all endpoints with `discover` whenever they are due, and warns about configured models that
    /// will be retired, until `stop` is cancelled. No request waits for it.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the reads in progress.
    pub async fn keep_listings(self, stop: CancellationToken) {
        loop {
            let round = async {
                let catalogue = self.inner.catalogue.load_full();
                refresh(&self.inner, &catalogue, false).await;
                warn_of_retirements(&self.inner, &catalogue);
                let next = catalogue.endpoints().iter().filter(|endpoint| endpoint.config.discover.is_some());
                let next = next.filter_map(|endpoint| endpoint.listings.due()).min();
                sleep_until(next.unwrap_or_else(|| Instant::now() + IDLE)).await;
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
        refresh(&self.inner, &self.inner.catalogue.load_full(), true).await;
    }

    /// Every endpoint, with the state of its list.
    pub fn endpoints(&self) -> Vec<EndpointEntry> {
        self.inner.catalogue.load().endpoints().iter().map(|endpoint| EndpointEntry::of(endpoint)).collect()
    }
}

async fn refresh(inner: &Inner, catalogue: &Catalogue, all: bool) {
    let now = Instant::now();
    let due = catalogue.endpoints().iter().filter_map(|endpoint| {
        let interval = endpoint.config.discover?;
        (all || endpoint.listings.due().is_none_or(|due| due <= now)).then_some((endpoint, interval))
    });
    join_all(due.map(|(endpoint, interval)| read(inner, endpoint, interval))).await;
}

async fn read(inner: &Inner, endpoint: &Arc<Endpoint>, interval: Duration) {
    let name = &endpoint.name;
    match fetch(inner, endpoint).await {
        Ok(listed) => {
            let listing = Arc::new(Listing::new(listed));
            tracing::info!(endpoint = %name, models = listing.models.len(), "list of models read");
            inner.metrics.listed(name, Some(listing.names().count()));
            note_prices(inner, endpoint, &listing).await;
            endpoint.listings.current.store(Some(listing));
            *endpoint.listings.lock() = State { due: Some(Instant::now() + interval), failures: 0, error: None };
        }
        Err(failure) => {
            inner.metrics.listed(name, None);
            let mut state = endpoint.listings.lock();
            let wait = BACKOFF.saturating_mul(1 << state.failures.min(16)).min(interval);
            state.failures += 1;
            state.due = Some(Instant::now() + wait);
            let status = failure.status.map_or_else(String::new, |status| format!(" (HTTP {status})"));
            let (code, again) = (failure.code, wait.as_secs());
            tracing::warn!(endpoint = %name, code, status = failure.status, again_s = again,
                "the list of models cannot be read; what is known stays as it was");
            state.error = Some(format!("the list of models cannot be read: {code}{status}"));
        }
    }
}

/// Reads all pages of a list. The failure may contain the vendor's words; its caller reports only the code and the
/// status.
async fn fetch(inner: &Inner, endpoint: &Endpoint) -> Result<Vec<Listed>, Failure> {
    let provider = endpoint.config.provider;
    let mut listed = Vec::new();
    let mut next: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let call = ListCall {
            key: endpoint.key(),
            api_version: endpoint.config.api_version.as_deref(),
            page: next.as_deref(),
        };
        let wire = provider.list(&call).map_err(|error| Failure::request("unsupported", error.to_string()))?;
        let got = timeout(PAGE_TIMEOUT, inner.http.get(endpoint, wire, Clocks::default().connect)).await;
        let (status, headers, body) = got.map_err(|_| Failure::timeout("no list of models", PAGE_TIMEOUT))??;
        if !(200..300).contains(&status) {
            return Err(Failure::vendor(provider.error(status, &headers, &body), None));
        }
        let page = provider.read_list(&body).map_err(|error| match error {
            StreamError::Vendor(error) => Failure::vendor(error, None),
            error => Failure::transport("malformed", error.to_string()),
        })?;
        listed.extend(page.models);
        next = page.next;
        if next.is_none() || listed.len() >= MAX_MODELS {
            break;
        }
    }
    listed.truncate(MAX_MODELS);
    Ok(listed)
}

/// Records the listed prices: where none is configured, costs are computed from them.
async fn note_prices(inner: &Inner, endpoint: &Endpoint, listing: &Listing) {
    let Some(recorder) = inner.recorder.clone() else { return };
    let prices: Vec<(String, String)> = listing
        .models
        .iter()
        .filter_map(|(id, known)| Some((format!("{}/{id}", endpoint.name), price::to_json(known.price?).to_string())))
        .collect();
    if tokio::task::spawn_blocking(move || recorder.noted("listed_price", prices)).await.is_err() {
        tracing::error!("noting listed prices panicked");
    }
}

/// Warns about models that a route, a model or `models` names, not about all that are listed.
fn warn_of_retirements(inner: &Inner, catalogue: &Catalogue) {
    let now_ms = unix_ms();
    let mut seen = HashSet::new();
    for remote in catalogue.configured() {
        // Several routes may lead to one model.
        if !seen.insert((Arc::clone(&remote.endpoint.name), Arc::clone(&remote.vendor_model))) {
            continue;
        }
        let Some(retires_ms) = remote.traits().retires_ms else { continue };
        inner.metrics.retires(&remote.endpoint.name, &remote.vendor_model, retires_ms);
        if retires_soon(retires_ms, now_ms) {
            tracing::warn!(
                endpoint = %remote.endpoint.name, model = %remote.vendor_model, date = %rfc3339_ms(retires_ms),
                "a configured model is to be retired: name another in its place"
            );
        }
    }
}

/// Returns true if a model that retires at `retires_ms` is warned about at `now_ms`.
pub(super) fn retires_soon(retires_ms: i64, now_ms: i64) -> bool {
    retires_ms - now_ms < NOTICE_MS
}
