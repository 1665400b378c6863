//! A route's variants: a key keeps its variant across restarts and reloads, and open streams keep their own.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::daemon::Daemon;
use crate::support::llm::MockLlm;
use crate::support::ws::{Client, encode, ingest, turn};
use crate::support::{PATIENCE, eventually, json, knob, shared};

/// Number of concurrent connections.
const LANES: usize = 16;

fn config(a: u32, b: u32) -> String {
    format!(
        "[routes.r]\nvariants = [{{ name = \"a\", model = \"local\", weight = {a} }}, \
         {{ name = \"b\", model = \"local\", weight = {b} }}]\n{}",
        crate::support::daemon::WIDE_LIMITS
    )
}

/// The variant of each key, in the order of the keys: `true` = a.
async fn split(port: u16, keys: usize) -> Vec<bool> {
    let mut lanes = Vec::new();
    for lane in 0..LANES {
        lanes.push(tokio::spawn(async move {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("connect");
            let mut got = Vec::new();
            for key in (lane..keys).step_by(LANES) {
                got.push((key, ask(&mut socket, port, &format!("caller-{key}")).await));
            }
            got
        }));
    }
    let mut all = vec![false; keys];
    for lane in lanes {
        for (key, a) in lane.await.expect("lane") {
            all[key] = a;
        }
    }
    all
}

