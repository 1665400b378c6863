//! An attacker for the soak: runs attacks one after the other until it is stopped.
//!
//! Each attack is limited to a few seconds and ignores the answers; the tests of the suite check those.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::http::{self, Reply};
use crate::support::ws::{Client, Options, turn};
use crate::support::{Chance, Json, json};

/// Longest duration of one attack.
const LASTS: Duration = Duration::from_secs(5);
/// Prefix of the attacker's call ids. Its calls are erased after each round.
const CALL: &str = "attack-";

/// All attacks, in order.
const ATTACKS: [&str; 12] = [
    "pings without reading",
    "half bodies",
    "half heads",
    "exponential schemas",
    "long patterns",
    "many streams",
    "oversized fields",
    "invalid frames",
    "invalid subscribes",
    "subscribing without reading",
    "oversized transcripts",
    "invalid hosts and paths",
];

/// Runs until its task is aborted, and counts the attacks.
pub async fn attack(port: u16, seed: u64, attacks: Arc<AtomicU64>) {
    let mut chance = Chance(seed);
    for round in 0_u64.. {
        for name in ATTACKS {
            attacks.fetch_add(1, Ordering::Relaxed);
            let _ = tokio::time::timeout(LASTS, one(name, port, round, &mut chance)).await;
        }
        let _ = tokio::time::timeout(LASTS, take_away(port)).await;
    }
}

async fn one(name: &str, port: u16, round: u64, chance: &mut Chance) {
    match name {
        "pings without reading" => pings(port, round).await,
        "half bodies" => half(port, true, chance).await,
        "half heads" => half(port, false, chance).await,
        "exponential schemas" => schema(port, &doubling(10 + chance.below(30))).await,
        "long patterns" => schema(port, &patterns(1 + chance.below(400))).await,
        "many streams" => streams(port, round).await,
        "oversized fields" => fields(port, round, chance).await,
        "invalid frames" => garbage(port, round, chance).await,
        "invalid subscribes" => subscribes(port).await,
        "subscribing without reading" => unread(port).await,
        "oversized transcripts" => transcripts(port, chance).await,
        _ => hosts(port).await,
    }
}

async fn socket(port: u16, path: &str, options: &Options) -> Option<Client> {
    Client::try_connect(&format!("ws://127.0.0.1:{port}{path}"), options).await.ok()
}

/// Connects a producer and reads its `welcome`.
async fn producer(port: u16, call: &str, stream: u64) -> Option<Client> {
    let path = format!("/v1/ingest?call_id={CALL}{call}&stream_id=s_{stream}&analyses=");
    let mut client = socket(port, &path, &Options::default()).await?;
    client.recv_within(LASTS).await.map(|_| client)
}

async fn post(port: u16, path: &str, body: &Json) -> Reply {
    http::request(port, "POST", path, &[("content-type", "application/json")], Some(body.to_string())).await
}

/// Sends pings for a second and reads no pong.
async fn pings(port: u16, round: u64) {
    let slow = Options { receive_buffer: Some(4096), ..Options::default() };
    let path = format!("/v1/ingest?call_id={CALL}pings-{round}&analyses=");
    for path in [path.as_str(), "/v1/subscribe"] {
        let Some(mut client) = socket(port, path, &slow).await else { continue };
        let pinging = async { while client.send_message(Message::Ping(vec![7; 125].into())).await {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), pinging).await;
        client.drop_now();
    }
}

