//! Spending limits with concurrent requests.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::fake::{Fake, Step, plain, stream};
use super::*;
use crate::types::CallId;

/// A gateway with caps, on a day that does not end.
fn capped(fake: &Fake, per_call: Option<f64>, per_day: Option<f64>, spent: i64) -> (Gateway, Arc<Tape>) {
    capped_at(fake, per_call, per_day, spent, &Arc::default())
}

/// The same, with a clock that the test sets, Unix ms.
fn capped_at(
    fake: &Fake,
    per_call: Option<f64>,
    per_day: Option<f64>,
    spent: i64,
    clock: &Arc<AtomicI64>,
) -> (Gateway, Arc<Tape>) {
    // The fake counts 9 prompt tokens and 2 tokens of the answer: one dollar.
    let text = format!(
        "[endpoints.e0]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\n\
         prices = [{{model = \"*\", input = 100000, output = 50000}}]\n[models.m]\ncandidates = [\"e0/v\"]",
        fake.url
    );
    let tape = Arc::new(Tape::default());
    let recorder: Arc<dyn Recorder> = Arc::clone(&tape) as _;
    let clock = Arc::clone(clock);
    let clock = Box::new(move || clock.load(Ordering::Relaxed));
    let budget = Budget::with_clock(per_call, per_day, spent, Box::new(|_| 0), clock);
    let gateway = Gateway::recorded(config(&text), Metrics::default(), recorder, Some(budget)).expect("gateway");
    (gateway, tape)
}

fn request(gateway: &Gateway, call: Option<&str>) -> Request {
    let mut request = super::request(gateway);
    request.chat.max_tokens = Some(2);
    request.origin.call = call.map(|call| CallId::parse(call).expect("id"));
    request
}

#[tokio::test]
async fn concurrent_requests_never_spend_more_than_the_cap() {
    let mut slow = vec![Step::Wait(Duration::from_millis(20))];
    slow.extend(plain("x"));
    let fake = Fake::start(vec![slow]).await;
    for (per_call, per_day, limit) in
        [(None, Some(30.0), "limits.usd_per_day"), (Some(30.0), None, "limits.usd_per_call")]
    {
        let (gateway, tape) = capped(&fake, per_call, per_day, 0);
        let asked = (0..100).map(|_| {
            let gateway = gateway.clone();
            tokio::spawn(async move { gateway.complete(request(&gateway, Some("c_1"))).await })
        });
        let (mut answered, mut refused) = (0, 0);
        for asked in asked.collect::<Vec<_>>() {
            match asked.await.expect("task") {
                Ok(answer) => {
                    assert_eq!(answer.cost_usd, Some(1.0));
                    answered += 1;
                }
                Err(error) => {
                    assert_eq!(error.code().as_str(), "budget_exhausted");
                    assert!(error.message().contains(limit), "{error}");
                    refused += 1;
                }
            }
        }
        // The estimate is above the real cost: the last dollars may stay unspent, but none is spent twice.
        assert!((28..=30).contains(&answered), "{answered} answered");
        assert_eq!((answered + refused, tape.outcomes().len()), (100, answered));
    }
}

#[tokio::test]
async fn request_without_max_tokens_is_not_refused_for_an_estimate() {
    let fake = Fake::start(vec![plain("x")]).await;
    // An answer without a limit is assumed to have 1,024 tokens, which would cost 51 dollars.
    let (gateway, _) = capped(&fake, None, Some(3.0), 0);
    let unlimited = || {
        let mut request = request(&gateway, None);
        request.chat.max_tokens = None;
        request
    };
    assert!(gateway.complete(unlimited()).await.is_ok());
    assert!(gateway.complete(unlimited()).await.is_ok());
    assert_eq!(gateway.complete(unlimited()).await.expect_err("one dollar").code().as_str(), "budget_exhausted");
}

