use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::base::testing::kept;

fn told(seconds: f64) -> Option<RetryAfter> {
    Some(RetryAfter::In(Duration::from_secs_f64(seconds)))
}

fn at(seconds: u64) -> Option<RetryAfter> {
    Some(RetryAfter::At(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)))
}

#[test]
fn text_with_a_wait_gives_it() {
    for (text, seconds) in [
        // OpenAI, Groq, Google, Azure, and vendors with the same sentences.
        ("Limit 900000, Used 899100, Requested 2400. Please try again in 1m12.5s.", 72.5),
        ("Limit 30000, Used 29000, Requested 2400. Please try again in 7m30.24s. Visit https://x/y for more.", 450.24),
        ("Please try again in 20ms. Contact us", 0.02),
        ("Please try again in 359.5ms.", 0.3595),
        ("Please try again in 6h0m0s", 21_600.0),
        ("Please try again in 1h2m3.5s.", 3_723.5),
        ("Please retry in 46s.", 46.0),
        ("Please retry in 27.354873s.", 27.354_873),
        ("Please retry after 3 seconds.", 3.0),
        ("Your requests exceeded the token rate limit. Please retry after 1 second. To increase it", 1.0),
        ("RETRY AFTER 3 SECONDS", 3.0),
        ("Try Again In 2 Minutes!", 120.0),
        ("Please wait 1 hour and try again", 3_600.0),
        ("wait for 30 sec", 30.0),
        ("you must wait at least 45 seconds before sending the next request", 45.0),
        ("Please wait up to 30 seconds", 30.0),
        ("wait about 5 min", 300.0),
        ("wait another 12s", 12.0),
        ("wait a minute", 60.0),
        ("Try again in an hour.", 3_600.0),
        ("try again in one minute", 60.0),
        ("try again in 1 minute and 30 seconds", 90.0),
        ("try again in 1 minute, 30 seconds.", 90.0),
        ("try again in 1 min 30 sec", 90.0),
        ("try again in 5-10 seconds", 10.0),
        ("try again in 5 to 10 seconds", 10.0),
        ("retry after 00:01:30", 90.0),
        ("retry after PT1M30S", 90.0),
        ("Retry after pt30.5s.", 30.5),
        ("resets in P1DT2H", 93_600.0),
        ("Your quota will reset after 1h2m3s.", 3_723.0),
        ("The limit resets in 2 minutes", 120.0),
        ("Quota will be available in 2 minutes", 120.0),
        ("The limit will be lifted in 2 hours", 7_200.0),
        ("In 2 minutes you can try again.", 120.0),
        ("Please allow 30 seconds before retrying.", 30.0),
        ("Cooldown of 30 seconds", 30.0),
        ("retry after a delay of 3 seconds", 3.0),
        ("too busy, retry in ~10 seconds", 10.0),
        ("try again in approximately 20 seconds", 20.0),
        ("10 seconds until reset", 10.0),
        ("Retry after 1,500 ms", 1.5),
        ("retry in 250 milliseconds", 0.25),
        // Fields within a text.
        ("Retry-After: 12", 12.0),
        ("retry after 3.", 3.0),
        ("{\"retry_after\": 12}", 12.0),
        ("retry_after=12, code=5", 12.0),
        ("{\"retryAfterMs\":1200}", 1.2),
        ("retry_after_ms: 1200", 1.2),
        ("retry_after_seconds=5", 5.0),
        ("wait (seconds): 12", 12.0),
        ("{\"retryDelay\":\"37s\"}", 37.0),
        // A limit before the wait.
        ("Limit of 10 requests per 60 seconds exceeded, retry in 5 seconds.", 5.0),
        ("100 requests in 60 seconds is too many; try again in 9 s", 9.0),
    ] {
        assert_eq!(in_text(text), told(seconds), "{text}");
    }
}

