//! WebSockets, both sides: the upgrade, one policy for sizes and buffers, and writes that detect a peer which has
//! stopped reading.
//!
//! Knows no message. A [`Socket`] is used by one task: it reads with [`Socket::recv`] (cancel safe, for `select!`) and
//! writes with [`Socket::send`].

mod dial;
mod halves;
mod line;
mod outgoing;
mod progress;

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderValue, Request, Response};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

use self::line::Line;
use self::outgoing::Outgoing;
use self::progress::Progress;
use super::inflight::Holder;

pub use self::dial::{DialError, connect};
pub use self::halves::{ReadHalf, WriteHalf};

/// A directive for the log's filter: at TRACE the library would log whole handshakes, including keys in their headers.
pub const LOG_LIMIT: &str = "tungstenite::handshake=off";

pub use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Read buffer of a socket, bytes. tungstenite's own 128 KiB would be most of an idle call's memory.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Frames are collected up to this size before a write, bytes; a flush writes all of them.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// A write fails if the peer accepts no byte for this long (DESIGN 5.1, 5.2).
pub const WRITE_STALL: Duration = Duration::from_secs(10);
/// Time that a peer has to answer the close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Time to wait for the peer's close frame if the peer has accepted no byte of ours.
const STALLED_CLOSE_WAIT: Duration = Duration::from_secs(60);

/// What a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping (answered already).
    Ping,
    /// An answer to a ping of this side.
    Pong,
    /// The peer closed; code 1005 if it gave none.
    Closed {
        /// RFC 6455 code.
        code: u16,
        /// The reason in the close frame.
        reason: String,
    },
}

/// Why a socket can no longer be used.
#[derive(Debug, thiserror::Error)]
pub enum WsError {
    /// A message is over the limit. The socket can still be closed with any code.
    #[error("a message of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// The message's size, bytes.
        size: usize,
        limit: usize,
    },
    /// A text message is not UTF-8, or a frame is invalid.
    #[error("the peer violated the WebSocket protocol: {0}")]
    Protocol(String),
    /// The connection was lost without a close frame.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The peer accepted no byte for [`WRITE_STALL`].
    #[error("the peer accepted no byte for {} s", WRITE_STALL.as_secs())]
    Stalled,
    /// The limit on bytes in flight is reached, and this connection has the most.
    #[error("too many bytes are in flight, and this connection has the most (limits.inflight_bytes)")]
    Evicted,
}

/// A WebSocket after its handshake, at either end. Reading stops while more than [`line::PONG_BYTES`] of pongs wait for the
/// peer.
#[derive(Debug)]
pub struct Socket<S> {
    /// On the heap: otherwise every future through which a socket is moved would reserve space for a copy.
    line: Box<Line<S>>,
}

/// The server's side of an upgraded HTTP connection.
pub type ServerSocket = Socket<Progress<TokioIo<Upgraded>>>;
/// The client's side.
pub type ClientSocket = Socket<MaybeTlsStream<Progress<TcpStream>>>;

fn config(max_message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes))
}

/// A validated upgrade: the response to send, and the socket that it becomes.
pub struct Upgrade {
    on_upgrade: hyper::upgrade::OnUpgrade,
    max_message_bytes: usize,
}

