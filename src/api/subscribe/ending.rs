//! Why a subscriber's socket ends, and how it is closed.
//!
//! Knows no subscription and no frame except the last one.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{CodeLabel, Deps, frames};
use crate::base::ws::{Socket, WsError};
use crate::protocol::{CloseCode, ErrorCode, ErrorFrame, REVOKED};

/// Why a socket's loop ends.
pub(super) enum End {
    /// The peer closed the socket, or the connection was lost.
    Peer,
    /// The daemon closes the socket with this code and reason.
    Close(CloseCode, String),
    /// The peer accepts no bytes. The daemon closes the socket and waits until the peer has read the close frame.
    Stalled,
    /// The key was revoked. The daemon sends an error and a close frame, and drops the connection if the peer does not
    /// read them.
    Revoked,
}

impl End {
    /// Closes the socket, unless the peer has done so.
    pub(super) async fn close<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        socket: Socket<S>,
        deps: &Deps,
        stop: &CancellationToken,
        revoked: &CancellationToken,
    ) {
        let (code, reason) = match &self {
            Self::Peer => (None, ""),
            Self::Close(code, reason) => (Some(*code), reason.as_str()),
            Self::Stalled => (Some(CloseCode::TooSlow), "the client accepted no byte for 10 s; reconnect and resume"),
            Self::Revoked => (Some(CloseCode::Unauthenticated), ErrorCode::Unauthenticated.as_str()),
        };
        if let Some(code) = code {
            let code = code.number();
            tracing::debug!(code, reason, "a subscriber's socket is closed by the daemon");
            deps.metrics.closed.get_or_create(&CodeLabel { code }).inc();
            match self {
                Self::Revoked => {
                    let error = frames::error(&ErrorFrame::new(ErrorCode::Unauthenticated, REVOKED).fatal());
                    socket.dismiss(error, code, reason).await;
                }
                Self::Stalled => {
                    tokio::select! {
                        () = socket.close_stalled(code, reason, stop) => {}
                        () = revoked.cancelled() => {}
                    }
                }
                Self::Peer | Self::Close(..) => socket.close(code, reason).await,
            }
        }
    }
}

/// The end of a socket on which reading or writing failed.
pub(super) fn lost(error: &WsError) -> End {
    match error {
        WsError::Stalled => End::Stalled,
        WsError::Evicted => End::Close(CloseCode::TooSlow, error.to_string()),
        _ => End::Peer,
    }
}
