//! Finds out how long a vendor asks to wait: in a sentence (`Please try again in 1m12.5s`), in a field of an error's
//! body (`retryDelay: "37s"`, `retry_after_ms: 1200`), or in a header's value.
//!
//! Knows no clock: a point in time is returned as one. A number counts as a wait only next to a word about retrying, so
//! limits, counts and years (`30000 tokens per minute`, `in 2024`) never do. Upper limits are the caller's task.

mod sentence;
mod tokens;

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::RetryAfter;

/// Deepest nesting of a body that is searched for fields.
const MAX_DEPTH: usize = 8;
/// Numbers from this one on are Unix times in seconds, and from [`UNIX_MS`] on in milliseconds; smaller ones are
/// durations.
const UNIX_S: f64 = 1e9;
const UNIX_MS: f64 = 1e12;

/// The wait that a text states, if any.
pub(super) fn in_text(text: &str) -> Option<RetryAfter> {
    sentence::wait(text)
}

/// A duration (`6m0s`, `12ms`, `1 minute, 30 seconds`, `PT1M30S`, `00:01:30`), with nothing around it.
pub(super) fn span(text: &str) -> Option<Duration> {
    let tokens = tokens::cut(text);
    let (seconds, next) = sentence::time(&tokens, 0)?;
    (next == tokens.len()).then(|| duration(seconds))
}

/// A duration, a number of seconds, a date (RFC 3339, HTTP), or a Unix time in seconds or milliseconds.
pub(super) fn value(text: &str) -> Option<RetryAfter> {
    let text = text.trim();
    match text.parse::<f64>() {
        Ok(number) => of_number(number, 1.0),
        Err(_) => span(text).map(RetryAfter::In).or_else(|| date(text)),
    }
}

/// The wait that a field of an error's body states, at any depth up to [`MAX_DEPTH`].
pub(super) fn in_fields(body: &Value) -> Option<RetryAfter> {
    find(body, 0)
}

fn find(value: &Value, depth: usize) -> Option<RetryAfter> {
    if depth > MAX_DEPTH {
        return None;
    }
    match value {
        Value::Object(fields) => {
            // A duration is more reliable than a time of a clock that may differ from ours.
            let told = |exact: bool| {
                let mut told = fields.iter().filter_map(|(key, value)| field(key, value, exact));
                told.next()
            };
            told(false).or_else(|| told(true)).or_else(|| fields.values().find_map(|value| find(value, depth + 1)))
        }
        Value::Array(items) => items.iter().find_map(|value| find(value, depth + 1)),
        _ => None,
    }
}

/// Names of fields with a duration, in seconds if it is a bare number. Only letters and digits, in lower case.
const SPANS: &str = "cooldown estimatedtime quotaresetdelay ratelimitresetafter resetafter resetin resetsafter resetsin \
    retryafter retrydelay retryin timetoreset timeuntilreset tryagainin wait waitfor waittime \
    xratelimitresetafter secondsuntilretry secondsuntilreset";
/// Names of fields with a point in time, or with seconds if the number is small.
const POINTS: &str = "availableat quotaresettimestamp quotaresettime ratelimitreset reset resetat resetsat resettime retryat \
    xratelimitreset xratelimitresetrequests xratelimitresettokens";

/// Units at the end of such a name, and their length in seconds.
const UNITS_IN_NAMES: &[(&str, f64)] = &[
    ("milliseconds", 1e-3),
    ("millis", 1e-3),
    ("msecs", 1e-3),
    ("ms", 1e-3),
    ("seconds", 1.0),
    ("secs", 1.0),
    ("sec", 1.0),
    ("s", 1.0),
    ("minutes", 60.0),
    ("mins", 60.0),
];

fn field(key: &str, value: &Value, points: bool) -> Option<RetryAfter> {
    let name: String =
        key.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    if points {
        return listed(POINTS, name.as_str()).then(|| of_value(value, 1.0)).flatten();
    }
    if listed(SPANS, name.as_str()) {
        return of_value(value, 1.0);
    }
    // A unit in the name: `retry_after_ms`, `wait_seconds`.
    let scale = UNITS_IN_NAMES
        .iter()
        .find(|(unit, _)| name.strip_suffix(unit).is_some_and(|rest| listed(SPANS, rest)))
        .map(|(_, scale)| *scale)?;
    of_value(value, scale)
}

fn of_value(told: &Value, scale: f64) -> Option<RetryAfter> {
    match told {
        Value::Number(number) => of_number(number.as_f64()?, scale),
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) => of_number(number, scale),
            Err(_) => value(text),
        },
        // A protobuf duration as an object.
        Value::Object(parts) => {
            let part = |key: &str| match parts.get(key) {
                None | Some(Value::Null) => Some(0.0),
                Some(Value::Number(number)) => number.as_f64(),
                Some(Value::String(text)) => text.trim().parse().ok(),
                Some(_) => None,
            };
            parts.get("seconds").or(parts.get("nanos"))?;
            of_number(part("seconds")? + part("nanos")? / 1e9, 1.0)
        }
        _ => None,
    }
}

fn of_number(number: f64, scale: f64) -> Option<RetryAfter> {
    if !number.is_finite() || number < 0.0 {
        return None;
    }
    let at = |seconds: f64| SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?);
    // A number whose name has a unit other than seconds is a duration, however large.
    if scale != 1.0 || number < UNIX_S {
        return Some(RetryAfter::In(duration(number * scale)));
    }
    at(if number >= UNIX_MS { number / 1e3 } else { number }).map(RetryAfter::At)
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// A date in RFC 3339, also with a space instead of the `T` and in UTC if no zone is given, or an HTTP date.
fn date(text: &str) -> Option<RetryAfter> {
    let text = text.trim();
    let utc = text.trim_end_matches("UTC").trim_end_matches("GMT").trim_end();
    let stamp = utc.parse::<jiff::Timestamp>().or_else(|_| format!("{utc}Z").parse());
    let time = stamp.map(SystemTime::from).or_else(|_| httpdate::parse_http_date(text));
    time.ok().map(RetryAfter::At)
}

/// Returns true if a word is in a list of words separated by spaces.
fn listed(list: &str, word: &str) -> bool {
    list.split(' ').any(|known| known == word)
}

#[cfg(test)]
mod tests;
