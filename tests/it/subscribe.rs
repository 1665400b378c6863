//! `GET /v1/subscribe`: snapshots, resuming, filters, delivery, `*`, and errors.

use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::llm::MockLlm;
use crate::support::ws::{Client, Options, encode, ingest, subscribe, subscriber, turn};
use crate::support::{Json, json, shared};

/// A call with this many turns, on a socket that stays open.
async fn call_with(daemon: &Daemon, call: &str, turns: u64) -> Client {
    let (mut client, _) = ingest(daemon, &format!("call_id={call}&stream_id=s_1")).await;
    for order in 0..turns {
        client.send(&turn(order, "agent", &format!("Sentence {order} is all good."))).await;
    }
    if turns > 0 {
        client.acked(turns - 1).await;
    }
    client
}

/// Reads sequenced events until `count` have come.
async fn events(client: &mut Client, count: usize) -> Vec<Json> {
    let mut events = Vec::new();
    while events.len() < count {
        let frame = client.recv().await.unwrap_or_else(|| panic!("closed {:?}", client.closed));
        assert_ne!(frame["type"], "error", "{frame}");
        if frame.get("seq").is_some() && frame["type"] != "snapshot" {
            events.push(frame);
        }
    }
    events
}

fn seqs(events: &[Json]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().expect("seq")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_is_greeted_and_may_ping() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let mut client = Client::connect(&daemon.ws("/v1/subscribe")).await;
    let welcome = client.recv().await.expect("welcome");
    assert_eq!(welcome, json!({"type":"welcome","version":1,"ping_interval_ms":welcome["ping_interval_ms"]}));
    assert!(welcome["ping_interval_ms"].as_u64().is_some_and(|ms| ms >= 1000));
    client.send(&json!({"id":"3","type":"ping"})).await;
    assert_eq!(client.recv().await.expect("pong"), json!({"id":"3","type":"pong"}));
    // The subprotocol is echoed if it was offered; the key next to it never is.
    for path in ["/v1/subscribe", "/v1/ingest"] {
        let reply = crate::support::http::request(
            daemon.port,
            "GET",
            path,
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
                ("sec-websocket-protocol", "sidetone.key.sk-1, sidetone.v1"),
            ],
            None,
        )
        .await;
        assert_eq!((reply.status, reply.header("sec-websocket-protocol")), (101, Some("sidetone.v1")), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_never_subscribes_is_closed_4408() {
    let _machine = shared().await;
    let daemon = Daemon::start("[subscribe]\nsubscribe_timeout_ms = 3000\n").await;
    let mut good = subscriber(&daemon).await;
    subscribe(&mut good, json!({"calls":"*"})).await;
    let mut silent = subscriber(&daemon).await;
    assert_eq!(silent.close_code().await, 4408);
    // A socket that was opened before it and has not subscribed would be closed by now.
    good.send(&json!({"id":"q","type":"ping"})).await;
    good.until("pong", |frame| frame["id"] == "q").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_first_then_every_event() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nanalyses = [\"summary\"]\nlinger_ms = 100\n").await;
    let mut producer = call_with(&daemon, "c1", 3).await;
    let mut client = subscriber(&daemon).await;
    let subscribed = subscribe(&mut client, json!({"calls":["c1"]})).await;
    let subscription = subscribed["subscription"].clone();
    let snapshot = client.recv().await.expect("snapshot");
    assert_eq!((&snapshot["type"], &snapshot["subscription"]), (&json!("snapshot"), &subscription));
    assert_eq!(snapshot["epoch"], daemon.events("c1").await[0]["epoch"]);
    assert_eq!(snapshot["state"]["status"], "open");
    assert_eq!(snapshot["state"]["turns_from"], 0);
    let turns = snapshot["state"]["turns"].as_array().expect("turns").clone();
    assert_eq!(turns, daemon.turns("c1").await);
    let seq = snapshot["seq"].as_u64().expect("seq");
    producer.send(&turn(3, "agent", "One more.")).await;
    producer.send(&json!({"type":"end","scope":"call"})).await;
    let mut expected = seq + 1;
    loop {
        let event = events(&mut client, 1).await.remove(0);
        assert_eq!(event["seq"], expected, "{event}");
        assert_eq!(event["subscription"], subscription);
        expected += 1;
        if event["type"] == "call.completed" {
            break;
        }
    }
    assert_eq!(daemon.events("c1").await.len() as u64, expected - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resuming_gives_each_event_once() {
    let _machine = shared().await;
    let mut daemon = Daemon::start("[ingest]\nlinger_ms = 100\n").await;
    let producer = call_with(&daemon, "c1", 30).await;
    let all = daemon.events("c1").await;
    let (epoch, head) = (all[0]["epoch"].clone(), all.len() as u64);
    producer.drop_now();
    for restart in [false, true] {
        if restart {
            daemon.restart().await;
        }
        let mut client = subscriber(&daemon).await;
        let resume = json!({"calls":["c1"],"resume":{"c1":{"epoch":epoch,"seq":7}}});
        let subscribed = subscribe(&mut client, resume).await;
        let answer = &subscribed["calls"]["c1"];
        assert_eq!((&answer["recovered"], &answer["epoch"]), (&json!(true), &epoch), "{subscribed}");
        let got = events(&mut client, head as usize - 7).await;
        assert_eq!(seqs(&got), (8..=head).collect::<Vec<u64>>());
        assert!(client.seen_of("snapshot").is_empty());
        for (event, stored) in got.iter().zip(&all[7..]) {
            let mut bare = event.as_object().expect("an object").clone();
            bare.remove("subscription");
            assert_eq!(&Json::Object(bare), stored);
        }
        for (epoch, seq) in [(json!("another"), 7), (epoch.clone(), 100_000)] {
            let mut client = subscriber(&daemon).await;
            let resume = json!({"calls":["c1"],"resume":{"c1":{"epoch":epoch,"seq":seq}}});
            let subscribed = subscribe(&mut client, resume).await;
            assert_eq!(subscribed["calls"]["c1"]["recovered"], false, "{subscribed}");
            assert_eq!(client.recv().await.expect("snapshot")["type"], "snapshot");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_star_resumes_by_cursor_over_a_restart() {
    let _machine = shared().await;
    let mut daemon = Daemon::start("[ingest]\nanalyses = [\"summary\"]\nlinger_ms = 100\n").await;
    let _old = call_with(&daemon, "before", 2).await;
    let mut client = subscriber(&daemon).await;
    subscribe(&mut client, json!({"calls":"*"})).await;
    let snapshot = client.of_type("snapshot").await;
    assert_eq!(snapshot["call_id"], "before");
    let _new = call_with(&daemon, "during", 2).await;
    let started = client.of_type("call.started").await;
    assert_eq!((&started["call_id"], &started["seq"]), (&json!("during"), &json!(1)));
    let last =
        client.until("turn 1 of during", |frame| frame["type"] == "turn.final" && frame["turn"]["turn"] == 1).await;
    let cursor = last["cursor"].clone();
    assert_ne!(cursor, Json::Null, "{last}");
    client.drop_now();
    daemon.restart().await;
    let mut more = call_with(&daemon, "during", 0).await;
    more.send(&turn(2, "agent", "After the restart.")).await;
    more.acked(2).await;
    let _third = call_with(&daemon, "after", 1).await;
    let mut client = subscriber(&daemon).await;
    subscribe(&mut client, json!({"calls":"*","resume":{"cursor":cursor}})).await;
    client
        .until("the turn after the restart", |frame| {
            frame["call_id"] == "during" && frame["type"] == "turn.final" && frame["turn"]["turn"] == 2
        })
        .await;
    if !client.seen.iter().any(|frame| frame["call_id"] == "after" && frame["type"] == "turn.final") {
        client.until("the new call", |frame| frame["call_id"] == "after" && frame["type"] == "turn.final").await;
    }
    assert!(client.seen_of("snapshot").is_empty(), "a resumed cursor needs none: {:?}", client.seen_of("snapshot"));
    let during: Vec<u64> = client
        .seen
        .iter()
        .filter(|frame| frame["call_id"] == "during" && frame.get("seq").is_some())
        .map(|frame| frame["seq"].as_u64().expect("seq"))
        .collect();
    let from = last["seq"].as_u64().expect("seq") + 1;
    assert_eq!(during, (from..from + during.len() as u64).collect::<Vec<u64>>(), "dense over the restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wrong_thing_refuses_the_whole_subscribe() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let _producer = call_with(&daemon, "c1", 1).await;
    let mut client = subscriber(&daemon).await;
    let cases = [
        (json!({"calls":["c1"],"analyses":["summary","moood"]}), "unknown_analysis", "moood"),
        (json!({"calls":["c1"],"include":["turns","smells"]}), "bad_field", "smells"),
        (json!({"calls":["c1","nowhere"]}), "unknown_call", "nowhere"),
        (json!({"calls":["a/b"]}), "bad_field", "calls"),
        (json!({"calls":7}), "bad_field", "calls"),
        (json!({"calls":["c1"],"delivery":{"summary":"sometimes"}}), "bad_field", "delivery"),
        (json!({"calls":["c1"],"resume":{"c1":{"epoch":"e","seq":"x"}}}), "bad_field", "resume"),
        (json!({"calls":"*","resume":{"cursor":"nonsense"}}), "", ""),
        (json!({}), "bad_field", "calls"),
    ];
    for (position, (mut frame, code, named)) in cases.into_iter().enumerate() {
        frame["type"] = json!("subscribe");
        frame["id"] = json!(format!("case {position}"));
        client.send(&frame).await;
        let reply = client.until("a reply", |reply| reply["id"] == frame["id"]).await;
        if code.is_empty() {
            continue;
        }
        assert_eq!((&reply["type"], &reply["fatal"]), (&json!("error"), &json!(false)), "{frame}: {reply}");
        assert_eq!(reply["code"], code, "{frame}: {reply}");
        assert!(reply["message"].as_str().is_some_and(|text| text.contains(named)), "{frame}: {reply}");
    }
    for _ in 0..2 {
        client.send(&json!({"id":"z","type":"dance"})).await;
    }
    client.send(&json!({"id":"last","type":"ping"})).await;
    client.until("pong", |frame| frame["id"] == "last").await;
    let unknown = client.seen.iter().filter(|frame| frame["code"] == "unknown_type").count();
    assert_eq!(unknown, 1, "once per type");
    subscribe(&mut client, json!({"calls":["c1"]})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_select_what_comes() {
    let _machine = shared().await;
    let daemon = Daemon::start(
        "[ingest]\nlinger_ms = 100\n[analyses.summary]\nevery_n_turns = 1\n[analyses.sentiment]\nevery_n_turns = 1\n",
    )
    .await;
    let mut only = subscriber(&daemon).await;
    subscribe(&mut only, json!({"calls":["c1"],"wait":true,"analyses":["summary"],"include":[]})).await;
    let mut everything = subscriber(&daemon).await;
    subscribe(&mut everything, json!({"calls":["c1"],"wait":true,"include":["turns","words","partials","deltas"]}))
        .await;
    let mut billing = subscriber(&daemon).await;
    subscribe(&mut billing, json!({"calls":"*","match":{"team":"billing"}})).await;

    let (mut producer, _) = ingest(&daemon, &format!("call_id=c1&meta={}", encode(r#"{"team":"sales"}"#))).await;
    let (mut other, _) = ingest(&daemon, &format!("call_id=c2&meta={}", encode(r#"{"team":"billing"}"#))).await;
    producer.send(&json!({"type":"partial","turn_order":0,"speaker":"agent","text":"The parcel"})).await;
    let partial = everything.of_type("turn.partial").await;
    assert_eq!((&partial["text"], &partial["turn_order"]), (&json!("The parcel"), &json!(0)));
    assert!(partial.get("seq").is_none());
    let mut frame = turn(0, "agent", "The parcel arrived.");
    frame["words"] = json!([{"text":"The","start_ms":0,"end_ms":100},{"text":"parcel","start_ms":110,"end_ms":300},
                            {"text":"arrived.","start_ms":310,"end_ms":900}]);
    producer.send(&frame).await;
    let with_words = everything.of_type("turn.final").await;
    assert_eq!(with_words["turn"]["words"].as_array().map(Vec::len), Some(3), "{with_words}");
    let insight = only.of_type("insight.updated").await;
    assert_eq!(insight["insight"]["analysis"], "summary");
    producer.send(&json!({"type":"end","scope":"call"})).await;
    only.of_type("call.completed").await;
    assert!(only.seen_of("turn.final").is_empty() && only.seen_of("turn.partial").is_empty());
    assert!(only.seen_of("insight.updated").iter().all(|frame| frame["insight"]["analysis"] == "summary"));
    assert!(!only.seen_of("call.started").is_empty() && !only.seen_of("stream.started").is_empty());

    other.send(&turn(0, "agent", "An invoice.")).await;
    let final_turn = billing.of_type("turn.final").await;
    assert_eq!(final_turn["call_id"], "c2");
    assert!(final_turn["turn"].get("words").is_none());
    assert!(billing.seen.iter().all(|frame| frame["call_id"] != "c1"), "match selects by meta");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_skips_what_is_superseded_and_all_does_not() {
    let _machine = shared().await;
    let mock = MockLlm::start().await;
    let config = format!(
        "{}\n[ingest]\nanalyses = [\"summary\"]\nlinger_ms = 50\n[analyses.summary]\nevery_n_turns = 1\n",
        mock.config("")
    );
    let daemon = Daemon::start(&config).await;
    let (mut producer, _) = ingest(&daemon, "call_id=c1").await;
    for order in 0..8 {
        producer.send(&turn(order, "agent", "Something new.")).await;
        producer.until("its insight", |frame| frame["insight"]["covers"]["to"] == order).await;
    }
    producer.send(&json!({"type":"end","scope":"call"})).await;
    producer.of_type("call.completed").await;
    let epoch = daemon.events("c1").await[0]["epoch"].clone();
    let mut counts = Vec::new();
    for delivery in ["all", "latest"] {
        let mut client = subscriber(&daemon).await;
        let body = json!({"calls":["c1"],"resume":{"c1":{"epoch":epoch,"seq":0}},"delivery":{"summary":delivery}});
        subscribe(&mut client, body).await;
        client.of_type("call.completed").await;
        let insights = client.seen_of("insight.updated");
        assert_eq!(insights.last().expect("an insight")["insight"]["status"], "final");
        assert_eq!(client.seen_of("turn.final").len(), 8);
        counts.push(insights.len());
    }
    assert!(counts[0] >= 8 && counts[1] < counts[0] / 2, "all: {}, latest: {}", counts[0], counts[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_of_one_socket_are_independent() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let mut producer = call_with(&daemon, "c1", 1).await;
    let mut client = subscriber(&daemon).await;
    let one = subscribe(&mut client, json!({"id":"one","calls":["c1"]})).await["subscription"].clone();
    let two = subscribe(&mut client, json!({"id":"two","calls":["c1"]})).await["subscription"].clone();
    assert_ne!(one, two);
    producer.send(&turn(1, "agent", "Twice.")).await;
    let mut by = Vec::new();
    while by.len() < 2 {
        let frame = client.until("turn 1", |frame| frame["turn"]["turn"] == 1).await;
        by.push(frame["subscription"].clone());
    }
    assert!(by.contains(&one) && by.contains(&two));
    client.send(&json!({"id":"off","type":"unsubscribe","subscription":one})).await;
    client.of_type("unsubscribed").await;
    producer.send(&turn(2, "agent", "Once.")).await;
    let frame = client.until("turn 2", |frame| frame["turn"]["turn"] == 2).await;
    assert_eq!(frame["subscription"], two);
    producer.send(&turn(3, "agent", "Once more.")).await;
    let frame = client.until("a turn", |frame| frame["type"] == "turn.final").await;
    assert_eq!(frame["turn"]["turn"], 3, "the first subscription is silent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completed_calls_can_be_read_and_resumed() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nlinger_ms = 50\n").await;
    let mut producer = call_with(&daemon, "c1", 3).await;
    producer.send(&json!({"type":"end","scope":"call"})).await;
    producer.close_code().await;
    let mut client = subscriber(&daemon).await;
    subscribe(&mut client, json!({"calls":["c1"]})).await;
    let snapshot = client.recv().await.expect("snapshot");
    assert_eq!(snapshot["state"]["status"], "completed");
    assert!(snapshot["state"]["insights"]["summary"]["value"].is_object(), "{snapshot}");
    let mut star = subscriber(&daemon).await;
    subscribe(&mut star, json!({"calls":"*"})).await;
    let frame = star.recv_within(Duration::from_millis(400)).await;
    assert!(frame.is_none(), "a star's snapshots are of open calls: {frame:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_origins_and_hosts_are_refused_before_the_upgrade() {
    let _machine = shared().await;
    let daemon = Daemon::start("[server]\norigins = [\"https://dash.example.com\"]\n").await;
    for path in ["/v1/subscribe", "/v1/ingest?call_id=c1"] {
        for (name, value, fine) in [
            ("origin", "https://evil.example", false),
            ("origin", "null", false),
            ("origin", "https://dash.example.com", true),
            ("host", "evil.example", false),
        ] {
            let options = Options { headers: vec![(name.to_owned(), value.to_owned())], receive_buffer: None };
            let tried = Client::try_connect(&daemon.ws(path), &options).await;
            match tried {
                Ok(_) => assert!(fine, "{path} with {name}: {value} was accepted"),
                Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => {
                    assert!(!fine && reply.status() == 403, "{path} with {name}: {value}: {}", reply.status());
                }
                Err(error) => panic!("{path} with {name}: {value}: {error}"),
            }
        }
    }
}
