//! Rates and slots: a request waits, or goes to another candidate, before the vendor refuses it.

use std::time::{Duration, Instant};

use super::fake::{Fake, Step, plain, plain_with, reply, sse_head, stream, text};
use super::*;

#[tokio::test]
async fn configured_rate_moves_on_to_the_next_candidate_and_is_named() {
    let (first, second) = (Fake::start(vec![plain("a")]).await, Fake::start(vec![plain("b")]).await);
    let (gateway, tape) = limited(&[&first, &second], &["requests_per_minute = 2"], "");
    let mut said = String::new();
    for _ in 0..4 {
        said.push_str(&gateway.complete(request(&gateway)).await.expect("answer").text);
    }
    assert_eq!((said.as_str(), first.requests(), second.requests()), ("aabb", 2, 2));
    assert_eq!(tape.whys(), ["first", "first", "failover", "failover"]);
    // Without another candidate, the request fails at once: a minute is longer than it has.
    let (gateway, tape) = limited(&[&first], &["requests_per_minute = 1"], "");
    gateway.complete(request(&gateway)).await.expect("answer");
    let error = gateway.complete(request(&gateway)).await.expect_err("no room");
    assert_eq!((error.code().as_str(), error.temporary()), ("rate_limited", true));
    assert!(error.message().contains("endpoints.e0.requests_per_minute is 1"), "{error}");
    assert!(error.retry_after().is_some_and(|after| after > Duration::from_secs(30)));
    assert_eq!((error.attempts().len(), error.attempts()[0].why), (1, None));
    assert_eq!(tape.outcomes().len(), 1);
}

#[tokio::test]
async fn absurd_retry_after_of_a_vendor_is_bounded() {
    let endless = "99999999999999999999";
    for header in [
        format!("retry-after: {endless}\r\n"),
        format!("retry-after-ms: {endless}999\r\n"),
        "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n".to_owned(),
        format!("x-ratelimit-limit-requests: 1\r\nx-ratelimit-remaining-requests: -1e300\r\nx-ratelimit-reset-requests: {endless}d\r\n"),
        "x-ratelimit-limit-tokens: 1e-300\r\nx-ratelimit-remaining-tokens: -1e300\r\nx-ratelimit-reset-tokens: 9000000000000000000s\r\n".to_owned(),
    ] {
        let (first, second) = (Fake::start(vec![reply(429, &header, "{}")]).await, Fake::start(vec![plain("b")]).await);
        let (gateway, _tape) = over(&[&first, &second], "");
        for _ in 0..2 {
            assert_eq!(gateway.complete(request(&gateway)).await.expect("the next one").text, "b", "{header}");
        }
        let (gateway, _tape) = over(&[&first], "retries = 0");
        let error = gateway.complete(request(&gateway)).await.expect_err("nobody");
        assert_eq!(error.code().as_str(), "rate_limited", "{header}");
        assert!(error.retry_after().is_none_or(|after| after <= Duration::from_secs(86_400)), "{header}");
    }
}

#[tokio::test]
async fn token_rate_is_charged_by_estimate_and_settled_afterwards() {
    let slow = vec![Step::Wait(Duration::from_millis(50))];
    let mut answer = slow.clone();
    answer.extend(plain("a"));
    let (first, second) = (Fake::start(vec![answer]).await, Fake::start(vec![plain("b")]).await);
    // The estimate is 1,040 tokens; an answer takes 11.
    let (gateway, _) = limited(&[&first, &second], &["tokens_per_minute = 1500"], "");
    for _ in 0..5 {
        assert_eq!(gateway.complete(request(&gateway)).await.expect("answer").text, "a");
    }
    let (one, other) = tokio::join!(gateway.complete(request(&gateway)), gateway.complete(request(&gateway)));
    let said = [one.expect("answer").text, other.expect("answer").text];
    assert_eq!(said, ["a", "b"], "two estimates are too much at once");
}

#[tokio::test]
async fn reported_limits_are_kept_before_the_vendor_refuses() {
    let headers =
        "x-ratelimit-limit-requests: 2\r\nx-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1m\r\n";
    let (first, second) = (Fake::start(vec![plain_with(headers, "x")]).await, Fake::start(vec![plain("b")]).await);
    let (gateway, tape) = over(&[&first, &second], "");
    gateway.complete(request(&gateway)).await.expect("answer");
    assert_eq!(gateway.complete(request(&gateway)).await.expect("answer").text, "b");
    assert_eq!((first.requests(), tape.whys()), (1, vec!["first", "failover"]));

    // Without another candidate, a limit that resets soon is waited for.
    let headers = "x-ratelimit-limit: 1\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: 0.3\r\n";
    let fake = Fake::start(vec![plain_with(headers, "x"), reply(429, "", "{}"), plain("late")]).await;
    let (gateway, tape) = over(&[&fake], "");
    let vendor_limits = Instant::now();
    gateway.complete(request(&gateway)).await.expect("answer");
    fake.script(vec![plain("later")]);
    assert_eq!(gateway.complete(request(&gateway)).await.expect("answer").text, "later");
    assert!(vendor_limits.elapsed() > Duration::from_millis(290), "{:?}", vendor_limits.elapsed());
    assert_eq!(tape.whys(), ["first", "first"]);
}

