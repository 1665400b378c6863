//! Streams over the wire whose model thinks for a long time.

use axum::Router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::gateway::tests::fake::{Fake, Step, reply, sse_head, stream as spoken};
use crate::gateway::tests::{PATIENCE, gateway, request};

const PACE: Duration = Duration::from_millis(20);
/// Many times the interval between two comments, also on a busy machine.
const THINKS: Duration = Duration::from_millis(1_000);

/// Requests a stream from these fakes, in order, over HTTP/1.1.
async fn ask(fakes: &[&Fake]) -> TcpStream {
    let mut text = String::new();
    for (index, fake) in fakes.iter().enumerate() {
        text.push_str(&format!(
            "[endpoints.e{index}]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\n",
            fake.url
        ));
    }
    let candidates: Vec<String> = (0..fakes.len()).map(|index| format!("\"e{index}/v\"")).collect();
    text.push_str(&format!("[models.m]\ncandidates = [{}]\nretries = 0\n", candidates.join(", ")));
    let (gateway, _) = gateway(&text);
    let router = Router::new().fallback(move || {
        let gateway = gateway.clone();
        async move {
            let request = request(&gateway);
            stream(gateway, request, false, Instant::now(), PACE).await.unwrap_or_else(IntoResponse::into_response)
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut socket = TcpStream::connect(address).await.expect("connect");
    socket.write_all(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("request");
    socket
}

/// The head in lower case, and the rest.
async fn answer(fakes: &[&Fake]) -> (String, String) {
    let mut text = String::new();
    ask(fakes).await.read_to_string(&mut text).await.expect("answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("head");
    (head.to_lowercase(), body.to_owned())
}

/// A valid stream after a long thought.
fn thoughtful() -> Vec<Step> {
    let mut steps = spoken(&["well"]);
    steps.insert(1, Step::Wait(THINKS));
    steps
}

/// A stream that is cut after a long thought.
fn lost() -> Vec<Step> {
    vec![sse_head(), Step::Wait(THINKS), Step::Close]
}

fn begun_early(head: &str, body: &str) {
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("sidetone-route: m"), "{head}");
    for unknown in ["sidetone-model", "sidetone-endpoint", "sidetone-attempts", "sidetone-overhead-us"] {
        assert!(!head.contains(unknown), "{head}");
    }
    let first = body.find("data: ").expect("event");
    assert!(body[..first].matches(": keep-alive\n\n").count() > 1, "{body}");
}

#[tokio::test]
async fn thinking_model_gets_keep_alive_comments() {
    let fake = Fake::start(vec![thoughtful()]).await;
    let (head, body) = answer(&[&fake]).await;
    begun_early(&head, &body);
    assert!(body.contains("well") && body.contains("data: [DONE]"), "{body}");
}

#[tokio::test]
async fn failover_continues_after_the_comments() {
    let (first, second) = (Fake::start(vec![lost()]).await, Fake::start(vec![spoken(&["well"])]).await);
    let (head, body) = answer(&[&first, &second]).await;
    begun_early(&head, &body);
    assert!(body.contains("well") && body.contains("data: [DONE]") && !body.contains("\"error\""), "{body}");
    assert!(body.contains(r#""endpoint":"e1","attempts":2"#), "{body}");
}

#[tokio::test]
async fn failure_after_the_comments_is_an_event() {
    let (first, second) = (Fake::start(vec![lost()]).await, Fake::start(vec![reply(500, "", "{}")]).await);
    let (head, body) = answer(&[&first, &second]).await;
    begun_early(&head, &body);
    assert!(body.contains("data: {\"error\":{") && !body.contains("[DONE]"), "{body}");
    assert!(body.contains("\"attempts\"") && body.contains("e0") && body.contains("e1"), "{body}");
}

#[tokio::test]
async fn failure_without_a_vendors_header_is_a_status() {
    let slow = [vec![Step::Wait(PACE * 10)], reply(400, "", r#"{"error":{"message":"no"}}"#)].concat();
    let fake = Fake::start(vec![slow]).await;
    let (head, _) = answer(&[&fake]).await;
    assert!(head.starts_with("http/1.1 4") && head.contains("application/json"), "{head}");
}

#[tokio::test]
async fn client_that_disconnects_while_the_model_thinks_aborts_it() {
    let fake = Fake::start(vec![vec![sse_head(), Step::Hang]]).await;
    let mut socket = ask(&[&fake]).await;
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(": keep-alive") {
        assert_ne!(socket.read_buf(&mut text).await.expect("comment"), 0);
    }
    drop(socket);
    let aborted = async {
        while fake.seen.lock().expect("seen").aborted == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, aborted).await.expect("aborted");
}
