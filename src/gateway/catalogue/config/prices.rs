//! `[endpoints.NAME] prices`: what a million tokens cost, and from which date on.

use super::values::read_day;
use crate::base::settings::Section;
use crate::gateway::price::{Price, per_million};

/// Reads `prices = [{model, from, input, cached, cache_write, output}]`, in US dollars per million tokens.
pub(in crate::gateway) fn read_prices(section: &mut Section<'_>) -> Vec<(String, Price)> {
    let mut prices = Vec::new();
    for (path, table) in section.tables("prices").unwrap_or_default() {
        let mut price = Section::new(path, Some(table), section.problems());
        let model = price.string("model");
        if model.is_none() && !price.has("model") {
            price.problem("model", "missing; expected a vendor's model id, or \"*\" for all others");
        }
        let from_ms = read_day(&mut price, "from").unwrap_or(0);
        let range = 0.0..=1e6;
        let input = price.number("input", range.clone());
        let output = price.number("output", range.clone());
        for (key, value) in [("input", input), ("output", output)] {
            if value.is_none() && !price.has(key) {
                price.problem(key, "expected US dollars per million tokens");
            }
        }
        let cached = price.number("cached", range.clone()).or(input);
        let cache_write = price.number("cache_write", range).or(input);
        price.finish();
        if let (Some(model), Some(input), Some(cached), Some(cache_write), Some(output)) =
            (model, input, cached, cache_write, output)
        {
            let [input, cached, cache_write, output] = [input, cached, cache_write, output].map(per_million);
            prices.push((model, Price { from_ms, input, cached, cache_write, output }));
        }
    }
    prices
}
