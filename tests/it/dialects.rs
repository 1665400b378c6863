//! Dialects on real sockets: if nothing of a stream can be decoded, its producer gets one error, however the stream is
//! fed; `auto` picks the dialect by the first frames, and keeps it.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::SinkExt as _;

use crate::support::daemon::{Daemon, run};
use crate::support::stt::{self, call, dial, say};
use crate::support::ws::{Client, ingest, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

const QUICK: &str = "[ingest]\nlinger_ms = 150\nanalyses = []\n";
/// The limit of five seconds, minus what a slow machine may lose between sending a frame and reading the clock.
const NEARLY_FIVE_S: Duration = Duration::from_millis(4_500);

fn fixture(dialect: &str, name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stt").join(dialect).join(name);
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

async fn started_as(daemon: &Daemon, call: &str) -> Vec<Json> {
    let events = daemon.events(call).await;
    events.iter().filter(|event| event["type"] == "stream.started").map(|event| event["dialect"].clone()).collect()
}

fn not_understood(client: &Client) -> Vec<String> {
    let errors = client.seen_of("error").into_iter().filter(|error| error["code"] == "not_understood");
    errors
        .map(|error| {
            assert_eq!((&error["fatal"], &error["temporary"]), (&json!(false), &json!(false)), "{error}");
            error["message"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_another_dialect_get_one_error_that_names_it() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let dialects = daemon.get_json("/v1/dialects").await;
    let names = dialects["dialects"].as_array().unwrap().iter().map(|dialect| dialect["name"].as_str().unwrap());
    let vendors: Vec<&str> = names.filter(|name| !["sidetone", "auto"].contains(name)).collect();
    for (index, theirs) in vendors.iter().enumerate() {
        // Each vendor's frames are sent under the dialect two places further in the list.
        let asked = vendors[(index + 2) % vendors.len()];
        let (mut client, _) = ingest(&daemon, &format!("call_id={theirs}&dialect={asked}&results=none")).await;
        let frames = fixture(theirs, "full.jsonl");
        for _ in 0..3 {
            for frame in &frames {
                client.send_text(frame).await;
            }
        }
        client.send(&json!({"type":"end","scope":"call"})).await;
        client.of_type("call.completed").await;
        let said = not_understood(&client);
        let [said] = &said[..] else { panic!("{theirs} as {asked}: {said:?}") };
        assert!(said.contains(&format!("understood in dialect {asked}: found ")), "{said}");
        assert!(said.ends_with(&format!("connect with dialect={theirs}")), "{theirs} as {asked}: {said}");
        assert!(daemon.turns(theirs).await.is_empty(), "{theirs} as {asked}");
    }
    let counted = daemon.metric("sidetone_ingest_refused_frames_total", &["code=\"not_understood\""]).await;
    assert_eq!(counted, vendors.len() as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_frame_that_is_not_understood_is_told_after_five_seconds_and_the_stream_goes_on() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&dialect=auto&results=none").await;
    let (mut quiet, _) = ingest(&daemon, "call_id=c2&dialect=deepgram&results=none").await;
    let (mut fine, _) = ingest(&daemon, "call_id=c3&dialect=deepgram&results=none").await;
    let sent = Instant::now();
    client.send_text(r#"{"secret":"I want my money back","type":"Purr"}"#).await;
    fine.send_text(r#"{"type":"Purr"}"#).await;
    fine.send_text(&fixture("deepgram", "full.jsonl")[0]).await;
    let error = client.of_type("error").await;
    assert!(sent.elapsed() >= NEARLY_FIVE_S, "{:?}", sent.elapsed());
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("the first 5 s") && message.contains("type \"Purr\""), "{message}");
    assert!(message.contains("there are: sidetone, assemblyai,") && !message.contains("money"), "{message}");
    // The decoder continues to try.
    client.send(&turn(0, "agent", "Understood after all.")).await;
    client.acked_frames(2).await;
    assert_eq!(started_as(&daemon, "c1").await, ["sidetone"]);
    for client in [&mut client, &mut quiet, &mut fine] {
        client.send(&json!({"type":"end","scope":"call"})).await;
        client.of_type("call.completed").await;
    }
    assert_eq!((not_understood(&client).len(), not_understood(&quiet).len(), not_understood(&fine).len()), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_picks_the_dialect_of_every_vendor_and_stream_started_says_which() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let dialects = daemon.get_json("/v1/dialects").await;
    for dialect in dialects["dialects"].as_array().unwrap() {
        let name = dialect["name"].as_str().unwrap();
        if name == "auto" {
            continue;
        }
        let mut turns = Vec::new();
        for asked in [name, "auto"] {
            let call = format!("{name}-{asked}");
            let (mut client, _) = ingest(&daemon, &format!("call_id={call}&dialect={asked}&results=none")).await;
            for frame in fixture(name, "full.jsonl") {
                client.send_text(&frame).await;
            }
            client.send(&json!({"type":"end","scope":"call"})).await;
            client.of_type("call.completed").await;
            assert_eq!(started_as(&daemon, &call).await, [name], "{call}");
            assert!(not_understood(&client).is_empty(), "{call}");
            let of = |turn: &Json| (turn["text"].clone(), turn["speaker"].clone(), turn["vendor_turn"].clone());
            turns.push(daemon.turns(&call).await.iter().map(of).collect::<Vec<_>>());
        }
        assert!(!turns[0].is_empty() && turns[0] == turns[1], "{name}: {turns:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_keeps_to_its_pick_over_reconnects_and_acknowledges_no_frame_before_it() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nlinger_ms = 60000\nanalyses = []\n").await;
    let frames = fixture("speechmatics_agent", "full.jsonl");
    // Two dialects know the first frames, so none is picked.
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&dialect=auto&results=none").await;
    for frame in &frames[..3] {
        client.send_text(frame).await;
    }
    client.send(&json!({"type":"meta","meta":{"seen":true}})).await;
    client.acked_frames(0).await;
    client.close().await;
    let (mut client, welcome) = ingest(&daemon, "call_id=c1&stream_id=s_1&dialect=auto&results=none").await;
    assert_eq!(welcome["frames"], 0, "{welcome}");
    for frame in &frames[..3] {
        client.send_text(frame).await;
    }
    client.send(&json!({"type":"meta","meta":{"seen":true}})).await;
    for frame in &frames[3..12] {
        client.send_text(frame).await;
    }
    client.acked_frames(13).await;
    client.close().await;
    assert_eq!(started_as(&daemon, "c1").await, ["speechmatics_agent"]);
    // By these frames alone, another dialect would be picked.
    let (mut client, welcome) = ingest(&daemon, "call_id=c1&stream_id=s_1&dialect=auto&results=none").await;
    assert_eq!(welcome["frames"], 13, "{welcome}");
    let words = r#"{"message":"AddTranscript","format":"2.9","metadata":{"start_time":4,"end_time":5,"transcript":"Said twice. "},"results":[{"type":"word","start_time":4,"end_time":5,"alternatives":[{"content":"twice","confidence":1}]}]}"#;
    client.send_text(words).await;
    client.send_text(&frames[13]).await;
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;
    assert_eq!(started_as(&daemon, "c1").await, ["speechmatics_agent"]);
    let turns = daemon.turns("c1").await;
    assert_eq!(stt::texts(&turns), ["My parcel is late. It was due on Monday.", "I am sorry.", "Thanks."]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_and_tapped_sessions_that_are_not_understood_are_logged_and_counted() {
    let _machine = shared().await;
    let (source, mut dialled) = stt::vendor().await;
    let (upstream, mut proxied) = stt::vendor().await;
    let config = format!("[[source]]\nname = \"meetings\"\nurl = \"{source}\"\ndialect = \"recall\"\n");
    let config = format!("{QUICK}[stt]\nupstream = \"{upstream}\"\n{config}");
    let daemon = Daemon::start(&config).await;
    let (mut meetings, _) = dialled.recv().await.unwrap();
    let _client = dial(&daemon, &call("c1")).await;
    let (mut vendor, _) = proxied.recv().await.unwrap();
    let foreign = json!({"type":"Results","is_final":true,"speech_final":true,"start":0,"duration":1,
        "channel":{"alternatives":[{"transcript":"I want my money back.","confidence":1,"words":[]}]}});
    for _ in 0..12 {
        meetings.send(say(&foreign)).await.unwrap();
        vendor.send(say(&foreign)).await.unwrap();
    }
    for metric in ["sidetone_source_not_understood_total", "sidetone_proxy_not_understood_total"] {
        eventually(metric, PATIENCE, || async { (daemon.metric(metric, &[]).await > 0.0).then_some(()) }).await;
        assert_eq!(daemon.metric(metric, &[]).await, 1.0, "{metric}: once per connection");
    }
    let log = daemon.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("not_understood")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|line| line.contains("dialect=deepgram")), "{told:?}");
    assert!(!log.contains("money"), "no text of a call is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_and_files_in_another_dialect_are_refused_with_its_name() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let frames: Vec<Json> =
        fixture("aws", "sdk.jsonl").iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
    let refused = daemon.post("/v1/transcripts", &json!({"recording": frames[..5], "dialect": "google"})).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("dialect aws understands"), "{}", refused.text());
    for dialect in ["aws", "auto"] {
        let taken = daemon.post("/v1/transcripts", &json!({"recording": frames[..5], "dialect": dialect})).await;
        assert_eq!((taken.status, &taken.json()["turns"]), (200, &json!(4)), "{dialect}");
    }
    // Every vendor's frames unchanged, also those whose member `message` is a text.
    for dialect in ["speechmatics", "speechmatics_agent", "gemini_live", "azure", "aws_contact_lens"] {
        let frames: Vec<Json> =
            fixture(dialect, "full.jsonl").iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
        let taken = daemon.post("/v1/transcripts", &json!({"recording": frames, "dialect": "auto"})).await;
        assert_eq!(taken.status, 200, "{dialect}: {}", taken.text());
        let call = taken.json()["call_id"].as_str().unwrap().to_owned();
        assert_eq!(started_as(&daemon, &call).await, [dialect]);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stt/azure/full.jsonl");
    let output = run(&["dialects", "zoom", "--decode", &path.display().to_string()]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("connect with dialect=azure"), "{said}");
}
