//! How the connection of a producer ends, and what the producer is sent last.
//!
//! Knows the socket; does not know the call.

use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::base::ws::{ServerSocket, Utf8Bytes, WsError};
use crate::keys::REVOKED;
use crate::protocol::{self, Close, CloseCode, ErrorCode, ErrorFrame, Reconnect};

/// Close reason for a connection that was evicted.
const EVICTED: &str = "limits.inflight_bytes is used up, and this connection has the most; reconnect and resend";
/// What `reconnect` tells a producer to wait.
const RECONNECT_AFTER_MS: u64 = 1_500;

/// Why a connection ends.
pub(super) enum End {
    /// The peer is gone.
    Gone,
    /// We close it.
    Close(Close),
    /// It took no byte: we close it, and wait for it to read that.
    Stalled,
    /// Its key is revoked: it is told, and cut where it does not read.
    Revoked,
    /// The session takes no more commands.
    Left,
}

impl End {
    /// An end that no error explains.
    pub(super) fn close(code: CloseCode, reason: &'static str) -> Self {
        Self::Close(Close::new(code, reason))
    }

    /// What became of a write or a read that failed.
    pub(super) fn lost(error: &WsError) -> Self {
        match error {
            WsError::Stalled => Self::Stalled,
            WsError::Evicted => Self::close(CloseCode::TooSlow, EVICTED),
            _ => Self::Gone,
        }
    }

    /// A message that could not be read.
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

    /// The session was rebuilt under the connection.
    pub(super) fn restarted() -> Self {
        let message = "the call is being taken up again from its journal; reconnect and resend from welcome.frames";
        let error = ErrorFrame::new(ErrorCode::SessionRestarted, message).fatal().temporary();
        Self::Close(Close::after(error, CloseCode::GoingAway, "session restarted"))
    }

    /// Does it. `stop` ends the wait for a producer that does not read, and so does `revoked`.
    pub(super) async fn end(
        self,
        socket: ServerSocket,
        metrics: &Metrics,
        stop: &CancellationToken,
        revoked: &CancellationToken,
    ) {
        match self {
            Self::Gone | Self::Left => {}
            Self::Close(close) => farewell(socket, close, metrics).await,
            Self::Stalled => {
                let code = CloseCode::TooSlow;
                metrics.closed(code);
                tokio::select! {
                    () = socket.close_stalled(code.number(), "no byte was taken for 10 s; reconnect and resend", stop) => {}
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

/// Tells the producer why, and closes.
pub(super) async fn farewell(mut socket: ServerSocket, close: Close, metrics: &Metrics) {
    metrics.closed(close.code);
    if let Some(error) = &close.error
        && socket.send([Utf8Bytes::from(protocol::text(error))]).await.is_err()
    {
        return;
    }
    socket.close(close.code.number(), close.reason).await;
}

/// Asks a producer to reconnect.
pub(super) fn reconnect() -> Utf8Bytes {
    Utf8Bytes::from(protocol::text(&Reconnect::new(RECONNECT_AFTER_MS, 0)))
}
