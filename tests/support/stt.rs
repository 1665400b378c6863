//! The two peers of the STT proxy: a vendor whose connections the test controls, and a client at `/v3/ws`.

use futures::StreamExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

use super::daemon::Daemon;
use super::{Json, PATIENCE, json};

/// A connection, at either end.
pub type Socket = WebSocketStream<TcpStream>;

fn wide() -> Option<WebSocketConfig> {
    Some(WebSocketConfig::default().max_message_size(Some(4 << 20)).max_frame_size(Some(4 << 20)))
}

/// A vendor whose connections the test controls: each comes with the path, the query and the headers of its upgrade.
#[expect(clippy::result_large_err, reason = "the type is the library's")]
pub async fn vendor() -> (String, mpsc::Receiver<(Socket, Request)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut asked = None;
            let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
                asked = Some(request.clone());
                Ok(response)
            };
            if let Ok(socket) = accept_hdr_async_with_config(stream, note, wide()).await
                && sender.send((socket, asked.unwrap())).await.is_err()
            {
                return;
            }
        }
    });
    (url, receiver)
}

/// The vendor's message about a turn: its partial, or its formatted end.
pub fn turn(order: u64, last: bool) -> Json {
    json!({"type": "Turn", "turn_order": order, "turn_is_formatted": last, "end_of_turn": last,
        "transcript": format!("Turn {order}."), "end_of_turn_confidence": 1.0,
        "words": [{"start": 1000 * order, "end": 1000 * order + 800, "text": "Turn", "confidence": 1.0, "word_is_final": true}]})
}

/// A daemon whose STT vendor is `upstream`; `more` is added to `[stt]`.
pub async fn daemon(upstream: &str, more: &str) -> Daemon {
    Daemon::start(&format!("[stt]\nupstream = \"{upstream}\"\n{more}\n[ingest]\nlinger_ms = 50\n")).await
}

/// Connects to the proxy; `query` begins with `&`.
pub async fn dial(daemon: &Daemon, query: &str) -> Socket {
    let url = daemon.ws(&format!("/v3/ws?sample_rate=16000{query}"));
    let stream = TcpStream::connect(("127.0.0.1", daemon.port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    client_async_with_config(url, stream, wide()).await.unwrap().0
}

/// The query that names the call.
pub fn call(id: &str) -> String {
    let ours: String =
        url::form_urlencoded::byte_serialize(json!({ "call_id": id, "results": "none" }).to_string().as_bytes())
            .collect();
    format!("&sidetone={ours}")
}

/// Everything until the end: texts, and the close code.
pub async fn hear(mut socket: Socket) -> (Vec<String>, Option<u16>) {
    let mut heard = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.expect("it ends") {
            Some(Ok(Message::Text(text))) => heard.push(text.to_string()),
            Some(Ok(Message::Close(frame))) => return (heard, frame.map(|frame| frame.code.into())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return (heard, None),
        }
    }
}

/// The texts of the turns.
pub fn texts(turns: &[Json]) -> Vec<&str> {
    turns.iter().map(|turn| turn["text"].as_str().unwrap()).collect()
}

/// A message of the vendor.
pub fn say(value: &Json) -> Message {
    Message::Text(Utf8Bytes::from(value.to_string()))
}
