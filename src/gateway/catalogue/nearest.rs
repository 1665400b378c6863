//! Finds the name that a client probably meant by an unknown one.

use std::sync::Arc;

use super::{Catalogue, Endpoint};
use crate::base::names;

/// Maximum number of vendor ids of one endpoint that a misspelt name is compared with: a vendor may list thousands.
const MAX_COMPARED: usize = 2_000;

impl Catalogue {
    /// The name that was probably meant: a route, a model, or a vendor model, with or without its endpoint, in the form
    /// of the name that was asked for.
    pub(super) fn nearest(&self, target: &str) -> Option<String> {
        let routes = self.routes.keys().chain(self.models.keys()).map(|name| name.to_string());
        let vendors = |endpoint: &Arc<Endpoint>| {
            let mut ids = endpoint.config.models.clone();
            ids.extend(self.configured_of(endpoint.uid));
            if let Some(listing) = endpoint.listings.current() {
                let mut listed: Vec<String> = listing.names().map(str::to_owned).collect();
                // A list has no order of its own: sorted, the same name always gets the same answer.
                listed.sort_unstable();
                ids.extend(listed);
            }
            ids.truncate(MAX_COMPARED);
            ids
        };
        if let Some((endpoint, vendor_model)) = target.split_once('/') {
            let full = self.endpoints.iter().flat_map(|known| {
                vendors(known).into_iter().map(|id| format!("{}/{id}", known.name)).collect::<Vec<_>>()
            });
            let full: Vec<String> = full.collect();
            let endpoints: Vec<&str> = self.endpoints.iter().map(|known| &*known.name).collect();
            let other_endpoint = || Some(format!("{}/{vendor_model}", names::nearest(endpoint, &endpoints)?));
            return names::nearest(target, &full).map(str::to_owned).or_else(other_endpoint);
        }
        let mut known: Vec<String> = routes.collect();
        known.sort_unstable();
        known.push("local".to_owned());
        known.extend(self.endpoints.iter().flat_map(vendors));
        names::nearest(target, &known).map(str::to_owned)
    }

    /// The vendor ids that the configuration names for an endpoint.
    fn configured_of(&self, uid: u64) -> impl Iterator<Item = String> {
        let of = self.configured().into_iter().filter(move |remote| remote.endpoint.uid == uid);
        of.map(|remote| remote.vendor_model.to_string())
    }
}

#[cfg(test)]
mod tests {
    use crate::base::settings::{Problems, Section};
    use crate::gateway::config::Config;

    use super::*;

    #[test]
    fn misspelt_model_gets_the_nearest_name_of_its_kind() {
        let text = "[endpoints.openai]\nprovider = \"openai\"\nmodels = [\"gpt-4.1-mini\"]\n\
                    [models.fast]\ncandidates = [\"openai/gpt-4.1\"]\n[routes.live]\nvariants = [{model = \"fast\"}]\n";
        let mut problems = Problems::default();
        let table = toml::Value::Table(text.parse().expect("TOML"));
        let config = Config::read(&mut Section::new("", Some(table), &mut problems));
        assert!(problems.is_empty());
        let catalogue = Catalogue::new(config, None);
        for (asked, meant) in [
            ("lvie", Some("live")),
            ("Fast", Some("fast")),
            ("locl", Some("local")),
            ("gpt-4.1-mni", Some("gpt-4.1-mini")),
            ("opnai/gpt-9000", Some("openai/gpt-9000")),
            ("opneai/gpt-4.1-mini", Some("openai/gpt-4.1-mini")),
            ("something-else", None),
            ("", None),
        ] {
            let error = catalogue.resolve(asked, "k").expect_err("no such model");
            let hint = meant.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
            let message = format!("no model {asked:?}; there are: live, fast, openai/…, local{hint}");
            assert_eq!((error.code(), error.message()), ("model_not_found", message.as_str()));
        }
    }
}
