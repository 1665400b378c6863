//! Many open calls, and readers that do not read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::io::AsyncReadExt as _;

use crate::support::daemon::{Daemon, WIDE_LIMITS};
use crate::support::http;
use crate::support::stats::percentile;
use crate::support::ws::{Client, Options, ingest, turn};
use crate::support::{PATIENCE, alone, eventually, json, knob};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_soon_with_many_open_calls() {
    let _machine = alone().await;
    let calls = knob("OPEN_CALLS", 10_000);
    // No timer of a call is due before the test ends.
    let ingest_config = "[ingest]\nanalyses = [\"summary\"]\nidle_timeout_ms = 3600000\n";
    let mut daemon = Daemon::start(&format!("{WIDE_LIMITS}{ingest_config}")).await;
    let begun = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (next, url) = (Arc::clone(&next), daemon.ws("/v1/ingest"));
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= calls as u64 {
                    return;
                }
                let mut client = Client::connect(&format!("{url}?call_id=c{number}&stream_id=s_1&results=none")).await;
                client.of_type("welcome").await;
                client.send(&turn(0, "agent", "Hello, and please hold the line.")).await;
                client.acked(0).await;
                client.drop_now();
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("join");
    }
    println!("{calls} calls opened in {:?}; RSS {} MiB", begun.elapsed(), daemon.rss() >> 20);
    for clean in [false, true] {
        if clean {
            daemon.sigterm();
            let status = daemon.ended(PATIENCE).await;
            assert_eq!(status.code(), Some(0), "a clean end");
        } else {
            daemon.kill9();
        }
        let started = Instant::now();
        let _first = daemon.spawn();
        loop {
            let reply = http::request(daemon.port, "GET", "/readyz", &[], None).await;
            if reply.status == 200 {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "not ready: {} {}", reply.status, reply.text());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let (ready, cpu) = (started.elapsed(), daemon.cpu());
        println!("ready {ready:?} after a start ({}), {cpu:?} of CPU", if clean { "clean" } else { "after SIGKILL" });
        // The duration depends on the machine; its cause does not: no call's log was read for it.
        for touched in ["sidetone_journal_open_files", "sidetone_session_sessions"] {
            assert_eq!(daemon.metric(touched, &[]).await, 0.0, "{touched}");
        }
        // The calls exist, and accept turns.
        let last = format!("c{}", calls - 1);
        assert_eq!(daemon.get_json(&format!("/v1/calls/{last}")).await["state"], "open");
        let (mut client, welcome) = ingest(&daemon, &format!("call_id={last}&stream_id=s_1&results=none")).await;
        let order = welcome["acked"].as_u64().expect("acked") + 1;
        client.send(&turn(order, "agent", "Still here.")).await;
        client.acked(order).await;
    }
}

/// The measurements of one run of readers.
struct Run {
    p50: Duration,
    p99: Duration,
    rss: u64,
    codes: BTreeMap<u16, usize>,
}

/// Sends `events` turns at `rate` per second to `good` readers that read and `bad` ones that never do.
async fn run(daemon: &Daemon, call: &str, events: u64, rate: u64, good: usize, bad: usize) -> Run {
    let url = daemon.ws("/v1/subscribe");
    let frame = json!({"id":"1","type":"subscribe","calls":[call],"wait":true});
    let mut bad_ones = Vec::new();
    for _ in 0..bad {
        // Small buffers, so that not reading has an effect soon.
        let options = Options { headers: Vec::new(), receive_buffer: Some(65_536) };
        let mut client = Client::try_connect(&url, &options).await.expect("connect");
        client.send(&frame).await;
        client.of_type("subscribed").await;
        bad_ones.push(client);
    }
    let due: Arc<Vec<AtomicU64>> = Arc::new((0..events).map(|_| AtomicU64::new(0)).collect());
    let clock = Instant::now();
    let mut readers = tokio::task::JoinSet::new();
    for index in 0..good {
        let mut client = Client::connect(&url).await;
        client.send(&frame).await;
        client.of_type("subscribed").await;
        let due = Arc::clone(&due);
        readers.spawn(async move {
            let (mut times, mut got) = (Vec::new(), 0);
            if index >= 10 {
                // Most readers only need to receive the bytes: their time is the machine's, not the daemon's.
                let mut raw = client.into_raw();
                let mut bytes = vec![0; 64 * 1024];
                while raw.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
                return times;
            }
            let mut socket = client.into_socket();
            while got < due.len() {
                let Some(Ok(message)) = socket.next().await else { panic!("a good reader was closed after {got}") };
                let Ok(text) = message.to_text() else { continue };
                if text.contains("\"type\":\"turn.final\"") {
                    let now = clock.elapsed().as_micros() as u64;
                    times.push(Duration::from_micros(now - due[got].load(Ordering::Relaxed)));
                    got += 1;
                }
            }
            times
        });
    }
    let (mut producer, _) = ingest(daemon, &format!("call_id={call}&stream_id=s_1&results=none")).await;
    let before = daemon.rss();
    let text = "a sentence of some length that stands for what people say ".repeat(28);
    let begun = clock.elapsed();
    for order in 0..events {
        let at = begun + Duration::from_micros(order * 1_000_000 / rate);
        if let Some(wait) = at.checked_sub(clock.elapsed()) {
            tokio::time::sleep(wait).await;
        }
        due[order as usize].store(at.as_micros() as u64, Ordering::Relaxed);
        producer.send(&turn(order, "agent", &text)).await;
        while producer.recv_within(Duration::ZERO).await.is_some() {}
    }
    let mut times = Vec::new();
    for _ in 0..10.min(good) {
        // Readers that only receive never end by themselves.
        loop {
            let got = readers.join_next().await.expect("a reader").expect("join");
            if !got.is_empty() {
                times.extend(got);
                break;
            }
        }
    }
    readers.abort_all();
    let rss = daemon.rss().saturating_sub(before);
    let codes = close_codes(bad_ones).await;
    Run { p50: percentile(&mut times, 0.5), p99: percentile(&mut times, 0.99), rss, codes }
}