#[test]
fn text_with_a_point_in_time_gives_it() {
    for text in [
        "Try again at 2023-11-14T22:13:20Z.",
        "Your limit resets at 2023-11-14 22:13:20 UTC",
        "resets on 2023-11-14T23:13:20+01:00",
        "wait until 2023-11-14T22:13:20.000Z",
        "Retry after 1700000000",
        "resets at 1700000000000",
    ] {
        assert_eq!(in_text(text), at(1_700_000_000), "{text}");
    }
}

#[test]
fn text_with_other_numbers_gives_no_wait() {
    for text in [
        "",
        "Too many requests",
        "Rate limit reached: limit 30000 tokens per minute. Please try again later.",
        "Limit: 30000 tokens / min. Current: 40000 tokens / min. Try again later.",
        "You sent 100 requests in 60 seconds, try again later",
        "60 requests per 10 seconds, retry later",
        "The limit of 5 requests every 30 seconds applies; retry with fewer",
        "Available again in 2024.",
        "This model was retired in 2024. Retry with another",
        "Retry after 2024.",
        "Retry limit: 5",
        "Retry 3 times",
        "retry after 3 attempts",
        "Available requests: 30",
        "resets at 07:30:00 UTC",
        "try again at 10:30",
        "wait a few seconds",
        "Please retry your request. Request id 5 seconds",
        "Please wait and retry. Error 1015",
        "we are back to 5 minutes of data",
        "the last 30 seconds: retry",
        "max retries 5",
        "limit resets every 60 seconds",
        "context length of 8192 tokens, wait",
        "P5 retry P",
    ] {
        assert_eq!(in_text(text), None, "{text}");
    }
}

#[test]
fn fields_of_a_body_give_the_wait() {
    for (body, seconds) in [
        (json!({"error":{"retry_after":12}}), 12.0),
        (json!({"retry_after":"12"}), 12.0),
        (json!({"retry_after":1.5}), 1.5),
        (json!({"retryAfter":"1m30s"}), 90.0),
        (json!({"Retry-After":"PT1M30S"}), 90.0),
        (json!({"retry_after_ms":1200}), 1.2),
        (json!({"retryAfterMs":"1200"}), 1.2),
        (json!({"retry_after_seconds":5}), 5.0),
        (json!({"retry_after_secs":5}), 5.0),
        (json!({"wait_minutes":2}), 120.0),
        (json!({"error":{"details":[{"@type":"x"},{"retryDelay":"37s"}]}}), 37.0),
        (json!({"error":{"details":[{"retryDelay":{"seconds":"37","nanos":500_000_000}}]}}), 37.5),
        (json!({"error":{"details":[{"retryDelay":{"seconds":37}}]}}), 37.0),
        (json!({"error":{"details":[{"metadata":{"quotaResetDelay":"1h2m3s"}}]}}), 3_723.0),
        (json!({"error":{"metadata":{"headers":{"Retry-After":"7"}}}}), 7.0),
        (json!({"error":"Model x is currently loading","estimated_time":20.0}), 20.0),
        (json!({"error":{"resets_in_seconds":9,"resets_at":1_700_000_000}}), 9.0),
        (json!({"reset":30}), 30.0),
    ] {
        assert_eq!(in_fields(&body), told(seconds), "{body}");
    }
    for body in [
        json!({"error":{"metadata":{"headers":{"X-RateLimit-Limit":"50","X-RateLimit-Reset":"1700000000000"}}}}),
        json!({"error":{"resets_at":1_700_000_000}}),
        json!({"reset_time":"2023-11-14T22:13:20Z"}),
    ] {
        assert_eq!(in_fields(&body), at(1_700_000_000), "{body}");
    }
    for body in [
        json!(null),
        json!([]),
        json!({"retry":3,"limit":30_000,"code":429}),
        json!({"retry_after":null}),
        json!({"retry_after":"soon"}),
        json!({"retry_after":-1}),
        json!({"retry_after":true}),
        json!({"retry_after":{}}),
    ] {
        assert_eq!(in_fields(&body), None, "{body}");
    }
}

