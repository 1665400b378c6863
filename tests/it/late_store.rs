//! A whole daemon over a store that answers late, finishes appends of different calls in any order, and fences writers:
//! no code above the journal relies on the embedded store.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use sidetone::app::{self, Running};
use sidetone::config::Config;
use sidetone::journal::memory::{Faults, Memory};
use sidetone::protocol::event::Kind;

use crate::support::http::request;
use crate::support::model::{assert_dense, assert_turns, offset_of, turns_of};
use crate::support::producer::{Fleet, Producer};
use crate::support::watcher::Watcher;
use crate::support::ws::{Client, turn};
use crate::support::{Chance, Json, PATIENCE, eventually, json, knob, recording, seed, shared};

/// Starts a daemon in this process over `store`; its other data is in `dir`.
async fn start(dir: &Path, more: &str, store: &Memory) -> Running {
    let text = format!("[storage]\ndir = {:?}\n{more}", dir.display().to_string());
    let config = Config::parse(&text, dir).expect("a valid configuration");
    let store = Arc::new(store.clone());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    tokio::task::spawn_blocking(move || app::start_over(config, address, store))
        .await
        .expect("no panic")
        .expect("starts")
}

async fn stop(running: Running) {
    tokio::task::spawn_blocking(move || running.stop()).await.expect("stops");
}

async fn get(port: u16, path: &str) -> Json {
    let reply = request(port, "GET", path, &[], None).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

async fn fenced(port: u16) -> u64 {
    let text = request(port, "GET", "/metrics", &[], None).await.text();
    let line = text.lines().find_map(|line| line.strip_prefix("sidetone_session_fenced_total "));
    line.and_then(|number| number.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_store_that_fences_loses_no_turn_and_shows_each_event_once() {
    const CALLS: usize = 4;
    let _machine = shared().await;
    let mut chance = Chance(seed("late_store_that_fences_loses_no_turn_and_shows_each_event_once"));
    let mut fences = 0;
    for _ in 0..knob("LATE_STORES", 3) {
        let dir = tempfile::tempdir().expect("folder");
        let store = Memory::with(Faults { seed: chance.next(), delay: 6, fenced: 60 });
        let config = "[ingest]\nlinger_ms = 50\n[analyses.summary]\nevery_n_turns = 4\ndebounce_ms = 10\n";
        let running = start(dir.path(), config, &store).await;
        let port = running.address.port();
        let watcher = Watcher::start(port, json!({}));
        let fleet = Arc::new(Fleet::default());
        let calls: Vec<_> =
            (0..CALLS).map(|number| (format!("c_{number}"), recording::made_up("late", 30, chance.next()))).collect();
        let feeding = calls.iter().map(|(call, recording)| {
            let producer = Producer::assemblyai(port, call, recording.texts(), &fleet);
            tokio::spawn(producer.run(PATIENCE))
        });
        for (outcome, (call, _)) in futures::future::join_all(feeding).await.into_iter().zip(&calls) {
            let outcome = outcome.expect("no panic");
            assert!(outcome.completed.is_some(), "{call} did not complete; errors: {:?}", outcome.errors);
        }
        for (call, recording) in &calls {
            let events = get(port, &format!("/v1/calls/{call}/events?limit=5000")).await;
            let events = events["events"].as_array().expect("events").clone();
            assert_dense(call, &events);
            let completions = events.iter().filter(|event| event["type"] == "call.completed").count();
            assert_eq!(completions, 1, "{call}");
            let turns = get(port, &format!("/v1/calls/{call}/turns?limit=5000")).await;
            let expected = turns_of(recording.frames.iter().map(|(_, frame)| frame));
            assert_turns(call, turns["turns"].as_array().expect("turns"), &expected, offset_of(&events));
            eventually(&format!("the subscriber has all of {call}"), PATIENCE, || async {
                (watcher.count(call) >= events.len()).then_some(())
            })
            .await;
        }
        watcher.assert_faultless();
        fences += fenced(port).await;
        drop(watcher);
        stop(running).await;
    }
    println!("{fences} sessions lost their fence");
    assert!(fences > 0, "no session lost its fence");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_loses_its_fence_tells_its_producer_to_reconnect() {
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let store = Memory::default();
    let running = start(dir.path(), "[ingest]\nanalyses = []\n", &store).await;
    let port = running.address.port();
    let url = format!("ws://127.0.0.1:{port}/v1/ingest?call_id=c_1&stream_id=s_1");
    let mut producer = Client::connect(&url).await;
    producer.of_type("welcome").await;
    producer.send(&turn(0, "agent", "hello")).await;
    producer.acked(0).await;
    // Another node writes to the call's log: it runs the call now.
    let call = sidetone::types::CallId::parse("c_1").expect("id");
    let log = store.log(&call);
    let head = log.last().expect("a record").seq;
    let update = format!(
        r#"{{"type":"call.updated","call_id":"c_1","seq":{},"at":"2026-01-01T00:00:00.000Z","meta":{{"node":"b"}}}}"#,
        head + 1
    );
    let header = sidetone::journal::Header { kind: Kind::CallUpdated.code(), ..Default::default() };
    let record = sidetone::journal::NewRecord { header, frame: update.into(), private: "{}".into() };
    store.append_now(&call, head, vec![record], None).expect("appended");
    producer.send(&turn(1, "agent", "again")).await;
    let reconnect = producer.of_type("reconnect").await;
    assert!(reconnect["after_ms"].is_u64() && reconnect["grace_ms"].is_u64(), "{reconnect}");
    assert_eq!(producer.close_code().await, 1001);
    // The next connection finds a session that was rebuilt from the log, including the other writer's event.
    let mut producer = Client::connect(&url).await;
    let welcome = producer.of_type("welcome").await;
    assert_eq!(welcome["acked"], 0, "{welcome}");
    producer.send(&turn(1, "agent", "again")).await;
    producer.acked(1).await;
    let shown = get(port, "/v1/calls/c_1").await;
    assert_eq!((&shown["state"], &shown["meta"]), (&json!("open"), &json!({"node": "b"})), "{shown}");
    let events = get(port, "/v1/calls/c_1/events").await;
    assert_dense("c_1", events["events"].as_array().expect("events"));
    assert_eq!(fenced(port).await, 1);
    stop(running).await;
}
