//! A vendor of LLM answers down at the socket: what each request gets is a list of bytes, waits and endings, so that it
//! can cut, reset, stall, drip and lie as no HTTP server would. It speaks three dialects.
//!
//! Counts what it was asked and what it said; knows nothing of the gateway.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::{Json, json};

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

impl Dialect {
    fn read(self, number: u64, head: String, body: &[u8]) -> Asked {
        let body: Json = serde_json::from_slice(body).unwrap_or(Json::Null);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let (model, stream) = match self {
            Self::Google => {
                let name = path.rsplit("/models/").next().unwrap_or_default();
                let (model, method) = name.split_once(':').unwrap_or((name, ""));
                (model.to_owned(), method.starts_with("stream"))
            }
            _ => (body["model"].as_str().unwrap_or_default().to_owned(), body["stream"] == true),
        };
        Asked { number, at: Instant::now(), path, head, body, model, stream, hung_up: None }
    }

    /// The schema that an answer has to keep.
    pub fn schema(self, body: &Json) -> Option<Json> {
        let schema = match self {
            Self::OpenAi => &body["response_format"]["json_schema"]["schema"],
            Self::Anthropic => &body["output_config"]["format"]["schema"],
            Self::Google => &body["generationConfig"]["responseJsonSchema"],
        };
        schema.is_object().then(|| schema.clone())
    }

    /// A good answer in the form that is asked for.
    pub fn answer(self, asked: &Asked, texts: &[&str], tokens: Tokens) -> Vec<Step> {
        if asked.stream { self.streamed(texts, tokens) } else { reply(200, "", &self.whole(&texts.concat(), tokens)) }
    }

    /// A good stream.
    pub fn streamed(self, texts: &[&str], tokens: Tokens) -> Vec<Step> {
        let mut steps = vec![stream_head()];
        steps.extend(self.preamble(tokens).map(chunk));
        steps.extend(texts.iter().map(|text| chunk(self.text(text, tokens))));
        // The end of the body in the same write as the last event: the connection is free at once.
        let mut last = String::new();
        for event in self.finish(tokens) {
            last.push_str(&event);
        }
        let mut bytes = format!("{:x}\r\n{last}\r\n", last.len()).into_bytes();
        bytes.extend_from_slice(b"0\r\n\r\n");
        steps.push(Step::Write(bytes));
        steps
    }

    /// What comes before the first token, where anything does.
    pub fn preamble(self, tokens: Tokens) -> Option<String> {
        match self {
            Self::OpenAi => Some(data(&json!({"id":"x","object":"chat.completion.chunk","created":1,"model":"v-1",
                "choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}))),
            Self::Anthropic => {
                let usage = json!({"input_tokens":tokens.input - tokens.cached,
                    "cache_read_input_tokens":tokens.cached,"output_tokens":1});
                let start = json!({"type":"message_start","message":{"id":"m","type":"message","role":"assistant",
                    "model":"v-1","content":[],"stop_reason":null,"usage":usage}});
                let block = json!({"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}});
                Some(named(&start) + &named(&block) + &named(&json!({"type":"ping"})))
            }
            Self::Google => None,
        }
    }

    /// One event with text.
    pub fn text(self, text: &str, tokens: Tokens) -> String {
        match self {
            Self::OpenAi => data(&json!({"id":"x","object":"chat.completion.chunk","created":1,"model":"v-1",
                "choices":[{"index":0,"delta":{"content":text},"finish_reason":null}]})),
            Self::Anthropic => named(&json!({"type":"content_block_delta","index":0,
                "delta":{"type":"text_delta","text":text}})),
            Self::Google => {
                data(&json!({"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":text}]}}],
                "usageMetadata":google_usage(tokens),"modelVersion":"v-1","responseId":"r"}))
            }
        }
    }

    /// The last events of a good stream.
    pub fn finish(self, tokens: Tokens) -> Vec<String> {
        match self {
            Self::OpenAi => vec![
                data(&json!({"id":"x","object":"chat.completion.chunk","created":1,"model":"v-1",
                    "choices":[{"index":0,"delta":{},"finish_reason":"stop"}]})),
                data(&json!({"id":"x","object":"chat.completion.chunk","created":1,"model":"v-1","choices":[],
                    "usage":openai_usage(tokens)})),
                "data: [DONE]\n\n".to_owned(),
            ],
            Self::Anthropic => vec![
                named(&json!({"type":"content_block_stop","index":0})),
                named(&json!({"type":"message_delta","delta":{"stop_reason":"end_turn"},
                    "usage":{"output_tokens":tokens.output}})),
                named(&json!({"type":"message_stop"})),
            ],
            Self::Google => vec![data(&json!({"candidates":[{"index":0,
                "content":{"role":"model","parts":[{"text":""}]},"finishReason":"STOP"}],
                "usageMetadata":google_usage(tokens),"modelVersion":"v-1","responseId":"r"}))],
        }
    }

    /// A whole answer.
    pub fn whole(self, text: &str, tokens: Tokens) -> String {
        match self {
            Self::OpenAi => json!({"id":"x","object":"chat.completion","created":1,"model":"v-1","choices":[
                {"index":0,"message":{"role":"assistant","content":text},"finish_reason":"stop"}],
                "usage":openai_usage(tokens)}),
            Self::Anthropic => json!({"id":"m","type":"message","role":"assistant","model":"v-1",
                "content":[{"type":"text","text":text}],"stop_reason":"end_turn",
                "usage":{"input_tokens":tokens.input - tokens.cached,"cache_read_input_tokens":tokens.cached,
                    "output_tokens":tokens.output}}),
            Self::Google => json!({"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":text}]},
                "finishReason":"STOP"}],"usageMetadata":google_usage(tokens),"modelVersion":"v-1","responseId":"r"}),
        }
        .to_string()
    }

    /// An error body.
    pub fn error(self, status: u16, kind: &str, message: &str) -> String {
        match self {
            Self::OpenAi => json!({"error":{"message":message,"type":kind,"param":null,"code":kind}}),
            Self::Anthropic => json!({"type":"error","error":{"type":kind,"message":message},"request_id":"req_1"}),
            Self::Google => json!({"error":{"code":status,"message":message,"status":kind}}),
        }
        .to_string()
    }

    /// An error in the middle of a stream.
    pub fn error_event(self) -> String {
        match self {
            Self::OpenAi => data(&json!({"error":{"message":"Overloaded","type":"server_error","code":503}})),
            Self::Anthropic => {
                named(&json!({"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}))
            }
            Self::Google => data(&json!({"error":{"code":503,"message":"Overloaded","status":"UNAVAILABLE"}})),
        }
    }
}

fn openai_usage(tokens: Tokens) -> Json {
    json!({"prompt_tokens":tokens.input,"completion_tokens":tokens.output,
        "total_tokens":tokens.input + tokens.output,"prompt_tokens_details":{"cached_tokens":tokens.cached}})
}

fn google_usage(tokens: Tokens) -> Json {
    json!({"promptTokenCount":tokens.input,"cachedContentTokenCount":tokens.cached,
        "candidatesTokenCount":tokens.output,"totalTokenCount":tokens.input + tokens.output})
}

/// A `data:` event.
pub fn data(value: &Json) -> String {
    format!("data: {value}\n\n")
}

/// An event under the name of its type.
fn named(value: &Json) -> String {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default())
}
