//! Each sentence of DESIGN 5.2, on real sockets.

use super::*;
use crate::hub::testing::{call, insight};
use crate::hub::{LiveFrame, LiveKind};

fn seqs(frames: &[Value]) -> Vec<u64> {
    frames.iter().map(|frame| frame["seq"].as_u64().expect("seq")).collect()
}

fn partial(server: &Server, name: &str, text: &str) {
    let frame = json!({"type": "turn.partial", "call_id": name, "stream_id": "s_1", "turn_order": 1, "text": text});
    server.hub.live(&call(name), LiveFrame { kind: LiveKind::Partial, frame: frame.to_string().into() });
}

#[tokio::test]
async fn filters_and_latest_leave_out_what_they_say() {
    let server = Server::start().await;
    let id = call("c_1");
    server.store.start(&id, "{}");
    let mut client = server.client().await;
    let mut request = subscribe(json!(["c_1"]));
    request["analyses"] = json!(["summary"]);
    request["include"] = json!([]);
    request["delivery"] = json!({"summary": "latest"});
    request["resume"] = json!({"c_1": {"epoch": "e1", "seq": 0}});
    for rev in 1..=3 {
        server.store.add(&id, &final_turn(rev - 1));
        server.store.add(&id, &insight("summary", rev, None));
        server.store.add(&id, &insight("tone", rev, None));
    }
    client.ask(request).await;
    let frames = [client.next().await, client.next().await];
    assert_eq!(seqs(&frames), [1, 9]);
}

#[tokio::test]
async fn calls_may_be_waited_for() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let refused = client.ask(subscribe(json!(["c_1"]))).await;
    assert_eq!(
        (&refused["type"], &refused["code"], &refused["id"]),
        (&json!("error"), &json!("unknown_call"), &json!("1"))
    );
    let mut request = subscribe(json!(["c_1"]));
    request["wait"] = json!(true);
    let subscribed = client.ask(request).await;
    assert_eq!(subscribed["calls"]["c_1"], json!({"epoch": null, "seq": 0, "recovered": false}));
    server.store.start(&call("c_1"), "{}");
    let started = client.next().await;
    assert_eq!(
        (&started["type"], &started["seq"], &started["epoch"]),
        (&json!("call.started"), &json!(1), &json!("e1"))
    );
}

