//! Rules and alerts that need more than a call: a kill while a timer runs, a subscriber that resumes, filters, sinks,
//! and the alerts of a completed call.

use std::time::SystemTime;

use crate::support::daemon::{Daemon, run};
use crate::support::sink::SocketSink;
use crate::support::watcher::Watcher;
use crate::support::ws::{encode, ingest, subscribe, subscriber, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

const CHURN: &str = "[rules.churn]\nkind = \"keyword\"\nany = [\"cancel\"]\nspeaker = \"customer\"\n\
                     [limits]\nalert_pause_ms = 0\n";

/// Time of an event, ms since 1970.
fn at_ms(event: &Json) -> i64 {
    let at: jiff::Timestamp = event["at"].as_str().expect("a time").parse().expect("RFC 3339");
    at.as_millisecond()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("not so late")
}

fn of_type<'a>(events: &'a [Json], kind: &str) -> Vec<&'a Json> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

/// Waits for an alert of the call without using the call: only its log is read.
async fn raised(daemon: &Daemon, call: &str) -> Json {
    eventually("an alert", PATIENCE, || async {
        let events = daemon.events(call).await;
        of_type(&events, "alert.raised").first().map(|event| (*event).clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absence_timer_that_ran_when_the_daemon_was_killed_fires_at_its_time() {
    let _machine = shared().await;
    let within_ms = 4_000;
    let config = format!(
        "[rules.disclosure]\nkind = \"absence\"\nany = [\"recorded\"]\nwithin_ms = {within_ms}\nseverity = \"critical\"\n"
    );
    let mut daemon = Daemon::start(&config).await;
    for call in ["c_waits", "c_waits_too", "c_said"] {
        let (mut producer, _) = ingest(&daemon, &format!("call_id={call}&stream_id=s_1&analyses=")).await;
        let text = if call == "c_said" { "This call is recorded." } else { "Hello." };
        producer.send(&turn(0, "agent", text)).await;
        producer.acked(0).await;
        producer.drop_now();
    }
    // The daemon restarts in time, and no client uses the call.
    daemon.restart().await;
    let started = at_ms(&daemon.events("c_waits").await[0]);
    let event = raised(&daemon, "c_waits").await;
    assert!(at_ms(&event) >= started + within_ms, "{} is before {started} + {within_ms}", at_ms(&event));
    assert_eq!((&event["alert"]["rule"], &event["alert"]["id"]), (&json!("disclosure"), &json!("a_1")));
    assert_eq!(daemon.get_json("/v1/calls/c_waits").await["alerts"][0]["rule"], "disclosure");
    raised(&daemon, "c_waits_too").await;
    // Killed again: the alert is not raised again.
    daemon.restart().await;
    let (mut producer, _) = ingest(&daemon, "call_id=c_waits&stream_id=s_1").await;
    producer.send(&turn(1, "agent", "This call is recorded.")).await;
    producer.acked(1).await;
    let events = daemon.events("c_waits").await;
    assert_eq!((of_type(&events, "alert.raised").len(), of_type(&events, "alert.cleared").len()), (1, 1), "{events:?}");
    assert_eq!(of_type(&daemon.events("c_said").await, "alert.raised").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absence_timer_that_ran_out_while_the_daemon_was_away_fires_at_its_start() {
    let _machine = shared().await;
    let within_ms = 1_500;
    let config = format!("[rules.disclosure]\nkind = \"absence\"\nany = [\"recorded\"]\nwithin_ms = {within_ms}\n");
    let mut daemon = Daemon::start(&config).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c_1&stream_id=s_1&analyses=").await;
    producer.send(&turn(0, "agent", "Hello.")).await;
    producer.acked(0).await;
    let started = at_ms(&daemon.events("c_1").await[0]);
    daemon.kill9();
    eventually("the time is over", PATIENCE, || async { (now_ms() > started + within_ms).then_some(()) }).await;
    daemon.up().await;
    let event = raised(&daemon, "c_1").await;
    assert!(at_ms(&event) >= started + within_ms);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriber_that_resumes_sees_each_alert_raised_and_cleared_once() {
    let _machine = shared().await;
    let sink = SocketSink::start();
    let config = format!("{CHURN}[[sink]]\nkind = \"websocket\"\nurl = \"{}\"\n", sink.url());
    let mut daemon = Daemon::start(&config).await;
    let watcher = Watcher::start(daemon.port, json!({}));
    eventually("the subscriber has a cursor", PATIENCE, || async {
        watcher.seen.lock().expect("lock").cursor.is_some().then_some(())
    })
    .await;
    let roles = encode(r#"{"roles":{"B":"customer"}}"#);
    let query = format!("call_id=c_1&stream_id=s_1&analyses=&meta={roles}");
    let (mut producer, _) = ingest(&daemon, &query).await;
    producer.send(&turn(0, "A", "Do you want to cancel?")).await;
    producer.send(&turn(1, "B", "I want to cancel.")).await;
    producer.acked(1).await;
    daemon.restart().await;
    let (mut producer, _) = ingest(&daemon, &query).await;
    producer.send(&json!({"type":"revise","turn_order":1,"text":"I want to can sell."})).await;
    producer.send(&turn(2, "B", "No: cancel!")).await;
    producer.acked(2).await;
    producer.send(&json!({"type":"end","reason":"hangup","scope":"call"})).await;
    daemon.completed("c_1", PATIENCE).await;
    let events = daemon.events("c_1").await;
    let alerts: Vec<String> = events
        .iter()
        .filter(|event| event["alert"].is_object())
        .map(|event| format!("{} {} {}", event["type"], event["alert"]["id"], event["alert"]["turn"]))
        .collect();
    let expected = [r#""alert.raised" "a_1" 1"#, r#""alert.cleared" "a_1" null"#, r#""alert.raised" "a_2" 2"#];
    assert_eq!(alerts, expected, "{events:?}");
    eventually("the subscriber has all events", PATIENCE, || async {
        (watcher.count("c_1") >= events.len()).then_some(())
    })
    .await;
    watcher.assert_faultless();
    let seen = watcher.seen.lock().expect("lock").events["c_1"].clone();
    let kinds = |events: &[Json]| events.iter().map(|event| event["type"].clone()).collect::<Vec<_>>();
    assert_eq!(kinds(&seen), kinds(&events));
    eventually("the sink has all events", PATIENCE, || async {
        sink.missing("c_1", events.len() as u64).is_empty().then_some(())
    })
    .await;
    // A completed call shows the alerts that were open at its end, also after a restart, when the call is not in
    // memory.
    for restarted in [false, true] {
        if restarted {
            daemon.restart().await;
        }
        let call = daemon.get_json("/v1/calls/c_1").await;
        assert_eq!(call["alerts"].as_array().map(Vec::len), Some(1), "{call}");
        assert_eq!((&call["alerts"][0]["id"], &call["alerts"][0]["quote"]), (&json!("a_2"), &json!("No: cancel!")));
        assert_eq!(call["alerts"][0]["at"], of_type(&events, "alert.raised")[1]["at"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscription_without_alerts_has_none_of_them() {
    let _machine = shared().await;
    let daemon = Daemon::start(CHURN).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c_1&stream_id=s_1&analyses=").await;
    producer.send(&turn(0, "customer", "I want to cancel.")).await;
    producer.acked(0).await;
    let mut without = subscriber(&daemon).await;
    subscribe(&mut without, json!({"calls":["c_1"],"alerts":false})).await;
    let snapshot = without.of_type("snapshot").await;
    assert_eq!(snapshot["state"].get("alerts"), None, "{snapshot}");
    let mut with = subscriber(&daemon).await;
    subscribe(&mut with, json!({"calls":["c_1"]})).await;
    assert_eq!(with.of_type("snapshot").await["state"]["alerts"][0]["rule"], "churn");
    producer.send(&json!({"type":"revise","turn_order":0,"text":"I want to can sell."})).await;
    producer.send(&json!({"type":"end","reason":"hangup","scope":"call"})).await;
    with.of_type("call.completed").await;
    without.of_type("call.completed").await;
    assert_eq!((with.seen_of("alert.cleared").len(), without.seen_of("alert.cleared").len()), (1, 0));
    without.send(&json!({"id":"2","type":"subscribe","calls":["c_1"],"alerts":"no"})).await;
    let error = without.of_type("error").await;
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("bad_field"), &json!("alerts: expected true or false, found \"no\""))
    );
    assert_eq!(
        daemon.metric("sidetone_rules_alerts_raised_total", &["rule=\"churn\"", "severity=\"warning\""]).await,
        1.0
    );
    assert_eq!(daemon.metric("sidetone_rules_alerts_cleared_total", &["rule=\"churn\""]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alert_runs_its_analyses_and_the_insight_says_so() {
    let _machine = shared().await;
    let config = "[rules.churn]\nkind = \"keyword\"\nany = [\"cancel\"]\nruns = [\"summary\"]\n\
                  [ingest]\nanalyses = []\n[analyses.summary]\non_end = false\nevery_n_turns = 1000\n";
    let daemon = Daemon::start(config).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c_1&stream_id=s_1").await;
    producer.send(&turn(0, "customer", "The weather is fine today.")).await;
    producer.send(&turn(1, "customer", "I want to cancel the contract.")).await;
    let insight = producer.of_type("insight.updated").await;
    assert_eq!(
        (&insight["insight"]["analysis"], &insight["insight"]["trigger"]),
        (&json!("summary"), &json!("alert:churn"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_noticed_while_a_producer_is_connected() {
    let _machine = shared().await;
    let daemon = Daemon::start("[rules.quiet]\nkind = \"silence\"\nover_ms = 300\n").await;
    let (mut producer, _) = ingest(&daemon, "call_id=c_1&stream_id=s_1&results=all&analyses=").await;
    producer.send(&turn(0, "agent", "One moment, please.")).await;
    let final_turn = producer.of_type("turn.final").await;
    let alert = producer.of_type("alert.raised").await;
    assert!(at_ms(&alert) >= at_ms(&final_turn) + 300, "{alert}");
    producer.send(&json!({"type":"partial","turn_order":1,"text":"Are you"})).await;
    producer.of_type("alert.cleared").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_what_is_wrong_with_rules() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("sidetone.toml");
    let rules = "[rules.a]\nkind = \"keywrd\"\n[rules.b]\nkind = \"absence\"\nany = [\"/(/\"]\nafter = \"c\"\n\
                 [rules.d]\nkind = \"insight\"\nanalysis = \"sentiment\"\nat = \"/overall/scor\"\nbelow = 0\nruns = [\"nothing\"]\n\
                 [analyses.summary]\non = [\"alert:e\"]\n";
    std::fs::write(&path, rules).expect("write");
    let output = run(&["check", "--config", &path.display().to_string()]).await;
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    for expected in [
        "rules.a.kind: expected one of keyword, absence, silence, overlap, insight, found \"keywrd\"; did you mean \"keyword\"?",
        "rules.b.any[0]: the pattern \"(\" cannot be used: unclosed group",
        "rules.b.within_ms: is required",
        "rules.b.after: no rule \"c\"; there are: a, b, d",
        "rules.d.runs[0]: no analysis \"nothing\"; there are: ",
        "rules.d.at: sentiment has no member \"scor\"; there are: label, score; did you mean \"score\"?",
        "analyses.summary.on: no rule \"e\"; there are: a, b, d",
    ] {
        assert!(text.lines().any(|line| line.contains(expected)), "{expected}\n{text}");
    }
}
