//! Live calls over three vendors that fail at random: no insight is lost, none is late without a report, there is no
//! storm of requests, and the ledger has the same tokens as the vendors. `scripts/chaos` runs it at full size.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, WIDE_LIMITS};
use crate::support::ledger::{self, Row};
use crate::support::producer::{Fleet, Producer};
use crate::support::vendor::{Dialect, Tokens, Vendor};
use crate::support::{Json, alone, flaky, knob, recording, seed};

/// The deadline of a request.
const TOTAL_MS: u64 = 8_000;

fn config(vendors: &[(&str, Vendor)]) -> String {
    let mut text = String::new();
    for (name, vendor) in vendors {
        text += &vendor.endpoint(name, "");
    }
    for (first, analysis) in ["summary", "sentiment", "sentiment_turn"].into_iter().enumerate() {
        let order: Vec<String> = (0..3).map(|step| format!("\"{}/v\"", vendors[(first + step) % 3].0)).collect();
        text += &format!(
            "[models.for-{analysis}]\ncandidates = [{}]\nheader_timeout_ms = 2000\nfirst_token_timeout_ms = 2000\n\
             between_tokens_timeout_ms = 2000\ntotal_timeout_ms = {TOTAL_MS}\n\
             [routes.{analysis}]\nvariants = [{{name = \"a\", model = \"for-{analysis}\"}}]\n",
            order.join(", ")
        );
    }
    text + WIDE_LIMITS
        + "[ingest]\nlinger_ms = 200\nanalyses = [\"summary\", \"sentiment\", \"sentiment_turn\"]\n\
           [analyses.summary]\nevery_n_turns = 2\ndebounce_ms = 0\n\
           [analyses.sentiment]\nevery_n_turns = 2\ndebounce_ms = 0\n"
}

/// Frames of `count` calls of up to `turns` finals each, from the recordings; made-up ones if there are no recordings.
fn calls(count: usize, turns: usize) -> Vec<(String, Vec<String>)> {
    let recordings = recording::all().unwrap_or_else(|| {
        println!("SKIPPED: no recordings; made-up calls instead");
        (0..8).map(|seed| recording::made_up(&format!("made-up-{seed}"), turns as u64, seed)).collect()
    });
    let cut: Vec<Vec<Json>> = recordings.into_iter().map(|recording| shortened(recording, turns)).collect();
    let long = |frames: &Vec<Json>| frames.iter().filter(|frame| is_final(frame)).count() >= turns;
    let cut: Vec<Vec<Json>> = cut.into_iter().filter(long).collect();
    assert!(cut.len() >= 4, "only {} recordings of {turns} turns", cut.len());
    let texts = |number: usize| cut[number % cut.len()].iter().map(ToString::to_string).collect();
    (0..count).map(|number| (format!("chaos-{number}"), texts(number))).collect()
}

fn is_final(frame: &Json) -> bool {
    frame["type"] == "Turn" && frame["end_of_turn"] == true && frame["transcript"] != ""
}

