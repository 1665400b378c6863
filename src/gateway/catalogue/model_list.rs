//! The entries of `GET /v1/models`: routes, models and vendors' models, with what is known of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::endpoint::Endpoint;
use super::names::Catalogue;
use super::resolved::{Candidate, Resolved};
use crate::base::time::{rfc3339_ms, unix_ms};
use crate::gateway::price;
use crate::llm::models::{Traits, retires_soon};
use crate::types::provider::LOCAL;

/// A name that can be asked, as `GET /v1/models` shows it.
#[derive(Debug, Clone, Default)]
pub struct ModelEntry {
    pub id: String,
    /// `route`, `model` or `vendor`.
    pub kind: &'static str,
    /// The endpoint of a vendor's model; otherwise `sidetone`.
    pub owned_by: String,
    /// `endpoint/vendor-model`, in failover order; for a route, those of all its variants.
    pub candidates: Vec<String>,
    /// Set if the name is in the configuration, not only in a vendor's list.
    pub configured: bool,
    /// Capabilities of a vendor's model, where known.
    pub traits: Traits,
    /// US dollars per million tokens; null where unknown.
    pub pricing: serde_json::Value,
    /// When the vendor retires the model, RFC 3339, where known.
    pub retirement_date: Option<String>,
    /// Set if the model's retirement is near.
    pub warning: Option<String>,
}

/// State of an endpoint's list, for `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointEntry {
    /// Name of the endpoint.
    pub name: String,
    /// Name of its wire format.
    pub provider: &'static str,
    /// Set if the endpoint's list of models is read.
    pub discover: bool,
    /// Number of models in the newest list that can be asked.
    pub models: usize,
    /// When that list was read, RFC 3339.
    pub listed_at: Option<String>,
    /// Why the newest attempt to read the list failed.
    pub error: Option<String>,
}

impl EndpointEntry {
    pub(in crate::gateway) fn of(endpoint: &Endpoint) -> Self {
        let listing = endpoint.listings.current();
        Self {
            name: endpoint.name.to_string(),
            provider: endpoint.config.provider.name(),
            discover: endpoint.config.discover.is_some(),
            models: listing.as_ref().map_or(0, |listing| listing.names().count()),
            listed_at: listing.map(|listing| rfc3339_ms(listing.at_ms)),
            error: endpoint.listings.error(),
        }
    }
}

fn ours(id: &str, kind: &'static str, all: &[&Arc<Resolved>]) -> ModelEntry {
    ModelEntry {
        id: id.to_owned(),
        kind,
        owned_by: "sidetone".to_owned(),
        candidates: all.iter().flat_map(|resolved| resolved.candidates.iter().map(Candidate::to_string)).collect(),
        configured: true,
        ..ModelEntry::default()
    }
}

fn vendors(endpoint: &Endpoint, vendor_model: &str, configured: bool, now_ms: i64) -> ModelEntry {
    let id = format!("{}/{vendor_model}", endpoint.name);
    let traits = endpoint.traits(vendor_model);
    let retirement_date = traits.retires_ms.map(rfc3339_ms);
    let near = traits.retires_ms.is_some_and(|retires_ms| retires_soon(retires_ms, now_ms));
    ModelEntry {
        candidates: vec![id.clone()],
        id,
        kind: "vendor",
        owned_by: endpoint.name.to_string(),
        configured,
        pricing: endpoint.price(vendor_model, now_ms).map_or(serde_json::Value::Null, price::to_json),
        warning: retirement_date.as_ref().filter(|_| near).map(|date| format!("the vendor retires it at {date}")),
        retirement_date,
        traits,
    }
}

/// Routes, models, and vendors' models that are configured or listed.
pub(in crate::gateway) fn all(catalogue: &Catalogue) -> Vec<ModelEntry> {
    let now_ms = unix_ms();
    let mut routes: Vec<ModelEntry> =
        catalogue.routes().map(|(name, variants)| ours(name, "route", &variants.collect::<Vec<_>>())).collect();
    let mut models: Vec<ModelEntry> =
        catalogue.models().map(|(name, resolved)| ours(name, "model", &[resolved])).collect();
    models.push(ours(LOCAL, "model", &[catalogue.local()]));
    routes.sort_by(|a, b| a.id.cmp(&b.id));
    models.sort_by(|a, b| a.id.cmp(&b.id));
    let mut of_vendors = BTreeMap::new();
    for remote in catalogue.configured() {
        let entry = vendors(&remote.endpoint, &remote.vendor_model, true, now_ms);
        of_vendors.insert(entry.id.clone(), entry);
    }
    for endpoint in catalogue.endpoints() {
        let Some(listing) = endpoint.listings.current() else { continue };
        for vendor_model in listing.names() {
            let id = format!("{}/{vendor_model}", endpoint.name);
            of_vendors.entry(id).or_insert_with(|| vendors(endpoint, vendor_model, false, now_ms));
        }
    }
    routes.into_iter().chain(models).chain(of_vendors.into_values()).collect()
}
