//! A scripted LLM: an OpenAI-compatible server in the test's own process. Its answers are valid under the JSON schema
//! of the request; a test's script can make it stall, refuse or fail instead.
//!
//! `usage.completion_tokens` of an answer is the number of its request, so that an insight (its
//! `provenance.usage.output`) leads back to the prompt that made it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use super::{Json, json};

/// What to do with one request.
#[derive(Debug, Clone)]
pub enum Step {
    /// A valid answer after this time.
    Answer(Duration),
    /// This text as the answer, after this time.
    Say(String, Duration),
    /// Nothing, not even headers, until the client disconnects.
    Stall,
    /// This status, with an error in OpenAI's format.
    Status(u16),
}

/// A request as received.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Number of the request, from 1.
    pub number: u64,
    /// When the request was read.
    pub at: Instant,
    /// The whole body.
    pub body: Json,
}

impl Asked {
    /// Text of all messages of this role, joined.
    pub fn text_of(&self, role: &str) -> String {
        let messages = self.body["messages"].as_array().cloned().unwrap_or_default();
        let of_role = messages.iter().filter(|message| message["role"] == role);
        of_role.map(|message| content_text(&message["content"])).collect::<Vec<_>>().join("\n")
    }

    /// Text of all messages.
    pub fn prompt(&self) -> String {
        let messages = self.body["messages"].as_array().cloned().unwrap_or_default();
        messages.iter().map(|message| content_text(&message["content"])).collect::<Vec<_>>().join("\n")
    }

    /// The name of the answer's schema, or an empty text if the request has none.
    pub fn schema_name(&self) -> &str {
        self.body["response_format"]["json_schema"]["name"].as_str().unwrap_or_default()
    }
}

fn content_text(content: &Json) -> String {
    match content {
        Json::String(text) => text.clone(),
        Json::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join(""),
        _ => String::new(),
    }
}

type Script = Arc<dyn Fn(&Asked) -> Step + Send + Sync>;

struct State {
    script: Mutex<Script>,
    models: Mutex<Option<Json>>,
    asked: Mutex<HashMap<u64, Asked>>,
    keep: AtomicBool,
    number: AtomicU64,
    bytes: AtomicU64,
    open: AtomicUsize,
    cut_off: AtomicU64,
}

/// The server.
pub struct MockLlm {
    address: SocketAddr,
    state: Arc<State>,
    server: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl MockLlm {
    /// Starts the server; it answers at once.
    pub async fn start() -> Self {
        Self::start_at(0).await
    }

    /// Starts the server on a port.
    pub async fn start_at(port: u16) -> Self {
        let state = Arc::new(State {
            script: Mutex::new(Arc::new(|_| Step::Answer(Duration::ZERO))),
            models: Mutex::new(None),
            asked: Mutex::new(HashMap::new()),
            keep: AtomicBool::new(true),
            number: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            cut_off: AtomicU64::new(0),
        });
        let port = if port == 0 { super::daemon::free_port() } else { port };
        let mock = Self { address: ([127, 0, 0, 1], port).into(), state, server: Mutex::new(None) };
        mock.accept();
        mock
    }

    /// The base URL for a configuration.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Tables of an endpoint, a model and a route that make every analysis use this server. `model` contains more keys
    /// of the model.
    pub fn config(&self, model: &str) -> String {
        let mut text = format!(
            "[endpoints.mock]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\nmax_concurrency = 256\n\n\
             [models.mocked]\ncandidates = [\"mock/mock-1\"]\n{model}\n\n",
            self.base_url()
        );
        for route in ["summary", "sentiment", "sentiment_turn"] {
            text.push_str(&format!("[[routes.{route}.variants]]\nname = \"a\"\nmodel = \"mocked\"\n\n"));
        }
        text
    }

    /// Sets what the server does from now on.
    pub fn script(&self, script: impl Fn(&Asked) -> Step + Send + Sync + 'static) {
        *self.state.script.lock().expect("lock") = Arc::new(script);
    }

    /// Sets the list of models that the server returns; `None`: 503.
    pub fn models(&self, list: Option<Json>) {
        *self.state.models.lock().expect("lock") = list;
    }

    /// Sets whether requests are kept (initially they are).
    pub fn keep(&self, keep: bool) {
        self.state.keep.store(keep, Ordering::Relaxed);
    }

    /// Closes the port and every connection: connections of clients are refused.
    pub fn refuse(&self) {
        if let Some(server) = self.server.lock().expect("lock").take() {
            server.abort();
        }
    }

    /// Opens the port (again).
    pub fn accept(&self) {
        let raw = TcpSocket::new_v4().expect("socket");
        raw.set_reuseaddr(true).expect("reuse the address");
        raw.bind(self.address).expect("bind the mock's port");
        let listener = raw.listen(4096).expect("listen");
        let server = tokio::spawn(serve(listener, Arc::clone(&self.state)));
        *self.server.lock().expect("lock") = Some(server);
    }

    /// Requests so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        let mut asked: Vec<Asked> = self.state.asked.lock().expect("lock").values().cloned().collect();
        asked.sort_by_key(|asked| asked.number);
        asked
    }

