use futures::SinkExt as _;
use tokio::io::DuplexStream;

use super::line::{PONG_BYTES, WRITE_LOOK};
use super::*;
use crate::base::inflight::{Account, Metrics};

const PATIENCE: Duration = Duration::from_secs(60);

fn account(limit: usize) -> Account {
    Account::new("limits.inflight_bytes", limit, Metrics::default())
}

#[tokio::test]
async fn peer_sees_the_end_directly_after_its_close_frame() {
    let [server, client] = pair().await;
    let mut client = client.line.ws;
    // The peer keeps its half open: the close frame must be sent without waiting for it.
    let closing = tokio::spawn(server.close_within(1000, "done", Duration::from_secs(3600)));
    let close = tokio::time::timeout(PATIENCE, client.next()).await.expect("a close frame");
    assert!(matches!(close, Some(Ok(Message::Close(Some(_))))), "{close:?}");
    let end = async { while client.next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, end).await.expect("the end of the stream");
    drop(client);
    tokio::time::timeout(PATIENCE, closing).await.expect("our own end").expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_write_has_stalled_ten_seconds_after_its_last_byte() {
    let [mut server, client] = pair().await;
    let mut client = client.line.ws;
    let began = Instant::now();
    let last = Duration::from_secs(9);
    let reader = tokio::spawn(async move {
        tokio::time::sleep(last).await;
        // A few bytes of the message, which is far from complete.
        let mut some = [0; 16];
        client.get_mut().read_exact(&mut some).await.expect("bytes");
        client
    });
    let sent = server.send([Utf8Bytes::from("x".repeat(100_000))]).await;
    assert!(matches!(sent, Err(WsError::Stalled)), "{sent:?}");
    let after = began.elapsed() - last;
    assert!(after >= WRITE_STALL && after <= WRITE_STALL + 2 * WRITE_LOOK, "{after:?}");
    drop(reader);
}

/// Sends pings until nobody reads them any more; returns how many were sent.
async fn ping_without_reading(client: &mut WebSocketStream<Progress<DuplexStream>>) -> usize {
    for count in 0.. {
        let ping = client.send(Message::Ping(Bytes::from_static(&[0; 125])));
        if !matches!(tokio::time::timeout(Duration::from_secs(5), ping).await, Ok(Ok(()))) {
            return count;
        }
    }
    0
}

#[tokio::test(start_paused = true)]
async fn recv_from_a_peer_that_pings_and_does_not_read_stops_and_stalls() {
    // At both ends, and with halves whose write half is idle.
    for (at_client, halves) in [(false, false), (true, false), (false, true)] {
        let [server, client] = pair().await;
        let (mut ours, theirs) = if at_client { (client, server) } else { (server, client) };
        let reading = tokio::spawn(async move {
            if halves {
                let (mut read, _write) = ours.split();
                return loop {
                    if let Err(error) = read.recv().await {
                        break error;
                    }
                };
            }
            loop {
                if let Err(error) = ours.recv().await {
                    break error;
                }
            }
        });
        let mut theirs = theirs.line.ws;
        let pings = ping_without_reading(&mut theirs).await;
        // The pongs that wait limit how much is read; the rest fills the pipe.
        let bytes = pings * (125 + 6);
        assert!((PONG_BYTES..PONG_BYTES + 64 * 1024).contains(&bytes), "{bytes}");
        let error = tokio::time::timeout(PATIENCE, reading).await.expect("given up").expect("no panic");
        assert!(matches!(error, WsError::Stalled), "{error:?}");
    }
}

#[tokio::test]
async fn recv_from_a_peer_that_reads_answers_its_newest_ping() {
    let [mut server, client] = pair().await;
    let (mut pings, mut pongs) = client.line.ws.split();
    tokio::spawn(async move { while server.recv().await.is_ok() {} });
    let count = 4 * PONG_BYTES / 131;
    tokio::spawn(async move {
        for number in 0..count {
            pings.send(Message::Ping(Bytes::from(number.to_string()))).await.expect("sent");
        }
    });
    // One pong may answer several pings (RFC 6455, 5.5.3), but the last ping must be answered.
    loop {
        let next = tokio::time::timeout(PATIENCE, pongs.next()).await.expect("a pong");
        let Some(Ok(Message::Pong(payload))) = next else { panic!("{next:?}") };
        if payload == (count - 1).to_string() {
            return;
        }
    }
}

#[tokio::test]
async fn blocked_write_counts_until_the_peer_reads() {
    let account = account(1 << 20);
    let [server, client] = pair().await;
    let mut server = server.held_by(account.holder());
    let mut client = client.line.ws;
    server.send([Utf8Bytes::from_static("small")]).await.expect("taken");
    assert_eq!(account.used(), 0, "nothing waits");
    let frames = vec![Utf8Bytes::from("x".repeat(50_000)); 3];
    let sending = tokio::spawn(async move {
        server.send(frames).await.expect("taken in the end");
        server
    });
    while account.used() == 0 {
        tokio::task::yield_now().await;
    }
    assert!((150_000..200_000).contains(&account.used()), "{}", account.used());
    for _ in 0..4 {
        client.next().await.expect("a message").expect("whole");
    }
    let _server = tokio::time::timeout(PATIENCE, sending).await.expect("sent").expect("no panic");
    assert_eq!(account.used(), 0);
}

#[tokio::test]
async fn partial_message_counts_until_it_is_complete() {
    let account = account(1 << 20);
    let [server, client] = pair().await;
    let mut server = server.held_by(account.holder());
    let mut client = client.line.ws.into_inner();
    let receiving = tokio::spawn(async move {
        let message = server.recv().await.expect("a message");
        (message, server)
    });
    // A masked text frame of 20,000 bytes with a mask of zeros.
    client.write_all(&[0x81, 0x80 | 126, 0x4e, 0x20, 0, 0, 0, 0]).await.expect("written");
    client.write_all(&[b'x'; 10_000]).await.expect("written");
    while account.used() < 10_000 {
        tokio::task::yield_now().await;
    }
    client.write_all(&[b'x'; 10_000]).await.expect("written");
    let (message, _server) = tokio::time::timeout(PATIENCE, receiving).await.expect("whole").expect("no panic");
    assert!(matches!(message, Incoming::Text(text) if text.len() == 20_000));
    assert_eq!(account.used(), 0);
}

#[tokio::test]
async fn blocked_write_of_the_largest_holder_fails_when_evicted() {
    let account = account(400_000);
    let [server, client] = pair().await;
    let mut server = server.held_by(account.holder());
    let sending = tokio::spawn(async move {
        let error = server.send([Utf8Bytes::from("x".repeat(180_000))]).await.expect_err("nobody reads");
        (server, error)
    });
    while account.used() == 0 {
        tokio::task::yield_now().await;
    }
    let other = account.holder();
    let _less = other.take(150_000).expect("room");
    let third = account.holder();
    assert!(third.take(100_000).is_err());
    let (server, error) = tokio::time::timeout(PATIENCE, sending).await.expect("woken").expect("no panic");
    assert!(!other.is_evicted() && matches!(error, WsError::Evicted), "{error:?}");
    assert!(error.to_string().contains("limits.inflight_bytes"));
    assert!(account.used() > 300_000, "counted until the socket is dropped");
    drop(server);
    assert_eq!(account.used(), 150_000);
    drop(client);
}
