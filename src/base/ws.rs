//! WebSockets, both ends: the upgrade, one size and buffer policy, and writes that notice a peer which reads no more.
//!
//! Knows no message. A [`Socket`] is used by one task: it reads with [`Socket::recv`] (cancel safe, for `select!`) and
//! writes with [`Socket::send`].

mod dial;
mod progress;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{FutureExt as _, SinkExt, StreamExt};
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

pub use self::dial::{DialError, connect};
use self::progress::Progress;

/// A directive for the log's filter: at TRACE the library would write down whole handshakes, keys among their headers.
pub const LOG_LIMIT: &str = "tungstenite::handshake=off";

pub use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Read buffer of a socket, bytes. tungstenite's own 128 KiB would be most of an idle call's memory.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Frames are gathered up to this size before a write, bytes; a flush writes what is there.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// A write that takes no byte for this long has failed (DESIGN 5.1, 5.2).
pub const WRITE_STALL: Duration = Duration::from_secs(10);
/// How often a write that takes long is looked at.
const WRITE_LOOK: Duration = Duration::from_millis(500);
/// Time that a peer has to answer our close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// The same for a peer that took no byte.
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
    /// An answer to our ping.
    Pong,
    /// The peer closed; code 1005 where it named none.
    Closed {
        /// RFC 6455 code.
        code: u16,
        /// Its reason.
        reason: String,
    },
}

/// Why a socket can be used no more.
#[derive(Debug, thiserror::Error)]
pub enum WsError {
    /// A message over the limit. The socket can still be closed with a code of our choice.
    #[error("a message of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A text message that is not UTF-8, or a broken frame.
    #[error("the peer broke the WebSocket protocol: {0}")]
    Protocol(String),
    /// The connection is gone without a close frame.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The peer took no byte for [`WRITE_STALL`].
    #[error("the peer took no byte for {} s", WRITE_STALL.as_secs())]
    Stalled,
}

/// A WebSocket after its handshake, at either end.
#[derive(Debug)]
pub struct Socket<S> {
    /// On the heap: every future that a socket is moved through would hold a copy's worth of room otherwise.
    inner: Box<WebSocketStream<S>>,
    written: Arc<AtomicU64>,
}

/// The server's end of an upgraded HTTP connection.
pub type ServerSocket = Socket<Progress<TokioIo<Upgraded>>>;
/// The client's end.
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
    /// A sentence for a 400 where this is no WebSocket handshake.
    pub fn new<B, R>(
        request: &mut Request<B>,
        max_message_bytes: usize,
        protocol: Option<&str>,
        body: impl FnOnce() -> R,
    ) -> Result<(Self, Response<R>), String> {
        let mut response = create_response_with_body(request, body)
            .map_err(|error| format!("this path takes a WebSocket upgrade: {error}"))?;
        if let Some(value) = protocol.and_then(|name| HeaderValue::from_str(name).ok()) {
            response.headers_mut().insert(http::header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        let on_upgrade = hyper::upgrade::on(request);
        Ok((Self { on_upgrade, max_message_bytes }, response))
    }

    /// The socket, once the response has gone out.
    ///
    /// # Errors
    /// The client went away first.
    pub async fn socket(self) -> Result<ServerSocket, WsError> {
        let upgraded = self.on_upgrade.await.map_err(|error| WsError::Lost(error.to_string()))?;
        let stream = Progress::new(TokioIo::new(upgraded));
        let written = stream.written();
        let inner = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config(self.max_message_bytes))).await;
        Ok(Socket { inner: Box::new(inner), written })
    }
}

/// The reading half of a [`Socket`].
#[derive(Debug)]
pub struct ReadHalf<S>(SplitStream<WebSocketStream<S>>);

/// The writing half of a [`Socket`].
#[derive(Debug)]
pub struct WriteHalf<S> {
    inner: SplitSink<WebSocketStream<S>, Message>,
    written: Arc<AtomicU64>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReadHalf<S> {
    /// As [`Socket::recv`].
    ///
    /// # Errors
    /// See [`WsError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn recv(&mut self) -> Result<Incoming, WsError> {
        read(&mut self.0).await
    }

