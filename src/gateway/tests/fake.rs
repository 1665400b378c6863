//! A scripted HTTP server on a real socket: each request gets the next reply of the script; the last one repeats.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::socket;
pub(crate) use super::socket::{Step, chunk, end, reply, stream_head as sse_head};

/// A reply: its steps, in order. Without `Close`, `Reset` or `Hang` the connection serves the next request.
pub(crate) type Reply = Vec<Step>;

/// The requests that the server has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) bodies: Vec<Value>,
    pub(crate) heads: Vec<String>,
    pub(crate) connections: usize,
    pub(crate) aborted: usize,
}

struct Shared {
    seen: Arc<Mutex<Seen>>,
    script: Mutex<Vec<Reply>>,
    requests: watch::Sender<usize>,
}

pub(crate) struct Fake {
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Seen>>,
    shared: Arc<Shared>,
}

impl Fake {
    pub(crate) async fn start(script: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}/v1", listener.local_addr().expect("address"));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (requests, script) = (watch::Sender::new(0), Mutex::new(script));
        let shared = Arc::new(Shared { seen: Arc::clone(&seen), script, requests });
        let fake = Self { url, seen, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                shared.seen.lock().expect("seen").connections += 1;
                tokio::spawn(serve(socket, Arc::clone(&shared)));
            }
        });
        fake
    }

    /// Replaces the rest of the script.
    pub(crate) fn script(&self, replies: Vec<Reply>) {
        *self.shared.script.lock().expect("script") = replies;
    }

    pub(crate) fn requests(&self) -> usize {
        *self.shared.requests.borrow()
    }

    /// A step of another server that waits until this one has had so many requests.
    pub(crate) fn until(&self, requests: usize) -> Step {
        Step::Until(self.shared.requests.subscribe(), requests)
    }

    pub(crate) fn body(&self, index: usize) -> Value {
        self.seen.lock().expect("seen").bodies[index].clone()
    }
}

async fn serve(connection: TcpStream, shared: Arc<Shared>) {
    let take = |head, body: Vec<u8>| {
        {
            let mut seen = shared.seen.lock().expect("seen");
            seen.heads.push(head);
            // A body that is not JSON is kept as text.
            let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
            seen.bodies.push(serde_json::from_slice(&body).unwrap_or_else(|_| text()));
        }
        shared.requests.send_modify(|requests| *requests += 1);
        let mut script = shared.script.lock().expect("script");
        (0, if script.len() > 1 { script.remove(0) } else { script[0].clone() })
    };
    socket::serve(connection, take, |_| shared.seen.lock().expect("seen").aborted += 1).await;
}

/// A `data:` event.
pub(crate) fn data(json: &str) -> Step {
    chunk(format!("data: {json}\n\n"))
}

/// A chunk with text.
pub(crate) fn text(text: &str) -> Step {
    let text = serde_json::to_string(text).expect("string");
    data(&format!(
        r#"{{"id":"x","object":"chat.completion.chunk","created":1,"model":"m-1","choices":[{{"index":0,"delta":{{"content":{text}}},"finish_reason":null}}]}}"#
    ))
}

/// The last chunks of a good stream.
pub(crate) fn finish() -> Vec<Step> {
    vec![
        data(r#"{"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#),
        data(
            r#"{"id":"x","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4}}}"#,
        ),
        // The end of the body is in the same write, so that the connection is free as soon as the answer is read.
        Step::Write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n".to_vec()),
    ]
}

/// A good stream of these texts.
pub(crate) fn stream(texts: &[&str]) -> Reply {
    let mut steps = vec![sse_head()];
    steps.push(data(
        r#"{"id":"x","model":"m-1","created":1,"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
    ));
    steps.extend(texts.iter().map(|piece| text(piece)));
    steps.extend(finish());
    steps
}

/// A good plain answer.
pub(crate) fn plain(text: &str) -> Reply {
    plain_with("", text)
}

/// The same with further headers.
pub(crate) fn plain_with(headers: &str, text: &str) -> Reply {
    let text = serde_json::to_string(text).expect("string");
    reply(
        200,
        headers,
        &format!(
            r#"{{"id":"x","object":"chat.completion","created":1,"model":"m-1","choices":[{{"index":0,"message":{{"role":"assistant","content":{text}}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}}}"#
        ),
    )
}
