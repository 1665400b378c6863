//! Error responses as vendors send them.

use http::HeaderValue;

use super::*;

fn read_case(status: u16, headers: &[(&'static str, &str)], body: &str) -> VendorError {
    let headers = headers
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("header")))
        .collect();
    read(status, &headers, body.as_bytes())
}

#[test]
fn each_vendors_shapes() {
    let openai = read_case(
        429,
        &[],
        r#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
    );
    assert_eq!((openai.class, openai.retry), (Class::Exhausted, false));
    let anthropic = read_case(
        429,
        &[("retry-after", "7")],
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"m"},"request_id":"r"}"#,
    );
    assert_eq!(anthropic.retry_after, Some(RetryAfter::In(Duration::from_secs(7))));
    assert!(anthropic.retry);
    let spend = read_case(
        429,
        &[],
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
    );
    assert_eq!((spend.class, spend.retry), (Class::Exhausted, false));
    let google = read_case(
        429,
        &[],
        r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"46s"}]}}]"#,
    );
    assert_eq!(google.retry_after, Some(RetryAfter::In(Duration::from_secs(46))));
    let key = read_case(
        400,
        &[],
        r#"{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}"#,
    );
    assert_eq!(key.class, Class::Auth);
    let none = read_case(429, &[], r#"{"error":{"message":"Quota exceeded, limit: 0. Please retry in 46s."}}"#);
    assert_eq!((none.class, none.retry_after), (Class::Exhausted, None));
    let flat = read_case(
        400,
        &[],
        r#"{"code":400,"message":"invalid request body","request_id":"r","metadata":{"errors":["x"]}}"#,
    );
    assert_eq!((flat.class, flat.message.as_str()), (Class::Invalid, "invalid request body: x"));
    let old = read_case(401, &[], r#"{"error":"Authentication error","status":"error","request_id":"r"}"#);
    assert_eq!((old.class, old.message.as_str()), (Class::Auth, "Authentication error"));
    let page = read_case(503, &[("content-type", "text/html")], "<html>");
    assert_eq!(page.message, "an HTML or XML page of 6 bytes instead of JSON");
    assert!(read_case(529, &[], "{}").retry);
    assert!(!read_case(500, &[("x-should-retry", "false")], "{}").retry);
    let told_to = read_case(429, &[("x-should-retry", "true")], r#"{"error":{"code":"insufficient_quota"}}"#);
    assert!(!told_to.retry);
}

#[test]
fn wait_is_read_from_header_field_or_words_where_waiting_helps() {
    let seconds = |seconds| Some(RetryAfter::In(Duration::from_secs(seconds)));
    let words = r#"{"error":{"message":"Limit 900, used 899. Please try again in 1m12s."}}"#;
    for status in [408, 409, 429, 500, 503, 529] {
        assert_eq!(read_case(status, &[], words).retry_after, seconds(72), "{status}");
    }
    for status in [400, 401, 402, 404, 422] {
        assert_eq!(read_case(status, &[], words).retry_after, None, "{status}");
    }
    assert_eq!(read_case(429, &[("retry-after", "7")], words).retry_after, seconds(7));
    assert_eq!(read_case(429, &[("retry-after", "soon")], words).retry_after, seconds(72));
    let both = r#"{"error":{"message":"try again in 1 minute","retry_after":9}}"#;
    assert_eq!(read_case(429, &[], both).retry_after, seconds(9));
    let nested = r#"{"detail":[{"msg":"Overloaded, retry after 3 seconds"}]}"#;
    assert_eq!(read_case(503, &[], nested).retry_after, seconds(3));
    let text = [("content-type", "text/plain")];
    assert_eq!(read_case(503, &text, "Busy. Try again in 2 minutes").retry_after, seconds(120));
    assert_eq!(read_case(503, &[], "<p>Try again in 2 minutes</p>").retry_after, None);
    let spent = r#"{"error":{"code":"insufficient_quota","message":"try again in 1 minute"}}"#;
    assert_eq!(read_case(429, &[], spent).retry_after, None);
}

#[test]
fn retry_after_in_all_its_forms() {
    let of = |name, value| read_case(429, &[(name, value)], "{}").retry_after;
    assert_eq!(of("retry-after-ms", "250"), Some(RetryAfter::In(Duration::from_millis(250))));
    assert_eq!(of("retry-after", "1.5"), Some(RetryAfter::In(Duration::from_millis(1500))));
    assert!(matches!(of("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"), Some(RetryAfter::At(_))));
    assert_eq!(of("retry-after", "soon"), None);
    assert_eq!(of("retry-after", "-1"), None);
}