/// Sends one request on a connection that is kept open.
async fn ask(socket: &mut TcpStream, port: u16, user: &str) -> bool {
    let body = json!({"model":"r","user":user,"messages":[{"role":"user","content":"go"}],
        "transcript":{"turns":[{"speaker":"A","text":"Hello there."}]}})
    .to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.expect("write");
    let mut bytes = Vec::new();
    loop {
        assert_ne!(socket.read_buf(&mut bytes).await.expect("read"), 0, "closed");
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: usize = field("content-length:").and_then(|length| length.parse().ok()).expect("a length");
        if body.len() >= length {
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            return field("sidetone-variant:") == Some("a");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_hold_over_restarts_and_a_new_weight_moves_only_what_it_must() {
    let _machine = shared().await;
    let keys = knob("VARIANT_KEYS", 10_000);
    let mut daemon = Daemon::start(&config(90, 10)).await;
    let before = split(daemon.port, keys).await;
    let share = before.iter().filter(|a| **a).count();
    // 120 of 10,000 is four standard deviations, both for the share and for the keys that change.
    let slack = (120.0 * (keys as f64 / 10_000.0).sqrt()).ceil() as usize;
    assert!(share.abs_diff(keys * 9 / 10) <= slack, "{share} of {keys}");
    daemon.restart().await;
    assert_eq!(before, split(daemon.port, keys).await, "the same after a restart");
    daemon.configure(&config(80, 20));
    daemon.sighup();
    eventually("the new weights hold", PATIENCE, || async {
        (daemon.metric("sidetone_config_reloads_total", &["ok"]).await >= 1.0).then_some(())
    })
    .await;
    let after = split(daemon.port, keys).await;
    let to_b = before.iter().zip(&after).filter(|(was, is)| **was && !**is).count();
    let to_a = before.iter().zip(&after).filter(|(was, is)| !**was && **is).count();
    assert!(to_b.abs_diff(keys / 10) <= slack, "{to_b} moved");
    assert_eq!(to_a, 0, "none moves the other way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_call_keeps_its_variant() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let config = |a: u32, b: u32| {
        format!(
            "[endpoints.mock]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\n\
             [routes.summary]\nvariants = [{{ name = \"a\", model = \"mock/a\", weight = {a} }}, \
             {{ name = \"b\", model = \"mock/b\", weight = {b} }}]\n\
             [ingest]\nanalyses = [\"summary\"]\n[analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0\n\
             [analyses.sentiment]\nroute = \"local\"\n[analyses.sentiment_turn]\nroute = \"local\"\n",
            mock.base_url()
        )
    };
    let mut daemon = Daemon::start(&config(1, 0)).await;
    let insight = |client: Client, to: u64| async move {
        let mut client = client;
        let frame = client
            .until("an insight of the turn", |frame| {
                frame["type"] == "insight.updated" && frame["insight"]["covers"]["to"] == to
            })
            .await;
        (client, frame["insight"]["provenance"]["variant"].clone())
    };
    let url = daemon.ws("/v1/ingest?call_id=old&stream_id=s_1");
    let mut client = Client::connect(&url).await;
    client.send(&turn(0, "agent", "Hello.")).await;
    let (mut client, variant) = insight(client, 0).await;
    assert_eq!(variant, "a");
    daemon.configure(&config(0, 1));
    daemon.sighup();
    eventually("the new weights hold", PATIENCE, || async {
        (daemon.metric("sidetone_config_reloads_total", &["ok"]).await >= 1.0).then_some(())
    })
    .await;
    client.send(&turn(1, "customer", "My parcel is late.")).await;
    let (client, variant) = insight(client, 1).await;
    assert_eq!(variant, "a", "over a reload");
    drop(client);
    let mut fresh = Client::connect(&daemon.ws("/v1/ingest?call_id=new&stream_id=s_1")).await;
    fresh.send(&turn(0, "agent", "Hello.")).await;
    assert_eq!(insight(fresh, 0).await.1, "b", "a new call gets the new one");
    daemon.restart().await;
    let mut client = Client::connect(&url).await;
    client.send(&turn(2, "agent", "Still here.")).await;
    assert_eq!(insight(client, 2).await.1, "a", "over a restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variants_of_a_producer_are_pinned_before_the_first_job_and_over_a_kill() {
    let _machine = shared().await;
    let config = "[routes.r]\nvariants = [{ name = \"a\", model = \"local\" }, { name = \"b\", model = \"local\" }]\n\
                  [analyses.summary]\nroute = \"r\"\non_end = true\n";
    let mut daemon = Daemon::start(config).await;
    let calls: Vec<String> = (0..10).map(|number| format!("c{number}")).collect();
    for call in &calls {
        let variants = encode(r#"{"r":"b"}"#);
        let query = format!("call_id={call}&stream_id=s_1&analyses=summary&variants={variants}");
        let (mut client, _) = ingest(&daemon, &query).await;
        client.send(&json!({"type":"partial","turn_order":0,"text":"Hello"})).await;
        client.close().await;
    }
    daemon.kill9();
    daemon.restart().await;
    for call in &calls {
        // A later stream cannot choose the call's variant any more.
        let variants = encode(r#"{"r":"a"}"#);
        let query = format!("call_id={call}&stream_id=s_1&analyses=summary&variants={variants}");
        let (mut client, _) = ingest(&daemon, &query).await;
        client.send(&turn(0, "agent", "Thanks for calling, how can I help?")).await;
        client.send(&json!({"type":"end","scope":"call"})).await;
        let done = daemon.completed(call, PATIENCE).await;
        assert_eq!(done["insights"]["summary"]["provenance"]["variant"], "b", "{call}: {done}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variants_that_do_not_exist_are_named_with_those_that_do() {
    let _machine = shared().await;
    let daemon = Daemon::start(&config(1, 1)).await;
    for (chosen, names) in [(r#"{"r":"c"}"#, ["\"c\"", "a, b"]), (r#"{"s":"a"}"#, ["\"s\"", "there are: r"])] {
        let (mut client, _) = ingest(&daemon, &format!("variants={}", encode(chosen))).await;
        let error = client.of_type("error").await;
        assert_eq!((&error["code"], &error["fatal"]), (&json!("unknown_variant"), &json!(false)), "{error}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(names.iter().all(|name| message.contains(name)), "{message}");
        client.send(&turn(0, "agent", "Hello.")).await;
        client.acked(0).await;
    }
    let mut client = Client::connect(&daemon.ws(&format!("/v1/ingest?variants={}", encode("[]")))).await;
    let error = client.of_type("error").await;
    assert_eq!((&error["code"], &error["fatal"]), (&json!("bad_parameter"), &json!(true)), "{error}");
    assert_eq!(client.close_code().await, 4400);
}
