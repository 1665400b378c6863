//! How the connection of a producer ends, and what the producer is sent last.
//!
//! Knows the socket; does not know the call.

use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::base::ws::{ServerSocket, Utf8Bytes, WsError};
use crate::protocol::{self, Close, CloseCode, ErrorCode, ErrorFrame, REVOKED, Reconnect};

/// Close reason for a connection that was evicted.
const EVICTED: &str = "limits.inflight_bytes is reached, and this connection has the most bytes in flight; reconnect \
    and resend";
/// Time that `reconnect` asks a producer to wait.
const RECONNECT_AFTER_MS: u64 = 1_500;

/// Why a connection ends.
pub(super) enum End {
    /// The peer closed the connection, or it was lost.
    Gone,
    /// The daemon closes the connection.
    Close(Close),
    /// The peer accepts no bytes. The daemon closes the connection and waits until the peer has read the close frame.
    Stalled,
    /// The key was revoked. The daemon sends an error and a close frame, and drops the connection if the peer does not
    /// read them.
    Revoked,
    /// The session accepts no more commands.
    Left,
}

impl End {
    /// An end without an `error` frame.
    pub(super) fn close(code: CloseCode, reason: &'static str) -> Self {
        Self::Close(Close::new(code, reason))
    }

    /// The end after a failed write or read.
    pub(super) fn lost(error: &WsError) -> Self {
        match error {
            WsError::Stalled => Self::Stalled,
            WsError::Evicted => Self::close(CloseCode::TooSlow, EVICTED),
            _ => Self::Gone,
        }
    }

    /// The end after a message that could not be read.
    pub(super) fn unread(error: &WsError) -> Self {
        match error {
            WsError::TooLarge { size, limit } => {
                let message = format!("a frame of {size} bytes is over the limit of {limit} (ingest.max_frame_bytes)");
                let error = ErrorFrame::new(ErrorCode::FrameTooLarge, message).fatal();
                Self::Close(Close::after(error, CloseCode::FrameTooLarge, "frame too large"))
            }
            WsError::Protocol(message) => {
                let error = ErrorFrame::new(ErrorCode::BadFrame, message.clone()).fatal();
                Self::Close(Close::after(error, CloseCode::BadMessage, "bad frame"))
            }
            error => Self::lost(error),
        }
    }

    /// The end after the session was rebuilt.
    pub(super) fn restarted() -> Self {
        let message = "the call is being rebuilt from its journal; reconnect and resend from welcome.frames";
        let error = ErrorFrame::new(ErrorCode::SessionRestarted, message).fatal().temporary();
        Self::Close(Close::after(error, CloseCode::GoingAway, "session restarted"))
    }

    /// Closes the connection in this way. `stop` or `revoked` ends the wait for a producer that does not read.
    pub(super) async fn end(
        self,
        socket: ServerSocket,
        metrics: &Metrics,
        stop: &CancellationToken,
        revoked: &CancellationToken,
    ) {
        match self {
            Self::Gone | Self::Left => {}
            Self::Close(close) => send_close(socket, close, metrics).await,
            Self::Stalled => {
                let code = CloseCode::TooSlow;
                metrics.closed(code);
                tokio::select! {
                    () = socket.close_stalled(code.number(), "the client accepted no byte for 10 s; reconnect and \
                        resend", stop) => {}
                    () = revoked.cancelled() => {}
                }
            }
            Self::Revoked => {
                let (code, error) = (CloseCode::Unauthenticated, ErrorCode::Unauthenticated);
                metrics.closed(code);
                let frame = Utf8Bytes::from(protocol::text(&ErrorFrame::new(error, REVOKED).fatal()));
                socket.dismiss(frame, code.number(), error.as_str()).await;
            }
        }
    }
}

/// Sends the reason to the producer and closes the connection.
pub(super) async fn send_close(mut socket: ServerSocket, close: Close, metrics: &Metrics) {
    metrics.closed(close.code);
    if let Some(error) = &close.error
        && socket.send([Utf8Bytes::from(protocol::text(error))]).await.is_err()
    {
        return;
    }
    socket.close(close.code.number(), close.reason).await;
}

/// A frame that asks a producer to reconnect.
pub(super) fn reconnect() -> Utf8Bytes {
    Utf8Bytes::from(protocol::text(&Reconnect::new(RECONNECT_AFTER_MS, 0)))
}
