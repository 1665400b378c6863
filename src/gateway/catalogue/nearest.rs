//! Finds the name that a client probably meant by an unknown one.
//!
//! Knows names only.

use std::sync::Arc;

use crate::base::names;

/// Maximum number of vendor ids of one endpoint that a misspelt name is compared with: a vendor may list thousands.
const MAX_COMPARED: usize = 2_000;

/// The names that exist.
pub(super) struct Known {
    /// Names that stand alone: routes, models, `local`.
    pub(super) names: Vec<String>,
    /// Endpoints, each with the vendor ids that it is known to have.
    pub(super) endpoints: Vec<(Arc<str>, Vec<String>)>,
}

/// The name that was probably meant: a route, a model, or a vendor model, with or without its endpoint, in the form of
/// the name that was asked for.
pub(super) fn nearest(target: &str, known: &Known) -> Option<String> {
    let vendor_ids = |ids: &[String]| ids[..ids.len().min(MAX_COMPARED)].to_vec();
    if let Some((endpoint, vendor_model)) = target.split_once('/') {
        let full = known.endpoints.iter().flat_map(|(name, ids)| {
            let full = vendor_ids(ids).into_iter().map(|id| format!("{name}/{id}"));
            full.collect::<Vec<_>>()
        });
        let full: Vec<String> = full.collect();
        let endpoints: Vec<&str> = known.endpoints.iter().map(|(name, _)| &**name).collect();
        let other_endpoint = || Some(format!("{}/{vendor_model}", names::nearest(endpoint, &endpoints)?));
        return names::nearest(target, &full).map(str::to_owned).or_else(other_endpoint);
    }
    let mut all = known.names.clone();
    all.extend(known.endpoints.iter().flat_map(|(_, ids)| vendor_ids(ids)));
    names::nearest(target, &all).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use crate::base::settings::{Problems, Section};
    use crate::gateway::catalogue::config::Config;
    use crate::gateway::catalogue::names::Catalogue;
    use crate::gateway::code::Code;

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
            assert_eq!((error.code(), error.message()), (Code::ModelNotFound, message.as_str()));
        }
    }
}
