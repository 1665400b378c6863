//! Peers of sinks: a WebSocket server and an HTTP server that keep everything they receive.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};

use super::Json;

/// A WebSocket server for a `kind = "websocket"` sink.
pub struct SocketSink {
    /// The server's port.
    pub port: u16,
    /// Frames by call and `seq`: how often each came.
    pub events: Arc<Mutex<BTreeMap<String, BTreeMap<u64, u64>>>>,
    /// Every frame in order of arrival.
    pub frames: Arc<Mutex<Vec<Json>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl SocketSink {
    /// Starts it.
    pub fn start() -> Self {
        let sink = Self {
            port: super::daemon::free_port(),
            events: Arc::default(),
            frames: Arc::default(),
            task: Mutex::new(None),
        };
        sink.accept();
        sink
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/events", self.port)
    }

    /// Opens the port (again).
    pub fn accept(&self) {
        let listener = listen(self.port);
        let (events, frames) = (Arc::clone(&self.events), Arc::clone(&self.frames));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        connections.spawn(read_all(stream, Arc::clone(&events), Arc::clone(&frames)));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        *self.task.lock().expect("lock") = Some(task);
    }

    /// Closes the port and all connections.
    pub fn refuse(&self) {
        if let Some(task) = self.task.lock().expect("lock").take() {
            task.abort();
        }
    }

    /// The `seq`s from 1 to `head` of the call that have not come.
    pub fn missing(&self, call: &str, head: u64) -> Vec<u64> {
        let events = self.events.lock().expect("lock");
        let empty = BTreeMap::new();
        let had = events.get(call).unwrap_or(&empty);
        (1..=head).filter(|seq| !had.contains_key(seq)).collect()
    }
}

impl Drop for SocketSink {
    fn drop(&mut self) {
        self.refuse();
    }
}

fn listen(port: u16) -> TcpListener {
    let raw = TcpSocket::new_v4().expect("socket");
    raw.set_reuseaddr(true).expect("reuse the address");
    raw.bind(([127, 0, 0, 1], port).into()).expect("bind the sink's port");
    raw.listen(64).expect("listen")
}

async fn read_all(
    stream: tokio::net::TcpStream,
    events: Arc<Mutex<BTreeMap<String, BTreeMap<u64, u64>>>>,
    frames: Arc<Mutex<Vec<Json>>>,
) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if let Ok(text) = message.to_text() {
            let Ok(frame) = serde_json::from_str::<Json>(text) else { continue };
            if let (Some(call), Some(seq)) = (frame["call_id"].as_str(), frame["seq"].as_u64()) {
                *events.lock().expect("lock").entry(call.to_owned()).or_default().entry(seq).or_default() += 1;
            }
            frames.lock().expect("lock").push(frame);
        }
        let _ = socket.flush().await;
    }
}

/// One POST to a webhook.
#[derive(Debug, Clone)]
pub struct Posted {
    /// Header names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, unchanged.
    pub body: Vec<u8>,
    /// The status of the answer.
    pub status: u16,
}

impl Posted {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

type Answer = Arc<dyn Fn(&Json) -> u16 + Send + Sync>;

/// An HTTP server for a `kind = "webhook"` sink.
pub struct HookSink {
    /// The server's port.
    pub port: u16,
    /// Every request in order of arrival.
    pub posted: Arc<Mutex<Vec<Posted>>>,
    answer: Arc<Mutex<Answer>>,
    task: JoinHandle<()>,
}

impl HookSink {
    /// Starts the server; it answers 200.
    pub fn start() -> Self {
        let port = super::daemon::free_port();
        let listener = listen(port);
        let posted: Arc<Mutex<Vec<Posted>>> = Arc::default();
        let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Arc::new(|_| 200)));
        let (keep, script) = (Arc::clone(&posted), Arc::clone(&answer));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (keep, script) = (Arc::clone(&keep), Arc::clone(&script));
                connections.spawn(async move {
                    let service = service_fn(move |request| hook(request, Arc::clone(&keep), Arc::clone(&script)));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, posted, answer, task }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// Sets the status for each body from now on.
    pub fn script(&self, answer: impl Fn(&Json) -> u16 + Send + Sync + 'static) {
        *self.answer.lock().expect("lock") = Arc::new(answer);
    }
}

impl Drop for HookSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn hook(
    request: Request<Incoming>,
    posted: Arc<Mutex<Vec<Posted>>>,
    answer: Arc<Mutex<Answer>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let body = request.into_body().collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    let script = Arc::clone(&*answer.lock().expect("lock"));
    let status = script(&serde_json::from_slice(&body).unwrap_or(Json::Null));
    posted.lock().expect("lock").push(Posted { headers, body, status });
    let reply = Response::builder().status(status).body(Full::new(Bytes::new())).expect("a valid response");
    Ok(reply)
}