#[tokio::test]
async fn retry_after_of_a_429_holds_for_later_requests() {
    for header in ["retry-after: 1\r\n", "retry-after-ms: 1000\r\n"] {
        let fake = Fake::start(vec![reply(429, header, "{}"), plain("x")]).await;
        let (gateway, tape) = over(&[&fake], "retries = 0");
        let vendor_limits = Instant::now();
        assert_eq!(gateway.complete(request(&gateway)).await.expect_err("429").code().as_str(), "rate_limited");
        gateway.complete(request(&gateway)).await.expect("waited for");
        assert!(vendor_limits.elapsed() > Duration::from_millis(990), "{:?}", vendor_limits.elapsed());
        assert_eq!(tape.outcomes(), [("failed", Some("rate_limited")), ("ok", None)]);
    }
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
    let at = at.strftime("%a, %d %b %Y %H:%M:%S GMT");
    let fake = Fake::start(vec![reply(429, &format!("retry-after: {at}\r\n"), "{}"), plain("x")]).await;
    let (gateway, _) = over(&[&fake], "");
    for _ in 0..2 {
        let error = gateway.complete(request(&gateway)).await.expect_err("429");
        assert_eq!(error.code().as_str(), "rate_limited");
        assert!(error.retry_after().is_some_and(|after| after > Duration::from_secs(3000)), "{error:?}");
    }
    assert_eq!(fake.requests(), 1, "neither a retry nor another request before its time");
}

#[tokio::test]
async fn spending_limit_is_not_retried_and_opens_the_breaker() {
    let spent = r#"{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    let fake = Fake::start(vec![reply(429, "x-should-retry: true\r\n", spent)]).await;
    let (gateway, _) = over(&[&fake], "");
    for _ in 0..8 {
        let error = gateway.complete(request(&gateway)).await.expect_err("spent");
        assert_eq!(error.code().as_str(), "quota_exhausted");
    }
    assert_eq!(fake.requests(), 5);
}

#[tokio::test]
async fn slot_is_free_again_when_the_stream_is_dropped() {
    let fake = Fake::start(vec![vec![sse_head(), text("x"), Step::Hang], stream(&["y"])]).await;
    let (gateway, tape) = limited(&[&fake], &["max_concurrency = 1\nmax_wait_ms = 60000"], "");
    let held = open(&gateway, request(&gateway)).await.expect("stream");
    let waits = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.complete(request(&gateway)).await }
    });
    tokio::task::yield_now().await;
    drop(held);
    assert_eq!(waits.await.expect("task").expect("answer").text, "y");
    assert_eq!(tape.whys(), ["first", "first"]);
    // If no wait is allowed, the next candidate is asked at once.
    fake.script(vec![vec![sse_head(), text("x"), Step::Hang]]);
    let other = Fake::start(vec![plain("z")]).await;
    let (gateway, tape) = limited(&[&fake, &other], &["max_concurrency = 1\nmax_wait_ms = 0"], "");
    let _held = open(&gateway, request(&gateway)).await.expect("stream");
    assert_eq!(gateway.complete(request(&gateway)).await.expect("answer").text, "z");
    assert_eq!(tape.whys(), ["first", "failover"]);
}

#[tokio::test]
async fn counts_that_a_vendor_reports_correct_the_estimate_of_its_model() {
    let counting = |tokens: u64| {
        let usage = format!(r#""usage":{{"prompt_tokens":{tokens},"completion_tokens":2}}"#);
        let choice = r#""choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]"#;
        reply(200, "", &format!(r#"{{"id":"x",{choice},{usage}}}"#))
    };
    let capable = "capabilities = [{model = \"*\", context_length = 10000}]";
    let fake = Fake::start(vec![counting(1_000), counting(1_000)]).await;
    let (gateway, _) = limited(&[&fake], &[capable], "");
    let fit = || gateway.resolve("m", "k").expect("resolved").fit(Some(2_000), 0);
    assert_eq!((fit().within(1_000), fit().room()), (1_000, Some(6_000)));
    let mut long = request(&gateway);
    // 500 tokens with what a chat adds.
    long.chat.messages = vec![Message::text(Role::User, "word ".repeat(485))];
    gateway.complete(long).await.expect("answer");
    assert_eq!((fit().within(1_000), fit().room()), (500, Some(3_000)));
    gateway.complete(request(&gateway)).await.expect("answer");
    assert_eq!(fit().within(1_000), 500, "a short prompt says nothing");
}
