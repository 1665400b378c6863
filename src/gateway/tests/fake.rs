//! A scripted HTTP server on a real socket: each request gets the next reply of the script; the last one repeats.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// One step of a reply.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Writes these bytes.
    Write(String),
    /// Writes these bytes, which need not be text.
    Bytes(Vec<u8>),
    /// Waits for this long.
    Wait(Duration),
    /// Waits until another fake has had this many requests.
    Until(Arc<Mutex<Seen>>, usize),
    /// Closes the connection with FIN.
    Close,
    /// Resets the connection.
    Reset,
    /// Sends nothing more until the client closes the connection; that is counted.
    Hang,
}

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

pub(crate) struct Fake {
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Seen>>,
    script: Arc<Mutex<Vec<Reply>>>,
}

impl Fake {
    pub(crate) async fn start(script: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}/v1", listener.local_addr().expect("address"));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let script = Arc::new(Mutex::new(script));
        let fake = Self { url, seen: Arc::clone(&seen), script: Arc::clone(&script) };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                seen.lock().expect("seen").connections += 1;
                tokio::spawn(serve(socket, Arc::clone(&seen), Arc::clone(&script)));
            }
        });
        fake
    }

    /// Replaces the rest of the script.
    pub(crate) fn script(&self, replies: Vec<Reply>) {
        *self.script.lock().expect("script") = replies;
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().expect("seen").bodies.len()
    }

    pub(crate) fn body(&self, index: usize) -> Value {
        self.seen.lock().expect("seen").bodies[index].clone()
    }
}

async fn serve(mut socket: TcpStream, seen: Arc<Mutex<Seen>>, script: Arc<Mutex<Vec<Reply>>>) {
    let _ = socket.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some((head, body)) = read_request(&mut socket, &mut buffer).await {
        {
            let mut seen = seen.lock().expect("seen");
            seen.heads.push(head);
            // A body that is not JSON is kept as text.
            let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
            seen.bodies.push(serde_json::from_slice(&body).unwrap_or_else(|_| text()));
        }
        let reply = {
            let mut script = script.lock().expect("script");
            if script.len() > 1 { script.remove(0) } else { script[0].clone() }
        };
        for step in reply {
            match step {
                Step::Write(text) => {
                    if socket.write_all(text.as_bytes()).await.is_err() {
                        seen.lock().expect("seen").aborted += 1;
                        return;
                    }
                }
                Step::Bytes(bytes) => {
                    if socket.write_all(&bytes).await.is_err() {
                        seen.lock().expect("seen").aborted += 1;
                        return;
                    }
                }
                Step::Wait(duration) => tokio::time::sleep(duration).await,
                Step::Until(other, requests) => {
                    while other.lock().expect("seen").bodies.len() < requests {
                        tokio::task::yield_now().await;
                    }
                }
                Step::Close => return,
                Step::Reset => {
                    let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
                    return;
                }
                Step::Hang => {
                    let mut byte = [0; 1];
                    let _ = socket.read(&mut byte).await;
                    seen.lock().expect("seen").aborted += 1;
                    return;
                }
            }
        }
    }
}

async fn read_request(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
                })
                .unwrap_or(0);
            while buffer.len() < end + 4 + length {
                if socket.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
            let body = buffer[end + 4..end + 4 + length].to_vec();
            buffer.drain(..end + 4 + length);
            return Some((head, body));
        }
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// A reply with a whole body.
pub(crate) fn reply(status: u16, headers: &str, body: &str) -> Reply {
    vec![Step::Write(format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    ))]
}

/// The head of a stream.
pub(crate) fn sse_head() -> Step {
    Step::Write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned())
}

/// One HTTP chunk.
pub(crate) fn chunk(text: &str) -> Step {
    Step::Write(format!("{:x}\r\n{text}\r\n", text.len()))
}

/// The end of a chunked body.
pub(crate) fn end() -> Step {
    Step::Write("0\r\n\r\n".to_owned())
}

/// A `data:` event.
pub(crate) fn data(json: &str) -> Step {
    chunk(&format!("data: {json}\n\n"))
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
        Step::Write("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n".to_owned()),
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
    let text = serde_json::to_string(text).expect("string");
    reply(
        200,
        "",
        &format!(
            r#"{{"id":"x","object":"chat.completion","created":1,"model":"m-1","choices":[{{"index":0,"message":{{"role":"assistant","content":{text}}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}}}"#
        ),
    )
}
