//! A client that disconnects: the request to the vendor is aborted soon, and its row is written.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{CLOCKS, QUIET};
use crate::support::daemon::Daemon;
use crate::support::ledger;
use crate::support::vendor::{Asked, Dialect, Step, Tokens, Vendor, chunk, stream_head};
use crate::support::ws::{ingest, turn};
use crate::support::{PATIENCE, eventually, json, shared};

/// Tokens that are sent for as long as somebody reads.
fn flowing(dialect: Dialect, asked: &Asked) -> Vec<Step> {
    if !asked.stream {
        return vec![Step::Hang];
    }
    let tokens = Tokens::of(asked);
    let event = dialect.text("on and on ", tokens);
    let again = format!("{:x}\r\n{event}\r\n", event.len()).into_bytes();
    let mut steps = vec![stream_head()];
    steps.extend(dialect.preamble(tokens).map(chunk));
    steps.push(Step::Forever(again, Duration::from_millis(20)));
    steps
}

/// Sends a request on a new connection and waits for the first bytes, if any come.
async fn ask(daemon: &Daemon, model: &str, streamed: bool) -> TcpStream {
    let body = json!({"model":model,"stream":streamed,"messages":[{"role":"user","content":"hello"}]}).to_string();
    let mut socket = TcpStream::connect(("127.0.0.1", daemon.port)).await.expect("connect");
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        daemon.port,
        body.len()
    );
    socket.write_all(head.as_bytes()).await.expect("write");
    if streamed {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("on and on") {
            assert!(socket.read_buf(&mut seen).await.expect("read") > 0, "{}", String::from_utf8_lossy(&seen));
        }
    }
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborts_the_request_upstream() {
    let _machine = shared().await;
    for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Google] {
        let vendor = Vendor::start(dialect, move |asked| flowing(dialect, asked)).await;
        let config = vendor.endpoint("e", "") + &format!("[models.m]\ncandidates = [\"e/v\"]\n{CLOCKS}") + QUIET;
        let daemon = Daemon::start(&config.replace("total_timeout_ms = 5000", "total_timeout_ms = 60000")).await;
        for (streamed, reset) in [(true, false), (true, true), (false, false), (false, true)] {
            let before = vendor.asked().len();
            let socket = ask(&daemon, "m", streamed).await;
            eventually("the vendor is asked", PATIENCE, || async { (vendor.asked().len() > before).then_some(()) })
                .await;
            let left = Instant::now();
            if reset {
                rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).expect("linger");
            }
            drop(socket);
            let asked = eventually("the vendor sees it", PATIENCE, || async {
                vendor.asked().pop().filter(|asked| asked.hung_up.is_some())
            })
            .await;
            let after = asked.hung_up.expect("hung up").saturating_duration_since(left);
            println!("{dialect:?}, streamed {streamed}, reset {reset}: upstream closed {after:?} after the client");
            let rows = ledger::settled(&daemon.dir, before + 1, |_| true).await;
            let row = rows.last().expect("a row");
            assert_eq!((row.outcome.as_str(), row.code.as_deref()), ("aborted", None), "{row:?}");
            let told = (streamed && dialect != Dialect::OpenAi).then(|| Tokens::of(&asked).input);
            assert_eq!(row.input, told, "the usage so far: {row:?}");
        }
        let inflight = daemon.metric("sidetone_gateway_inflight_attempts", &[]).await;
        assert_eq!(inflight, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completed_call_aborts_its_remaining_jobs() {
    let _machine = shared().await;
    let vendor = Vendor::start(Dialect::OpenAi, |_| vec![Step::Hang]).await;
    let config = vendor.endpoint("e", "")
        + "[models.m]\ncandidates = [\"e/v\"]\nheader_timeout_ms = 60000\ntotal_timeout_ms = 60000\n\
           [gateway]\ndefault_route = \"r\"\n[routes.r]\nvariants = [{name = \"a\", model = \"m\"}]\n\
           [ingest]\nanalyses = [\"summary\"]\nlinger_ms = 50\nfinal_timeout_ms = 1000\n\
           [analyses.summary]\nevery_n_turns = 1\ndebounce_ms = 0\n";
    let daemon = Daemon::start(&config).await;
    let (mut client, _) = ingest(&daemon, "call_id=c1&stream_id=s_1").await;
    client.send(&turn(0, "agent", "Hello.")).await;
    client.acked(0).await;
    eventually("a job is under way", PATIENCE, || async { (vendor.count() > 0).then_some(()) }).await;
    client.send(&json!({"type":"end","scope":"call"})).await;
    client.of_type("call.completed").await;
    eventually("all of its requests are aborted", PATIENCE, || async {
        vendor.asked().iter().all(|asked| asked.hung_up.is_some()).then_some(())
    })
    .await;
    let rows = ledger::settled(&daemon.dir, vendor.asked().len(), |_| true).await;
    assert_eq!(rows.len(), vendor.asked().len());
    assert!(rows.iter().all(|row| matches!(row.outcome.as_str(), "aborted" | "failed") && row.input.is_none()));
    println!("{} requests aborted with their call", rows.len());
}