    /// One request by its number.
    pub fn asked_number(&self, number: u64) -> Option<Asked> {
        self.state.asked.lock().expect("lock").get(&number).cloned()
    }

    /// Number of requests so far.
    pub fn count(&self) -> u64 {
        self.state.number.load(Ordering::Relaxed)
    }

    /// Bytes of all request bodies.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Number of requests that are being answered.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Number of requests whose client disconnected before the answer.
    pub fn cut_off(&self) -> u64 {
        self.state.cut_off.load(Ordering::SeqCst)
    }
}

impl Drop for MockLlm {
    fn drop(&mut self) {
        self.refuse();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    // Aborting this task drops the set, and thereby closes every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Counts a request as open; if it is dropped before it is disarmed, the client has disconnected.
struct Open {
    state: Arc<State>,
    answered: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.answered {
            self.state.cut_off.fetch_add(1, Ordering::SeqCst);
        }
        self.state.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == hyper::Method::GET {
        let list = state.models.lock().expect("lock").clone().filter(|_| request.uri().path() == "/v1/models");
        let (status, body) = list.map_or((503, Json::Null), |list| (200, list));
        return Ok(plain(status, body.to_string().into(), "application/json"));
    }
    let Ok(body) = request.into_body().collect().await else {
        return Ok(plain(400, b"{}".as_slice().into(), "application/json"));
    };
    let body = body.to_bytes();
    let number = state.number.fetch_add(1, Ordering::Relaxed) + 1;
    state.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    state.open.fetch_add(1, Ordering::SeqCst);
    let mut open = Open { state: Arc::clone(&state), answered: false };
    let asked = Asked { number, at: Instant::now(), body: serde_json::from_slice(&body).unwrap_or(Json::Null) };
    let script = Arc::clone(&*state.script.lock().expect("lock"));
    let step = script(&asked);
    if state.keep.load(Ordering::Relaxed) {
        state.asked.lock().expect("lock").insert(number, asked.clone());
    }
    let response = match step {
        Step::Stall => std::future::pending().await,
        Step::Status(status) => {
            let body = json!({"error":{"message":"scripted","type":"server_error","code":null}}).to_string();
            plain(status, body.into(), "application/json")
        }
        Step::Answer(after) => {
            pause(after).await;
            complete(&asked, &minimal_answer(&asked))
        }
        Step::Say(text, after) => {
            pause(after).await;
            complete(&asked, &text)
        }
    };
    open.answered = true;
    Ok(response)
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn plain(status: u16, body: Bytes, content_type: &str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(Full::new(body))
        .expect("a valid response")
}

fn complete(asked: &Asked, text: &str) -> Response<Full<Bytes>> {
    let model = asked.body["model"].clone();
    let prompt = asked.body["messages"].to_string().len() / 4;
    let usage = json!({"prompt_tokens":prompt,"completion_tokens":asked.number,
        "total_tokens":prompt as u64 + asked.number,"prompt_tokens_details":{"cached_tokens":0}});
    let id = format!("chatcmpl-{}", asked.number);
    if asked.body["stream"] != true {
        let body = json!({"id":id,"object":"chat.completion","created":0,"model":model,
            "choices":[{"index":0,"message":{"role":"assistant","content":text},"finish_reason":"stop"}],
            "usage":usage});
        return plain(200, body.to_string().into(), "application/json");
    }
    let mut out = String::new();
    let mut chunk = |delta: Json, finish: Json| {
        let event = json!({"id":id,"object":"chat.completion.chunk","created":0,"model":model,
            "choices":[{"index":0,"delta":delta,"finish_reason":finish}]});
        out.push_str(&format!("data: {event}\n\n"));
    };
    chunk(json!({"role":"assistant","content":""}), Json::Null);
    let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
    for part in [&text[..middle], &text[middle..]] {
        chunk(json!({"content":part}), Json::Null);
    }
    chunk(json!({}), json!("stop"));
    let last = json!({"id":id,"object":"chat.completion.chunk","created":0,"model":model,"choices":[],"usage":usage});
    out.push_str(&format!("data: {last}\n\ndata: [DONE]\n\n"));
    plain(200, out.into(), "text/event-stream")
}

/// The answer to a request: the smallest value that its schema allows, or a sentence if it has none.
pub fn minimal_answer(asked: &Asked) -> String {
    let schema = &asked.body["response_format"]["json_schema"]["schema"];
    if schema.is_object() { minimal(schema, schema).to_string() } else { "A scripted answer.".to_owned() }
}

/// A small instance of `schema`: required properties only, arrays as short as allowed, first choice of everything.
pub fn minimal(schema: &Json, root: &Json) -> Json {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or(Json::Null, |target| minimal(target, root));
    }
    if let Some(value) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return value.clone();
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema[choice].get(0) {
            return minimal(first, root);
        }
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"].get(0)?.as_str());
    match kind {
        Some("object") => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let mut object = serde_json::Map::new();
            for name in required.iter().filter_map(Json::as_str) {
                object.insert(name.to_owned(), minimal(&schema["properties"][name], root));
            }
            Json::Object(object)
        }
        Some("array") => {
            let length = schema["minItems"].as_u64().unwrap_or(0);
            Json::Array((0..length).map(|_| minimal(&schema["items"], root)).collect())
        }
        Some("string") => {
            let length = schema["minLength"].as_u64().unwrap_or(0) as usize;
            Json::String("scripted".repeat(length.div_ceil(8).max(1)))
        }
        Some("integer") => json!(schema["minimum"].as_f64().unwrap_or(0.0).ceil() as i64),
        Some("number") => json!(schema["minimum"].as_f64().unwrap_or(0.0)),
        Some("boolean") => json!(false),
        _ => Json::Null,
    }
}

#[test]
fn the_least_instance_of_a_schema_is_valid_under_it() {
    let schema = json!({"type":"object","required":["a","b","c","d"],"additionalProperties":false,
        "properties":{"a":{"enum":["x","y"]},"b":{"type":"array","minItems":2,"items":{"$ref":"#/$defs/n"}},
            "c":{"type":["string","null"],"minLength":9},"d":{"anyOf":[{"type":"boolean"},{"type":"null"}]}},
        "$defs":{"n":{"type":"number","minimum":-1,"maximum":1}}});
    let instance = minimal(&schema, &schema);
    let validator = sidetone::llm::schema::Validator::compile(&schema).expect("schema");
    let mut budget = sidetone::base::budget::Budget::new(sidetone::llm::schema::CHECKING);
    let verdict = validator.check(&instance.to_string(), &mut budget);
    assert!(matches!(verdict, Ok(sidetone::llm::schema::Verdict::Valid(..))), "{verdict:?}");
}
