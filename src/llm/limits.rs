//! What the headers of vendors' answers tell of their rate limits.
//!
//! Knows no clock: when a limit is whole again is told as the vendor tells it, as a span or as a date.

use http::HeaderMap;

use super::{RetryAfter, wait};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Tokens of prompts and answers together.
    Tokens,
    /// Tokens of prompts.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
}

/// One limit, as an answer told it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// What is limited.
    pub unit: Unit,
    /// How much there is of it when nothing is used.
    pub limit: Option<f64>,
    /// How much is left; some vendors go below zero.
    pub remaining: f64,
    /// When it is whole again.
    pub reset: RetryAfter,
    /// It comes back little by little until then; else all at once.
    pub refills: bool,
}

/// Unit, the header's start, its end, whether it refills. OpenAI's names stand behind the word, Anthropic's before it;
/// AssemblyAI and others count plain windows.
const FAMILIES: &[(Unit, &str, &str, bool)] = &[
    (Unit::Requests, "x-ratelimit-", "-requests", true),
    (Unit::Tokens, "x-ratelimit-", "-tokens", true),
    (Unit::Requests, "x-ratelimit-", "", false),
    (Unit::Requests, "anthropic-ratelimit-requests-", "", true),
    (Unit::Tokens, "anthropic-ratelimit-tokens-", "", true),
    (Unit::InputTokens, "anthropic-ratelimit-input-tokens-", "", true),
    (Unit::OutputTokens, "anthropic-ratelimit-output-tokens-", "", true),
];

/// Reads all limits that the headers tell; most answers tell none, which costs one look at the names.
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