/// Finally reads each connection to its end: the close frame comes after everything that the kernel had buffered.
async fn close_codes(clients: Vec<Client>) -> BTreeMap<u16, usize> {
    let mut reading = tokio::task::JoinSet::new();
    for client in clients {
        let mut raw = client.into_raw();
        reading.spawn(async move {
            let (mut tail, mut bytes) = (Vec::new(), vec![0; 256 * 1024]);
            loop {
                let reading = tokio::time::timeout(Duration::from_secs(60), raw.read(&mut bytes)).await;
                let count = reading.ok().and_then(Result::ok).unwrap_or(0);
                tail.extend_from_slice(&bytes[..count]);
                tail.drain(..tail.len().saturating_sub(128));
                // A close frame: 0x88, length, code, reason, and nothing after it.
                let close = (0..tail.len().saturating_sub(3))
                    .find(|&at| tail[at] == 0x88 && at + 2 + usize::from(tail[at + 1]) == tail.len());
                match close {
                    Some(at) => return u16::from_be_bytes([tail[at + 2], tail[at + 3]]),
                    None if count == 0 => return 1006,
                    None => {}
                }
            }
        });
    }
    let mut codes = BTreeMap::new();
    while let Some(code) = reading.join_next().await {
        *codes.entry(code.expect("join")).or_insert(0) += 1;
    }
    codes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_harm_nobody() {
    let _machine = alone().await;
    // Without optimisations, two cores cannot send 10,000 events to 100 readers in the time of a test suite.
    let (events, rate) = if cfg!(debug_assertions) { (4_000, 120) } else { (10_000, 400) };
    let (events, rate) = (knob("SLOW_EVENTS", events) as u64, knob("SLOW_RATE", rate) as u64);
    let config = format!("{WIDE_LIMITS}[ingest]\nanalyses = [\"summary\"]\n");
    {
        let daemon = Daemon::start(&config).await;
        // The first run warms up; its memory is that of the call's text.
        let alone = run(&daemon, "without", events / 3, rate, 100, 0).await;
        let beside = run(&daemon, "beside", events, rate, 100, 100).await;
        let ratio = beside.p99.as_secs_f64() / alone.p99.as_secs_f64();
        println!(
            "without: p50 {:?} p99 {:?} RSS +{} KiB; beside 100 that never read: p50 {:?} p99 {:?} RSS +{} KiB; p99 ratio {ratio:.2}",
            alone.p50,
            alone.p99,
            alone.rss >> 10,
            beside.p50,
            beside.p99,
            beside.rss >> 10
        );
        // The run without bad readers measures how much the call itself grew.
        let own = alone.rss * 3;
        assert!(beside.rss < own + (16 << 20), "RSS grew by {} KiB, by itself {} KiB", beside.rss >> 10, own >> 10);
        println!("the bad ones ended in {:?}", beside.codes);
        assert_eq!(beside.codes.get(&1013), Some(&100), "{:?}", beside.codes);
        // A reader that was closed resumes at its position.
        {
            let mut client = crate::support::ws::subscriber(&daemon).await;
            let epoch = daemon.get_json("/v1/calls/beside/events?after=0").await["events"][0]["epoch"].clone();
            let resume = json!({"calls":["beside"],"resume":{"beside":{"epoch":epoch,"seq":100}}});
            crate::support::ws::subscribe(&mut client, resume).await;
            let mut expected = 101;
            while expected < 1000 {
                let frame = client.recv().await.expect("an event");
                assert_eq!(frame["seq"], expected);
                expected += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_star_subscriber_gets_snapshots_at_its_own_pace() {
    let _machine = alone().await;
    let daemon = Daemon::start(WIDE_LIMITS).await;
    let mut producers = Vec::new();
    for number in 0..300 {
        let (mut client, _) = ingest(&daemon, &format!("call_id=c{number}&results=none")).await;
        for order in 0..10 {
            client.send(&turn(order, "agent", &"many words ".repeat(40))).await;
        }
        client.acked(9).await;
        producers.push(client);
    }
    let options = Options { headers: Vec::new(), receive_buffer: Some(4096) };
    let mut client = Client::try_connect(&daemon.ws("/v1/subscribe"), &options).await.expect("connect");
    client.send(&json!({"id":"1","type":"subscribe","calls":"*"})).await;
    // Events continue while the snapshots wait in the pipe.
    for producer in &mut producers {
        producer.send(&turn(10, "agent", "One more.")).await;
    }
    let mut snapshots = std::collections::BTreeMap::new();
    let mut turns = 0;
    while turns < 300 {
        let frame = client.recv().await.expect("a frame");
        let call = frame["call_id"].as_str().unwrap_or_default().to_owned();
        if frame["type"] == "snapshot" {
            assert!(snapshots.insert(call, frame["seq"].as_u64().expect("seq")).is_none(), "one snapshot a call");
            turns += usize::from(frame["state"]["turns"].as_array().is_some_and(|turns| turns.len() == 11));
        } else if let Some(seq) = frame["seq"].as_u64() {
            let last = snapshots.get_mut(&call).expect("its snapshot comes first");
            assert_eq!(seq, *last + 1, "{frame}");
            *last = seq;
            turns += usize::from(frame["type"] == "turn.final");
        }
    }
    assert_eq!(snapshots.len(), 300);
    eventually("still ready", PATIENCE, || async { (daemon.get("/readyz").await.status == 200).then_some(()) }).await;
}
