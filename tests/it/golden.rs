//! The wire frames of ingest and subscribe as golden files: a change of one is a change of the API.
//!
//! Values that differ from run to run (ids, times, hashes) are replaced by the name of their kind, never removed.

use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::llm::{MockLlm, Step};
use crate::support::ws::{Client, encode, ingest, subscribe, subscriber, turn};
use crate::support::{Json, json, shared};

/// Masks values that differ from run to run.
fn mask(frame: &Json) -> Json {
    match frame {
        Json::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), mask_field(key, value))).collect(),
        Json::Array(items) => items.iter().map(mask).collect(),
        other => other.clone(),
    }
}

fn mask_field(key: &str, value: &Json) -> Json {
    match (key, value) {
        ("at" | "started_at", Json::String(text)) => {
            let shaped = text.len() == 24 && text.ends_with('Z') && text.as_bytes()[10] == b'T';
            json!(if shaped { "[rfc3339]" } else { "[NOT rfc3339]" })
        }
        ("epoch" | "cursor" | "id" | "subscription", Json::String(text)) if text.len() > 3 || key == "id" => {
            json!(format!("[{key}]"))
        }
        ("prompt", Json::String(text)) => {
            let (name, hash) = text.split_once('@').unwrap_or((text, ""));
            json!(format!("{name}@[{} hex]", hash.chars().filter(char::is_ascii_hexdigit).count()))
        }
        ("latency_ms", Json::Object(stages)) => stages
            .iter()
            .map(|(stage, time)| (stage.clone(), json!(if time.is_u64() { "[ms]" } else { "[null]" })))
            .collect(),
        ("usage", Json::Object(tokens)) => tokens.keys().map(|name| (name.clone(), json!("[tokens]"))).collect(),
        ("after_ms" | "grace_ms", Json::Number(_)) => json!("[ms]"),
        _ => mask(value),
    }
}

fn golden(name: &str, frames: &[&Json]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../golden/wire");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let text: Vec<String> =
        frames.iter().map(|frame| serde_json::to_string_pretty(&mask(frame)).expect("JSON")).collect();
    settings.bind(|| insta::assert_snapshot!(name, text.join("\n")));
}

/// The first frame of each type, in order of arrival.
fn firsts(client: &Client) -> Vec<&Json> {
    let mut kinds = Vec::new();
    client
        .seen
        .iter()
        .filter(|frame| {
            let fresh = !kinds.contains(&frame["type"]);
            kinds.push(frame["type"].clone());
            fresh
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_a_call() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let config = format!(
        "{}\n[ingest]\nlinger_ms = 50\nanalyses = [\"summary\"]\n[analyses.summary]\nevery_n_turns = 2\n",
        mock.config("")
    );
    let daemon = Daemon::start(&config).await;
    let mut reader = subscriber(&daemon).await;
    subscribe(&mut reader, json!({"calls":["c_42"],"wait":true,"include":["turns","words","partials"]})).await;
    let query =
        format!("call_id=c_42&stream_id=s_1&offset_ms=100&results=insights&meta={}", encode(r#"{"team":"billing"}"#));
    let (mut producer, _) = ingest(&daemon, &query).await;
    producer.send(&json!({"type":"partial","turn_order":0,"speaker":"agent","text":"Thanks"})).await;
    reader.of_type("turn.partial").await;
    producer
        .send(&json!({"type":"turn","turn_order":0,"speaker":"agent","text":"Thanks for calling.","start_ms":120,
            "end_ms":1890,"language":"en","confidence":0.5,
            "words":[{"text":"Thanks","start_ms":120,"end_ms":300,"speaker":"agent"}]}))
        .await;
    producer.acked(0).await;
    producer.send(&json!({"type":"revise","turn_order":0,"speaker":"customer"})).await;
    producer.send(&json!({"type":"meta","meta":{"customer":"Ms. Shah"}})).await;
    producer.send_text("{\"type\":\"turn\",\"turn_order\":1,\"text\":\"x\",\"start_ms\":\"soon\"}").await;
    producer.of_type("error").await;
    producer.send(&turn(1, "agent", "How can I help?")).await;
    producer.of_type("insight.updated").await;
    // A permanent failure: temporary ones are tried again after a delay.
    mock.script(|_| Step::Status(400));
    daemon.post("/v1/calls/c_42/analyses/summary", &json!({})).await;
    producer.of_type("insight.failed").await;
    mock.script(|_| Step::Answer(Duration::ZERO));
    producer.send(&json!({"type":"end","reason":"hangup","scope":"call"})).await;
    producer.of_type("call.completed").await;
    producer.close_code().await;
    reader.of_type("call.completed").await;
    // Only the newest ack may be sent, so only the form is fixed: the first one names frames and turn.
    let shown: Vec<&Json> = firsts(&producer).into_iter().filter(|frame| frame["type"] != "ack").collect();
    golden("ingest", &shown);
    let ack = json!({"type":"ack","stream_id":"s_1","frames":"[count]","turn_order":"[order]"});
    for frame in producer.seen_of("ack") {
        let keys: Vec<&String> = frame.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ack.as_object().expect("an object").keys().collect::<Vec<_>>(), "{frame}");
    }
    golden("subscribe", &firsts(&reader));

    let mut late = subscriber(&daemon).await;
    subscribe(&mut late, json!({"calls":["c_42"]})).await;
    late.of_type("snapshot").await;
    late.send(&json!({"id":"1","type":"subscribe","calls":["c_42"],"analyses":["moood"]})).await;
    late.of_type("error").await;
    late.send(&json!({"id":"3","type":"ping"})).await;
    late.of_type("pong").await;
    golden("snapshot", &firsts(&late));
    let view = daemon.get_json("/v1/calls/c_42").await;
    let turns = daemon.get_json("/v1/calls/c_42/turns").await;
    let missing = daemon.get("/v1/calls/nowhere").await.json();
    golden("http", &[&view, &turns, &missing]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_alerts() {
    let _machine = shared().await;
    let rules = "[rules.churn]\nkind = \"keyword\"\nany = [\"cancel\"]\nseverity = \"critical\"\n\
                 message = \"The customer may leave.\"\n[limits]\nalert_pause_ms = 0\n";
    let daemon = Daemon::start(rules).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c_7&stream_id=s_1&results=all&analyses=").await;
    producer.send(&turn(0, "customer", "I want to cancel.")).await;
    let raised = producer.of_type("alert.raised").await;
    let mut reader = subscriber(&daemon).await;
    subscribe(&mut reader, json!({"calls":["c_7"]})).await;
    let snapshot = reader.of_type("snapshot").await;
    let alerts = daemon.get_json("/v1/calls/c_7").await["alerts"].clone();
    assert_eq!(alerts, snapshot["state"]["alerts"]);
    producer.send(&json!({"type":"revise","turn_order":0,"text":"I want to can sell."})).await;
    let cleared = producer.of_type("alert.cleared").await;
    golden("alerts", &[&raised, &cleared, &snapshot]);
}
