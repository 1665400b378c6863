//! A lone surrogate escape costs one character, wherever the daemon reads JSON; a text message that is not UTF-8 is
//! refused with a reason and closes only its own connection.

use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::support::daemon::Daemon;
use crate::support::ws::{encode, ingest, subscriber, turn};
use crate::support::{PATIENCE, http, json, shared};

/// A turn in each of two dialects, from a producer that cuts strings between the halves of a pair.
const OURS: &str = r#"{"type":"turn","turn_order":0,"speaker":"agent","text":"that is great \ud83d"}"#;
const VENDORS: &str = r#"{"type":"Turn","turn_order":0,"turn_is_formatted":true,"end_of_turn":true,"transcript":"that is great \uDE00","words":[{"start":0,"end":900,"text":"that","confidence":1}]}"#;
const TEXT: &str = "that is great \u{fffd}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lone_surrogate_costs_one_character_wherever_json_comes_in() {
    let _machine = shared().await;
    let folder = tempfile::tempdir().unwrap();
    let record = format!("[record]\ndir = {:?}\n", folder.path().display().to_string());
    let daemon = Daemon::start(&format!("[ingest]\nlinger_ms = 50\nanalyses = []\n{record}")).await;

    // Ingest: a turn, `meta` in a frame and in the query, a vendor's frame.
    let meta = encode(r#"{"team":"a\ud83d"}"#);
    let (mut client, _) = ingest(&daemon, &format!("call_id=c1&stream_id=s&meta={meta}")).await;
    client.send_text(OURS).await;
    client.send_text(r#"{"type":"meta","meta":{"customer":"Ms. \udc00Shah"}}"#).await;
    // The `id` of a refused frame is returned too.
    client.send_text(r#"{"type":"turn","turn_order":1,"id":"n\ud83d"}"#).await;
    let refused = client.of_type("error").await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("bad_field"), &json!("n\u{fffd}")), "{refused}");
    client.send(&json!({"type":"end","scope":"call"})).await;
    let completed = daemon.completed("c1", PATIENCE).await;
    assert_eq!(completed["meta"], json!({"team":"a\u{fffd}","customer":"Ms. \u{fffd}Shah"}), "{completed}");
    let (mut vendor, _) = ingest(&daemon, "call_id=c2&stream_id=s&dialect=assemblyai").await;
    vendor.send_text(VENDORS).await;
    vendor.send(&json!({"type":"end","scope":"call"})).await;
    daemon.completed("c2", PATIENCE).await;
    for call in ["c1", "c2"] {
        let turns = daemon.turns(call).await;
        assert_eq!((turns.len(), &turns[0]["text"]), (1, &json!(TEXT)), "{call}: {turns:?}");
    }

    // A recording of such a stream contains the frame as it came, and can be replayed.
    let path = folder.path().join("c2.s.jsonl");
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.contains(VENDORS), "{written}");
    let (file, to) = (path.display().to_string(), daemon.url());
    let played =
        crate::support::daemon::run(&["replay", &file, "--to", &to, "--speed", "max", "--call-id", "c3"]).await;
    assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stderr));
    assert_eq!(daemon.turns("c3").await[0]["text"], TEXT);

    // A whole recording in one request, in both forms.
    for (call, body) in [
        ("c4", r#"{"call_id":"c4","turns":[{"text":"that is great \ud83d"}]}"#.to_owned()),
        (
            "c5",
            format!(r#"{{"call_id":"c5","meta":{{"x":"\ud83d"}},"recording":[{{"at_ms":0,"message":{VENDORS}}}]}}"#),
        ),
    ] {
        let content = [("content-type", "application/json")];
        let reply = http::request(daemon.port, "POST", "/v1/transcripts", &content, Some(body)).await;
        assert_eq!(reply.status, 200, "{call}: {}", reply.text());
        assert_eq!(daemon.turns(call).await[0]["text"], TEXT, "{call}");
    }

    // Subscribe: `id` and `match` are the client's own text.
    let mut watcher = subscriber(&daemon).await;
    watcher.send_text(r#"{"id":"w\ud83d","type":"subscribe","calls":"*","match":{"team":"a\ud83d"}}"#).await;
    let subscribed = watcher.of_type("subscribed").await;
    assert_eq!(subscribed["id"], "w\u{fffd}", "{subscribed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_message_that_is_not_utf8_closes_its_own_connection_with_a_reason() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nlinger_ms = 50\nanalyses = []\n").await;
    let broken = || {
        let payload = b"{\"type\":\"turn\",\"turn_order\":1,\"text\":\"caf\xe9\"}".to_vec();
        Message::Frame(Frame::message(payload, OpCode::Data(Data::Text), true))
    };
    let (mut other, _) = ingest(&daemon, "call_id=c1&stream_id=s_2").await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    client.send(&turn(0, "agent", "Before it.")).await;
    client.acked(0).await;
    assert!(client.send_message(broken()).await);
    let error = client.of_type("error").await;
    assert_eq!((&error["code"], &error["fatal"]), (&json!("bad_frame"), &json!(true)), "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("UTF-8")), "{error}");
    assert_eq!(client.close_code().await, 4400);
    // What was acknowledged is kept; another stream of the call continues, and so does this one on a new connection.
    other.send(&turn(0, "customer", "Meanwhile.")).await;
    other.acked(0).await;
    let (mut again, welcome) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    assert_eq!((&welcome["acked"], &welcome["frames"]), (&json!(0), &json!(1)), "{welcome}");
    again.send(&turn(1, "agent", "After it.")).await;
    again.acked(1).await;
    let texts: Vec<_> = daemon.turns("c1").await.iter().map(|turn| turn["text"].clone()).collect();
    assert_eq!(texts, [json!("Before it."), json!("Meanwhile."), json!("After it.")]);

    let mut watcher = subscriber(&daemon).await;
    assert!(watcher.send_message(broken()).await);
    assert_eq!(watcher.close_code().await, 4400);
}