/// The first `turns` finals and the vendor's last message.
fn shortened(recording: recording::Recording, turns: usize) -> Vec<Json> {
    let (mut frames, mut finals) = (Vec::new(), 0);
    for (_, frame) in recording.without_partials().frames {
        let counts = is_final(&frame);
        if (counts && finals < turns) || frame["type"] == "Begin" || frame["type"] == "Termination" {
            finals += usize::from(counts);
            frames.push(frame);
        }
    }
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vendors_that_fail_at_random() {
    let _machine = alone().await;
    let seed = seed("chaos");
    let count = knob("CHAOS_CALLS", 16);
    let turns = knob("CHAOS_TURNS", 12);
    let lasts = Duration::from_secs(knob("CHAOS_SECONDS", 8) as u64);
    let percent = knob("CHAOS_PERCENT", 15);
    let vendors = [
        ("openai", flaky::start(Dialect::OpenAi, percent, seed).await),
        ("anthropic", flaky::start(Dialect::Anthropic, percent, seed + 1).await),
        ("google", flaky::start(Dialect::Google, percent, seed + 2).await),
    ];
    vendors.iter().for_each(|(_, vendor)| vendor.slim());
    let daemon = Daemon::start(&config(&vendors)).await;
    let fleet = Arc::new(Fleet::default());
    let calls = calls(count, turns);
    let frames = calls.iter().map(|(_, frames)| frames.len()).max().unwrap_or(1);
    fleet.pace_us.store(u64::try_from(lasts.as_micros()).expect("short") / frames as u64, Ordering::Relaxed);
    let began = Instant::now();
    let mut feeding = tokio::task::JoinSet::new();
    for (name, frames) in &calls {
        let producer = Producer::assemblyai(daemon.port, name, frames.clone(), &fleet);
        feeding.spawn(producer.run(lasts * 2 + Duration::from_secs(120)));
    }
    while let Some(outcome) = feeding.join_next().await {
        let outcome = outcome.expect("join");
        assert!(outcome.completed.is_some(), "a call was not completed; errors: {:?}", outcome.errors);
    }
    let took = began.elapsed();
    let mut tally = Tally::default();
    for (name, _) in &calls {
        tally.call(name, &daemon.events(name).await);
    }
    let asked: u64 = vendors.iter().map(|(_, vendor)| vendor.count()).sum();
    let rows = ledger::settled(&daemon.dir, asked as usize, |_| true).await;
    let requests: HashSet<i64> = rows.iter().map(|row| row.request).collect();
    let ratio = rows.len() as f64 / requests.len() as f64;
    println!(
        "chaos: {count} calls of {turns} turns in {took:?}: {} insights, {} failures told {:?}; {} requests, {} attempts \
         (x{ratio:.3}); slowest answer {} ms",
        tally.updated,
        tally.failed,
        tally.codes,
        requests.len(),
        rows.len(),
        tally.slowest_ms
    );
    let mut wrong = std::mem::take(&mut tally.wrong);
    for (name, vendor) in &vendors {
        audit(name, vendor, &rows, &mut wrong);
    }
    if tally.slowest_ms > TOTAL_MS + 3_000 {
        wrong.push(format!("an insight took {} ms, its deadline is {TOTAL_MS} ms", tally.slowest_ms));
    }
    if ratio >= 1.5 {
        wrong.push(format!("{ratio} attempts a request"));
    }
    let (inflight, reserved) = (
        daemon.metric("sidetone_gateway_inflight_attempts", &[]).await,
        daemon.metric("sidetone_gateway_reserved_usd", &[]).await,
    );
    assert_eq!((inflight, reserved), (0.0, 0.0));
    let shown: Vec<&String> = wrong.iter().take(20).collect();
    assert!(wrong.is_empty(), "{} things are wrong: {shown:#?}", wrong.len());
}

#[derive(Default)]
struct Tally {
    updated: usize,
    failed: usize,
    slowest_ms: u64,
    /// Failures by code.
    codes: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Tally {
    /// Every final turn has one result or one failure; every rolling analysis has a final result.
    fn call(&mut self, name: &str, events: &[Json]) {
        let turns = events.iter().filter(|event| event["type"] == "turn.final").count() as u64;
        let mut results: HashMap<u64, usize> = HashMap::new();
        let mut last: BTreeMap<String, &Json> = BTreeMap::new();
        for event in events {
            let (analysis, turn) = match event["type"].as_str() {
                Some("insight.updated") => {
                    self.updated += 1;
                    let model_ms = event["insight"]["latency_ms"]["model"].as_u64().unwrap_or(0);
                    self.slowest_ms = self.slowest_ms.max(model_ms);
                    (&event["insight"]["analysis"], event["insight"]["turn"].as_u64())
                }
                Some("insight.failed") => {
                    self.failed += 1;
                    *self.codes.entry(event["code"].to_string()).or_default() += 1;
                    (&event["analysis"], event["turn"].as_u64())
                }
                _ => continue,
            };
            if let Some(turn) = turn {
                *results.entry(turn).or_default() += 1;
            }
            last.insert(analysis.as_str().unwrap_or_default().to_owned(), event);
        }
        for turn in 0..turns {
            let found = results.get(&turn).copied().unwrap_or(0);
            if found != 1 {
                self.wrong.push(format!("{name}: turn {turn} has {found} results"));
            }
        }
        let completed = events.iter().find(|event| event["type"] == "call.completed");
        for analysis in ["summary", "sentiment"] {
            let has = completed.is_some_and(|event| !event["final"][analysis].is_null());
            let told = last.get(analysis).is_some_and(|event| event["type"] == "insight.failed");
            if !has && !told {
                self.wrong.push(format!("{name}: {analysis} has no last word: {completed:?}"));
            }
        }
    }
}

/// Compares each row with its request: the number of input tokens identifies the request.
fn audit(name: &str, vendor: &Vendor, rows: &[Row], wrong: &mut Vec<String>) {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.endpoint == name).collect();
    let asked: HashMap<u64, _> = vendor.asked().into_iter().map(|asked| (asked.number, asked)).collect();
    let aborted = rows.iter().filter(|row| row.outcome == "aborted").count();
    let outcomes = |outcome: &str| rows.iter().filter(|row| row.outcome == outcome).count();
    println!(
        "  {name}: {} requests; rows: {} ok, {} failed, {} partial, {aborted} aborted",
        vendor.count(),
        outcomes("ok"),
        outcomes("failed"),
        outcomes("partial")
    );
    // An aborted request may not have reached the vendor.
    let count = vendor.count() as usize;
    if rows.len() < count || rows.len() - count > aborted {
        wrong.push(format!("{name}: {} rows, {count} requests", rows.len()));
    }
    let mut seen = HashSet::new();
    let (mut input, mut output) = (0, 0);
    for row in rows.iter().filter(|row| row.outcome == "ok") {
        let number = row.input.unwrap_or(0).saturating_sub(100);
        let told = asked.get(&number).map(Tokens::of);
        let booked =
            row.input.zip(row.output).map(|(input, output)| Tokens { input, cached: row.cached.unwrap_or(0), output });
        if told.is_none() || told != booked || !seen.insert(number) {
            wrong.push(format!("{name}: told {told:?}, booked {booked:?}: {row:?}"));
        }
        input += row.input.unwrap_or(0);
        output += row.output.unwrap_or(0);
    }
    println!("    {input} tokens in and {output} out, each row equal to what its request was told");
}
