//! `[models.NAME]`: candidates in failover order, and the timeouts of a request.

use std::time::Duration;

use toml::Value;

use super::values::{name_is_valid, vendor_id_is_valid};
use crate::base::names;
use crate::base::settings::Section;
use crate::base::time::millis;
use crate::types::provider::{LOCAL, is_local};

/// Where a request may be sent: `endpoint/vendor-model`, or the embedded `local`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CandidateConfig {
    /// The embedded provider.
    Local,
    /// A model of an endpoint.
    Remote {
        /// The endpoint's name.
        endpoint: String,
        /// The vendor's name for the model.
        vendor_model: String,
    },
}

impl CandidateConfig {
    /// The endpoint and the vendor's name for the model; `None` for the embedded provider.
    pub(in crate::gateway) fn remote(&self) -> Option<(&str, &str)> {
        match self {
            Self::Local => None,
            Self::Remote { endpoint, vendor_model } => Some((endpoint, vendor_model)),
        }
    }
}

/// A logical model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub name: String,
    /// Candidates, in failover order.
    pub candidates: Vec<CandidateConfig>,
    /// Timeouts of a request.
    pub timeouts: Timeouts,
    /// How many times one candidate may be asked again.
    pub retries: u32,
    /// Which candidate is asked first.
    pub balance: Balance,
    /// Quantile of a candidate's own times to the first token; after that time a second attempt is made in parallel.
    pub hedge_quantile: Option<f64>,
}

impl ModelConfig {
    /// The model as JSON, with the keys of the configuration.
    pub(in crate::gateway) fn to_json(&self) -> serde_json::Value {
        let candidate = |candidate: &CandidateConfig| match candidate {
            CandidateConfig::Local => LOCAL.to_owned(),
            CandidateConfig::Remote { endpoint, vendor_model } => format!("{endpoint}/{vendor_model}"),
        };
        let candidates: Vec<String> = self.candidates.iter().map(candidate).collect();
        let (balance, weights) = match &self.balance {
            Balance::Order => ("order", None),
            Balance::Weight(weights) => ("weight", Some(weights)),
            Balance::Latency => ("latency", None),
            Balance::Cost => ("cost", None),
        };
        serde_json::json!({
            "candidates": candidates, "retries": self.retries, "balance": balance, "weights": weights,
            "hedge_quantile": self.hedge_quantile, "connect_timeout_ms": millis(self.timeouts.connect),
            "header_timeout_ms": millis(self.timeouts.header), "first_token_timeout_ms": millis(self.timeouts.first_token),
            "between_tokens_timeout_ms": millis(self.timeouts.between_tokens), "total_timeout_ms": millis(self.timeouts.total),
        })
    }
}

/// Which candidate is asked first; the others follow when it fails. `local` is last, except with [`Balance::Order`].
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Balance {
    /// The first in the list.
    #[default]
    Order,
    /// A random one, by weight; one weight per candidate, `local` left out.
    Weight(Vec<f64>),
    /// Of two random candidates, the one that is expected to answer first.
    Latency,
    /// The cheapest for this request; a candidate whose price is unknown counts as the most expensive.
    Cost,
}

/// The four timeouts, and the deadline that all attempts of a request share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Maximum time until the connection is made.
    pub connect: Duration,
    /// Maximum time from the request to the response's header.
    pub header: Duration,
    /// Maximum time from the header to the first token.
    pub first_token: Duration,
    /// Maximum time between two tokens.
    pub between_tokens: Duration,
    /// Maximum time of the whole request.
    pub total: Duration,
}

