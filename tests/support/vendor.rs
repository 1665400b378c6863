//! A vendor of LLM answers down at the socket: what each request gets is a list of bytes, waits and endings, so that it
//! can cut, reset, stall, drip and lie as no HTTP server would. It speaks three dialects.
//!
//! Counts what it was asked and what it said; knows nothing of the gateway.

mod dialect;

pub use self::dialect::data;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::Json;

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Google,
}

/// What the vendor does, in order. Where the list ends, the connection serves the next request.
#[derive(Debug, Clone)]
pub enum Step {
    /// These bytes.
    Write(Vec<u8>),
    /// Nothing for so long.
    Wait(Duration),
    /// These bytes again and again, so far apart, until the client goes away.
    Forever(Vec<u8>, Duration),
    /// Nothing more, until the client goes away.
    Hang,
    /// FIN.
    Close,
    /// RST.
    Reset,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Counts from 1.
    pub number: u64,
    /// When it was there.
    pub at: Instant,
    /// Path and query.
    pub path: String,
    /// The head, names in lower case as they came.
    pub head: String,
    /// The body.
    pub body: Json,
    /// The vendor's model.
    pub model: String,
    /// Whether a stream is wanted.
    pub stream: bool,
    /// When the client closed the connection before the answer was over.
    pub hung_up: Option<Instant>,
}

/// Tokens that an answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
}

type Script = Arc<dyn Fn(&Asked) -> Vec<Step> + Send + Sync>;

struct State {
    dialect: Dialect,
    script: Mutex<Script>,
    asked: Mutex<Vec<Asked>>,
    number: std::sync::atomic::AtomicU64,
    keep: std::sync::atomic::AtomicBool,
    slim: std::sync::atomic::AtomicBool,
}

/// The server. Ends when dropped.
pub struct Vendor {
    pub address: SocketAddr,
    dialect: Dialect,
    state: Arc<State>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("lock")
}

impl Vendor {
    /// Starts it; `script` says what each request gets.
    pub async fn start(dialect: Dialect, script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let state = Arc::new(State {
            dialect,
            script: Mutex::new(Arc::new(script)),
            asked: Mutex::default(),
            number: Default::default(),
            keep: true.into(),
            slim: false.into(),
        });
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((socket, _)) = accepted else { continue };
                        connections.spawn(serve(socket, Arc::clone(&shared)));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { address, dialect, state, server }
    }

    /// One that answers everything.
    pub async fn good(dialect: Dialect) -> Self {
        Self::start(dialect, move |asked| dialect.answer(asked, &["fi", "ne"], Tokens::of(asked))).await
    }

    /// What it does from now on.
    pub fn script(&self, script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) {
        *locked(&self.state.script) = Arc::new(script);
    }

    /// Requests are only counted from now on, not kept.
    pub fn forget(&self) {
        self.state.keep.store(false, std::sync::atomic::Ordering::Relaxed);
    }

    /// Requests are kept without their bodies from now on.
    pub fn slim(&self) {
        self.state.slim.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Its table in a configuration, as endpoint `name`; `more` holds further keys.
    pub fn endpoint(&self, name: &str, more: &str) -> String {
        let (provider, path) = match self.dialect {
            Dialect::OpenAi => ("openai_compatible", "/v1"),
            Dialect::Anthropic => ("anthropic", ""),
            Dialect::Google => ("google", ""),
        };
        format!("[endpoints.{name}]\nprovider = \"{provider}\"\nbase_url = \"http://{}{path}\"\n{more}\n", self.address)
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        locked(&self.state.asked).clone()
    }

    /// The requests for a model.
    pub fn asked_for(&self, model: &str) -> Vec<Asked> {
        locked(&self.state.asked).iter().filter(|asked| asked.model == model).cloned().collect()
    }

    /// How many requests there were.
    pub fn count(&self) -> u64 {
        self.state.number.load(std::sync::atomic::Ordering::SeqCst)
    }
}

async fn serve(socket: TcpStream, state: Arc<State>) {
    let _ = socket.set_nodelay(true);
    let (mut reader, mut writer) = socket.into_split();
    let mut buffer = Vec::new();
    while let Some((head, body)) = read_request(&mut reader, &mut buffer).await {
        let number = state.number.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        let asked = state.dialect.read(number, head, &body);
        if state.keep.load(std::sync::atomic::Ordering::Relaxed) {
            let slim = state.slim.load(std::sync::atomic::Ordering::Relaxed);
            let body = if slim { Json::Null } else { asked.body.clone() };
            locked(&state.asked).push(Asked { body, ..asked.clone() });
        }
        let script = Arc::clone(&*locked(&state.script));
        let steps = script(&asked);
        let playing = play(&mut writer, steps);
        let on = tokio::select! {
            biased;
            on = playing => on,
            () = gone(&mut reader) => {
                let mut all = locked(&state.asked);
                if let Some(asked) = all.iter_mut().find(|asked| asked.number == number) {
                    asked.hung_up = Some(Instant::now());
                }
                return;
            }
        };
        match on {
            Then::Next => {}
            Then::Close => return,
            Then::Reset => {
                let Ok(socket) = reader.reunite(writer) else { return };
                let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
                return;
            }
        }
    }
}

enum Then {
    Next,
    Close,
    Reset,
}

/// Plays the steps. A write that fails waits for the reading side to notice.
async fn play(writer: &mut OwnedWriteHalf, steps: Vec<Step>) -> Then {
    for step in steps {
        match step {
            Step::Write(bytes) => write(writer, &bytes).await,
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Forever(bytes, apart) => loop {
                write(writer, &bytes).await;
                tokio::time::sleep(apart).await;
            },
            Step::Hang => std::future::pending().await,
            Step::Close => return Then::Close,
            Step::Reset => return Then::Reset,
        }
    }
    Then::Next
}

async fn write(writer: &mut OwnedWriteHalf, bytes: &[u8]) {
    if writer.write_all(bytes).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Ends when the client has closed; clients do not send ahead.
async fn gone(reader: &mut OwnedReadHalf) {
    let mut byte = [0; 1];
    let _ = reader.read(&mut byte).await;
}

async fn read_request(reader: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
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
                if reader.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
            let body = buffer[end + 4..end + 4 + length].to_vec();
            buffer.drain(..end + 4 + length);
            return Some((head, body));
        }
        if reader.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

impl Tokens {
    /// Numbers that differ from request to request.
    pub fn of(asked: &Asked) -> Self {
        let input = 100 + asked.number;
        Self { input, cached: asked.number % 50, output: 10 + asked.number % 90 }
    }
}

/// A whole body with this status.
pub fn reply(status: u16, headers: &str, body: &str) -> Vec<Step> {
    typed(status, "application/json", headers, body)
}

/// The same with another content type.
pub fn typed(status: u16, content_type: &str, headers: &str, body: &str) -> Vec<Step> {
    vec![Step::Write(
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )]
}

/// The head of a stream.
pub fn stream_head() -> Step {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    Step::Write(head.as_bytes().to_vec())
}

/// One HTTP chunk of these bytes.
pub fn chunk(bytes: impl AsRef<[u8]>) -> Step {
    let bytes = bytes.as_ref();
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    Step::Write(out)
}

/// The end of a chunked body.
pub fn end() -> Step {
    Step::Write(b"0\r\n\r\n".to_vec())
}
