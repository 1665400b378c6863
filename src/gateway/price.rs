//! What tokens cost: prices with dates, in whole pico-dollars (1e-12 USD). Money is never a float here, and an unknown
//! amount is never zero.

use crate::llm::Usage;

/// A vendor model's price, valid from a date on. All prices are in pico-dollars per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Start of its validity, Unix ms.
    pub from_ms: i64,
    /// Per prompt token.
    pub input: i64,
    /// Per prompt token read from the vendor's cache.
    pub cached: i64,
    /// Per prompt token written to that cache.
    pub cache_write: i64,
    /// Per completion token, reasoning included.
    pub output: i64,
}

/// Converts US dollars per million tokens to pico-dollars per token.
pub(in crate::gateway) fn per_million(usd: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "configured prices are small; `as` saturates")]
    let pico = (usd * 1e6).round() as i64;
    pico
}

/// Converts pico-dollars to US dollars, for people and for the wire.
pub fn usd(pico: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "the API reports costs as floats")]
    let pico = pico as f64;
    pico / 1e12
}

/// Converts US dollars to pico-dollars.
pub fn pico(usd: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
    let pico = (usd * 1e12).round() as i64;
    pico
}

/// The price in US dollars per million tokens, for people.
pub(in crate::gateway) fn to_json(price: Price) -> serde_json::Value {
    let million = |pico: i64| usd(pico.saturating_mul(1_000_000));
    serde_json::json!({
        "input": million(price.input), "cached": million(price.cached), "cache_write": million(price.cache_write),
        "output": million(price.output),
    })
}

/// The price in effect at `now_ms`: the newest that has begun.
pub(in crate::gateway) fn at(prices: impl Iterator<Item = Price>, now_ms: i64) -> Option<Price> {
    prices.filter(|price| price.from_ms <= now_ms).max_by_key(|price| price.from_ms)
}

/// Cost of an attempt in pico-dollars; `None` if its tokens are not known or the sum overflows.
///
/// [`Usage::input`] includes the tokens read from and written to the cache, so those are subtracted from it first.
pub(in crate::gateway) fn cost(price: Price, usage: Usage) -> Option<i64> {
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    let (input, output) = (count(usage.input?), count(usage.output?));
    let cached = count(usage.cached.unwrap_or(0)).min(input);
    let written = count(usage.cache_write.unwrap_or(0)).min(input - cached);
    let fresh = input - cached - written;
    let parts = [(fresh, price.input), (cached, price.cached), (written, price.cache_write), (output, price.output)];
    parts.iter().try_fold(0i64, |sum, (tokens, price)| sum.checked_add(tokens.checked_mul(*price)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_are_part_of_the_input() {
        let price = Price {
            from_ms: 0,
            input: per_million(3.0),
            cached: per_million(0.3),
            cache_write: per_million(3.75),
            output: per_million(15.0),
        };
        let usage =
            Usage { input: Some(1000), cached: Some(800), cache_write: Some(100), output: Some(10), reasoning: None };
        // 100 fresh at 3, 800 at 0.3, 100 at 3.75, 10 at 15 dollars a million.
        assert_eq!(cost(price, usage), Some(300_000_000 + 240_000_000 + 375_000_000 + 150_000_000));
        assert_eq!(cost(price, Usage { output: None, ..usage }), None);
        assert!((usd(1_065_000_000) - 0.001_065).abs() < 1e-15);
    }

    #[test]
    fn newest_price_that_has_begun_holds() {
        let price = |from_ms, input| Price { from_ms, input, cached: 0, cache_write: 0, output: 0 };
        let prices = [price(10, 1), price(30, 3), price(20, 2)];
        let at = |now_ms| at(prices.into_iter(), now_ms).map(|price| price.input);
        assert_eq!((at(5), at(29), at(99)), (None, Some(2), Some(3)));
    }
}
