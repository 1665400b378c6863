//! A connection over an in-memory pipe, with a clock that is paused while there is work.

use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{Instant, sleep};

use super::clock::{HEAD, IDLE};
use super::timed::STALL;
use super::*;
use crate::base::inflight::{Account, Metrics};

const REQUEST: &[u8] = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi";

/// Time limit of each MiB of a body.
const A_MIB: Duration = Duration::from_secs(600);

fn account() -> Account {
    Account::new("limits.inflight_bytes", 16 << 20, Metrics::default())
}

async fn echo(request: Request<TimedBody<Incoming>>) -> Response<Full<Bytes>> {
    match request.into_body().collect().await {
        Ok(body) => Response::new(Full::new(body.to_bytes())),
        Err(error) => Response::new(Full::from(error.to_string())),
    }
}

/// The client's end; each request is answered with its own body after a time.
fn connected(takes: Duration) -> DuplexStream {
    let (client, server) = tokio::io::duplex(1 << 16);
    let answer = move |request: Request<TimedBody<Incoming>>| async move {
        let response = echo(request).await;
        sleep(takes).await;
        (response, None)
    };
    tokio::spawn(serve(server, answer, account().holder(), A_MIB, CancellationToken::new()));
    client
}

/// The client's end of a connection whose responses have this many bytes, counted in `account`.
fn answering(account: &Account, bytes: usize) -> DuplexStream {
    let (client, server) = tokio::io::duplex(1 << 16);
    let holder = account.holder();
    let answer = {
        let holder = holder.clone();
        move |_: Request<TimedBody<Incoming>>| {
            let lease = holder.take(bytes).expect("room");
            std::future::ready((Response::new(Full::from(vec![b'x'; bytes])), Some(lease)))
        }
    };
    tokio::spawn(serve(server, answer, holder, A_MIB, CancellationToken::new()));
    client
}

async fn answered(client: &mut DuplexStream) {
    let mut told = Vec::new();
    while !told.ends_with(b"\r\n\r\nhi") {
        assert!(client.read_buf(&mut told).await.expect("read") > 0, "closed after {told:?}");
    }
    assert!(told.starts_with(b"HTTP/1.1 200"), "{told:?}");
}