impl Default for Timeouts {
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

/// Default of `retries`.
pub(in crate::gateway) const RETRIES: u32 = 2;

/// Reads `endpoint/vendor-model` or `local`; `endpoints` are all names of endpoints in the file.
pub(in crate::gateway) fn read_candidate(text: &str, endpoints: &[String]) -> Result<CandidateConfig, String> {
    if is_local(text) {
        return Ok(CandidateConfig::Local);
    }
    let Some((endpoint, vendor_model)) = text.split_once('/') else {
        let hint = names::hint(text, &[LOCAL]);
        return Err(format!("expected \"endpoint/vendor-model\" or \"local\", found {text:?}{hint}"));
    };
    if !endpoints.iter().any(|known| known == endpoint) {
        return Err(names::unknown("endpoint", endpoint, endpoints));
    }
    if !vendor_id_is_valid(vendor_model) {
        return Err(format!("expected a vendor's model id of A-Z a-z 0-9 . _ : @ / + -, found {vendor_model:?}"));
    }
    Ok(CandidateConfig::Remote { endpoint: endpoint.to_owned(), vendor_model: vendor_model.to_owned() })
}

pub(in crate::gateway) fn read_model(
    root: &mut Section<'_>,
    name: &str,
    value: Value,
    endpoints: &[String],
) -> ModelConfig {
    let mut section = Section::new(format!("models.{name}"), Some(value), root.problems());
    if !name_is_valid(name) || is_local(name) {
        section.problem("", "expected a name of A-Z a-z 0-9 _ . ~ : - other than \"local\", which is built in");
    }
    let mut candidates = Vec::new();
    let texts = section.strings_in_place("candidates");
    if texts.as_ref().map_or(!section.has("candidates"), Vec::is_empty) {
        section.problem("candidates", "expected at least one \"endpoint/vendor-model\"");
    }
    let texts = texts.unwrap_or_default();
    for (position, text) in texts.iter().enumerate() {
        // An entry that is not a string was reported already.
        let Some(text) = text else { continue };
        match read_candidate(text, endpoints) {
            Ok(candidate) => candidates.push(candidate),
            Err(message) => section.problem(&format!("candidates[{position}]"), message),
        }
    }
    let defaults = Timeouts::default();
    let range = 1..=3_600_000;
    let timeouts = Timeouts {
        connect: section.millis("connect_timeout_ms", range.clone()).unwrap_or(defaults.connect),
        header: section.millis("header_timeout_ms", range.clone()).unwrap_or(defaults.header),
        first_token: section.millis("first_token_timeout_ms", range.clone()).unwrap_or(defaults.first_token),
        between_tokens: section.millis("between_tokens_timeout_ms", range.clone()).unwrap_or(defaults.between_tokens),
        total: section.millis("total_timeout_ms", range).unwrap_or(defaults.total),
    };
    let retries = section.integer("retries", 0..=10).and_then(|number| u32::try_from(number).ok()).unwrap_or(RETRIES);
    // Counted as listed: an invalid candidate must not make the weights invalid too.
    let remote = texts.iter().filter(|text| !text.as_deref().is_some_and(is_local)).count();
    let balance = read_balance(&mut section, remote);
    let hedge_quantile = section.number("hedge_quantile", 0.5..=0.999);
    section.finish();
    ModelConfig { name: name.to_owned(), candidates, timeouts, retries, balance, hedge_quantile }
}

fn read_balance(section: &mut Section<'_>, remote: usize) -> Balance {
    let balance = section.choice("balance", &["order", "weight", "latency", "cost"]);
    let weighted = section.has("weights");
    let weights = section.numbers("weights", 0.0..=1e6);
    if balance != Some("weight") && weighted {
        section.problem("weights", "has a meaning only with balance = \"weight\"");
    }
    match balance {
        Some("weight") => {
            let weights = weights.unwrap_or_default();
            if weights.len() != remote || weights.iter().all(|weight| *weight <= 0.0) {
                let message = format!(
                    "expected {remote} numbers, one per candidate (without local), at least one above 0; found {}",
                    weights.len()
                );
                section.problem("weights", message);
            }
            Balance::Weight(weights)
        }
        Some("latency") => Balance::Latency,
        Some("cost") => Balance::Cost,
        _ => Balance::Order,
    }
}
