//! Sockets and requests that do not read, do not send, request too much, or name their host in an invalid way.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::Target;
use crate::support::daemon::Daemon;
use crate::support::http;
use crate::support::ws::{Client, Options, ingest, turn};
use crate::support::{Json, PATIENCE, eventually, json, knob, shared};

/// A write that is blocked for this long counts as one that nobody reads.
const BLOCKED: Duration = Duration::from_secs(2);
/// More than the kernel's buffers and the daemon's limits can hold of one connection, bytes.
const MOST_UNREAD: usize = 64 << 20;
/// The size of a buffer that is full soon, bytes.
const LITTLE: u32 = 8 * 1024;

/// Sends pings and reads nothing, until the daemon does not read either.
async fn ping_until_blocked(stream: &mut TcpStream, masked: bool) {
    let mut ping = if masked { vec![0x89, 0x80 | 125, 0, 0, 0, 0] } else { vec![0x89, 125] };
    ping.extend_from_slice(&[b'x'; 125]);
    let pings = ping.repeat(500);
    let mut sent = 0;
    // A closed connection is within the limits too.
    while let Ok(Ok(())) = tokio::time::timeout(BLOCKED, stream.write_all(&pings)).await {
        sent += pings.len();
        assert!(sent < MOST_UNREAD, "{sent} bytes of pings were read and their pongs kept");
    }
}

