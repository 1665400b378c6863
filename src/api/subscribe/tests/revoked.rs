//! A revoked key closes the sockets that it opened, whatever the subscriber does. The clock is paused while any task
//! can run, so that all times are those of the protocol.

use tokio::time::Instant;

use super::*;
use crate::api::subscribe::{CodeLabel, socket};
use crate::base::ws::{MemorySocket, WsError};
use crate::hub::testing::call;

/// A subscriber with a buffer of a few KiB, for a call with a megabyte of events. It has read nothing for `wait`, then
/// its key is revoked. Returns the task that serves it, its socket, and the metrics.
async fn unread(wait: Duration) -> (tokio::task::JoinHandle<()>, MemorySocket, Metrics) {
    let (hub, store) = hub::testing::hub(hub::Config { call_bytes: 4000, ring_bytes: 20_000 });
    store.start(&call("c_1"), "{}");
    for number in 0..1000 {
        store.add(&call("c_1"), &Event::TurnFinal { turn: turn(number, &"x".repeat(1000)) });
    }
    let deps = Arc::new(deps(&hub, &store));
    let metrics = deps.metrics.clone();
    let [server, mut client] = ws::pair().await;
    let revoked = CancellationToken::new();
    let served = tokio::spawn(socket::serve(server, deps, CancellationToken::new(), revoked.clone()));
    let subscribe = json!({"id": "1", "type": "subscribe", "calls": ["c_1"],
                           "resume": {"c_1": {"epoch": "e1", "seq": 0}}});
    client.send([subscribe.to_string().into()]).await.expect("sent");
    tokio::time::sleep(wait).await;
    revoked.cancel();
    (served, client, metrics)
}

#[tokio::test(start_paused = true)]
async fn unread_socket_of_a_revoked_key_is_closed() {
    // Revoked in the middle of a write; and after a write took too long, while the close waits to be read.
    for (wait, code) in [(1, 4401), (15, 1013)] {
        let (served, client, metrics) = unread(Duration::from_secs(wait)).await;
        let began = Instant::now();
        served.await.expect("no panic");
        assert!(began.elapsed() <= Duration::from_secs(2), "{code}: {:?}", began.elapsed());
        assert_eq!(metrics.closed.get_or_create(&CodeLabel { code }).get(), 1, "{code}");
        drop(client);
    }
}

#[tokio::test(start_paused = true)]
async fn socket_of_a_revoked_key_gets_an_error_and_no_further_events() {
    let (served, mut client, _metrics) = unread(Duration::from_secs(1)).await;
    let mut frames: Vec<Value> = Vec::new();
    let code = loop {
        match client.recv().await {
            Ok(Incoming::Text(text)) => {
                frames.push(serde_json::from_str(&text).expect("json"));
                assert!(frames.len() < 100, "what was in hand, and no more");
            }
            Ok(Incoming::Closed { code, .. }) => break code,
            Ok(Incoming::Ping | Incoming::Pong | Incoming::Binary(_)) => {}
            Err(error) => panic!("no close frame: {error}"),
        }
    };
    let error = frames.pop().expect("an error");
    assert_eq!((&error["code"], &error["fatal"], code), (&json!("unauthenticated"), &json!(true), 4401));
    assert!(matches!(client.recv().await, Err(WsError::Lost(_))));
    served.await.expect("no panic");
}