/// How long it takes until the connection is closed.
async fn closed(client: &mut DuplexStream) -> Duration {
    let began = Instant::now();
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.expect("an end");
    assert!(told.is_empty(), "{told:?}");
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn idle_connection_outlives_the_time_limit_of_a_head() {
    for takes in [Duration::ZERO, HEAD * 3] {
        let mut client = connected(takes);
        for _ in 0..3 {
            client.write_all(REQUEST).await.expect("write");
            answered(&mut client).await;
            sleep(HEAD * 20).await;
        }
        // The connection does not stay open for ever.
        let after = closed(&mut client).await;
        assert!(after + HEAD * 20 >= IDLE && after < IDLE, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn incomplete_head_closes_the_connection() {
    for asked_before in [0, 2] {
        let mut client = connected(Duration::ZERO);
        for _ in 0..asked_before {
            client.write_all(REQUEST).await.expect("write");
            answered(&mut client).await;
            sleep(HEAD * 2).await;
        }
        // A byte now and then does not extend the time limit.
        let began = Instant::now();
        while client.write_all(b"x").await.is_ok() {
            assert!(began.elapsed() < HEAD * 2, "after {asked_before} requests a slow head is still read");
            sleep(Duration::from_secs(1)).await;
        }
        assert!(began.elapsed() >= HEAD, "{:?}", began.elapsed());
    }
    let mut silent = connected(Duration::ZERO);
    assert_eq!(closed(&mut silent).await.as_secs(), HEAD.as_secs());
}

#[tokio::test(start_paused = true)]
async fn slow_answer_and_slow_body_do_not_count_as_slow_head() {
    let mut client = connected(HEAD * 3);
    for _ in 0..2 {
        let (but_last, last) = REQUEST.split_at(REQUEST.len() - 2);
        client.write_all(&but_last[..20]).await.expect("write");
        sleep(HEAD / 2).await;
        client.write_all(&but_last[20..]).await.expect("write");
        for byte in last {
            sleep(HEAD * 9 / 10).await;
            client.write_all(&[*byte]).await.expect("write");
        }
        answered(&mut client).await;
    }
}

#[tokio::test(start_paused = true)]
async fn idle_body_ends_its_connection_with_an_error() {
    let mut client = connected(Duration::ZERO);
    client.write_all(&REQUEST[..REQUEST.len() - 1]).await.expect("write");
    let began = Instant::now();
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.expect("an end");
    assert_eq!(began.elapsed().as_secs(), 10);
    let told = String::from_utf8_lossy(&told);
    assert!(told.ends_with("no byte of the body came for 10 s"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn unread_response_ends_its_connection() {
    let account = account();
    let mut client = answering(&account, 1 << 20);
    client.write_all(REQUEST).await.expect("write");
    let began = Instant::now();
    // A slow reader takes some bytes before each timeout.
    let mut some = vec![0; 8 * 1024];
    for _ in 0..3 {
        sleep(STALL * 9 / 10).await;
        client.read_exact(&mut some).await.expect("a part of the answer");
    }
    assert!(account.used() > 700_000, "what is not taken counts: {}", account.used());
    while account.used() > 0 {
        sleep(Duration::from_millis(100)).await;
        assert!(began.elapsed() < STALL * 5, "it is still held");
    }
    let after = began.elapsed() - STALL * 27 / 10;
    assert!(after >= STALL && after < STALL * 3 / 2, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn read_response_is_complete_and_not_counted() {
    let account = account();
    let mut client = answering(&account, 1_000_003);
    for _ in 0..2 {
        client.write_all(REQUEST).await.expect("write");
        let mut told = Vec::new();
        while !told.windows(4).any(|end| end == b"\r\n\r\n") {
            told.push(client.read_u8().await.expect("a head"));
        }
        assert!(String::from_utf8_lossy(&told).contains("content-length: 1000003"), "{told:?}");
        let mut body = vec![0; 1_000_003];
        client.read_exact(&mut body).await.expect("the body");
        assert!(body.iter().all(|byte| *byte == b'x'));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(account.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn evicted_connection_is_closed() {
    let account = account();
    let mut client = answering(&account, 5 << 20);
    client.write_all(REQUEST).await.expect("write");
    while account.used() == 0 {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (0..3).map(|_| account.holder()).collect();
    let _leases: Vec<_> = others.iter().map(|other| other.take(4 << 20)).collect();
    assert!(others.iter().all(|other| !other.is_evicted()));
    let began = Instant::now();
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.expect("an end");
    assert!(told.len() < 5 << 20 && began.elapsed() < STALL, "{} bytes", told.len());
}

#[tokio::test(start_paused = true)]
async fn large_head_counts_while_it_is_received() {
    let account = account();
    let mut client = answering(&account, 1);
    client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nx: ").await.expect("write");
    client.write_all(&[b'x'; 50_000]).await.expect("write");
    while account.used() < 50_000 {
        sleep(Duration::from_millis(1)).await;
    }
    client.write_all(b"\r\n\r\n").await.expect("write");
    let mut told = vec![0; 12];
    client.read_exact(&mut told).await.expect("an answer");
    assert_eq!(told, b"HTTP/1.1 200");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(account.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn upgraded_connection_has_no_time_limit() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let answer = |mut request: Request<TimedBody<Incoming>>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut upgraded = TokioIo::new(upgrade.await.expect("upgraded"));
            let mut byte = [0];
            while upgraded.read_exact(&mut byte).await.is_ok() && upgraded.write_all(&byte).await.is_ok() {}
        });
        let mut response = Response::new(Full::new(bytes::Bytes::new()));
        *response.status_mut() = http::status::StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("upgrade", http::HeaderValue::from_static("echo"));
        response.headers_mut().insert("connection", http::HeaderValue::from_static("upgrade"));
        (response, None)
    };
    tokio::spawn(serve(server, answer, account().holder(), A_MIB, CancellationToken::new()));
    let head = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    client.write_all(head).await.expect("write");
    let mut told = Vec::new();
    while !told.ends_with(b"\r\n\r\n") {
        assert!(client.read_buf(&mut told).await.expect("read") > 0);
    }
    for _ in 0..3 {
        client.write_all(b"x").await.expect("write");
        let mut byte = [0];
        client.read_exact(&mut byte).await.expect("echoed");
        sleep(HEAD * 2).await;
    }
}
