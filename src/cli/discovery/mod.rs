//! Finds models that can be used without a configuration: vendors whose key is in the environment, and a running
//! Ollama.
//!
//! The result is a pure function of the environment and of one probe; `demo`, `serve` and `init` share it. Knows the
//! names of variables that contain keys; does not know a key.

mod lines;
mod ollama;
mod vendors;

use url::Url;

use crate::base::secret;

pub(crate) use lines::{configuration, configuration_of_local, configuration_with, template};
pub(crate) use ollama::Probe;
use vendors::VENDORS;

/// US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Price {
    pub(crate) input: f64,
    pub(crate) output: f64,
}

/// A model that can be used, and its endpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// Name of the endpoint and of its provider.
    pub(crate) name: &'static str,
    /// The vendor's name, for people.
    pub(crate) title: &'static str,
    /// Base URL, if it is not the vendor's own.
    pub(crate) base_url: Option<String>,
    /// The variable that sets `base_url`: the server there may charge a different price.
    pub(crate) redirected_by: Option<&'static str>,
    /// The variable that contains the key.
    pub(crate) key: Option<&'static str>,
    /// The vendor's name for the model.
    pub(crate) model: String,
    /// `None` = unknown.
    pub(crate) price: Option<Price>,
    /// Set if the model may take a while to load and runs on a person's own machine.
    pub(crate) slow: bool,
}

impl Found {
    /// `endpoint/vendor-model`, as in the configuration.
    pub(crate) fn candidate(&self) -> String {
        format!("{}/{}", self.name, self.model)
    }

    /// Why the model counts as found, for people; never contains a key.
    pub(crate) fn reason(&self) -> String {
        let server = self.base_url.as_deref().map(origin);
        match (self.key, self.redirected_by, server) {
            (Some(key), Some(variable), Some(server)) => format!("{key} is set, and {variable} names {server}"),
            (Some(key), ..) => format!("{key} is set"),
            (None, _, Some(server)) => format!("it answers at {server}"),
            (None, ..) => "it answers on its usual port".to_owned(),
        }
    }
}

/// Scheme, host and port of a URL, which contain no secret.
fn origin(url: &str) -> String {
    Url::parse(url).map_or_else(|_| secret::outline(url), |url| url.origin().ascii_serialization())
}

/// The usable models, the preferred one first, and what could not be used.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Discovery {
    pub(crate) found: Vec<Found>,
    /// Notes why something that exists is not used, one sentence each.
    pub(crate) notes: Vec<String>,
}

/// Reads this process's environment, and probes for a running Ollama.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn look() -> Discovery {
    let variable = |name: &str| std::env::var(name).ok();
    let ollama = ollama::probe(variable(ollama::HOST_VARIABLE)).await;
    discover(&variable, &ollama)
}

/// Finds the models of an environment and a probe.
pub(crate) fn discover(variable: &dyn Fn(&str) -> Option<String>, ollama: &Probe) -> Discovery {
    let set = |name: &&'static str| variable(name).is_some_and(|value| !value.trim().is_empty());
    let mut discovery = Discovery::default();
    for vendor in VENDORS {
        let Some(key) = vendor.keys.iter().copied().find(set) else { continue };
        let mut found = Found { key: Some(key), ..vendor.endpoint() };
        if let Some(name) = vendor.base_urls.iter().copied().find(set) {
            match base_url(&variable(name).unwrap_or_default(), vendor.path) {
                Ok(url) => {
                    found.base_url = Some(url);
                    found.redirected_by = Some(name);
                }
                Err(problem) => {
                    discovery
                        .notes
                        .push(format!("{} is not used, though {key} is set: {name}: {problem}", vendor.title));
                    continue;
                }
            }
        }
        discovery.found.push(found);
    }
    if let Probe::Running { url, models } = ollama {
        match models.first() {
            Some(model) => discovery.found.push(ollama::endpoint(Some(url), model)),
            None => discovery.notes.push(format!(
                "Ollama runs at {} but has no chat model; `ollama pull {}` gets one",
                origin(url),
                ollama::EXAMPLE_MODEL
            )),
        }
    }
    discovery
}

/// Checks a base URL from the environment, and appends `path` if it is missing.
fn base_url(text: &str, path: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    let problem = || format!("expected an http or https URL without user and query, found {}", secret::outline(text));
    let url = Url::parse(text).map_err(|_| problem())?;
    let bare =
        url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !bare {
        return Err(problem());
    }
    Ok(if text.ends_with(path) { text.to_owned() } else { format!("{text}{path}") })
}

#[cfg(test)]
mod tests;
