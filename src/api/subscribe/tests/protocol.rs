//! DESIGN 5.2, sentence by sentence, on real sockets.

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
async fn a_snapshot_comes_first_and_then_every_event() {
    let server = Server::start().await;
    let id = call("c_1");
    server.store.start(&id, r#"{"team":"billing"}"#);
    let words = &with_word("hello");
    server.store.add_private(&id, &final_turn(0), words);
    server.store.add(&id, &insight("summary", 1, None));
    server.store.add(&id, &insight("tone", 1, Some(0)));
    let mut client = server.client().await;
    let subscribed = client.ask(subscribe(json!(["c_1"]))).await;
    assert_eq!(
        subscribed,
        json!({"id": "1", "type": "subscribed", "subscription": "sub_1",
               "calls": {"c_1": {"epoch": "e1", "seq": 4, "recovered": false}}})
    );
    let snapshot = client.next().await;
    assert_eq!(snapshot["type"], "snapshot");
    assert_eq!(snapshot["subscription"], "sub_1");
    assert_eq!((&snapshot["epoch"], &snapshot["seq"]), (&json!("e1"), &json!(4)));
    let state = &snapshot["state"];
    assert_eq!((&state["status"], &state["meta"]["team"]), (&json!("open"), &json!("billing")));
    assert_eq!((&state["turns_from"], &state["turns"][0]["text"]), (&json!(0), &json!("hello there")));
    assert_eq!(state["turns"][0].get("words"), None);
    assert_eq!(state["insights"]["summary"]["rev"], 1);
    assert_eq!(state["insights"]["tone"]["turns"]["0"]["rev"], 1);
    server.store.add_private(&id, &final_turn(1), words);
    server.store.complete(&id);
    let event = client.next().await;
    assert_eq!(
        (&event["type"], &event["subscription"], &event["seq"]),
        (&json!("turn.final"), &json!("sub_1"), &json!(5))
    );
    assert_eq!(event["turn"].get("words"), None, "not asked for");
    let completed = client.next().await;
    assert_eq!((&completed["type"], &completed["seq"]), (&json!("call.completed"), &json!(6)));
    // The same with words, on the same socket; a completed call is shown too.
    let mut again = subscribe(json!(["c_1"]));
    again["include"] = json!(["turns", "words"]);
    again["resume"] = json!({"c_1": {"epoch": "e1", "seq": 4}});
    let subscribed = client.ask(again).await;
    assert_eq!(subscribed["subscription"], "sub_2");
    assert_eq!(subscribed["calls"]["c_1"], json!({"epoch": "e1", "seq": 6, "recovered": true}));
    let event = client.next().await;
    assert_eq!((&event["subscription"], &event["seq"]), (&json!("sub_2"), &json!(5)));
    assert_eq!(event["turn"]["words"][0]["text"], "hello");
    assert_eq!(event["turn"]["text"], "hello there");
    assert_eq!(client.next().await["seq"], 6);
}

#[tokio::test]
async fn a_snapshot_holds_the_newest_turns_and_only_where_turns_are_wanted() {
    let server = Server::start().await;
    let id = call("c_1");
    server.store.start(&id, "{}");
    for number in 0..250 {
        server.store.add(&id, &final_turn(number));
    }
    let mut client = server.client().await;
    client.ask(subscribe(json!(["c_1"]))).await;
    let state = client.next().await["state"].take();
    assert_eq!((&state["turns_from"], state["turns"].as_array().map(Vec::len)), (&json!(50), Some(200)));
    assert_eq!(state["turns"][199]["turn"], 249);
    let mut bare = subscribe(json!(["c_1"]));
    bare["include"] = json!([]);
    client.ask(bare).await;
    let state = client.next().await["state"].take();
    assert_eq!((state.get("turns"), state.get("turns_from")), (None, None));
    server.store.add(&id, &final_turn(250));
    server.store.complete(&id);
    let kinds = [client.next().await, client.next().await, client.next().await];
    let mut kinds: Vec<String> =
        kinds.iter().map(|frame| format!("{} {}", frame["subscription"].as_str().expect("s"), frame["type"])).collect();
    kinds.sort();
    assert_eq!(kinds, [r#"sub_1 "call.completed""#, r#"sub_1 "turn.final""#, r#"sub_2 "call.completed""#]);
}

#[tokio::test]
async fn a_large_snapshot_stays_under_a_mebibyte() {
    let server = Server::start().await;
    let id = call("c_1");
    server.store.start(&id, "{}");
    for number in 0..2000 {
        server.store.add(&id, &insight("tone", 1, Some(number)));
        if number % 10 == 0 {
            server.store.add(&id, &Event::TurnFinal { turn: turn(number / 10, &"x".repeat(3000)) });
        }
    }
    let mut client = server.client().await;
    client.ask(subscribe(json!(["c_1"]))).await;
    let Incoming::Text(text) = client.incoming().await else { panic!("text") };
    assert!(text.len() < 1 << 20, "{}", text.len());
    let snapshot: Value = serde_json::from_str(&text).expect("json");
    let turns = snapshot["state"]["turns"].as_array().expect("turns");
    assert!(turns.len() < 100 && turns.len() > 50, "256 KiB of turns: {}", turns.len());
    assert_eq!(snapshot["state"]["turns_from"], 200 - turns.len());
    let tone = snapshot["state"]["insights"]["tone"]["turns"].as_object().expect("per turn");
    assert!(tone.contains_key("1999") && !tone.contains_key("0"), "the newest stay");
}

#[tokio::test]
async fn a_resume_that_cannot_be_met_gets_a_snapshot() {
    let server = Server::start().await;
    let id = call("c_1");
    server.store.start(&id, "{}");
    for number in 0..20 {
        server.store.add(&id, &final_turn(number));
    }
    server.store.forget(&id, 5);
    let mut client = server.client().await;
    for (epoch, seq, recovered) in
        [("e1", 5, true), ("e1", 21, true), ("e0", 5, false), ("e1", 22, false), ("e1", 4, false)]
    {
        let mut request = subscribe(json!(["c_1"]));
        request["resume"] = json!({"c_1": {"epoch": epoch, "seq": seq}});
        let subscribed = client.ask(request).await;
        assert_eq!(subscribed["calls"]["c_1"]["recovered"], recovered, "{epoch} {seq}");
        if !recovered {
            assert_eq!(client.next().await["type"], "snapshot");
        } else if seq == 5 {
            assert_eq!(client.next().await["seq"], 6);
            for _ in 7..=21 {
                client.next().await;
            }
        }
        let subscription = subscribed["subscription"].clone();
        let reply = client.ask(json!({"id": 2, "type": "unsubscribe", "subscription": subscription})).await;
        assert_eq!(reply, json!({"id": 2, "type": "unsubscribed", "subscription": subscription}));
    }
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
async fn everything_is_followed_by_one_cursor() {
    let server = Server::start().await;
    server.store.start(&call("c_done"), "{}");
    server.store.complete(&call("c_done"));
    server.store.start(&call("c_open"), "{}");
    let mut client = server.client().await;
    let subscribed = client.ask(subscribe(json!("*"))).await;
    assert_eq!((&subscribed["calls"], &subscribed["recovered"]), (&json!({}), &json!(false)));
    let snapshot = client.next().await;
    assert_eq!((&snapshot["type"], &snapshot["call_id"]), (&json!("snapshot"), &json!("c_open")));
    let cursor = snapshot["cursor"].as_str().expect("cursor").to_owned();
    server.store.start(&call("c_new"), "{}");
    server.store.add(&call("c_open"), &final_turn(0));
    let first = client.next().await;
    assert_eq!((&first["type"], &first["call_id"]), (&json!("call.started"), &json!("c_new")));
    let second = client.next().await;
    assert_eq!((&second["call_id"], &second["seq"]), (&json!("c_open"), &json!(2)));
    drop(client);
    server.store.complete(&call("c_open"));
    // From the last snapshot, from an event, and from what cannot be met.
    for (cursor, expected) in [
        (cursor.as_str(), vec!["c_new 1", "c_open 2", "c_open 3"]),
        (first["cursor"].as_str().expect("cursor"), vec!["c_open 2", "c_open 3"]),
        (second["cursor"].as_str().expect("cursor"), vec!["c_open 3"]),
    ] {
        let mut client = server.client().await;
        let mut request = subscribe(json!("*"));
        request["resume"] = json!({"cursor": cursor});
        assert_eq!(client.ask(request).await["recovered"], true);
        for expected in expected {
            let event = client.next().await;
            assert_eq!(format!("{} {}", event["call_id"].as_str().expect("id"), event["seq"]), expected);
        }
    }
    for bad in ["6.1", "7.ffff", "7.-", "nonsense"] {
        let mut client = server.client().await;
        let mut request = subscribe(json!("*"));
        request["resume"] = json!({"cursor": bad});
        assert_eq!(client.ask(request).await["recovered"], false, "{bad}");
        assert_eq!(client.next().await["call_id"], "c_new", "a snapshot of the only open call");
    }
}

#[tokio::test]
async fn all_calls_resume_by_the_positions_of_some() {
    let server = Server::start().await;
    for name in ["c_behind", "c_level", "c_over", "c_other", "c_reborn", "c_silent"] {
        server.store.start(&call(name), "{}");
        server.store.add(&call(name), &final_turn(0));
    }
    server.store.complete(&call("c_over"));
    server.store.complete(&call("c_silent"));
    let mut client = server.client().await;
    let mut request = subscribe(json!("*"));
    request["resume"] = json!({
        "c_behind": {"epoch": "e1", "seq": 1},
        "c_level": {"epoch": "e1", "seq": 2},
        "c_over": {"epoch": "e1", "seq": 1},
        "c_reborn": {"epoch": "another", "seq": 2},
    });
    let subscribed = client.ask(request).await;
    assert_eq!(subscribed["recovered"], false, "there are snapshots: {subscribed}");
    let recovered =
        ["c_behind", "c_level", "c_over", "c_reborn"].map(|name| subscribed["calls"][name]["recovered"].clone());
    assert_eq!(recovered, [json!(true), json!(true), json!(true), json!(false)], "{subscribed}");
    assert_eq!(subscribed["calls"].as_object().expect("calls").len(), 4, "{subscribed}");
    let mut seen = Vec::new();
    for _ in 0..5 {
        let frame = client.next().await;
        let (name, kind) = (frame["call_id"].as_str().expect("a call"), frame["type"].as_str().expect("type"));
        seen.push(format!("{name} {kind} {}", frame["seq"]));
    }
    seen.sort();
    let expected = [
        "c_behind turn.final 2",
        "c_other snapshot 2",
        "c_over call.completed 3",
        "c_over turn.final 2",
        "c_reborn snapshot 2",
    ];
    assert_eq!(seen, expected);
    // From here on it is as any other, and has cursors.
    for name in ["c_behind", "c_level", "c_other"] {
        server.store.add(&call(name), &final_turn(1));
        let event = client.next().await;
        assert_eq!(format!("{} {}", event["call_id"].as_str().expect("id"), event["seq"]), format!("{name} 3"));
        assert!(!event["cursor"].as_str().expect("a cursor").ends_with('-'), "{event}");
    }
}

#[tokio::test]
async fn match_follows_the_current_meta() {
    let server = Server::start().await;
    server.store.start(&call("c_in"), r#"{"team":"billing","n":1}"#);
    server.store.start(&call("c_out"), r#"{"team":"sales"}"#);
    let update = |name: &str, meta: &str| {
        server.store.add(&call(name), &Event::CallUpdated { meta: crate::hub::testing::object(meta) });
    };
    for calls in [json!("*"), json!(["c_in", "c_out"])] {
        let mut client = server.client().await;
        let mut request = subscribe(calls.clone());
        request["match"] = json!({"team": "billing"});
        let subscribed = client.ask(request).await;
        if calls.is_array() {
            assert_eq!(subscribed["calls"].as_object().expect("calls").keys().collect::<Vec<_>>(), ["c_in"]);
        }
        assert_eq!(client.next().await["call_id"], "c_in");
        server.store.add(&call("c_out"), &final_turn(0));
        update("c_out", r#"{"team":"billing"}"#);
        let joined = client.next().await;
        assert_eq!((&joined["type"], &joined["call_id"]), (&json!("snapshot"), &json!("c_out")), "{calls}");
        let joined_at = joined["seq"].as_u64().expect("seq");
        server.store.add(&call("c_out"), &final_turn(1));
        assert_eq!(client.next().await["seq"], joined_at + 1);
        update("c_out", r#"{"team":"sales"}"#);
        let left = client.next().await;
        assert_eq!((&left["type"], &left["seq"]), (&json!("call.updated"), &json!(joined_at + 2)));
        server.store.add(&call("c_out"), &final_turn(2));
        let only_in = server.store.add(&call("c_in"), &final_turn(0));
        let event = client.next().await;
        assert_eq!((&event["call_id"], &event["seq"]), (&json!("c_in"), &json!(only_in)));
    }
}

#[tokio::test]
async fn one_wrong_thing_refuses_the_whole_frame_and_the_socket_stays() {
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
    // An unknown type is told of once.
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
async fn live_frames_come_where_asked_for_and_losses_are_told() {
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
    // Without a pause for the subscriber's task: its buffer holds 64.
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
