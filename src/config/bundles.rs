//! Checks the bundles of `[analyses.*]` against the routes: all analyses of a bundle ask one route.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::analysis::Analysis;
use crate::base::settings::Problems;

/// Reports analyses in `asking`, each with the route that it asks, that share a bundle with one that asks another route.
pub(super) fn check(mut asking: Vec<(&Arc<Analysis>, String)>, problems: &mut Problems) {
    // Those that only have the bundle of their route come first, so that the others are reported.
    asking.sort_by_key(|(analysis, _)| analysis.settings.bundle.is_some());
    let mut first: BTreeMap<&str, (&Analysis, &str)> = BTreeMap::new();
    for (analysis, route) in &asking {
        let (analysis, route): (&Analysis, &str) = (analysis, route);
        let Some(bundle) = analysis.bundle(route) else { continue };
        let (other, known) = *first.entry(bundle).or_insert((analysis, route));
        if known != route {
            let message = format!(
                "{bundle:?} has analyses of two routes: {} asks {known:?}, and {} asks {route:?}; name another bundle, or \
                 the same route",
                other.name, analysis.name
            );
            problems.push(format!("analyses.{}.bundle", analysis.name), message);
        }
    }
}
