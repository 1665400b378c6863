//! When snapshots are sent, and what they contain (DESIGN 5.2).

use super::*;
use crate::hub::testing::{call, insight};

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
    // A snapshot with words, on the same socket; a completed call is shown too.
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