async fn with_little_room(daemon: &Daemon, path: &str) -> Client {
    let options = Options { receive_buffer: Some(LITTLE), ..Options::default() };
    Client::try_connect(&daemon.ws(path), &options).await.expect("connected")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_ping_without_reading_use_bounded_memory() {
    let target = Target::start("[limits]\ninflight_bytes = 16777216\n").await;
    let report = target
        .during(async {
            let mut attackers = tokio::task::JoinSet::new();
            for number in 0..4 {
                let path = match number % 2 {
                    0 => "/v1/subscribe".to_owned(),
                    _ => format!("/v1/ingest?call_id=pings-{number}&stream_id=s_1"),
                };
                let mut stream = with_little_room(&target.daemon, &path).await.into_raw();
                attackers.spawn(async move { ping_until_blocked(&mut stream, true).await });
            }
            while let Some(ended) = attackers.join_next().await {
                ended.expect("bounded");
            }
        })
        .await;
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_ping_without_reading_use_bounded_memory() {
    let source = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let at = |listener: &TcpListener| format!("ws://{}", listener.local_addr().expect("address"));
    let target = Target::start(&format!(
        "[limits]\ninflight_bytes = 16777216\n[stt]\nupstream = \"{}\"\n[[source]]\nurl = \"{}\"\ncall_id = \"fed\"\n",
        at(&upstream),
        at(&source),
    ))
    .await;
    let accept = async |listener: &TcpListener| {
        let (stream, _) = listener.accept().await.expect("dialled");
        tokio_tungstenite::accept_async(stream).await.expect("handshake").into_inner()
    };
    let report = target
        .during(async {
            let url = target.daemon.ws("/v3/ws?sample_rate=16000");
            let (client, mut proxied) = tokio::join!(Client::connect(&url), accept(&upstream));
            let mut dialled = accept(&source).await;
            tokio::join!(ping_until_blocked(&mut proxied, false), ping_until_blocked(&mut dialled, false));
            drop(client);
        })
        .await;
    report.assert_bounded();
}

/// A request whose body never ends.
async fn unfinished(daemon: &Daemon, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).await.expect("connect");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 3000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("head");
    // If the daemon refuses the request meanwhile, it closes the connection.
    let _ = stream.write_all(&vec![b' '; sent]).await;
    stream
}

/// Everything that came on a connection until it ended or nothing more came.
async fn answer(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(BLOCKED, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_bodies_are_refused_and_the_largest_is_closed() {
    let target = Target::start("[limits]\ninflight_bytes = 8388608\n").await;
    let report = target
        .during(async {
            let mut held = Vec::new();
            for _ in 0..12 {
                held.push(unfinished(&target.daemon, 1_500_000).await);
            }
            // A valid small request is answered, however busy the daemon is.
            eventually("a small request is answered", PATIENCE, || async {
                let reply = target.daemon.post("/v1/chat/completions", &json!({"messages": []})).await;
                (![0, 503].contains(&reply.status)).then_some(())
            })
            .await;
            let answers = futures::future::join_all(held.into_iter().map(answer)).await;
            let refused: Vec<&String> = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503")).collect();
            assert!(!refused.is_empty(), "{answers:?}");
            for answer in refused {
                assert!(answer.contains("\"inflight_bytes\"") && answer.contains("limits.inflight_bytes"), "{answer}");
            }
        })
        .await;
    assert!(target.daemon.metric("sidetone_inflight_closed_total", &[]).await >= 1.0);
    eventually("all is given back", PATIENCE, || async {
        (target.daemon.metric("sidetone_inflight_bytes", &[]).await < 100_000.0).then_some(())
    })
    .await;
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_that_grows_when_it_is_read_is_refused_before() {
    let target = Target::start("[limits]\ninflight_bytes = 33554432\n").await;
    let dense = format!("[{}0]", "0,".repeat(2_000_000));
    let post = async |path: &str, body: String| {
        http::request(target.daemon.port, "POST", path, &[("content-type", "application/json")], Some(body)).await
    };
    let report = target
        .during(async {
            for (path, body) in [
                ("/v1/chat/completions", format!(r#"{{"model":"m","messages":[],"x":{dense}}}"#)),
                ("/v1/transcripts", format!(r#"{{"turns":[{{"text":"x","words":{dense}}}]}}"#)),
                ("/v1/transcripts", format!(r#"{{"turns":[],"analyses":{dense}}}"#)),
                ("/v1/transcripts", format!(r#"{{"recording":[{}{{}}]}}"#, "{},".repeat(1_000_000))),
            ] {
                let reply = post(path, body).await;
                assert_eq!(reply.status, 413, "{path}: {}", reply.text());
                assert!(reply.text().contains("\"inflight_bytes\""), "{path}: {}", reply.text());
                assert!(reply.text().contains("limits.inflight_bytes"), "{path}: {}", reply.text());
            }
            let reply = post("/v1/transcripts", format!(r#"{{"turns":[],"meta":{{"x":{dense}}}}}"#)).await;
            assert!(reply.status == 400 && reply.text().contains("limits.meta_bytes"), "{}", reply.text());
            let reply = post("/v1/transcripts", format!(r#"{{"turns":{dense}}}"#)).await;
            assert!(reply.status == 400 && reply.text().contains("turns[0]"), "{}", reply.text());
        })
        .await;
    report.assert_bounded();
}

/// A call with this many turns of this size.
async fn long_call(daemon: &Daemon, call: &str, turns: u64, bytes: usize) {
    let (mut client, _) = ingest(daemon, &format!("call_id={call}&stream_id=s_1&results=none&analyses=")).await;
    for order in 0..turns {
        client.send(&turn(order, "agent", &"word ".repeat(bytes / 5))).await;
    }
    client.acked(turns - 1).await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_events_are_bounded_by_bytes_and_complete() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    long_call(&daemon, "long", 60, 60_000).await;
    let (mut after, mut seen, mut pages) = (0, Vec::new(), 0);
    loop {
        let reply = daemon.get(&format!("/v1/calls/long/events?limit=5000&after={after}")).await;
        assert!(reply.body.len() < 1_100_000, "a page of {} bytes", reply.body.len());
        let page = reply.json();
        seen.extend(page["events"].as_array().expect("events").iter().map(|event| event["seq"].as_u64().expect("seq")));
        pages += 1;
        match page["next_after"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert!(pages >= 4, "{pages} pages");
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
    assert_eq!(daemon.turns("long").await.len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_answers_use_bounded_memory() {
    let target = Target::start("[limits]\ninflight_bytes = 8388608\n").await;
    long_call(&target.daemon, "long", 20, 60_000).await;
    let request = "GET /v1/calls/long/events HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(50);
    let report = target
        .during(async {
            let mut held = Vec::new();
            for _ in 0..40 {
                let socket = TcpSocket::new_v4().expect("socket");
                socket.set_recv_buffer_size(LITTLE).expect("option");
                let address = format!("127.0.0.1:{}", target.daemon.port).parse().expect("address");
                let mut stream = socket.connect(address).await.expect("connect");
                let _ = stream.write_all(request.as_bytes()).await;
                held.push(stream);
            }
            eventually("some are refused or closed", PATIENCE, || async {
                let refused = target.daemon.metric("sidetone_inflight_refused_total", &[]).await;
                (refused >= 1.0).then_some(())
            })
            .await;
        })
        .await;
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_that_do_not_read_are_closed_by_name_and_others_served() {
    let target = Target::start("[limits]\ninflight_bytes = 4194304\n").await;
    long_call(&target.daemon, "long", 120, 2_000).await;
    let report = target
        .during(async {
            let mut deaf = Vec::new();
            for _ in 0..16 {
                let mut client = with_little_room(&target.daemon, "/v1/subscribe").await;
                for number in 0..16 {
                    client.send(&json!({"id":number.to_string(),"type":"subscribe","calls":["long"]})).await;
                }
                deaf.push(client);
            }
            eventually("the largest are closed", PATIENCE, || async {
                let closed = target.daemon.metric("sidetone_subscribe_closed_total", &["1013"]).await;
                (closed >= 1.0).then_some(())
            })
            .await;
            // A client that reads is served; while there is no memory at all, it may have to try again.
            eventually("a snapshot", PATIENCE, || async {
                let mut good = Client::connect(&target.daemon.ws("/v1/subscribe")).await;
                good.send(&json!({"id":"1","type":"subscribe","calls":["long"]})).await;
                while let Some(frame) = good.recv().await {
                    if frame["type"] == "snapshot" {
                        return frame["state"]["turns"].as_array().map(Vec::len).filter(|turns| *turns > 50);
                    }
                }
                None
            })
            .await;
            let mut reasons = Vec::new();
            for mut client in deaf {
                // A client that reads late gets the reason, if the close frame still fitted into the buffers.
                while client.recv_within(BLOCKED).await.is_some() {}
                reasons.extend(client.closed.filter(|(code, _)| *code == 1013));
            }
            for (_, reason) in reasons {
                assert!(reason.contains("limits.inflight_bytes") || reason.contains("no byte"), "{reason}");
            }
        })
        .await;
    report.assert_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_body_is_refused_with_body_timeout() {
    let _machine = shared().await;
    let daemon = Daemon::start("[limits]\nbody_timeout_ms = 300\n").await;
    for (path, openai) in [("/v1/chat/completions", true), ("/v1/transcripts", false)] {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).await.expect("connect");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("head");
        let (mut read, mut write) = stream.into_split();
        let dripping = tokio::spawn(async move {
            while write.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, read.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the connection stays open");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("\"body_timeout\"") && answer.contains("limits.body_timeout_ms"), "{answer}");
        assert_eq!(answer.contains("\"error\":{"), openai, "{answer}");
        dripping.abort();
    }
}

/// Sends the bytes of a request unchanged; returns the answer.
async fn raw(daemon: &Daemon, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).await.expect("connect");
    stream.write_all(request).await.expect("written");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "no end: {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_none_or_more_than_one_is_refused() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    for (target, hosts, status) in [
        ("/version", &["localhost"][..], 200),
        ("http://localhost/version", &["localhost"], 200),
        ("/version", &["evil.example.com"], 403),
        ("/version", &["user@localhost"], 400),
        ("/version", &["[::1]evil.example.com"], 400),
        ("/version", &["localhost", "localhost"], 400),
        ("/version", &["localhost", "evil.example.com"], 400),
        ("/version", &[], 400),
        ("http://evil.example.com/version", &["localhost"], 400),
        ("http://user@localhost/version", &["localhost"], 400),
    ] {
        let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
        let answer =
            raw(&daemon, format!("GET {target} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{target} {hosts}: {answer}");
        if status == 400 {
            assert!(answer.contains("\"bad_host\"") && answer.contains("application/problem+json"), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_not_utf8_is_answered_in_the_form_of_its_path() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    for (path, openai) in [
        ("/v1/calls/%ff", false),
        ("/v1/calls/%c3%28/turns", false),
        ("/%ff", false),
        ("/v1/models/%ff", true),
        ("/v1/chat/%ff", true),
    ] {
        let reply = daemon.get(path).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
        let body = reply.json();
        let code = if openai { &body["error"]["code"] } else { &body["code"] };
        assert_eq!(code, "bad_path", "{path}: {body}");
        let form = if openai { "application/json" } else { "application/problem+json" };
        assert_eq!(reply.header("content-type"), Some(form), "{path}");
    }
    // A path whose escapes are valid UTF-8 gets the usual answer.
    assert_eq!(daemon.get("/v1/calls/%c3%a9").await.json()["code"], "bad_parameter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_is_swept_once_at_the_start() {
    let _machine = shared().await;
    let daemon = Daemon::start("").await;
    let sweeps = || daemon.metric("sidetone_journal_sweeps_total", &[]);
    eventually("a sweep", PATIENCE, || async { (sweeps().await >= 1.0).then_some(()) }).await;
    // The other tasks that start with the daemon have run once calls are served.
    long_call(&daemon, "c", 20, 10).await;
    assert_eq!(sweeps().await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sockets_of_one_call_are_not_woken_for_what_they_do_not_want() {
    let _machine = shared().await;
    let sockets = knob("LIVE_SOCKETS", 150) as u64;
    let daemon = Daemon::start("[ingest]\nanalyses = []\n").await;
    let woken = || daemon.metric("sidetone_hub_wakeups_total", &[]);
    let cpu = daemon.cpu();
    let mut open = Vec::new();
    for number in 0..sockets {
        let (mut client, _) = ingest(&daemon, &format!("call_id=busy&stream_id=s_{number}&results=insights")).await;
        client.send(&turn(0, "agent", "Hello.")).await;
        client.acked(0).await;
        open.push(client);
    }
    println!("{sockets} live sockets on one call: {:?} of CPU, {} wake-ups", daemon.cpu() - cpu, woken().await);
    assert_eq!(woken().await, 0.0, "nobody wants turns or the beginnings of streams");
    // Each of them waits for the end, and is woken once for it.
    open[0].send(&json!({"type":"end","scope":"call"})).await;
    for client in &mut open {
        let _: Json = client.of_type("call.completed").await;
    }
    assert_eq!(woken().await, sockets as f64);
}
