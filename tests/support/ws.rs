//! A WebSocket client for tests: JSON in and out; everything received is kept, and every wait has a limit.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::daemon::Daemon;
use super::{Json, PATIENCE, json};

/// A connection.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    /// Every JSON frame received so far.
    pub seen: Vec<Json>,
    /// Close code and reason, once the other side has closed; 1006 = the connection dropped without a close frame.
    pub closed: Option<(u16, String)>,
}

/// How the connection is opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// More headers of the upgrade.
    pub headers: Vec<(String, String)>,
    /// A small receive buffer, so that a reader that does not read is noticed soon.
    pub receive_buffer: Option<u32>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    ///
    /// The handshake failed.
    pub async fn try_connect(url: &str, options: &Options) -> Result<Self, Error> {
        let mut request = url.into_client_request()?;
        for (name, value) in &options.headers {
            let name: http::HeaderName = name.parse().expect("header name");
            request.headers_mut().insert(name, value.parse().expect("header value"));
        }
        let address = format!("127.0.0.1:{}", request.uri().port_u16().expect("port")).parse().expect("address");
        let raw = TcpSocket::new_v4()?;
        if let Some(size) = options.receive_buffer {
            raw.set_recv_buffer_size(size)?;
        }
        let stream = raw.connect(address).await?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(8 * 1024)
            .max_message_size(Some(8 << 20))
            .max_frame_size(Some(8 << 20));
        let handshake = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        let (socket, _) = tokio::time::timeout(PATIENCE, handshake).await.expect("the handshake is answered")?;
        Ok(Self { socket, seen: Vec::new(), closed: None })
    }

    /// Connects, or fails the test.
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url, &Options::default()).await.unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    /// Sends one frame; returns false if the connection has ended.
    pub async fn send(&mut self, frame: &Json) -> bool {
        self.send_text(&frame.to_string()).await
    }

    /// Sends text unchanged.
    pub async fn send_text(&mut self, text: &str) -> bool {
        self.socket.send(Message::text(text)).await.is_ok()
    }

    /// Sends any message.
    pub async fn send_message(&mut self, message: Message) -> bool {
        self.socket.send(message).await.is_ok()
    }

    /// The next frame; `None` once the connection has ended.
    pub async fn recv(&mut self) -> Option<Json> {
        match tokio::time::timeout(PATIENCE, self.recv_unbounded()).await {
            Ok(frame) => frame,
            Err(_) => panic!("no frame within {PATIENCE:?}; last seen: {:?}", self.seen.last()),
        }
    }

    /// The next frame within `time`; `None` if none came or the connection has ended.
    pub async fn recv_within(&mut self, time: Duration) -> Option<Json> {
        tokio::time::timeout(time, self.recv_unbounded()).await.ok().flatten()
    }

    /// The next frame, however long it takes; `None` once the connection has ended.
    pub async fn recv_unbounded(&mut self) -> Option<Json> {
        if self.closed.is_some() {
            return None;
        }
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let frame: Json =
                        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"));
                    self.seen.push(frame.clone());
                    return Some(frame);
                }
                Some(Ok(Message::Close(close))) => {
                    let (code, reason) = close.map_or((1005, String::new()), |close| {
                        (u16::from(close.code), close.reason.as_str().to_owned())
                    });
                    self.closed = Some((code, reason));
                    // The answer to the close frame is sent at the next poll.
                    let _ = tokio::time::timeout(Duration::from_secs(1), self.socket.next()).await;
                    return None;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    self.closed.get_or_insert((1006, String::new()));
                    return None;
                }
            }
        }
    }

    /// Reads until `wanted` returns true, and returns that frame.
    pub async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Json) -> bool) -> Json {
        let read = async {
            loop {
                match self.recv_unbounded().await {
                    Some(frame) if wanted(&frame) => return Some(frame),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!("closed {:?} before: {what}; last seen: {:?}", self.closed, self.seen.last()),
            Err(_) => panic!("not within {PATIENCE:?}: {what}; last seen: {:?}", self.seen.last()),
        }
    }

    /// Reads until a frame of this type comes.
    pub async fn of_type(&mut self, kind: &str) -> Json {
        self.until(kind, |frame| frame["type"] == kind).await
    }

    /// Reads until an ack of this `turn_order` or above comes.
    pub async fn acked(&mut self, turn_order: u64) -> Json {
        self.until(&format!("ack of {turn_order}"), |frame| {
            frame["type"] == "ack" && frame["turn_order"].as_u64().is_some_and(|acked| acked >= turn_order)
        })
        .await
    }

    /// Reads until an ack that covers this many frames comes.
    pub async fn acked_frames(&mut self, frames: u64) -> Json {
        self.until(&format!("ack of {frames} frames"), |frame| {
            frame["type"] == "ack" && frame["frames"].as_u64().is_some_and(|acked| acked >= frames)
        })
        .await
    }

    /// Reads to the end and returns the close code.
    pub async fn close_code(&mut self) -> u16 {
        let read = async { while self.recv_unbounded().await.is_some() {} };
        assert!(
            tokio::time::timeout(PATIENCE, read).await.is_ok(),
            "not closed within {PATIENCE:?}; last seen: {:?}",
            self.seen.last()
        );
        self.closed.as_ref().map_or(1006, |(code, _)| *code)
    }

    /// Closes the connection from this side with a close frame.
    pub async fn close(mut self) {
        let _ = self.socket.close(None).await;
        let drain = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(5), drain).await;
    }

    /// Drops the connection without a close frame.
    pub fn drop_now(self) {
        let _ = self.socket.into_inner().set_zero_linger();
    }

    /// The raw socket.
    pub fn into_raw(self) -> TcpStream {
        self.socket.into_inner()
    }

    /// Splits into the WebSocket's halves.
    pub fn into_socket(self) -> WebSocketStream<TcpStream> {
        self.socket
    }

    /// Received frames of one type.
    pub fn seen_of(&self, kind: &str) -> Vec<&Json> {
        self.seen.iter().filter(|frame| frame["type"] == kind).collect()
    }
}

/// Opens an ingest socket and reads its `welcome`.
pub async fn ingest(daemon: &Daemon, query: &str) -> (Client, Json) {
    let mut client = Client::connect(&daemon.ws(&format!("/v1/ingest?{query}"))).await;
    let welcome = client.of_type("welcome").await;
    (client, welcome)
}

/// Opens a subscribe socket and reads its `welcome`.
pub async fn subscriber(daemon: &Daemon) -> Client {
    let mut client = Client::connect(&daemon.ws("/v1/subscribe")).await;
    let welcome = client.recv().await.expect("welcome");
    assert_eq!(welcome["type"], "welcome");
    client
}

/// Subscribes on an open socket and returns the `subscribed` reply.
pub async fn subscribe(client: &mut Client, body: Json) -> Json {
    let mut frame = json!({"id": "sub", "type": "subscribe"});
    for (key, value) in body.as_object().expect("an object") {
        frame[key] = value.clone();
    }
    assert!(client.send(&frame).await, "send subscribe");
    let id = frame["id"].clone();
    let reply = client.until("subscribed", |reply| reply["id"] == id).await;
    assert_eq!(reply["type"], "subscribed", "{reply}");
    reply
}

/// A `turn` frame of the `sidetone` dialect.
pub fn turn(order: u64, speaker: &str, text: &str) -> Json {
    json!({"type":"turn","turn_order":order,"speaker":speaker,"text":text,
           "start_ms":order * 1000,"end_ms":order * 1000 + 900})
}

/// Percent-encodes a query value.
pub fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
