//! Subscriptions to all calls: one cursor, positions in some calls, and a match on `meta` (DESIGN 5.2).

use super::*;
use crate::hub::testing::call;

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
    // Resumed from the last snapshot, from an event, and from a position that does not exist.
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
    // From here on it is an ordinary subscription with cursors.
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