    /// The next message, if it is there already.
    ///
    /// # Errors
    /// See [`WsError`].
    pub fn ready(&mut self) -> Option<Result<Incoming, WsError>> {
        self.recv().now_or_never()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WriteHalf<S> {
    /// Writes data messages as they are, in order, and flushes once. Pings, pongs and closes are each side's own affair
    /// and are left out.
    ///
    /// # Errors
    /// As [`Socket::send`].
    ///
    /// # Cancel safety
    /// Not safe: cancelled, some of the messages may have been written.
    pub async fn relay(&mut self, messages: impl IntoIterator<Item = Incoming>) -> Result<(), WsError> {
        let messages = messages.into_iter().filter_map(|message| match message {
            Incoming::Text(text) => Some(Message::Text(text)),
            Incoming::Binary(bytes) => Some(Message::Binary(bytes)),
            Incoming::Ping | Incoming::Pong | Incoming::Closed { .. } => None,
        });
        write_all(&mut self.inner, &self.written, messages).await
    }

    /// Sends a ping.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn ping(&mut self) -> Result<(), WsError> {
        write_all(&mut self.inner, &self.written, [Message::Ping(Bytes::new())]).await
    }
}

async fn read<S>(stream: &mut S) -> Result<Incoming, WsError>
where
    S: futures::Stream<Item = Result<Message, tungstenite::Error>> + Unpin,
{
    loop {
        let message = match stream.next().await {
            None => return Err(WsError::Lost("end of stream".to_owned())),
            Some(Err(error)) => return Err(classify(error)),
            Some(Ok(message)) => message,
        };
        return Ok(match message {
            Message::Text(text) => Incoming::Text(text),
            Message::Binary(bytes) => Incoming::Binary(bytes),
            Message::Ping(_) => Incoming::Ping,
            Message::Pong(_) => Incoming::Pong,
            Message::Close(None) => Incoming::Closed { code: 1005, reason: String::new() },
            Message::Close(Some(frame)) => {
                Incoming::Closed { code: frame.code.into(), reason: frame.reason.to_string() }
            }
            Message::Frame(_) => continue,
        });
    }
}

async fn write_all<S>(
    sink: &mut S,
    written: &AtomicU64,
    messages: impl IntoIterator<Item = Message>,
) -> Result<(), WsError>
where
    S: futures::Sink<Message, Error = tungstenite::Error> + Unpin,
{
    let write = async move {
        for message in messages {
            sink.feed(message).await?;
        }
        sink.flush().await
    };
    watched(written, write).await?.map_err(classify)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Two halves that are used by one task each, or by one task in turn: a slow write does not keep from reading.
    pub fn split(self) -> (ReadHalf<S>, WriteHalf<S>) {
        let (sink, stream) = (*self.inner).split();
        (ReadHalf(stream), WriteHalf { inner: sink, written: self.written })
    }

    /// The socket of two halves; `None` where they are not of one socket.
    pub fn join(read: ReadHalf<S>, write: WriteHalf<S>) -> Option<Self> {
        let inner = read.0.reunite(write.inner).ok()?;
        Some(Self { inner: Box::new(inner), written: write.written })
    }

    /// The next message. After `Closed` or an error there is none.
    ///
    /// # Errors
    /// See [`WsError`].
    ///
    /// # Cancel safety
    /// Safe: a message is either returned or still to come.
    pub async fn recv(&mut self) -> Result<Incoming, WsError> {
        read(&mut *self.inner).await
    }

    /// Writes text messages, in order, and flushes once.
    ///
    /// # Errors
    /// [`WsError::Stalled`] once the peer has taken no byte for [`WRITE_STALL`], or [`WsError::Lost`].
    ///
    /// # Cancel safety
    /// Not safe: cancelled, some of the messages may have been written.
    pub async fn send(&mut self, frames: impl IntoIterator<Item = Utf8Bytes>) -> Result<(), WsError> {
        self.send_messages(frames.into_iter().map(Message::Text)).await
    }

    /// Writes one binary message and flushes.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn send_binary(&mut self, bytes: Bytes) -> Result<(), WsError> {
        self.send_messages([Message::Binary(bytes)]).await
    }

