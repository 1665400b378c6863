//! Hedges: a second attempt beside a slow one.

use std::time::Duration;

use super::fake::{Fake, Reply, Step, plain, reply, sse_head, stream, text};
use super::*;

const HEDGED: &str = "hedge_quantile = 0.9";

/// Gets enough answers for a quantile and for one hedge.
async fn warm(gateway: &Gateway, streamed: bool) {
    for _ in 0..20 {
        ask(gateway, streamed).await.expect("answer");
    }
}

/// Sends a request; returns the text and the number of attempts.
async fn ask(gateway: &Gateway, streamed: bool) -> Result<(String, u32), GatewayError> {
    if streamed {
        let answer = gateway.complete(upstream_streamed(gateway)).await?;
        Ok((answer.text, answer.provenance.attempts))
    } else {
        let answer = gateway.complete(request(gateway)).await?;
        Ok((answer.text, answer.provenance.attempts))
    }
}

fn good(streamed: bool, said: &str) -> Reply {
    if streamed { stream(&[said]) } else { plain(said) }
}

/// The rows after the warm-up, as (why, outcome, code).
fn rows(tape: &Tape) -> Vec<(&'static str, &'static str, Option<&'static str>)> {
    let (begun, done) = (tape.begun.lock().expect("tape"), tape.done.lock().expect("tape"));
    assert_eq!(begun.len(), done.len(), "every row is completed");
    let of = |id| done.iter().find(|done| done.id == id).expect("row");
    begun.iter().skip(20).map(|begun| (begun.why.as_str(), of(begun.id).outcome.as_str(), of(begun.id).code)).collect()
}

#[tokio::test]
async fn hedge_at_the_next_candidate_wins_and_the_slow_attempt_is_aborted() {
    for streamed in [true, false] {
        let (slow, other) =
            (Fake::start(vec![good(streamed, "a")]).await, Fake::start(vec![good(streamed, "b")]).await);
        let (gateway, tape) = over(&[&slow, &other], HEDGED);
        warm(&gateway, streamed).await;
        slow.script(vec![if streamed { vec![sse_head(), Step::Hang] } else { vec![Step::Hang] }]);
        assert_eq!(ask(&gateway, streamed).await.expect("answer"), ("b".to_owned(), 2));
        assert_eq!(rows(&tape), [("first", "aborted", Some("hedge_lost")), ("hedge", "ok", None)]);
        aborted(&slow, 1).await;
    }
}

#[tokio::test]
async fn hedge_without_another_candidate_asks_the_same_one_at_most_one_in_twenty() {
    let fake = Fake::start(vec![plain("a")]).await;
    let (gateway, tape) = over(&[&fake], HEDGED);
    warm(&gateway, false).await;
    fake.script(vec![vec![Step::Hang], plain("b"), vec![Step::Hang]]);
    assert_eq!(ask(&gateway, false).await.expect("answer"), ("b".to_owned(), 2));
    aborted(&fake, 1).await;
    // The allowance is spent: the next slow request has only its own timeout.
    let request = Request { deadline: Some(Duration::from_secs(1)), ..request(&gateway) };
    assert_eq!(gateway.complete(request).await.expect_err("slow").code().as_str(), "timeout");
    let expected =
        [("first", "aborted", Some("hedge_lost")), ("hedge", "ok", None), ("first", "failed", Some("timeout"))];
    assert_eq!(rows(&tape), expected);
}

#[tokio::test]
async fn hedge_is_aborted_when_the_first_attempt_wins() {
    let (first, other) = (Fake::start(vec![plain("a")]).await, Fake::start(vec![vec![Step::Hang]]).await);
    let (gateway, tape) = over(&[&first, &other], HEDGED);
    warm(&gateway, false).await;
    // Slow enough to be hedged, and faster than the hedge.
    let mut late = vec![other.until(1)];
    late.extend(plain("late"));
    first.script(vec![late]);
    assert_eq!(ask(&gateway, false).await.expect("answer"), ("late".to_owned(), 2));
    assert_eq!(rows(&tape), [("first", "ok", None), ("hedge", "aborted", Some("hedge_lost"))]);
    aborted(&other, 1).await;
}

#[tokio::test]
async fn failed_attempt_and_failed_hedge_move_on_to_the_next_candidate() {
    let broken = reply(400, "", "{}");
    let (first, second, third) = (
        Fake::start(vec![plain("a")]).await,
        Fake::start(vec![broken.clone()]).await,
        Fake::start(vec![plain("c")]).await,
    );
    let (gateway, tape) = over(&[&first, &second, &third], HEDGED);
    warm(&gateway, false).await;
    let mut late = vec![second.until(1)];
    late.extend(broken);
    first.script(vec![late]);
    assert_eq!(ask(&gateway, false).await.expect("answer"), ("c".to_owned(), 3));
    let failed = Some("invalid_request");
    assert_eq!(rows(&tape), [("first", "failed", failed), ("hedge", "failed", failed), ("failover", "ok", None)]);
}

#[tokio::test]
async fn hedge_never_waits_and_is_off_unless_configured() {
    // The other endpoint has no free slot, and neither has the slow one.
    let (slow, other) =
        (Fake::start(vec![plain("a")]).await, Fake::start(vec![vec![sse_head(), text("x"), Step::Hang]]).await);
    let places = ["max_concurrency = 1", "max_concurrency = 1"];
    let (gateway, tape) = limited(&[&slow, &other], &places, HEDGED);
    warm(&gateway, false).await;
    let vendor = gateway.resolve("e1/v", "k").expect("resolved");
    let held = open(&gateway, Request { resolved: vendor, ..request(&gateway) }).await.expect("stream");
    let mut late = vec![Step::Wait(Duration::from_millis(100))];
    late.extend(plain("late"));
    slow.script(vec![late]);
    assert_eq!(ask(&gateway, false).await.expect("answer"), ("late".to_owned(), 1));
    drop(held);
    assert!(!tape.whys().contains(&"hedge"));

    let (gateway, tape) = over(&[&slow, &other], "");
    slow.script(vec![plain("a")]);
    warm(&gateway, false).await;
    let mut late = vec![Step::Wait(Duration::from_millis(100))];
    late.extend(plain("late"));
    slow.script(vec![late]);
    assert_eq!(ask(&gateway, false).await.expect("answer"), ("late".to_owned(), 1));
    assert!(!tape.whys().contains(&"hedge"));
}
