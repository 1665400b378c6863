//! Reads vendors' own lists of models (`discover = true`) in the background, so that neither startup nor a request waits
//! for one.
//!
//! Knows no request of a client. A list that cannot be read leaves the last one in use, and the failure is reported.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};

use super::config::Timeouts;
use super::endpoint::Endpoint;
use super::listing::Listing;
use super::names::Catalogue;
use crate::base::time::{rfc3339_ms, unix_ms};
use crate::gateway::code::Code;
use crate::gateway::error::Failure;
use crate::gateway::metrics::Metrics;
use crate::gateway::price;
use crate::gateway::recorder::Recorder;
use crate::gateway::transport::client::Client;
use crate::llm::models::{Listed, retires_soon};
use crate::llm::{ListCall, StreamError};

/// Timeout of one page of a list.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of pages of one list.
const MAX_PAGES: usize = 50;
/// Maximum number of models of one list.
const MAX_MODELS: usize = 10_000;
/// When to look again if no list is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What reading lists needs.
#[derive(Clone, Copy)]
pub(in crate::gateway) struct Discovery<'a> {
    pub(in crate::gateway) client: &'a Client,
    pub(in crate::gateway) metrics: &'a Metrics,
    pub(in crate::gateway) recorder: Option<&'a Arc<dyn Recorder>>,
}

impl Discovery<'_> {
    /// Reads the lists that are due, or all of them.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the reads in progress.
    pub(in crate::gateway) async fn refresh(self, catalogue: &Catalogue, all: bool) {
        let now = Instant::now();
        let due = catalogue.endpoints().iter().filter_map(|endpoint| {
            let interval = endpoint.config.discover?;
            (all || endpoint.listings.due().is_none_or(|due| due <= now)).then_some((endpoint, interval))
        });
        join_all(due.map(|(endpoint, interval)| self.read(endpoint, interval))).await;
    }

    /// When the next list is due.
    pub(in crate::gateway) fn next(catalogue: &Catalogue) -> Instant {
        let with_list = catalogue.endpoints().iter().filter(|endpoint| endpoint.config.discover.is_some());
        let due = with_list.filter_map(|endpoint| endpoint.listings.due()).min();
        due.unwrap_or_else(|| Instant::now() + IDLE)
    }

    async fn read(self, endpoint: &Arc<Endpoint>, interval: Duration) {
        let name = &endpoint.name;
        match self.fetch(endpoint).await {
            Ok(listed) => {
                let listing = Listing::new(listed);
                tracing::info!(endpoint = %name, models = listing.len(), "list of models read");
                self.metrics.listed(name, Some(listing.names().count()));
                self.note_prices(endpoint, &listing).await;
                endpoint.listings.succeeded(listing, interval);
            }
            Err(failure) => {
                self.metrics.listed(name, None);
                let status = failure.status.map_or_else(String::new, |status| format!(" (HTTP {status})"));
                let code = failure.code.as_str();
                let error = format!("the list of models cannot be read: {code}{status}");
                let again = endpoint.listings.failed(error, interval).as_secs();
                tracing::warn!(endpoint = %name, code, status = failure.status, again_s = again,
                    "the list of models cannot be read; the last one stays in use");
            }
        }
    }

    /// Reads all pages of a list. The failure may contain the vendor's words; its caller reports only the code and the
    /// status.
    async fn fetch(self, endpoint: &Endpoint) -> Result<Vec<Listed>, Failure> {
        let provider = endpoint.config.provider;
        let mut listed = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let call = ListCall { api_version: endpoint.config.api_version.as_deref(), page: next.as_deref() };
            let wire = provider.list(&call).map_err(|error| Failure::request(Code::Unsupported, error.to_string()))?;
            let got = self.client.get(&endpoint.destination, wire, Timeouts::default().connect);
            let got = timeout(PAGE_TIMEOUT, got).await;
            let (status, headers, body) = got.map_err(|_| Failure::timeout("no list of models", PAGE_TIMEOUT))??;
            if !(200..300).contains(&status) {
                return Err(provider.error(status, &headers, &body).into());
            }
            let page = provider.read_list(&body).map_err(|error| match error {
                StreamError::Vendor(error) => Failure::from(error),
                error => Failure::malformed(error.to_string()),
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
    async fn note_prices(self, endpoint: &Endpoint, listing: &Listing) {
        let Some(recorder) = self.recorder.cloned() else { return };
        let prices = listing.prices();
        let prices = prices.map(|(id, price)| (format!("{}/{id}", endpoint.name), price::to_json(price).to_string()));
        let prices: Vec<(String, String)> = prices.collect();
        if tokio::task::spawn_blocking(move || recorder.noted("listed_price", prices)).await.is_err() {
            tracing::error!("recording listed prices panicked");
        }
    }

    /// Warns about models that a route, a model or `models` names, not about all that are listed.
    pub(in crate::gateway) fn warn_of_retirements(self, catalogue: &Catalogue) {
        let now_ms = unix_ms();
        let mut seen = HashSet::new();
        for remote in catalogue.configured() {
            // Several routes may lead to one model.
            if !seen.insert((Arc::clone(&remote.endpoint.name), Arc::clone(&remote.vendor_model))) {
                continue;
            }
            let Some(retires_ms) = remote.traits().retires_ms else { continue };
            self.metrics.retires(&remote.endpoint.name, &remote.vendor_model, retires_ms);
            if retires_soon(retires_ms, now_ms) {
                tracing::warn!(
                    endpoint = %remote.endpoint.name, model = %remote.vendor_model, date = %rfc3339_ms(retires_ms),
                    "a configured model will be retired: replace it by another model"
                );
            }
        }
    }
}
