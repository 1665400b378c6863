//! Which analyses one request can ask together.
//!
//! Knows no call and no gateway: which of them are asked, and when, is decided elsewhere.

use super::{Analysis, Scope};

impl Analysis {
    /// The bundle of this analysis in requests to `route`: the configured one, or the one with the route's name.
    /// `None`: it is asked alone.
    pub fn bundle<'a>(&'a self, route: &'a str) -> Option<&'a str> {
        let name = self.settings.bundle.as_deref().unwrap_or(route);
        let is_alone = self.scope == Scope::Turn || self.is_computed() || name.is_empty();
        (!is_alone).then_some(name)
    }

    /// Returns true if one request to `route` can ask both analyses: they are in the same bundle, see as much of the
    /// call, and are answered with the same temperature.
    pub fn goes_with(&self, other: &Self, route: &str) -> bool {
        let alike = |one: &Self| (one.settings.max_context_tokens, one.settings.temperature.map(f64::to_bits));
        self.bundle(route).is_some() && self.bundle(route) == other.bundle(route) && alike(self) == alike(other)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::analysis::Registry;
    use crate::base::settings::Problems;

    #[test]
    fn analyses_of_a_route_go_together_unless_a_setting_keeps_them_apart() {
        let config = "[summary]\n[sentiment]\n[topics]\nbundle = \"\"\n[entities]\nbundle = \"x\"\n[questions]\nbundle = \"x\"\n\
                      [speakers]\nmax_context_tokens = 500\n[action_items]\ntemperature = 0.5\n[sentiment_turn]\n[stats]\n";
        let table: toml::Table = config.parse().expect("toml");
        let registry = Registry::read(Some(toml::Value::Table(table)), Path::new("."), &mut Problems::default());
        let get = |name: &str| registry.get(name).unwrap_or_else(|| panic!("no {name}"));
        let together = |one: &str, other: &str| get(one).goes_with(get(other), "live");
        assert!(together("summary", "sentiment") && together("entities", "questions"));
        for other in ["topics", "entities", "speakers", "action_items", "sentiment_turn", "stats"] {
            assert!(!together("summary", other) && !together(other, "summary"), "{other}");
        }
        for alone in ["topics", "sentiment_turn", "stats"] {
            assert_eq!(get(alone).bundle("live"), None, "{alone}");
        }
        assert_eq!((get("summary").bundle("live"), get("entities").bundle("live")), (Some("live"), Some("x")));
    }
}
