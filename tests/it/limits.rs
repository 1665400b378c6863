//! Every limit is named in the error that it causes.

use crate::support::daemon::Daemon;
use crate::support::ws::{Client, Options, encode, ingest, subscribe, subscriber, turn};
use crate::support::{Json, PATIENCE, eventually, json, shared};

/// How a connection was refused: an error frame, a close reason or an HTTP body.
async fn refusal(daemon: &Daemon, path: &str) -> (String, u16) {
    match Client::try_connect(&daemon.ws(path), &Options::default()).await {
        Ok(mut client) => {
            let code = client.close_code().await;
            let reason = client.closed.clone().map(|(_, reason)| reason).unwrap_or_default();
            (format!("{:?} {reason}", client.seen), code)
        }
        Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => {
            let body = reply.body().clone().unwrap_or_default();
            (String::from_utf8_lossy(&body).into_owned(), reply.status().as_u16())
        }
        Err(error) => panic!("{path}: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_and_calls() {
    let _machine = shared().await;
    for name in ["open_calls", "new_calls_per_s"] {
        let daemon = Daemon::start(&format!("[limits]\n{name} = 2\n")).await;
        let mut held = Vec::new();
        for number in 0..2 {
            held.push(ingest(&daemon, &format!("call_id=c{number}&stream_id=s_1")).await);
        }
        // A limit of calls per second may admit another call on a slow machine.
        let error = loop {
            assert!(held.len() == 2 || (name == "new_calls_per_s" && held.len() < 100), "{name} refuses nobody");
            let call = format!("/v1/ingest?call_id=c{}&stream_id=s_1", held.len());
            let mut client = Client::connect(&daemon.ws(&call)).await;
            let first = client.recv().await.expect("a frame");
            if first["type"] == "error" {
                assert_eq!(client.close_code().await, 4429, "{first}");
                break first;
            }
            held.push((client, first));
        };
        assert!(error["message"].to_string().contains(name), "{name}: {error}");
        // A known call does not count as new.
        ingest(&daemon, "call_id=c0&stream_id=s_2").await;
    }
    for name in ["connections", "per_address"] {
        let daemon = Daemon::start(&format!("[limits]\n{name} = 4\n")).await;
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(subscriber(&daemon).await);
        }
        let (said, code) = refusal(&daemon, "/v1/subscribe").await;
        assert!(said.contains(name), "{name}: {code} {said}");
        assert!([4429, 429, 503].contains(&code), "{name}: {code}");
        held.pop().expect("one").close().await;
        eventually("there is room again", PATIENCE, || async {
            let mut client = Client::try_connect(&daemon.ws("/v1/subscribe"), &Options::default()).await.ok()?;
            client.recv().await.filter(|frame| frame["type"] == "welcome")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions() {
    let _machine = shared().await;
    let daemon = Daemon::start("[limits]\nsubscriptions_per_socket = 2\ncalls_per_subscription = 3\n").await;
    let mut client = subscriber(&daemon).await;
    let too_many: Vec<String> = (0..4).map(|number| format!("c{number}")).collect();
    client.send(&json!({"id":"many","type":"subscribe","calls":too_many,"wait":true})).await;
    let error = client.until("a reply", |frame| frame["id"] == "many").await;
    assert!(error["message"].to_string().contains("calls_per_subscription"), "{error}");
    for number in 0..2 {
        subscribe(&mut client, json!({"id":format!("s{number}"),"calls":["c1"],"wait":true})).await;
    }
    client.send(&json!({"id":"more","type":"subscribe","calls":["c1"],"wait":true})).await;
    let error = client.until("a reply", |frame| frame["id"] == "more").await;
    assert_eq!((&error["type"], &error["fatal"]), (&json!("error"), &json!(false)), "{error}");
    assert!(error["message"].to_string().contains("subscriptions_per_socket"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meta_and_turns() {
    let _machine = shared().await;
    let daemon = Daemon::start("[limits]\nmeta_bytes = 200\nturn_bytes = 300\n").await;
    let long = json!({"note": "x".repeat(300)}).to_string();
    let (said, code) = refusal(&daemon, &format!("/v1/ingest?call_id=c1&meta={}", encode(&long))).await;
    assert!(said.contains("meta_bytes"), "{code} {said}");
    assert_eq!(code, 4400);
    let (mut client, _) = ingest(&daemon, "call_id=c2&stream_id=s_1").await;
    client.send(&json!({"type":"meta","meta":{"note":"x".repeat(300)}})).await;
    assert!(client.of_type("error").await["message"].to_string().contains("meta_bytes"));
    client.send(&json!({"type":"meta","meta":{"one":"x".repeat(120)}})).await;
    client.send(&json!({"type":"meta","meta":{"two":"x".repeat(120)}})).await;
    assert!(client.of_type("error").await["message"].to_string().contains("meta_bytes"), "merged, it is too long");
    client.send(&turn(0, "agent", &"x".repeat(301))).await;
    let error = client.of_type("error").await;
    assert!(error["message"].to_string().contains("turn_bytes"), "{error}");
    client.send(&turn(0, "agent", "Short.")).await;
    client.acked(0).await;
    let view = daemon.get_json("/v1/calls/c2").await;
    assert_eq!(view["meta"].as_object().map(serde_json::Map::len), Some(1), "{view}");
    assert_eq!(daemon.turns("c2").await.len(), 1);
    let _: Json = view;
}