#[test]
fn value_of_a_header_is_a_span_a_number_or_a_date() {
    for (text, seconds) in [
        ("12ms", 0.012),
        ("1h2m3.5s", 3_723.5),
        ("7", 7.0),
        ("0.5", 0.5),
        ("1d", 86_400.0),
        ("6m0s", 360.0),
        ("PT5S", 5.0),
        ("3 seconds", 3.0),
    ] {
        assert_eq!(value(text), told(seconds), "{text}");
    }
    for text in ["1700000000", "1700000000000", "2023-11-14T22:13:20Z", "Tue, 14 Nov 2023 22:13:20 GMT"] {
        assert_eq!(value(text), at(1_700_000_000), "{text}");
    }
    for text in ["", "soon", "-1", "1x", "nan", "inf", "5 s or so"] {
        assert_eq!(value(text), None, "{text}");
    }
}

/// Ways to write each unit: its length in seconds, and its names.
const UNITS: &[(f64, &[&str])] = &[
    (3_600.0, &["h", " h", " hour", " hours", " hr", "hrs"]),
    (60.0, &["m", " min", " minute", " minutes", "mins"]),
    (1.0, &["s", " sec", " second", " seconds", " secs"]),
];

const PHRASES: &[(&str, &str)] = &[
    ("Please try again in ", "."),
    ("Too many requests. Retry after ", ""),
    ("Limit 30000, Used 29999, Requested 400. wait ", " and try again."),
    ("429: retry-after: ", "\n"),
    ("Your limit resets in ", ", see https://example.com/5m"),
    ("you may send again in ", "!"),
];

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn wait_in_any_phrase_unit_and_case_is_found(
        counts in proptest::collection::vec(1u32..500, 3),
        used in 1usize..8,
        names in proptest::collection::vec(0usize..6, 3),
        tenths in 0u32..10,
        phrase in 0..PHRASES.len(),
        upper in any::<bool>(),
    ) {
        let (mut text, mut seconds) = (String::new(), 0.0);
        for (position, (length, spellings)) in UNITS.iter().enumerate() {
            if used & (1 << position) == 0 {
                continue;
            }
            let spelling = spellings[names[position] % spellings.len()];
            let mut count = f64::from(counts[position]);
            let mut figures = counts[position].to_string();
            if position == 2 && tenths > 0 {
                figures.push_str(&format!(".{tenths}"));
                count += f64::from(tenths) / 10.0;
            }
            if !text.is_empty() && spelling.starts_with(' ') {
                text.push(' ');
            }
            text.push_str(&figures);
            text.push_str(spelling);
            seconds += count * length;
        }
        let (before, after) = PHRASES[phrase];
        let mut whole = format!("{before}{text}{after}");
        if upper {
            whole = whole.to_uppercase();
        }
        let Some(RetryAfter::In(found)) = in_text(&whole) else { panic!("{whole}") };
        prop_assert!((found.as_secs_f64() - seconds).abs() < 1e-6, "{whole}: {found:?}");
    }

    #[test]
    fn text_that_does_not_mention_retrying_gives_no_wait(
        words in proptest::collection::vec(
            prop_oneof![
                Just("limit".to_owned()), Just("tokens".to_owned()), Just("per".to_owned()), Just("minute".to_owned()),
                Just("in".to_owned()), Just("seconds".to_owned()), Just("after".to_owned()), Just(":".to_owned()),
                (0u32..3_000).prop_map(|number| number.to_string()),
            ],
            0..12,
        ),
    ) {
        let text = words.join(" ");
        prop_assert_eq!(in_text(&text), None, "{}", text);
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,80}", tail in "(in |after |P|T|[0-9:.,-]|s|m|h){0,20}") {
        let _ = in_text(&format!("retry {tail}{text}"));
        let _ = in_text(&format!("{text} wait {tail}"));
        let _ = value(&tail);
        let _ = value(&text);
    }
}
