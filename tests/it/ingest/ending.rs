//! When a call completes, and what comes after it.

use std::time::{Duration, Instant};

use super::{QUICK, events_of_type};
use crate::support::daemon::Daemon;
use crate::support::ws::{Client, ingest, turn};
use crate::support::{PATIENCE, json, shared};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_completes_after_its_linger_time_unless_a_stream_comes() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nlinger_ms = 3000\n").await;
    let (mut first, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    first.send(&turn(0, "agent", "Hello.")).await;
    first.send(&json!({"type":"end","reason":"transfer"})).await;
    first.acked_frames(2).await;
    // A new stream in that time cancels the end: well after the linger time, the call is open and accepts turns.
    let (mut second, _) = ingest(&daemon, "call_id=c1&stream_id=s_2").await;
    let ended = events_of_type(&daemon, "c1", "stream.ended").await;
    assert_eq!((&ended[0]["stream_id"], &ended[0]["reason"]), (&json!("s_1"), &json!("transfer")));
    tokio::time::sleep(Duration::from_millis(3500)).await;
    second.send(&turn(0, "agent", "Hello again.")).await;
    second.acked(0).await;
    assert_eq!(daemon.get_json("/v1/calls/c1").await["state"], "open");
    second.send(&json!({"type":"end","reason":"hangup"})).await;
    let at = Instant::now();
    // Both sockets stay open until the end, including that of the stream that ended first.
    for client in [&mut first, &mut second] {
        let completed = client.of_type("call.completed").await;
        assert_eq!(completed["call_id"], "c1");
        assert_eq!(client.close_code().await, 1000);
    }
    assert!(at.elapsed() >= Duration::from_millis(2900), "after {:?}", at.elapsed());
    let turns = daemon.turns("c1").await;
    assert_eq!((turns[1]["turn"].as_u64(), turns[1]["turn_order"].as_u64()), (Some(1), Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_call_completes_it_at_once() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nlinger_ms = 60000\n").await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    let (mut other, _) = ingest(&daemon, "call_id=c1&stream_id=s_2").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.send(&json!({"type":"end","reason":"hangup","scope":"call"})).await;
    let completed = client.of_type("call.completed").await;
    assert!(client.seen_of("insight.updated").iter().any(|frame| frame["insight"]["status"] == "final"));
    assert_eq!(client.close_code().await, 1000);
    other.of_type("call.completed").await;
    assert_eq!(other.close_code().await, 1000);
    let last = daemon.events("c1").await.pop().expect("events");
    assert_eq!((&last["type"], &last["seq"]), (&json!("call.completed"), &completed["seq"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_call_takes_known_streams_back_and_refuses_new_ones() {
    let _machine = shared().await;
    let mut daemon = Daemon::start(QUICK).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.close_code().await;
    for restart in [false, true] {
        if restart {
            daemon.restart().await;
        }
        let (mut known, welcome) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
        assert_eq!(welcome["acked"], 0, "restart: {restart}");
        assert_eq!(welcome["frames"], 2, "of the last connection that was taken; restart: {restart}");
        assert_eq!(known.recv().await.expect("a frame")["type"], "call.completed", "restart: {restart}");
        assert_eq!(known.close_code().await, 1000);
        let mut new = Client::connect(&daemon.ws("/v1/ingest?call_id=c1&stream_id=s_9")).await;
        let error = new.recv().await.expect("a frame");
        assert_eq!(
            (&error["type"], &error["code"], &error["fatal"]),
            (&json!("error"), &json!("call_completed"), &json!(true))
        );
        assert_eq!(new.close_code().await, 4410, "restart: {restart}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_socket_completes_when_idle() {
    let _machine = shared().await;
    let mut daemon = Daemon::start("[ingest]\nidle_timeout_ms = 3000\n").await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.acked(0).await;
    client.drop_now();
    assert_eq!(daemon.get_json("/v1/calls/c1").await["state"], "open", "a socket that drops ends nothing");
    daemon.completed("c1", PATIENCE).await;

    // The timer starts again after a restart, even if no client uses the call.
    let (mut client, _) = ingest(&daemon, "call_id=c2&stream_id=s_1").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.acked(0).await;
    daemon.restart().await;
    daemon.completed("c2", PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_on_which_nothing_is_said_completes() {
    let _machine = shared().await;
    let daemon = Daemon::start("[ingest]\nmax_silence_ms = 900\n").await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.of_type("call.completed").await;
    assert_eq!(client.close_code().await, 1000);
}
