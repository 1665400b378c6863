//! Rate limits in the headers of vendors' responses.
//!
//! Knows no clock: the reset of a limit is returned as the vendor gives it, as a duration or a date.

use http::HeaderMap;

use super::{RetryAfter, wait};

/// The quantity that is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Requests,
    /// Tokens of prompts and answers together.
    Tokens,
    /// Tokens of prompts.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
}

/// One rate limit, as a response reports it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    pub unit: Unit,
    /// The amount when nothing is used.
    pub limit: Option<f64>,
    /// The amount left; some vendors report negative numbers.
    pub remaining: f64,
    /// When the full amount is available again.
    pub reset: RetryAfter,
    /// Set if the amount refills gradually until then; otherwise all of it comes back at once.
    pub refills: bool,
}

/// Unit, prefix and suffix of the headers, and [`Limit::refills`]. OpenAI puts the unit at the end of the name,
/// Anthropic before the last word; AssemblyAI and others count fixed windows.
const FAMILIES: &[(Unit, &str, &str, bool)] = &[
    (Unit::Requests, "x-ratelimit-", "-requests", true),
    (Unit::Tokens, "x-ratelimit-", "-tokens", true),
    (Unit::Requests, "x-ratelimit-", "", false),
    (Unit::Requests, "anthropic-ratelimit-requests-", "", true),
    (Unit::Tokens, "anthropic-ratelimit-tokens-", "", true),
    (Unit::InputTokens, "anthropic-ratelimit-input-tokens-", "", true),
    (Unit::OutputTokens, "anthropic-ratelimit-output-tokens-", "", true),
];

/// Reads all limits in the headers. Most responses have none, which costs one pass over the names.
pub fn read(headers: &HeaderMap) -> Vec<Limit> {
    let told = |name: &http::HeaderName| {
        let name = name.as_str();
        name.starts_with("x-ratelimit-") || name.starts_with("anthropic-ratelimit-")
    };
    if !headers.keys().any(told) {
        return Vec::new();
    }
    FAMILIES
        .iter()
        .filter_map(|&(unit, start, end, refills)| {
            let text = |what: &str| headers.get(format!("{start}{what}{end}"))?.to_str().ok().map(str::trim);
            let remaining = text("remaining")?.parse().ok().filter(|number: &f64| number.is_finite())?;
            let limit = text("limit").and_then(|limit| limit.parse().ok()).filter(|limit: &f64| *limit > 0.0);
            Some(Limit { unit, limit, remaining, reset: wait::value(text("reset")?)?, refills })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::{HeaderName, HeaderValue};

    use super::*;

    fn of(headers: &[(&'static str, &'static str)]) -> Vec<Limit> {
        let header = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        read(&headers.iter().map(header).collect())
    }

    #[test]
    fn each_vendors_headers() {
        let seconds = |seconds| RetryAfter::In(Duration::from_secs(seconds));
        let openai = of(&[
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-tokens", "149984"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ]);
        let limit = |unit, limit, remaining, reset, refills| Limit { unit, limit, remaining, reset, refills };
        assert_eq!(
            openai,
            [
                limit(Unit::Requests, Some(60.0), 59.0, seconds(1), true),
                limit(Unit::Tokens, Some(150_000.0), 149_984.0, seconds(360), true),
            ]
        );
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let anthropic = of(&[
            ("anthropic-ratelimit-input-tokens-limit", "40000"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "2023-11-14T22:13:20Z"),
        ]);
        assert_eq!(anthropic, [limit(Unit::InputTokens, Some(40_000.0), 0.0, RetryAfter::At(at), true)]);
        let assemblyai = of(&[
            ("x-ratelimit-limit", "30"),
            ("x-ratelimit-remaining", "-2"),
            ("x-ratelimit-reset", "41"),
            ("x-ratelimit-service", "llmgw"),
        ]);
        assert_eq!(assemblyai, [limit(Unit::Requests, Some(30.0), -2.0, seconds(41), false)]);
        assert_eq!(of(&[("x-ratelimit-remaining", "3")]), [], "without an end it says nothing");
        assert_eq!(of(&[("content-type", "text/html")]), []);
    }
}
