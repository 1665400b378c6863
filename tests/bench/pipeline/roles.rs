//! The other processes: the instant LLM, the floor, a bare fan-out, and a bare writer with group commit.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request as Upgrade, Response as Upgraded};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Runs a role until killed.
pub fn run(args: &[String]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        println!("port:{}", listener.local_addr().expect("address").port());
        match args[0].as_str() {
            "llm" => llm(listener).await,
            "floor" => floor(listener, &args[1], args.get(2).map_or(0, |bytes| bytes.parse().expect("bytes"))).await,
            "fanout" => fanout(listener).await,
            "writer" => writer(listener, &args[1]).await,
            other => panic!("no role {other}"),
        }
    });
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            return stream;
        }
    }
}

static REQUESTS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static DIGESTS: AtomicU64 = AtomicU64::new(0);
static ANSWER: OnceLock<(Bytes, &'static str)> = OnceLock::new();

/// An LLM that answers at once, always with the smallest value of the first request's schema.
async fn llm(listener: TcpListener) {
    loop {
        let stream = accept(&listener).await;
        tokio::spawn(async move {
            let service = service_fn(answer);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if path == "/stats" {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = json!({"requests":count(&REQUESTS),"bytes":count(&BYTES),"digests":count(&DIGESTS)});
        return Ok(Response::new(Full::new(stats.to_string().into())));
    }
    REQUESTS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(body.len() as u64, Ordering::Relaxed);
    let (bytes, kind) = if path.starts_with("/floor") {
        static PLAIN: OnceLock<Bytes> = OnceLock::new();
        (PLAIN.get_or_init(|| completion("An instant answer.").into()).clone(), "application/json")
    } else if let Some(turn) = first_digested(&body) {
        DIGESTS.fetch_add(1, Ordering::Relaxed);
        let claims = json!({"claims":[{"text":"The customer called about orders.","turns":[turn]}]});
        (streamed(&claims.to_string()), "text/event-stream")
    } else {
        ANSWER.get_or_init(|| first_answer(&body)).clone()
    };
    Ok(Response::builder().header("content-type", kind).body(Full::new(bytes)).expect("a response"))
}

fn completion(text: &str) -> String {
    json!({"id":"chatcmpl-1","object":"chat.completion","created":0,"model":"m",
        "choices":[{"index":0,"message":{"role":"assistant","content":text},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}})
    .to_string()
}

fn first_answer(body: &[u8]) -> (Bytes, &'static str) {
    let request: Json = serde_json::from_slice(body).expect("a JSON request");
    let schema = &request["response_format"]["json_schema"]["schema"];
    let text = least(schema).to_string();
    if request["stream"] != true {
        return (completion(&text).into(), "application/json");
    }
    (streamed(&text), "text/event-stream")
}

/// The first turn of the digest that a request asks for, if it does.
fn first_digested(body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let turns = text.split_once("in short what was said in turns ")?.1;
    turns.split(' ').next()?.parse().ok()
}

fn streamed(text: &str) -> Bytes {
    let chunk = |choices: Json, usage: Json| {
        let event =
            json!({"id":"c","object":"chat.completion.chunk","created":0,"model":"m","choices":choices,"usage":usage});
        format!("data: {event}\n\n")
    };
    let usage = json!({"prompt_tokens":9,"completion_tokens":9,"total_tokens":18});
    let events = [
        chunk(json!([{"index":0,"delta":{"role":"assistant","content":text},"finish_reason":null}]), Json::Null),
        chunk(json!([{"index":0,"delta":{},"finish_reason":"stop"}]), Json::Null),
        chunk(json!([]), usage),
        "data: [DONE]\n\n".to_owned(),
    ];
    events.concat().into()
}

/// The smallest instance of a schema.
fn least(schema: &Json) -> Json {
    if let Some(value) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return value.clone();
    }
    if let Some(first) = schema["anyOf"].get(0) {
        return least(first);
    }
    match schema["type"].as_str().or_else(|| schema["type"].get(0)?.as_str()) {
        Some("object") => {
            let names = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
            Json::Object(names.map(|name| (name.to_owned(), least(&schema["properties"][name]))).collect())
        }
        Some("array") => {
            Json::Array((0..schema["minItems"].as_u64().unwrap_or(0)).map(|_| least(&schema["items"])).collect())
        }
        Some("string") => json!("instant"),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(0)),
        Some("boolean") => json!(false),
        _ => Json::Null,
    }
}

async fn upgrade(stream: TcpStream) -> Option<(WebSocketStream<TcpStream>, String)> {
    let config = WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(0);
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let note = |request: &Upgrade, response: Upgraded| {
        path = request.uri().path().to_owned();
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async_with_config(stream, note, Some(config)).await.ok()?;
    Some((socket, path))
}

/// The floor: each turn is one request, each answer one frame. With `pad`, a request has about that many bytes: as much
/// as a relay with a context would send, without the work of keeping one.
async fn floor(listener: TcpListener, llm: &str, pad: usize) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build().expect("client");
    let url: Arc<str> = format!("http://127.0.0.1:{llm}/floor/v1/chat/completions").into();
    let pad: Arc<str> =
        "[1] customer (0:04): words of an earlier turn ".chars().cycle().take(pad).collect::<String>().into();
    loop {
        let stream = accept(&listener).await;
        let (client, url, pad) = (client.clone(), Arc::clone(&url), Arc::clone(&pad));
        tokio::spawn(async move {
            let Some((mut socket, _)) = upgrade(stream).await else { return };
            while let Some(Ok(message)) = socket.next().await {
                let Ok(text) = message.to_text() else { continue };
                let Ok(turn) = serde_json::from_str::<Json>(text) else { continue };
                // Boxed, so that an idle call keeps no state of a request.
                let Some(text) = Box::pin(ask(&client, &url, &pad, &turn)).await else { continue };
                let said = json!({"type":"insight","to":turn["turn_order"],"text":text});
                if socket.send(Message::text(said.to_string())).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn ask(client: &reqwest::Client, url: &str, pad: &str, turn: &Json) -> Option<Json> {
    let body = if pad.is_empty() {
        json!({"model":"m","messages":[{"role":"user","content":turn["text"]}]}).to_string()
    } else {
        let text = turn["text"].to_string();
        ["{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"", pad, &text[1..], "}]}"].concat()
    };
    let request = client.post(url).header("content-type", "application/json").body(body);
    let bytes = request.send().await.ok()?.bytes().await.ok()?;
    let mut answer = serde_json::from_slice::<Json>(&bytes).ok()?;
    Some(answer["choices"][0]["message"]["content"].take())
}

/// Every text frame on `/in` goes to every socket on another path.
async fn fanout(listener: TcpListener) {
    let (sender, _) = tokio::sync::broadcast::channel::<Message>(1024);
    loop {
        let stream = accept(&listener).await;
        let sender = sender.clone();
        tokio::spawn(async move {
            let Some((mut socket, path)) = upgrade(stream).await else { return };
            if path == "/in" {
                while let Some(Ok(message)) = socket.next().await {
                    let _ = sender.send(message);
                }
                return;
            }
            let mut receiver = sender.subscribe();
            while let Ok(message) = receiver.recv().await {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Writes every text frame to one file; frames that came in one turn of the loop are one write; then acknowledges them.
async fn writer(listener: TcpListener, file: &str) {
    use std::io::Write as _;
    let file = std::fs::File::options().create(true).append(true).open(file).expect("open");
    let file = Arc::new(Mutex::new(file));
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<(String, tokio::sync::oneshot::Sender<()>)>(4096);
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while receiver.recv_many(&mut batch, 1024).await > 0 {
            let mut bytes = Vec::new();
            for (text, _) in &batch {
                bytes.extend_from_slice(text.as_bytes());
                bytes.push(b'\n');
            }
            file.lock().expect("lock").write_all(&bytes).expect("write");
            for (_, done) in batch.drain(..) {
                let _ = done.send(());
            }
        }
    });
    loop {
        let stream = accept(&listener).await;
        let sender = sender.clone();
        tokio::spawn(async move {
            let Some((mut socket, _)) = upgrade(stream).await else { return };
            let mut frames = 0;
            while let Some(Ok(message)) = socket.next().await {
                let Ok(text) = message.to_text() else { continue };
                let (done, written) = tokio::sync::oneshot::channel();
                if sender.send((text.to_owned(), done)).await.is_err() || written.await.is_err() {
                    return;
                }
                frames += 1;
                let ack = format!("{{\"type\":\"ack\",\"frames\":{frames}}}");
                if socket.send(Message::text(ack)).await.is_err() {
                    return;
                }
            }
        });
    }
}