    /// Sends a ping.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn ping(&mut self) -> Result<(), WsError> {
        self.send_messages([Message::Ping(Bytes::new())]).await
    }

    async fn send_messages(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<(), WsError> {
        write_all(&mut *self.inner, &self.written, messages).await
    }

    /// Sends a close frame with `code` and `reason` (cut to what a close frame holds) and waits shortly for the peer's.
    /// What the peer sends meanwhile is dropped.
    pub async fn close(self, code: u16, reason: &str) {
        self.close_within(code, reason, CLOSE_WAIT).await;
    }

    /// [`Socket::close`] with a last text message before it, for a peer that may have its socket no longer: whoever reads
    /// gets both, and one that does not is cut as soon as the time for a close is over.
    pub async fn dismiss(mut self, last: Utf8Bytes, code: u16, reason: &str) {
        let until = Instant::now() + CLOSE_WAIT;
        if let Ok(Ok(())) = tokio::time::timeout_at(until, self.send([last])).await {
            self.close_within(code, reason, until - Instant::now()).await;
        }
    }

    /// [`Socket::close`] for a peer that took no byte for a while: it may still read what lies on its way, and our close
    /// frame behind it, for a minute or until `give_up`.
    pub async fn close_stalled(self, code: u16, reason: &str, give_up: &CancellationToken) {
        tokio::select! {
            () = self.close_within(code, reason, STALLED_CLOSE_WAIT) => {}
            () = give_up.cancelled() => {}
        }
    }

    /// [`Socket::close`], waiting at most `wait` for the peer to take it and answer.
    async fn close_within(mut self, code: u16, reason: &str, wait: Duration) {
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from(&reason[..end]) };
        let farewell = async {
            if (*self.inner).close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.inner.next().await {}
                // The peer sees the end at once, but a connection that is dropped with unread bytes is reset, and the
                // peer may never see our close frame: so what it still sends is read.
                let _ = self.inner.get_mut().shutdown().await;
                // On the heap: every open socket's future would hold it.
                let mut rest = vec![0u8; 4096];
                while matches!(self.inner.get_mut().read(&mut rest).await, Ok(count) if count > 0) {}
            }
        };
        // A peer that does not answer is left to the operating system.
        let _ = tokio::time::timeout(wait, farewell).await;
    }
}

/// Runs `write` to its end as long as bytes go out.
async fn watched<T>(written: &AtomicU64, write: impl Future<Output = T>) -> Result<T, WsError> {
    let mut write = std::pin::pin!(write);
    let (mut seen, mut since) = (written.load(Ordering::Relaxed), Instant::now());
    loop {
        tokio::select! {
            biased;
            done = &mut write => return Ok(done),
            () = tokio::time::sleep(WRITE_LOOK) => {}
        }
        let now = written.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() >= WRITE_STALL {
            return Err(WsError::Stalled);
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

/// Both ends of a WebSocket in memory, for tests: the server's, the client's.
#[cfg(test)]
pub(crate) async fn pair() -> [Socket<tokio::io::DuplexStream>; 2] {
    let (ours, theirs) = tokio::io::duplex(4096);
    let server = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
    let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    [server, client].map(|inner| Socket { inner: Box::new(inner), written: Arc::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_peer_sees_the_end_as_soon_as_it_has_answered_the_close() {
        let [server, client] = pair().await;
        let mut client = client.inner;
        // The peer keeps its half open: that must not be waited for before it is told.
        let closing = tokio::spawn(server.close_within(1000, "done", Duration::from_secs(3600)));
        let patience = Duration::from_secs(60);
        let close = tokio::time::timeout(patience, client.next()).await.expect("a close frame");
        assert!(matches!(close, Some(Ok(Message::Close(Some(_))))), "{close:?}");
        let end = async { while client.next().await.is_some() {} };
        tokio::time::timeout(patience, end).await.expect("the end of the stream");
        drop(client);
        tokio::time::timeout(patience, closing).await.expect("our own end").expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_has_stalled_ten_seconds_after_its_last_byte() {
        let written = AtomicU64::new(0);
        let began = Instant::now();
        let last = Duration::from_secs(9);
        let write = async {
            tokio::time::sleep(last).await;
            written.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        };
        assert!(matches!(watched(&written, write).await, Err(WsError::Stalled)));
        let after = began.elapsed() - last;
        assert!(after >= WRITE_STALL && after <= WRITE_STALL + 2 * WRITE_LOOK, "{after:?}");
    }
}
