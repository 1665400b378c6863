//! The published contract: checks the frames of a whole call against the schemas that the daemon serves, and the paths
//! of its OpenAPI document against its router.

use sidetone::base::budget::{Bound, Budget, Limits};
use sidetone::llm::schema::{Validator, Verdict};

use crate::support::daemon::Daemon;
use crate::support::http::request;
use crate::support::ws::{Client, encode, ingest, subscribe, subscriber};
use crate::support::{Json, json, recording, shared};

/// Checking a frame against a schema of many frames costs more than checking an answer of a model may.
const LIMITS: Limits = Limits {
    steps: Bound::new("test_steps", 100_000_000),
    bytes: Bound::new("test_bytes", 1 << 30),
    time: Bound::new("test_ms", 60_000),
};

async fn validator(daemon: &Daemon, name: &str) -> Validator {
    let reply = daemon.get(&format!("/schemas/{name}.json")).await;
    assert_eq!(reply.header("content-type"), Some("application/schema+json"), "{name}");
    Validator::compile(&reply.json()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn assert_valid(validator: &Validator, frame: &Json) {
    let verdict = validator.check(&frame.to_string(), &mut Budget::new(LIMITS)).expect("within the budget");
    assert!(matches!(verdict, Verdict::Valid(..)), "{verdict:?}\n{frame:#}");
}

/// Number of frames of each type.
fn types(client: &Client) -> std::collections::BTreeMap<String, usize> {
    let mut types = std::collections::BTreeMap::new();
    for frame in &client.seen {
        *types.entry(frame["type"].as_str().unwrap_or_default().to_owned()).or_insert(0) += 1;
    }
    types
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_of_a_whole_call_is_valid_under_its_schema() {
    let _machine = shared().await;
    let daemon = Daemon::start(
        "[ingest]\nlinger_ms = 50\nanalyses = [\"summary\", \"sentiment\", \"sentiment_turn\"]\n\
         [rules.upset]\nkind = \"keyword\"\nany = [\"frustrated\"]\n",
    )
    .await;
    let include = json!(["turns", "words", "partials", "deltas"]);
    let mut reader = subscriber(&daemon).await;
    subscribe(&mut reader, json!({"calls": ["c1"], "wait": true, "include": include})).await;
    let mut all = subscriber(&daemon).await;
    subscribe(&mut all, json!({"calls": "*", "include": include})).await;
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo/call.jsonl");
    let call = recording::read(&path).expect("the demo's call");
    let query = format!(
        "call_id=c1&stream_id=s_1&dialect=assemblyai&results=all&analyses=summary,sentiment_turn,nonsense&meta={}",
        encode(r#"{"team":"billing"}"#)
    );
    let (mut producer, _) = ingest(&daemon, &query).await;
    for text in call.texts() {
        producer.send_text(&text).await;
    }
    producer.send(&json!({"type": "meta", "meta": {"customer": "Ms. Shah"}})).await;
    producer.send_text("no JSON").await;
    producer.send(&json!({"type": "end", "scope": "call"})).await;
    producer.of_type("call.completed").await;
    assert_eq!(producer.close_code().await, 1000);
    reader.of_type("call.completed").await;
    all.of_type("call.completed").await;
    let mut late = subscriber(&daemon).await;
    subscribe(&mut late, json!({"calls": ["c1"], "include": include})).await;
    late.of_type("snapshot").await;
    for frame in [
        json!({"id": "2", "type": "ping"}),
        json!({"id": 3, "type": "subscribe", "calls": ["nowhere"]}),
        json!({"id": "4", "type": "unsubscribe", "subscription": "sub_1"}),
        json!({"type": "dance"}),
    ] {
        assert!(late.send(&frame).await);
    }
    late.of_type("pong").await;
    late.of_type("unsubscribed").await;
    late.until("the answer to dance", |frame| frame["code"] == "unknown_type").await;
    // A completed call sends its end again to a producer that connects.
    let (mut again, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    again.of_type("call.completed").await;

    let (from_ingest, from_subscribe) =
        (validator(&daemon, "ingest-server").await, validator(&daemon, "subscribe-server").await);
    for client in [&producer, &again] {
        client.seen.iter().for_each(|frame| assert_valid(&from_ingest, frame));
    }
    for client in [&reader, &all, &late] {
        client.seen.iter().for_each(|frame| assert_valid(&from_subscribe, frame));
    }
    let event = validator(&daemon, "event").await;
    daemon.events("c1").await.iter().for_each(|frame| assert_valid(&event, frame));

    // The call was complex enough to test the schemas.
    let of = |client: &Client, kinds: &[&str]| {
        let types = types(client);
        for kind in kinds {
            assert!(types.contains_key(*kind), "no {kind} in {types:?}");
        }
    };
    let events = [
        "call.updated",
        "stream.started",
        "stream.ended",
        "turn.final",
        "insight.updated",
        "alert.raised",
        "call.completed",
    ];
    of(&producer, &events);
    of(&producer, &["welcome", "ack", "error"]);
    of(&reader, &events);
    // The welcome of a producer that begins a call follows the event of the call's start.
    of(&reader, &["welcome", "subscribed", "turn.partial", "call.started"]);
    of(&late, &["snapshot", "pong", "error", "unsubscribed"]);
    assert!(all.seen_of("turn.final").iter().all(|frame| frame["cursor"].is_string()));
    // A frame without its last member is invalid if that member is required: the schemas do check something.
    for (client, validator) in [(&producer, &from_ingest), (&late, &from_subscribe)] {
        for frame in client.seen.iter().filter(|frame| frame["type"] != "pong" && frame["type"] != "stream.ended") {
            let mut broken = frame.clone();
            let fields = broken.as_object_mut().expect("an object");
            let last = fields.keys().rfind(|name| *name != "type" && *name != "insights_omitted").cloned();
            fields.remove(&last.expect("a member"));
            let verdict = validator.check(&broken.to_string(), &mut Budget::new(LIMITS)).expect("within the budget");
            assert!(matches!(verdict, Verdict::Invalid(_)), "{broken:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_are_listed_and_an_unknown_one_is_named() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let listed = daemon.get_json("/schemas/").await;
    let paths: Vec<&str> =
        listed["schemas"].as_array().expect("a list").iter().filter_map(|schema| schema["path"].as_str()).collect();
    assert_eq!(paths.len(), 5, "{listed}");
    for path in paths {
        assert_eq!(daemon.get(path).await.status, 200, "{path}");
    }
    let unknown = daemon.get("/schemas/frames.json").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().contains("event.json"), "{}", unknown.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openapi_document_and_router_agree() {
    let _machine = shared().await;
    // Nothing listens at this address: GET /v3/token would ask the STT vendor.
    let daemon = Daemon::start("[stt]\nupstream = \"ws://127.0.0.1:9\"\n").await;
    let document = daemon.get_json("/openapi.json").await;
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 20, "{}", paths.len());
    for (path, operations) in paths {
        let real = path.replace("{id}", "nowhere").replace("{name}", "nothing").replace("{topic}", "feeding");
        let listed: Vec<String> =
            operations.as_object().expect("operations").keys().map(|verb| verb.to_uppercase()).collect();
        for verb in ["GET", "POST", "DELETE", "PUT", "PATCH"] {
            let body = (verb == "POST" || verb == "PUT" || verb == "PATCH").then(|| "{}".to_owned());
            let reply = request(daemon.port, verb, &real, &[("content-type", "application/json")], body).await;
            let known = listed.iter().any(|known| known == verb);
            assert_eq!(reply.status == 405, !known, "{verb} {real}: {} {}", reply.status, reply.text());
            assert!(!reply.text().contains("unknown_path"), "{verb} {real}: {}", reply.text());
            if let Some(allow) = reply.header("allow").filter(|_| !known) {
                let mut allowed: Vec<&str> =
                    allow.split([',', ' ']).filter(|verb| !verb.is_empty() && *verb != "HEAD").collect();
                allowed.sort_unstable();
                let mut expected: Vec<&str> = listed.iter().map(String::as_str).collect();
                expected.sort_unstable();
                assert_eq!(allowed, expected, "{path}");
            }
        }
    }
    assert_eq!(daemon.get("/openapi").await.status, 404);
}