/// Sends the first part of requests, then nothing.
async fn half(port: u16, body: bool, chance: &mut Chance) {
    let mut held = Vec::new();
    for _ in 0..100 {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        let head = format!(
            "POST /v1/transcripts HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n\
             content-length: 1000000\r\n\r\n"
        );
        let mut bytes = head.into_bytes();
        if body {
            bytes.resize(bytes.len() + chance.below(500_000), b' ');
        } else {
            bytes.truncate(chance.below(bytes.len()));
        }
        let _ = stream.write_all(&bytes).await;
        held.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Asks for a completion with this schema, and disconnects after a second.
async fn schema(port: u16, schema: &Json) {
    let body = json!({
        "model": "first", "max_tokens": 10, "messages": [{"role":"user","content":"hello"}],
        "response_format": {"type":"json_schema","json_schema":{"name":"s","schema":schema}},
    });
    let _ = tokio::time::timeout(Duration::from_secs(1), post(port, "/v1/chat/completions", &body)).await;
}

/// Each definition references the next one twice: a naive walk takes 2^n steps.
fn doubling(count: usize) -> Json {
    let mut definitions = serde_json::Map::new();
    for number in 0..count {
        let next = json!({"$ref": format!("#/$defs/d{}", number + 1)});
        definitions.insert(format!("d{number}"), json!({"allOf": [next, next]}));
    }
    definitions.insert(format!("d{count}"), json!({"type":"object"}));
    json!({"$ref":"#/$defs/d0","$defs":definitions})
}

fn patterns(count: usize) -> Json {
    let fields: serde_json::Map<String, Json> =
        (0..count).map(|number| (format!("f{number}"), json!({"pattern": "(\\w{1,30}\\s){1,30}[a-z]{50}"}))).collect();
    json!({"type":"object","properties":fields})
}

/// Many streams in one call, one turn each.
async fn streams(port: u16, round: u64) {
    for stream in 0..200 {
        let Some(mut client) = producer(port, &format!("streams-{round}"), stream).await else { return };
        client.send(&turn(0, "agent", "Hello.")).await;
        client.drop_now();
    }
}

/// Sends fields around and over their limits.
async fn fields(port: u16, round: u64, chance: &mut Chance) {
    let Some(mut client) = producer(port, &format!("fields-{round}"), 0).await else { return };
    for order in 0..20 {
        let mut frame = turn(order, "agent", "Hello.");
        let long = "\u{1}x".repeat(1 << chance.below(18));
        let (key, value) = match chance.below(7) {
            0 => ("text", json!(long)),
            1 => ("speaker", json!(long)),
            2 => ("language", json!(long)),
            3 => ("turn_order", json!(u64::MAX)),
            4 => ("start_ms", json!(1_u64 << 53)),
            5 => ("words", json!(vec![json!({"text":"x","start_ms":0,"end_ms":1}); chance.below(12_000)])),
            _ => ("meta", json!({ long: 1 })),
        };
        frame[key] = value;
        if key == "meta" {
            frame["type"] = json!("meta");
        }
        if !client.send(&frame).await {
            return;
        }
        client.recv_within(Duration::from_millis(20)).await;
    }
    client.close().await;
}

/// Sends messages that are not frames of the dialect.
async fn garbage(port: u16, round: u64, chance: &mut Chance) {
    let Some(mut client) = producer(port, &format!("garbage-{round}"), 0).await else { return };
    for _ in 0..50 {
        let size = chance.below(100_000);
        let message = match chance.below(4) {
            0 => Message::binary(vec![0; size]),
            1 => Message::text("[".repeat(size)),
            2 => Message::text(format!("{{\"type\":\"{}\"}}", "x".repeat(size))),
            _ => Message::text("\u{0}".repeat(size)),
        };
        if !client.send_message(message).await {
            return;
        }
    }
    // Over `ingest.max_frame_bytes`.
    client.send_message(Message::text("x".repeat(2 << 20))).await;
    client.drop_now();
}

async fn subscribes(port: u16) {
    for _ in 0..20 {
        let Some(mut client) = socket(port, "/v1/subscribe", &Options::default()).await else { return };
        let many: Vec<String> = (0..2_000).map(|number| format!("c{number}")).collect();
        for frame in [
            json!({"id":"1","type":"subscribe","calls":many,"wait":true}),
            json!({"id":"x".repeat(100_000),"type":"subscribe","calls":"*"}),
            json!({"id":"2","type":"subscribe","calls":"*","analyses":["x".repeat(100_000)]}),
            json!({"id":"3","type":"subscribe","calls":many[..900],"wait":true}),
            json!({"id":"4","type":"subscribe","calls":"*","include":["turns","words","partials","deltas"]}),
        ] {
            client.send(&frame).await;
        }
        client.recv_within(Duration::from_millis(50)).await;
        client.drop_now();
    }
}

/// Subscribes to all calls and reads nothing.
async fn unread(port: u16) {
    let slow = Options { receive_buffer: Some(4096), ..Options::default() };
    let mut held = Vec::new();
    for _ in 0..20 {
        let Some(mut client) = socket(port, "/v1/subscribe", &slow).await else { continue };
        client.send(&json!({"id":"1","type":"subscribe","calls":"*","include":["turns","words","partials"]})).await;
        held.push(client);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    held.into_iter().for_each(Client::drop_now);
}

async fn transcripts(port: u16, chance: &mut Chance) {
    for size in [1_000, 65_537, 1 << 20] {
        let turns: Vec<Json> = (0..chance.below(20)).map(|_| json!({"speaker":"a","text":"x".repeat(size)})).collect();
        let body = json!({"call_id":format!("{CALL}transcript-{}", chance.next()),"turns":turns,"analyses":[]});
        post(port, "/v1/transcripts", &body).await;
    }
}

async fn hosts(port: u16) {
    let own = format!("127.0.0.1:{port}");
    for head in [
        format!("GET /v1/calls HTTP/1.1\r\nhost: {own}@evil.example\r\n\r\n"),
        format!("GET /v1/calls HTTP/1.1\r\nhost: {own}\r\nhost: evil.example\r\n\r\n"),
        "GET /v1/calls HTTP/1.1\r\nhost: [::1]evil.example\r\n\r\n".to_owned(),
        "GET http://evil.example/v1/calls HTTP/1.1\r\nhost: evil.example\r\n\r\n".to_owned(),
        format!("GET /v1/calls/%ff%fe HTTP/1.1\r\nhost: {own}\r\n\r\n"),
        format!("GET /v1/models/%ff HTTP/1.1\r\nhost: {own}\r\n\r\n"),
        format!("GET /v1/calls/{} HTTP/1.1\r\nhost: {own}\r\n\r\n", "x".repeat(50_000)),
    ] {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut [0; 1024])).await;
    }
}

/// Ends and erases the attacker's calls, so that they do not count as a leak.
async fn take_away(port: u16) {
    let get = async |path: &str| http::request(port, "GET", path, &[], None).await;
    let ids = |reply: &Reply| -> Vec<String> {
        let list: Json = serde_json::from_slice(&reply.body).unwrap_or_default();
        let calls = list["calls"].as_array().cloned().unwrap_or_default();
        let ids = calls.iter().filter_map(|call| call["call_id"].as_str());
        ids.filter(|id| id.starts_with(CALL)).map(str::to_owned).collect()
    };
    for call in ids(&get("/v1/calls?state=open&limit=200").await) {
        let path = format!("/v1/ingest?call_id={call}&stream_id=end&analyses=");
        let Some(mut client) = socket(port, &path, &Options::default()).await else { continue };
        client.send(&json!({"type":"end","scope":"call"})).await;
        client.recv_within(Duration::from_millis(50)).await;
    }
    for state in ["completed", "failed"] {
        for call in ids(&get(&format!("/v1/calls?state={state}&limit=200")).await) {
            http::request(port, "DELETE", &format!("/v1/calls/{call}"), &[], None).await;
        }
    }
}
