//! `GET /v1/ingest`: welcome, acks, duplicates, revisions, reconnects, streams, ends, timers, and errors.

mod ending;

use std::time::{Duration, Instant};

use crate::support::daemon::Daemon;
use crate::support::ws::{Client, Options, encode, ingest, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

/// Short timers for tests; no LLM except the embedded provider.
const QUICK: &str = "[ingest]\nlinger_ms = 150\n";

async fn events_of_type(daemon: &Daemon, call: &str, kind: &str) -> Vec<Json> {
    daemon.events(call).await.into_iter().filter(|event| event["type"] == kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_count_every_text_message() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let (mut client, welcome) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    assert_eq!(welcome["version"], 1);
    assert_eq!(welcome["call_id"], "c1");
    assert_eq!(welcome["stream_id"], "s_1");
    assert_eq!(welcome["acked"], Json::Null);
    assert_eq!(welcome["frames"], Json::Null);
    assert_eq!(welcome["insights"], json!({}));
    assert!(welcome["epoch"].as_str().is_some_and(|epoch| !epoch.is_empty()));

    client.send(&json!({"type":"partial","turn_order":0,"text":"Thanks for"})).await;
    client.send_text("{not json").await;
    assert_eq!(client.of_type("error").await["code"], "bad_json");
    client.send(&json!({"type":"turn","turn_order":0,"text":"x","start_ms":"soon"})).await;
    let error = client.of_type("error").await;
    assert_eq!(error["code"], "bad_field");
    assert_eq!((&error["fatal"], &error["temporary"]), (&json!(false), &json!(false)));
    assert!(error["message"].as_str().is_some_and(|text| text.contains("start_ms")), "{error}");
    client.send(&json!({"type":"dance"})).await;
    let error = client.of_type("error").await;
    assert_eq!(error["code"], "unknown_type");
    client.send(&json!({"type":"dance"})).await;
    client.send(&turn(0, "agent", "Thanks for calling.")).await;
    let ack = client.acked(0).await;
    assert_eq!(ack["stream_id"], "s_1");
    if ack["frames"] != 6 {
        client.acked_frames(6).await;
    }
    let unknown = client.seen.iter().filter(|frame| frame["code"] == "unknown_type").count();
    assert_eq!(unknown, 1, "once per type");
    assert_eq!(daemon.turns("c1").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_comes_soon() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1").await;
    let mut times = Vec::new();
    for order in 0..40 {
        let sent = Instant::now();
        client.send(&turn(order, "agent", "One more sentence.")).await;
        client.acked(order).await;
        times.push(sent.elapsed());
    }
    // If an ack waited for a timer, each of them would; a busy machine delays nearly all, but not the fastest of forty.
    let fastest = times.into_iter().min().expect("times");
    assert!(fastest < Duration::from_millis(50), "at best {fastest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_change_nothing_and_new_content_is_a_revision() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    let first = turn(0, "agent", "Thanks for calling.");
    client.send(&first).await;
    client.send(&first).await;
    client.acked_frames(2).await;
    assert_eq!(daemon.events("c1").await.iter().filter(|event| event["turn"].is_object()).count(), 1);

    client.send(&json!({"type":"revise","turn_order":0,"speaker":"customer"})).await;
    client.acked_frames(3).await;
    let revised = events_of_type(&daemon, "c1", "turn.revised").await;
    assert_eq!(revised.len(), 1);
    assert_eq!(revised[0]["changed"], json!(["speaker"]));
    assert_eq!((&revised[0]["turn"]["rev"], &revised[0]["turn"]["speaker"]), (&json!(1), &json!("customer")));

    // A frame that was already applied to the turn is a duplicate, whatever revised the turn since.
    client.send(&first).await;
    client.acked_frames(4).await;
    assert_eq!(daemon.turns("c1").await[0]["speaker"], "customer");
    client.send(&turn(0, "agent", "Thanks for calling us.")).await;
    client.acked_frames(5).await;
    let turns = daemon.turns("c1").await;
    assert_eq!(turns.len(), 1);
    assert_eq!((&turns[0]["rev"], &turns[0]["text"]), (&json!(2), &json!("Thanks for calling us.")));
    client.send(&json!({"type":"revise","turn_order":0,"text":"Thank you."})).await;
    client.acked_frames(6).await;
    assert_eq!(daemon.turns("c1").await[0]["text"], "Thank you.");
    // A revision that comes before its turn waits for it.
    client.send(&json!({"type":"revise","turn_order":7,"speaker":"supervisor"})).await;
    client.send(&turn(7, "agent", "I am the supervisor.")).await;
    client.acked(7).await;
    assert_eq!(daemon.turns("c1").await[1]["speaker"], "supervisor");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnect_continues_at_its_position() {
    let _machine = shared().await;
    let mut daemon = Daemon::start(QUICK).await;
    let (mut client, welcome) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    for order in 0..5 {
        client.send(&turn(order, "agent", &format!("Sentence {order}."))).await;
    }
    client.acked(4).await;
    client.drop_now();
    let (mut client, again) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    assert_eq!((&again["acked"], &again["frames"]), (&json!(4), &json!(5)));
    assert_eq!(again["epoch"], welcome["epoch"]);
    client.send(&turn(5, "agent", "Sentence 5.")).await;
    client.acked(5).await;

    daemon.restart().await;
    let (mut client, again) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    assert_eq!((&again["acked"], &again["frames"]), (&json!(5), &json!(1)), "frames of its previous connection");
    assert_eq!(again["epoch"], welcome["epoch"], "an epoch is kept over restarts");
    // A producer without any state resends from `acked`, inclusive.
    client.send(&turn(5, "agent", "Sentence 5.")).await;
    client.send(&turn(6, "agent", "Sentence 6.")).await;
    client.acked(6).await;
    let turns = daemon.turns("c1").await;
    assert_eq!(turns.len(), 7);
    assert!(turns.iter().enumerate().all(|(order, turn)| turn["turn"] == order && turn["rev"] == 0));
    assert_eq!(events_of_type(&daemon, "c1", "gap").await.len(), 0, "a stream that comes back leaves no gap by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_connection_of_a_stream_wins() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let (mut old, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    for order in 0..50 {
        old.send(&turn(order, "agent", &format!("Sentence {order}."))).await;
    }
    old.acked(49).await;
    let (mut new, welcome) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    assert_eq!((&welcome["acked"], &welcome["frames"]), (&json!(49), &json!(50)));
    assert_eq!(old.close_code().await, 4409);
    let errors = old.seen_of("error");
    assert!(errors.iter().any(|error| error["code"] == "superseded"), "{errors:?}");
    new.send(&turn(50, "agent", "Sentence 50.")).await;
    new.acked(50).await;
    assert_eq!(daemon.turns("c1").await.len(), 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_after_an_interruption_leaves_a_gap_and_a_parallel_one_does_not() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let (mut first, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&offset_ms=0").await;
    first.send(&turn(0, "agent", "Hello.")).await;
    first.acked(0).await;
    let (mut leg, _) = ingest(&daemon, "call_id=c1&stream_id=s_2&offset_ms=500").await;
    leg.send(&turn(0, "customer", "Hi.")).await;
    leg.acked(0).await;
    assert_eq!(events_of_type(&daemon, "c1", "gap").await.len(), 0, "a leg beside a live stream");
    let turns = daemon.turns("c1").await;
    assert_eq!(turns[1]["start_ms"], 500, "stream time plus offset_ms: {}", turns[1]);
    first.drop_now();
    leg.drop_now();
    // The daemon notices both disconnects before the next producer comes.
    eventually("no producer", PATIENCE, || async {
        (daemon.metric("sidetone_ingest_connections", &[]).await == 0.0).then_some(())
    })
    .await;
    let (mut next, _) = ingest(&daemon, "call_id=c1&stream_id=s_3&offset_ms=9000").await;
    next.send(&turn(0, "agent", "Are you there?")).await;
    next.acked(0).await;
    let gaps = events_of_type(&daemon, "c1", "gap").await;
    assert_eq!(gaps.len(), 1, "none was live, and the last did not end");
    assert_eq!((&gaps[0]["stream_id"], &gaps[0]["cause"]), (&json!("s_3"), &json!("stt_disconnect")));
    assert!(gaps[0]["from_ms"].as_u64() <= gaps[0]["to_ms"].as_u64(), "{}", gaps[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meta_is_merged_and_published() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let meta = encode(r#"{"team":"billing","agent":"Kim"}"#);
    let (mut client, _) = ingest(&daemon, &format!("call_id=c1&meta={meta}")).await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.send(&json!({"type":"meta","meta":{"customer":"Ms. Shah","agent":"Lee"}})).await;
    client.acked_frames(2).await;
    let events = daemon.events("c1").await;
    assert_eq!(events[0]["meta"], json!({"team":"billing","agent":"Kim"}));
    let updated = events.iter().find(|event| event["type"] == "call.updated").expect("call.updated");
    assert_eq!(updated["meta"], json!({"team":"billing","agent":"Lee","customer":"Ms. Shah"}));
    assert_eq!(daemon.get_json("/v1/calls/c1").await["meta"], updated["meta"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_sent_as_the_parameter_says() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    for (results, insights, turns) in [("none", false, false), ("insights", true, false), ("all", true, true)] {
        let (mut client, _) = ingest(&daemon, &format!("call_id=c_{results}&results={results}")).await;
        client.send(&turn(0, "agent", "Hello, this is wonderful news.")).await;
        client.send(&json!({"type":"end","scope":"call"})).await;
        client.of_type("call.completed").await;
        assert_eq!(!client.seen_of("insight.updated").is_empty(), insights, "results={results}");
        assert_eq!(!client.seen_of("turn.final").is_empty(), turns, "results={results}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_welcome_brings_the_latest_insights() {
    let _machine = shared().await;
    let daemon = Daemon::start("[analyses.summary]\nevery_n_turns = 1\n").await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1&analyses=summary").await;
    client.send(&turn(0, "agent", "The refund was sent this morning.")).await;
    let insight = client.of_type("insight.updated").await;
    client.drop_now();
    let (_client, welcome) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    assert_eq!(welcome["insights"]["summary"]["id"], insight["insight"]["id"], "{welcome}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_parameters_are_named_and_closed_4400() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let long = "x".repeat(129);
    let cases = [
        ("call_id=a%2Fb".to_owned(), "call_id"),
        (format!("call_id={long}"), "call_id"),
        ("call_id=.hidden".to_owned(), "call_id"),
        ("call_id=c1&stream_id=a%20b".to_owned(), "stream_id"),
        ("call_id=c1&dialect=morse".to_owned(), "dialect"),
        ("call_id=c1&results=some".to_owned(), "results"),
        ("call_id=c1&offset_ms=-1".to_owned(), "offset_ms"),
        ("call_id=c1&offset_ms=soon".to_owned(), "offset_ms"),
        (format!("call_id=c1&meta={}", encode("[1]")), "meta"),
        (format!("call_id=c1&meta={}", encode("{")), "meta"),
    ];
    for (query, parameter) in cases {
        let mut client = Client::connect(&daemon.ws(&format!("/v1/ingest?{query}"))).await;
        assert_eq!(client.close_code().await, 4400, "{query}");
        assert_eq!(client.seen.len(), 1, "an error and no welcome: {query}: {:?}", client.seen);
        let error = &client.seen[0];
        assert_eq!((&error["type"], &error["fatal"]), (&json!("error"), &json!(true)), "{query}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains(parameter)), "{query}: {error}");
    }
    assert_eq!(daemon.get_json("/v1/calls").await["calls"], json!([]), "no call came of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_analysis_is_reported_and_the_call_continues() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&analyses=summary,moood").await;
    assert_eq!(client.seen.len(), 1, "the welcome is the first frame");
    let error = client.of_type("error").await;
    assert_eq!((&error["code"], &error["fatal"]), (&json!("unknown_analysis"), &json!(false)));
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("moood") && message.contains("summary") && message.contains("sentiment"), "{message}");
    client.send(&turn(0, "agent", "Hello.")).await;
    client.send(&json!({"type":"end","scope":"call"})).await;
    let completed = client.of_type("call.completed").await;
    assert_eq!(client.close_code().await, 1000, "{completed}");
    let last = daemon.events("c1").await.pop().expect("events");
    assert_eq!(last["final"].as_object().map(serde_json::Map::len), Some(1), "{last}");
}

/// A producer that names no analysis gets the configured ones; one with an empty list, `analyses=`, gets none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_analyses_parameter_differs_from_an_absent_one() {
    let _machine = shared().await;
    let quiet = format!("{QUICK}analyses = []\n");
    for (config, query, runs) in [
        (QUICK, "", 3),
        (QUICK, "&analyses=", 0),
        (QUICK, "&analyses=,summary", 1),
        (&quiet, "", 0),
        (&quiet, "&analyses=summary", 1),
    ] {
        let daemon = Daemon::start(config).await;
        let (mut client, _) = ingest(&daemon, &format!("call_id=c1{query}")).await;
        client.send(&turn(0, "agent", "Hello.")).await;
        client.send(&json!({"type":"end","scope":"call"})).await;
        client.of_type("call.completed").await;
        assert!(client.seen_of("error").is_empty(), "{query}: {:?}", client.seen);
        let last = daemon.events("c1").await.pop().expect("events");
        assert_eq!(last["final"].as_object().map(serde_json::Map::len), Some(runs), "{query} with {config}: {last}");
        let mut posted = json!({"turns": [{"speaker": "agent", "text": "Hello."}]});
        if !query.is_empty() {
            let names = query.trim_start_matches("&analyses=").split(',').filter(|name| !name.is_empty());
            posted["analyses"] = names.collect();
        }
        let answer = daemon.post("/v1/transcripts", &posted).await.json();
        assert_eq!(answer["insights"].as_object().map(serde_json::Map::len), Some(runs), "{query}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frame_over_the_limit_closes_4413_and_no_other_socket() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nmax_frame_bytes = 65536\nlinger_ms = 150\n").await;
    let (mut good, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    let (mut bad, _) = ingest(&daemon, "call_id=c1&stream_id=s_2").await;
    bad.send(&turn(0, "customer", "Fine so far.")).await;
    bad.acked(0).await;
    bad.send(&turn(1, "customer", &"x".repeat(70_000))).await;
    assert_eq!(bad.close_code().await, 4413);
    let said = bad.seen_of("error").iter().any(|error| error["message"].to_string().contains("max_frame_bytes"));
    let reason = bad.closed.as_ref().is_some_and(|(_, reason)| reason.contains("max_frame_bytes"));
    assert!(said || reason, "the limit is named: {:?} {:?}", bad.closed, bad.seen);
    good.send(&turn(0, "agent", "Hello.")).await;
    good.acked(0).await;
    assert_eq!(daemon.turns("c1").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vendor_frames_and_our_end_on_one_socket() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nlinger_ms = 60000\n").await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&dialect=assemblyai").await;
    let recording = crate::support::recording::made_up("c1", 6, 9);
    for (_, frame) in recording.frames.iter().filter(|(_, frame)| frame["type"] != "Termination") {
        client.send(frame).await;
    }
    client.send(&json!({"type":"Heartbeat","total_audio_received_ms":1})).await;
    client.send(&json!({"type":"SomethingNew","x":1})).await;
    client.send(&json!({"type":"end","reason":"hangup","scope":"call"})).await;
    client.of_type("call.completed").await;
    assert!(client.seen_of("error").is_empty(), "unknown vendor messages are no errors: {:?}", client.seen_of("error"));
    assert_eq!(daemon.turns("c1").await.len(), 6);
    let started = events_of_type(&daemon, "c1", "stream.started").await;
    assert_eq!((&started[0]["dialect"], &started[0]["vendor_session"]), (&json!("assemblyai"), &json!("made-up-9")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_turn_runs_nothing() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1").await;
    client.send(&json!({"type":"partial","turn_order":0,"text":"Hel"})).await;
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;
    assert!(client.seen_of("insight.updated").is_empty());
    let last = daemon.events("c1").await.pop().expect("events");
    assert_eq!((&last["final"], &last["missing"]), (&json!({}), &json!({})), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_that_did_not_read_gets_an_error_when_it_reads() {
    let _machine = shared().await;
    let daemon = Daemon::start(QUICK).await;
    let options = Options { headers: Vec::new(), receive_buffer: Some(4096) };
    let query = "call_id=c1&stream_id=s_1&results=all&analyses=";
    let slow = daemon.ws(&format!("/v1/ingest?{query}"));
    let mut slow = Client::try_connect(&slow, &options).await.expect("connect");
    slow.send(&turn(0, "agent", "Hello.")).await;
    slow.acked(0).await;
    // From here on it reads nothing, while another stream makes more events than the kernel can buffer.
    let (mut fast, _) = ingest(&daemon, "call_id=c1&stream_id=s_2&results=none").await;
    let long = "many words ".repeat(4_000);
    for order in 0..500 {
        fast.send(&turn(order, "customer", &long)).await;
    }
    fast.acked(499).await;
    eventually("the one that does not read is closed", PATIENCE, || async {
        (daemon.metric("sidetone_ingest_closed_total", &["1013"]).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(slow.close_code().await, 1013);
    let (_again, welcome) = ingest(&daemon, query).await;
    assert_eq!(welcome["acked"], 0, "{welcome}");
}
