//! What happens to a socket and its subscriptions when an operation fails or is late, or when a call ends.

use super::*;
use crate::hub::testing::call;

#[tokio::test]
async fn journal_failure_is_sent_to_subscribers() {
    let (sender, receiver) = watch::channel(true);
    let server = Server::start_with(|deps| deps.health = receiver).await;
    let mut client = server.client().await;
    sender.send(false).expect("watched");
    let error = client.next().await;
    assert_eq!(
        (&error["code"], &error["temporary"], &error["fatal"]),
        (&json!("journal_unavailable"), &json!(true), &json!(false))
    );
}

#[tokio::test]
async fn a_socket_that_does_not_subscribe_is_closed() {
    let server = Server::start_with(|deps| deps.subscribe_timeout = Duration::from_millis(20)).await;
    let mut client = server.client().await;
    client.say(subscribe(json!(["c_unknown"]))).await;
    assert_eq!(client.closed().await, 4408, "a refused one does not count");
}

#[tokio::test]
async fn pings_that_nobody_answers_close_the_socket() {
    let server = Server::start_with(|deps| deps.ping_interval = Duration::from_millis(20)).await;
    server.store.start(&call("c_1"), "{}");
    let mut mute = server.client().await;
    mute.ask(subscribe(json!(["c_1"]))).await;
    let mut reads = server.client().await;
    reads.ask(subscribe(json!(["c_1"]))).await;
    reads.next().await;
    // One client answers pings because it reads from the start; the other one does not read.
    let mut pings = 0;
    while pings < 20 {
        assert_eq!(reads.socket.recv().await.expect("open"), Incoming::Ping);
        pings += 1;
    }
    assert_eq!(mute.closed().await, 1013);
    server.store.add(&call("c_1"), &final_turn(0));
    assert_eq!(reads.next().await["seq"], 2);
}

#[tokio::test]
async fn a_frame_over_the_limit_closes() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.say(json!({"type": "x".repeat(2 << 20)})).await;
    assert_eq!(client.next().await["code"], "frame_too_large");
    assert_eq!(client.closed().await, 4413);
}

#[tokio::test]
async fn shutdown_asks_to_reconnect_delivers_pending_events_and_closes() {
    let server = Server::start().await;
    server.store.start(&call("c_1"), "{}");
    let mut client = server.client().await;
    client.ask(subscribe(json!(["c_1"]))).await;
    client.next().await;
    server.stop.cancel();
    let reconnect = client.next().await;
    assert_eq!(reconnect["type"], "reconnect");
    assert!(reconnect["after_ms"].is_u64() && reconnect["grace_ms"].is_u64());
    server.store.add(&call("c_1"), &final_turn(0));
    assert_eq!(client.next().await["seq"], 2);
    assert_eq!(client.closed().await, 1001);
}

#[tokio::test]
async fn damaged_call_is_an_error_and_other_calls_continue() {
    let server = Server::start().await;
    for name in ["c_1", "c_2"] {
        server.store.start(&call(name), "{}");
        for number in 0..100 {
            server.store.add(&call(name), &final_turn(number));
        }
    }
    let mut client = server.client().await;
    let mut request = subscribe(json!(["c_1", "c_2"]));
    request["resume"] = json!({"c_1": {"epoch": "e1", "seq": 5}, "c_2": {"epoch": "e1", "seq": 100}});
    client.say(request).await;
    // The damage is found after the subscription began: the events in memory do not go back that far.
    server.store.damage(&call("c_1"), 0);
    let mut frames = Vec::new();
    loop {
        let frame = client.next().await;
        let is_error = frame["type"] == "error";
        frames.push(frame);
        if is_error || frames.len() > 200 {
            break;
        }
    }
    server.store.add(&call("c_2"), &final_turn(100));
    let error = frames.last().expect("one");
    if error["code"] == "call_damaged" {
        loop {
            let frame = client.next().await;
            if frame["seq"] == 102 {
                break;
            }
        }
    } else {
        panic!("expected call_damaged, found {error}");
    }
}