#[tokio::test]
async fn earlier_spending_counts_and_failures_cost_nothing() {
    let fake = Fake::start(vec![fake::reply(400, "", "{}"), plain("x")]).await;
    let (gateway, _) = capped(&fake, None, Some(30.0), 25_000_000_000_000);
    assert_eq!(gateway.complete(request(&gateway, None)).await.expect_err("400").code().as_str(), "invalid_request");
    let mut answered = 0;
    while gateway.complete(request(&gateway, None)).await.is_ok() {
        answered += 1;
    }
    assert!((3..=5).contains(&answered), "{answered}");
}

#[tokio::test]
async fn attempt_counts_on_the_day_on_which_it_began() {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let hanging = vec![fake::sse_head(), fake::text("x"), Step::Hang];
    let fake = Fake::start(vec![hanging, plain("x")]).await;
    let clock = Arc::new(AtomicI64::new(9 * DAY_MS - 1));
    // Two dollars are left of the day, and an attempt holds them.
    let (gateway, _) = capped_at(&fake, None, Some(10.0), 8_000_000_000_000, &clock);
    let over_midnight = open(&gateway, request(&gateway, None)).await.expect("stream");
    clock.store(9 * DAY_MS, Ordering::Relaxed);
    assert!(gateway.complete(request(&gateway, None)).await.is_ok());
    drop(over_midnight);
    // One dollar is spent and nothing is held: all that is left of the ten can be spent, and no more.
    let mut answered = 1;
    while gateway.complete(request(&gateway, None)).await.is_ok() {
        answered += 1;
    }
    assert!((8..=10).contains(&answered), "{answered}");
    clock.store(10 * DAY_MS - 1, Ordering::Relaxed);
    assert!(gateway.complete(request(&gateway, None)).await.is_err(), "the day is the same");
}

#[tokio::test]
async fn dropped_stream_frees_its_reservation() {
    let fake = Fake::start(vec![vec![fake::sse_head(), fake::text("x"), Step::Hang], stream(&["y"])]).await;
    // The estimate is 1.70 USD, and an answer that had begun counts as that much: the rest is enough for one more.
    let (gateway, tape) = capped(&fake, None, Some(3.5), 0);
    drop(open(&gateway, request(&gateway, None)).await.expect("stream"));
    assert_eq!(tape.outcomes(), [("aborted", None)]);
    assert!(gateway.complete(request(&gateway, None)).await.is_ok());
}

#[tokio::test]
async fn request_waiting_for_a_spending_limit_holds_no_slot() {
    let streaming = Fake::start(vec![vec![fake::sse_head(), fake::text("x"), Step::Hang]]).await;
    let narrow = Fake::start(vec![plain("x")]).await;
    let price = "prices = [{model = \"*\", input = 100000, output = 50000}]";
    let text = format!(
        "[endpoints.e0]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\n{price}\n\
         [endpoints.e1]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\nmax_concurrency = 1\n{price}\n\
         [models.m]\ncandidates = [\"e0/v\"]\n[models.n]\ncandidates = [\"e1/v\"]",
        streaming.url, narrow.url
    );
    let budget = Budget::new(Some(10.0), None, 0, Box::new(|_| 0));
    let recorder: Arc<dyn Recorder> = Arc::new(Tape::default());
    let gateway = Gateway::recorded(config(&text), Metrics::default(), recorder, Some(budget)).expect("gateway");
    let on = |model: &str, call| Request {
        resolved: gateway.resolve(model, "k").expect("resolved"),
        ..request(&gateway, Some(call))
    };
    // The first attempt at a model holds everything that its call has left.
    let first = open(&gateway, on("m", "c_1")).await.expect("stream");
    let second = tokio::spawn({
        let (gateway, request) = (gateway.clone(), on("n", "c_1"));
        async move { gateway.complete(request).await }
    });
    // Whatever the second request is waiting for by now, another call's request gets the slot.
    for _ in 0..3 {
        assert!(gateway.complete(on("n", "c_2")).await.is_ok());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!second.is_finished(), "it waits for the first");
    drop(first);
    assert!(second.await.expect("task").is_ok());
}