impl Upgrade {
    /// Checks the handshake of `request` and makes the 101 response. `protocol` is echoed as the subprotocol.
    ///
    /// # Errors
    /// A message for a 400 if this is not a WebSocket handshake.
    pub fn new<B, R>(
        request: &mut Request<B>,
        max_message_bytes: usize,
        protocol: Option<&str>,
        body: impl FnOnce() -> R,
    ) -> Result<(Self, Response<R>), String> {
        let mut response = create_response_with_body(request, body)
            .map_err(|error| format!("this path expects a WebSocket upgrade: {error}"))?;
        if let Some(value) = protocol.and_then(|name| HeaderValue::from_str(name).ok()) {
            response.headers_mut().insert(http::header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        let on_upgrade = hyper::upgrade::on(request);
        Ok((Self { on_upgrade, max_message_bytes }, response))
    }

    /// The socket, once the response was sent.
    ///
    /// # Errors
    /// The client closed the connection before.
    pub async fn socket(self) -> Result<ServerSocket, WsError> {
        let upgraded = self.on_upgrade.await.map_err(|error| WsError::Lost(error.to_string()))?;
        let stream = Progress::new(TokioIo::new(upgraded));
        let traffic = stream.traffic();
        let inner = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config(self.max_message_bytes))).await;
        Ok(Socket { line: Box::new(Line::new(inner, traffic)) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Counts this socket's buffers for `holder`: partly received messages, and writes that wait for the peer. Once the
    /// holder is evicted, reading and writing fail with [`WsError::Evicted`].
    #[must_use]
    pub fn held_by(mut self, holder: Holder) -> Self {
        self.line.holder = Some(holder);
        self
    }

    /// Holder that this socket's buffers are counted for.
    pub fn holder(&self) -> Option<&Holder> {
        self.line.holder.as_ref()
    }

    /// Splits into two halves for one task, so that reading continues while a write waits.
    pub fn split(self) -> (ReadHalf<S>, WriteHalf<S>) {
        halves::split(self)
    }

    /// Joins two halves; `None` if they are not of one socket.
    pub fn join(read: ReadHalf<S>, write: WriteHalf<S>) -> Option<Self> {
        halves::join(read, write)
    }

    /// The next message. None follows after `Closed` or an error.
    ///
    /// # Errors
    /// See [`WsError`].
    ///
    /// # Cancel safety
    /// Safe: a message is either returned or still to come.
    pub async fn recv(&mut self) -> Result<Incoming, WsError> {
        poll_fn(|context| self.line.poll_recv(context)).await
    }

    /// Writes text messages, in order, and flushes once.
    ///
    /// # Errors
    /// [`WsError::Stalled`] once the peer has accepted no byte for [`WRITE_STALL`], [`WsError::Evicted`] or
    /// [`WsError::Lost`].
    ///
    /// # Cancel safety
    /// Not safe: if this future is dropped, some of the messages may have been written.
    pub async fn send(&mut self, frames: impl IntoIterator<Item = Utf8Bytes>) -> Result<(), WsError> {
        self.write(frames.into_iter().map(Message::Text)).await
    }

    /// Writes one binary message and flushes.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn send_binary(&mut self, bytes: Bytes) -> Result<(), WsError> {
        self.write(std::iter::once(Message::Binary(bytes))).await
    }

    /// Sends a ping.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn ping(&mut self) -> Result<(), WsError> {
        self.write(std::iter::once(Message::Ping(Bytes::new()))).await
    }

    async fn write(&mut self, messages: impl Iterator<Item = Message>) -> Result<(), WsError> {
        let mut outgoing = Outgoing::new(messages);
        poll_fn(|context| outgoing.poll(&mut self.line, context)).await
    }

    /// Sends a close frame with `code` and `reason` (cut to the maximum length) and waits briefly for the peer's.
    /// Messages of the peer are dropped meanwhile.
    pub async fn close(self, code: u16, reason: &str) {
        self.close_within(code, reason, CLOSE_WAIT).await;
    }

    /// [`Socket::close`] with a last text message before it, for a peer that may be unauthorised: a peer that reads
    /// gets both, and one that does not is disconnected as soon as the time for a close is over.
    pub async fn dismiss(mut self, last: Utf8Bytes, code: u16, reason: &str) {
        let until = Instant::now() + CLOSE_WAIT;
        if let Ok(Ok(())) = tokio::time::timeout_at(until, self.send([last])).await {
            self.close_within(code, reason, until - Instant::now()).await;
        }
    }

    /// [`Socket::close`] for a peer that accepted no byte for a while: it may still read what is on its way, and the
    /// close frame after it, for a minute or until `give_up`.
    pub async fn close_stalled(self, code: u16, reason: &str, give_up: &CancellationToken) {
        tokio::select! {
            () = self.close_within(code, reason, STALLED_CLOSE_WAIT) => {}
            () = give_up.cancelled() => {}
        }
    }

    /// [`Socket::close`], waiting at most `wait` for the peer to accept it and answer.
    async fn close_within(mut self, code: u16, reason: &str, wait: Duration) {
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from(&reason[..end]) };
        let Line { ws, holder, .. } = &mut *self.line;
        // The close frame reports an eviction before the close; an eviction during the close ends it.
        let evicted = async {
            match holder.as_ref().filter(|holder| !holder.is_evicted()) {
                Some(holder) => holder.evicted().await,
                None => std::future::pending().await,
            }
        };
        let send_close = async {
            if ws.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = ws.next().await {}
                // Shuts down the write side and reads on: a connection that is dropped with unread bytes is reset, and
                // then the peer might never see the close frame.
                let _ = ws.get_mut().shutdown().await;
                // On the heap: otherwise the future of every open socket would contain it.
                let mut rest = vec![0u8; 4096];
                while matches!(ws.get_mut().read(&mut rest).await, Ok(count) if count > 0) {}
            }
        };
        tokio::select! {
            // After this, the operating system handles a peer that does not answer.
            _ = tokio::time::timeout(wait, send_close) => {}
            () = evicted => {}
        }
    }
}

fn classify(error: tungstenite::Error) -> WsError {
    use tungstenite::error::CapacityError;
    match error {
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            WsError::TooLarge { size, limit: max_size }
        }
        tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake
            | tungstenite::error::ProtocolError::SendAfterClosing,
        )
        | tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed => WsError::Lost("closed".to_owned()),
        tungstenite::Error::Protocol(error) => WsError::Protocol(error.to_string()),
        tungstenite::Error::Utf8(error) => WsError::Protocol(format!("text is not UTF-8: {error}")),
        other => WsError::Lost(other.to_string()),
    }
}

/// One side of a WebSocket in memory.
#[cfg(test)]
pub(crate) type MemorySocket = Socket<Progress<tokio::io::DuplexStream>>;

/// Both sides of a WebSocket in memory, for tests: first the server's, then the client's.
#[cfg(test)]
pub(crate) async fn pair() -> [MemorySocket; 2] {
    let (ours, theirs) = tokio::io::duplex(4096);
    let [ours, theirs] = [ours, theirs].map(Progress::new);
    let traffic = [ours.traffic(), theirs.traffic()];
    let server = WebSocketStream::from_raw_socket(ours, Role::Server, Some(config(1 << 20))).await;
    let client = WebSocketStream::from_raw_socket(theirs, Role::Client, Some(config(1 << 20))).await;
    let [of_server, of_client] = traffic;
    [(server, of_server), (client, of_client)].map(|(ws, traffic)| Socket { line: Box::new(Line::new(ws, traffic)) })
}

#[cfg(test)]
mod tests;
