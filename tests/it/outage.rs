//! The LLM fails and recovers; the disk fills up and is freed: calls continue, and failed work is done later without
//! intervention.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::daemon::Daemon;
use crate::support::disk::SmallDisk;
use crate::support::llm::{MockLlm, Step};
use crate::support::model::assert_dense;
use crate::support::stats::percentile;
use crate::support::watcher::Watcher;
use crate::support::ws::{Client, ingest, subscribe, subscriber, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

/// How long a request waits for an LLM that sends nothing.
const STALL: Duration = Duration::from_millis(400);

/// A producer that sends a turn every 100 ms and records when, and how long the ack took.
struct Talker {
    stop: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Vec<(Instant, Duration)>>,
}

fn talk(mut client: Client) -> Talker {
    let stop = Arc::new(AtomicU64::new(0));
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let (mut order, mut times) = (0, Vec::new());
        while stopped.load(Ordering::Relaxed) == 0 {
            let begun = Instant::now();
            client.send(&turn(order, "customer", &format!("Thing number {order} went wrong."))).await;
            client.acked(order).await;
            times.push((begun, begun.elapsed()));
            order += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Keep the socket, so that the call stays open.
        let hold = stopped;
        while hold.load(Ordering::Relaxed) == 1 {
            client.recv_within(Duration::from_millis(50)).await;
        }
        times
    });
    Talker { stop, task }
}

