//! Spending limits: concurrent requests spend as much as the limit allows and never more.

use std::sync::Arc;
use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::ledger;
use crate::support::vendor::{Dialect, Step, Tokens, Vendor, chunk, reply, stream_head};
use crate::support::ws::{ingest, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

/// The tokens that every answer reports: at the prices below, one cent.
const TOKENS: Tokens = Tokens { input: 100, cached: 0, output: 10 };
const CENT: i64 = 10_000_000_000;

/// The limit of a day applies to a UTC day: shortly before midnight, wait for the next day.
async fn early_in_the_day() {
    const DAY: u64 = 24 * 60 * 60;
    let left = || DAY - std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() % DAY;
    while left() < 2 * PATIENCE.as_secs() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A slow vendor, and a daemon with a spending limit that uses it.
async fn capped(cap: &str, second: &str) -> (Vendor, Daemon) {
    let vendor = Vendor::start(Dialect::OpenAi, |asked| {
        let schema = Dialect::OpenAi.schema(&asked.body);
        let text = schema
            .map_or_else(|| "fine".to_owned(), |schema| crate::support::llm::minimal(&schema, &schema).to_string());
        let mut steps = vec![Step::Wait(Duration::from_millis(30))];
        steps.extend(Dialect::OpenAi.answer(asked, &[&text], TOKENS));
        steps
    })
    .await;
    let prices = "prices = [{ model = \"*\", input = 100.0, output = 0.0 }]";
    let config = vendor.endpoint("e", prices)
        + &format!(
            "[models.m]\ncandidates = [\"e/v\"{second}]\n[gateway]\ndefault_route = \"r\"\n\
             [routes.r]\nvariants = [{{name = \"a\", model = \"m\"}}]\n[limits]\n{cap} = 0.30\n\
             [ingest]\nlinger_ms = 50\nanalyses = [\"summary\"]\n[analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0\n"
        );
    let daemon = Daemon::start(&config).await;
    (vendor, daemon)
}

/// Sends 100 requests at once, every other one for a stream; returns how many were answered.
async fn rush(daemon: &Arc<Daemon>, limit: &str, more: Json) -> usize {
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..100 {
        let daemon = Arc::clone(daemon);
        let mut body = json!({"model":"m","stream":number % 2 == 0,"max_tokens":10,
            "messages":[{"role":"user","content":"hello"}]});
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        asking.spawn(async move { daemon.post("/v1/chat/completions", &body).await });
    }
    let mut answered = 0;
    while let Some(reply) = asking.join_next().await {
        let reply = reply.expect("join");
        if reply.status == 200 {
            answered += 1;
            continue;
        }
        assert_eq!(reply.status, 402, "{}", reply.text());
        let error = &reply.json()["error"];
        assert_eq!(error["code"], "budget_exhausted", "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(limit)), "{error}");
    }
    answered
}

async fn spent(daemon: &Daemon, count: usize) -> i64 {
    let rows = ledger::settled(&daemon.dir, count, |_| true).await;
    assert!(rows.iter().all(|row| row.outcome == "ok" && row.cost_pico == Some(CENT)), "{rows:?}");
    rows.iter().filter_map(|row| row.cost_pico).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_concurrent_requests_do_not_exceed_usd_per_day() {
    let _machine = shared().await;
    early_in_the_day().await;
    let (vendor, daemon) = capped("usd_per_day", "").await;
    let mut daemon = Arc::new(daemon);
    assert_eq!(rush(&daemon, "limits.usd_per_day", json!({})).await, 30);
    assert_eq!((vendor.count(), spent(&daemon, 30).await), (30, 30 * CENT));
    assert_eq!(daemon.metric("sidetone_gateway_reserved_usd", &[]).await, 0.0);
    // The ledger keeps the sum across a restart.
    Arc::get_mut(&mut daemon).expect("nobody else").restart().await;
    assert_eq!(rush(&daemon, "limits.usd_per_day", json!({})).await, 0);
    assert_eq!(vendor.count(), 30);
    // An analysis continues with the embedded provider, which costs nothing, and its insight names it.
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    let insight = client.of_type("insight.updated").await;
    assert_eq!(insight["insight"]["degraded"], true, "{insight}");
    assert_eq!(insight["insight"]["provenance"]["endpoint"], "local", "{insight}");
    assert_eq!(vendor.count(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usd_per_call_applies_to_each_call() {
    let _machine = shared().await;
    let (vendor, daemon) = capped("usd_per_call", "").await;
    let daemon = Arc::new(daemon);
    let (mut first, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    first.send(&turn(0, "agent", "Hello.")).await;
    let insight = first.of_type("insight.updated").await;
    assert_eq!(insight["insight"]["degraded"], false, "{insight}");
    let about = json!({"transcript":{"call_id":"c1"}});
    assert_eq!(rush(&daemon, "limits.usd_per_call", about).await, 29, "the insight was one of 30");
    assert_eq!((vendor.count(), spent(&daemon, 30).await), (30, 30 * CENT));
    first.send(&turn(1, "agent", "The parcel is late.")).await;
    let insight = first.until("the next insight", |frame| frame["insight"]["covers"]["to"] == 1).await;
    assert_eq!(insight["insight"]["degraded"], true, "{insight}");
    // Another call has its own limit.
    let (mut second, _) = ingest(&daemon, "call_id=c2&stream_id=s_1").await;
    second.send(&turn(0, "agent", "Hello.")).await;
    let insight = second.of_type("insight.updated").await;
    assert_eq!(insight["insight"]["degraded"], false, "{insight}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_and_aborts_release_their_reservations() {
    let _machine = shared().await;
    early_in_the_day().await;
    let (vendor, daemon) = capped("usd_per_day", "").await;
    let slow = |steps: Vec<Step>| [vec![Step::Wait(Duration::from_millis(30))], steps].concat();
    vendor.script(move |asked| {
        slow(match asked.number % 6 {
            0 => reply(500, "", &Dialect::OpenAi.error(500, "server_error", "no")),
            1 => vec![Step::Reset],
            2 if asked.stream => vec![stream_head(), chunk(Dialect::OpenAi.text("so", TOKENS)), Step::Close],
            _ => Dialect::OpenAi.answer(asked, &["fine"], TOKENS),
        })
    });
    let daemon = Arc::new(daemon);
    let ask = |number: usize| {
        let daemon = Arc::clone(&daemon);
        let body = json!({"model":"m","stream":number.is_multiple_of(2),"max_tokens":10,
            "messages":[{"role":"user","content":"hello"}]});
        async move { daemon.post("/v1/chat/completions", &body).await.status }
    };
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..100 {
        let asked = ask(number);
        asking.spawn(async move {
            // Every fifth client disconnects, at any point.
            let patience = if number % 5 == 4 { Duration::from_millis(number as u64) } else { Duration::from_secs(60) };
            tokio::time::timeout(patience, asked).await.ok()
        });
    }
    let mut by_status = std::collections::BTreeMap::<Option<u16>, usize>::new();
    while let Some(status) = asking.join_next().await {
        *by_status.entry(status.expect("join")).or_default() += 1;
    }
    vendor.script(move |asked| slow(Dialect::OpenAi.answer(asked, &["fine"], TOKENS)));
    // Money that is not reserved can be spent; a circuit breaker may be open for some time.
    eventually("the cap is spent", PATIENCE, || async { (ask(1).await == 402).then_some(()) }).await;
    for gauge in ["sidetone_gateway_reserved_usd", "sidetone_gateway_inflight_attempts"] {
        eventually(gauge, PATIENCE, || async { (daemon.metric(gauge, &[]).await == 0.0).then_some(()) }).await;
    }
    let rows = ledger::settled(&daemon.dir, vendor.count() as usize, |_| true).await;
    let spent: i64 = rows.iter().filter_map(|row| row.cost_pico).sum();
    let unknown = rows.iter().filter(|row| row.outcome == "partial" || row.outcome == "aborted").count() as i64;
    println!("{by_status:?}; {} attempts, {unknown} of unknown cost; {} cents spent", rows.len(), spent / CENT);
    assert!(spent <= 30 * CENT, "{spent}");
    // An attempt that began and has no bill counts as estimated, which is less than a cent here.
    assert!(spent > (29 - unknown) * CENT, "{spent} of {CENT} a request, {unknown} of unknown cost");
}