#[tokio::test]
async fn invalid_field_refuses_the_subscribe_and_keeps_the_socket() {
    let server = Server::start().await;
    server.store.start(&call("c_1"), "{}");
    let mut client = server.client().await;
    let cases = [
        (
            json!({"analyses": ["moood"]}),
            "unknown_analysis",
            "analyses[0]: no analysis 'moood'; there are: summary, tone",
        ),
        (
            json!({"delivery": {"moood": "all"}}),
            "unknown_analysis",
            "delivery: no analysis 'moood'; there are: summary, tone",
        ),
        (
            json!({"delivery": {"tone": "some"}}),
            "bad_field",
            r#"delivery.tone: expected "latest" or "all", found "some""#,
        ),
        (
            json!({"include": ["turns", "x"]}),
            "bad_field",
            r#"include[1]: expected one of turns, words, partials, deltas, found "x""#,
        ),
        (json!({"calls": []}), "bad_field", r#"calls: expected "*" or a list of call ids, found []"#),
        (json!({"calls": null}), "bad_field", r#"calls: expected "*" or a list of call ids, found none"#),
        (json!({"calls": ["a/b"]}), "bad_field", "calls[0]: expected characters of"),
        (json!({"calls": ["a", "b", "c", "d", "e"]}), "too_many_calls", "limits.calls_per_subscription is 4"),
        (json!({"calls": ["c_1", "c_9"]}), "unknown_call", "no call 'c_9'"),
        (json!({"match": 5}), "bad_field", "match: expected an object"),
        (json!({"wait": "yes"}), "bad_field", "wait: expected true or false"),
        (json!({"resume": {"c_2": {"epoch": "e", "seq": 1}}}), "bad_field", "resume.c_2"),
        (json!({"resume": {"c_1": {"epoch": "e", "seq": -1}}}), "bad_field", "resume.c_1"),
        (json!({"calls": "*", "resume": {"c_1": {"epoch": "e"}}}), "bad_field", "resume.c_1: expected {"),
        (json!({"calls": "*", "resume": {"cursor": 5}}), "bad_field", "resume.cursor: expected the newest cursor"),
        (
            json!({"calls": "*", "resume": {"cursor": "7.1", "c_1": {"epoch": "e", "seq": 1}}}),
            "bad_field",
            r#"either the newest "cursor", or positions by call, found both"#,
        ),
        (
            json!({"calls": "*", "resume": {"a": {}, "b": {}, "c": {}, "d": {}, "e": {}}}),
            "too_many_calls",
            "resume: 5 calls; limits.calls_per_subscription is 4",
        ),
        (json!({"type": "unsubscribe", "subscription": "sub_9"}), "unknown_subscription", "there are: none"),
        (json!({"type": 5}), "bad_field", "type: expected one of subscribe, unsubscribe, ping"),
    ];
    for (change, code, message) in cases {
        let mut request = subscribe(json!(["c_1"]));
        for (key, value) in change.as_object().expect("object") {
            request[key] = value.clone();
        }
        let error = client.ask(request).await;
        assert_eq!((&error["type"], &error["id"], &error["fatal"]), (&json!("error"), &json!("1"), &json!(false)));
        assert_eq!(error["code"], code, "{change}");
        assert!(error["message"].as_str().expect("message").contains(message), "{error}");
    }
    for bad in ["{", "[]", "5", "\u{0}"] {
        client.socket.send([bad.to_owned().into()]).await.expect("sent");
        assert_eq!(client.next().await["code"], "bad_json");
    }
    client.socket.send_binary(bytes::Bytes::from_static(b"x")).await.expect("sent");
    assert_eq!(client.next().await["code"], "bad_frame");
    // An unknown type is reported once.
    client.say(json!({"type": "dance"})).await;
    client.say(json!({"type": "dance"})).await;
    client.say(json!({"id": 7, "type": "ping"})).await;
    assert_eq!(client.next().await["code"], "unknown_type");
    assert_eq!(client.next().await, json!({"id": 7, "type": "pong"}));
    for number in 1..=3 {
        assert_eq!(client.ask(subscribe(json!(["c_1"]))).await["subscription"], format!("sub_{number}"));
        assert_eq!(client.next().await["type"], "snapshot");
    }
    let error = client.ask(subscribe(json!(["c_1"]))).await;
    assert_eq!(error["code"], "too_many_subscriptions");
    assert!(error["message"].as_str().expect("message").contains("limits.subscriptions_per_socket is 3"));
}

#[tokio::test]
async fn subscriptions_of_one_socket_are_independent() {
    let server = Server::start().await;
    server.store.start(&call("c_1"), "{}");
    let mut client = server.client().await;
    client.ask(subscribe(json!(["c_1"]))).await;
    client.next().await;
    client.ask(subscribe(json!("*"))).await;
    client.next().await;
    server.store.add(&call("c_1"), &final_turn(0));
    let mut twice = [client.next().await, client.next().await];
    twice.sort_by_key(|frame| frame["subscription"].to_string());
    assert_eq!((&twice[0]["subscription"], twice[0].get("cursor")), (&json!("sub_1"), None));
    assert_eq!(twice[1]["subscription"], "sub_2");
    assert!(twice[1]["cursor"].is_string());
    client.ask(json!({"type": "unsubscribe", "subscription": "sub_2"})).await;
    server.store.add(&call("c_1"), &final_turn(1));
    server.store.add(&call("c_1"), &final_turn(2));
    assert_eq!(seqs(&[client.next().await, client.next().await]), [3, 4]);
}

#[tokio::test]
async fn what_happens_after_subscribed_comes_as_events() {
    let server = Server::start().await;
    for name in ["c_1", "c_2", "c_3"] {
        server.store.start(&call(name), "{}");
    }
    for calls in [json!("*"), json!(["c_1", "c_2", "c_3"])] {
        let mut client = server.client().await;
        client.ask(subscribe(calls)).await;
        for name in ["c_1", "c_2", "c_3"] {
            server.store.add(&call(name), &final_turn(0));
        }
        for _ in 0..3 {
            assert_eq!(client.next().await["type"], "snapshot");
        }
        for _ in 0..3 {
            assert_eq!(client.next().await["type"], "turn.final");
        }
    }
}

#[tokio::test]
async fn live_frames_come_on_request_and_losses_are_counted() {
    let server = Server::start().await;
    server.store.start(&call("c_1"), "{}");
    let mut client = server.client().await;
    let mut request = subscribe(json!(["c_1"]));
    request["include"] = json!(["turns", "partials"]);
    client.ask(request).await;
    client.next().await;
    partial(&server, "c_1", "I wanted");
    let frame = client.next().await;
    assert_eq!(
        (&frame["type"], &frame["subscription"], &frame["text"]),
        (&json!("turn.partial"), &json!("sub_1"), &json!("I wanted"))
    );
    // Published without a pause for the subscriber's task: its buffer holds 64 frames.
    for _ in 0..100 {
        partial(&server, "c_1", "x");
    }
    server.store.add(&call("c_1"), &final_turn(0));
    let lagged = client.next().await;
    assert_eq!(lagged, json!({"type": "lagged", "subscription": "sub_1", "dropped": {"partials": 36, "deltas": 0}}));
    for _ in 0..64 {
        assert_eq!(client.next().await["type"], "turn.partial");
    }
    assert_eq!(client.next().await["type"], "turn.final", "it was published after the partials");
}