fn failures(watcher: &Watcher, call: &str) -> Vec<String> {
    let seen = watcher.seen.lock().unwrap();
    let events = seen.events.get(call).into_iter().flatten();
    events
        .filter(|event| event["type"] == "insight.failed")
        .map(|event| event["code"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_llm_goes_down_and_comes_back() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let stall = STALL.as_millis();
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"summary\", \"sentiment\"]\n\
         [analyses.summary]\nevery_n_turns = 1\n[analyses.sentiment]\nevery_n_turns = 2\n",
        mock.config(&format!(
            "connect_timeout_ms = {stall}\nheader_timeout_ms = {stall}\nfirst_token_timeout_ms = {stall}\n\
             total_timeout_ms = {}",
            2 * stall
        ))
    );
    let daemon = Daemon::start(&config).await;
    let watcher = Watcher::start(daemon.port, json!({}));
    let calls: Vec<String> = (0..5).map(|number| format!("c{number}")).collect();
    let mut talkers = Vec::new();
    for call in &calls {
        talkers.push(talk(ingest(&daemon, &format!("call_id={call}&stream_id=s_1&results=none")).await.0));
    }
    let insights_of = |call: &str| {
        let seen = watcher.seen.lock().unwrap();
        seen.events.get(call).into_iter().flatten().filter(|event| event["type"] == "insight.updated").count()
    };
    eventually("insights while all is well", PATIENCE, || async {
        calls.iter().all(|call| insights_of(call) >= 2).then_some(())
    })
    .await;

    let all_failed_with = async |code: &str| {
        let deadline = Instant::now() + PATIENCE;
        while !calls.iter().all(|call| failures(&watcher, call).last().is_some_and(|last| last == code)) {
            let so_far: Vec<Vec<String>> = calls.iter().map(|call| failures(&watcher, call)).collect();
            assert!(
                Instant::now() < deadline,
                "never {code} of every call: {} requests, {} open; {:?}",
                mock.count(),
                mock.open(),
                so_far.iter().map(|codes| (codes.len(), codes.last().cloned())).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    mock.refuse();
    all_failed_with("refused").await;
    mock.script(|_| Step::Stall);
    mock.accept();
    let stalled = Instant::now();
    all_failed_with("timeout").await;
    let stalled = stalled..Instant::now();
    mock.script(|_| Step::Status(500));
    all_failed_with("upstream_error").await;

    // The talkers stop, so that the number of turns no longer changes.
    for talker in &talkers {
        talker.stop.store(1, Ordering::Relaxed);
    }
    let before = mock.count();
    mock.script(|asked| Step::Answer(Duration::from_millis(asked.number % 5)));
    let well = Instant::now();
    for call in &calls {
        eventually(&format!("{call}: insights that cover all turns"), PATIENCE, || async {
            let turns = daemon.turns(call).await.len() as u64;
            let view = daemon.get_json(&format!("/v1/calls/{call}")).await;
            let covered = ["summary", "sentiment"].iter().all(|name| {
                let covers = &view["insights"][*name]["covers"];
                covers["to"].as_u64() == Some(turns - 1) && covers["turns"].as_u64() == Some(turns)
            });
            covered.then_some(())
        })
        .await;
    }
    let asked = mock.count() - before;
    println!("caught up after {:?} by {asked} requests for {} analyses", well.elapsed(), calls.len() * 2);
    assert!(asked <= 3 * 2 * calls.len() as u64, "{asked} requests");
    for call in &calls {
        let mut codes = failures(&watcher, call);
        codes.dedup();
        let order: Vec<&str> = codes.iter().map(String::as_str).collect();
        let first = |code: &str| order.iter().position(|one| *one == code).unwrap_or(usize::MAX);
        assert!(first("refused") < first("timeout") && first("timeout") < first("upstream_error"), "{call}: {order:?}");
        let failed: Vec<Json> = {
            let seen = watcher.seen.lock().unwrap();
            seen.events[call].iter().filter(|event| event["type"] == "insight.failed").cloned().collect()
        };
        for event in failed {
            assert_eq!(event["temporary"], true, "{event}");
            assert!(event["last_good_rev"].as_u64().is_some(), "{event}");
        }
    }
    let mut times = Vec::new();
    for talker in talkers {
        talker.stop.store(2, Ordering::Relaxed);
        times.extend(talker.task.await.expect("join"));
    }
    // Ingest is not affected: an ack that waited for the LLM would take as long as its request.
    let count = times.len();
    let mut beside: Vec<Duration> =
        times.into_iter().filter(|(begun, _)| stalled.contains(begun)).map(|(_, took)| took).collect();
    let median = percentile(&mut beside, 0.5);
    println!("{count} acks through it all; {} beside a stalled LLM, median {median:?}", beside.len());
    assert!(beside.len() >= 5 && median < STALL, "{} acks, median {median:?}", beside.len());
    watcher.assert_faultless();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_fills_up_and_is_freed() {
    let _machine = shared().await;
    let Some(disk) = SmallDisk::mount("24m") else { return };
    let home = tempfile::tempdir().expect("folder");
    let config = format!(
        "[ingest]\nlinger_ms = 50\nanalyses = [\"summary\"]\n[storage]\ndir = {:?}\n",
        disk.path().join("journal").display().to_string()
    );
    let mut daemon = Daemon::start_in(&config, home.path()).await;
    let mut reader = subscriber(&daemon).await;
    subscribe(&mut reader, json!({"calls":["c1"],"wait":true})).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
    let say = |order: u64| turn(order, "agent", &format!("{order} {}", "more and more of the same ".repeat(20)));
    for order in 0..20 {
        producer.send(&say(order)).await;
    }
    producer.acked(19).await;

    // A file takes the remaining space: the next append that needs a block fails.
    let ballast = disk.path().join("ballast");
    fill(&ballast);
    let mut sent = 20;
    let error = loop {
        producer.send(&say(sent)).await;
        sent += 1;
        assert!(sent < 20_000, "no error although the disk is full");
        let error = producer.recv_within(Duration::from_millis(2)).await;
        if let Some(frame) = error.filter(|frame| frame["type"] == "error") {
            break frame;
        }
        if sent % 16 == 0 {
            fill(&ballast);
        }
    };
    assert_eq!((&error["code"], &error["temporary"]), (&json!("journal_unavailable"), &json!(true)), "{error}");
    let told = reader.until("the subscriber is told, too", |frame| frame["type"] == "error").await;
    assert_eq!(told["code"], "journal_unavailable");
    let ready = daemon.get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert_eq!(daemon.get("/healthz").await.status, 200);
    let acked = |client: &Client| client.seen_of("ack").last().and_then(|ack| ack["turn_order"].as_u64()).unwrap_or(0);
    let acked_when_full = acked(&producer);
    for order in sent..sent + 50 {
        producer.send(&say(order)).await;
    }
    sent += 50;
    while producer.recv_within(Duration::from_millis(200)).await.is_some() {}
    assert_eq!(acked(&producer), acked_when_full, "no acks while nothing can be written");
    let published = |client: &Client| client.seen_of("turn.final").len() as u64;
    while reader.recv_within(Duration::from_millis(100)).await.is_some() {}
    assert!(
        published(&reader) <= acked_when_full + 1,
        "{} published, {} acked",
        published(&reader),
        acked_when_full + 1
    );

    std::fs::remove_file(&ballast).expect("free the disk");
    producer.acked(sent - 1).await;
    eventually("ready again", PATIENCE, || async { (daemon.get("/readyz").await.status == 200).then_some(()) }).await;
    let all = daemon.turns("c1").await;
    assert_eq!(all.len() as u64, sent);
    reader.until("the last turn", |frame| frame["turn"]["turn"] == sent - 1).await;
    let mut seqs: Vec<u64> = reader
        .seen
        .iter()
        .filter(|frame| frame["type"] != "snapshot")
        .filter_map(|frame| frame["seq"].as_u64())
        .collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<u64>>(), "published once, in order");
    daemon.restart().await;
    let events = daemon.events("c1").await;
    assert_dense("c1", &events);
    seqs.truncate(0);
    assert_eq!(daemon.turns("c1").await, all, "what was acked is there after a restart");
    // Killed while the disk is full: what was acknowledged exists.
    fill(&ballast);
    drop(producer);
    let (mut producer, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&results=none").await;
    for order in sent..sent + 30 {
        producer.send(&say(order)).await;
    }
    while producer.recv_within(Duration::from_millis(300)).await.is_some() {}
    let acked = acked(&producer);
    daemon.kill9();
    std::fs::remove_file(&ballast).expect("free the disk");
    daemon.up().await;
    let after = daemon.turns("c1").await;
    assert!(after.len() as u64 > acked, "{} turns, acked up to {acked}", after.len());
    assert_eq!(after[..all.len()], all[..]);
    assert_dense("c1", &daemon.events("c1").await);
}

/// Writes to `path` until the disk is full.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::options().create(true).append(true).open(path).expect("open ballast");
    for size in [1 << 20, 1 << 12, 1 << 8, 1] {
        let block = vec![0_u8; size];
        while file.write_all(&block).is_ok() {}
    }
}
