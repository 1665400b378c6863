//! Relays from the client to the vendor, and says what ended either direction.
//!
//! Of the client's frames it reads only `Terminate`, and whether turns are to be formatted.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Metrics;
use crate::base::ws::{Incoming, ReadHalf, WriteHalf, WsError};

/// Maximum number of available messages that are written at once.
pub(super) const BATCH: usize = 32;

/// What ended one direction.
pub(super) enum Stopped {
    ClientGone,
    /// The limit on bytes in flight is reached, and this session has the most.
    Evicted,
    ClientBroke(String),
    UpstreamClosed {
        code: u16,
        reason: String,
    },
    UpstreamGone(String),
    UpstreamMute,
    Expired,
    Revoked,
    Killed,
}

/// The end after the client's socket failed.
pub(super) fn client_lost(error: &WsError) -> Stopped {
    if matches!(error, WsError::Evicted) { Stopped::Evicted } else { Stopped::ClientGone }
}

/// Whether turns are formatted from this frame of the client on; `None` if the frame does not say.
fn formats(text: &str) -> Option<bool> {
    #[derive(Deserialize)]
    struct Update<'a> {
        #[serde(borrow, rename = "type")]
        kind: std::borrow::Cow<'a, str>,
        format_turns: Option<bool>,
    }
    if !text.contains(r#""format_turns""#) {
        return None;
    }
    let update: Update<'_> = serde_json::from_str(text).ok()?;
    update.format_turns.filter(|_| update.kind == "UpdateConfiguration")
}

/// Relays from the client to the vendor.
pub(super) async fn up<C, U>(
    client: &mut ReadHalf<C>,
    upstream: &mut WriteHalf<U>,
    terminated: &AtomicBool,
    formatted: Option<&AtomicBool>,
    metrics: &Metrics,
) -> Stopped
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let mut batch = Vec::new();
        let mut next = Some(client.recv().await);
        let mut stopped = None;
        while let Some(message) = next.take() {
            match message {
                Ok(Incoming::Closed { .. }) => stopped = Some(Stopped::ClientGone),
                Ok(message) => {
                    if let Incoming::Text(text) = &message {
                        if text.contains(r#""Terminate""#) {
                            terminated.store(true, Ordering::Relaxed);
                        }
                        if let (Some(formatted), Some(wanted)) = (formatted, formats(text)) {
                            formatted.store(wanted, Ordering::Relaxed);
                        }
                    }
                    batch.push(message);
                    if batch.len() < BATCH {
                        next = client.ready();
                    }
                }
                Err(error @ WsError::TooLarge { .. }) => stopped = Some(Stopped::ClientBroke(error.to_string())),
                Err(error) => stopped = Some(client_lost(&error)),
            }
        }
        metrics.relayed.inc_by(batch.len() as u64);
        match upstream.relay(batch).await {
            Ok(()) => {}
            Err(WsError::Evicted) => return Stopped::Evicted,
            Err(error) => return Stopped::UpstreamGone(error.to_string()),
        }
        if let Some(stopped) = stopped {
            return stopped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_whether_turns_are_formatted() {
        for (frame, said) in [
            (r#"{"format_turns":false,"type":"UpdateConfiguration"}"#, Some(false)),
            (r#"{"type":"UpdateConfiguration","format_turns":true,"prompt":"x"}"#, Some(true)),
            (r#"{"type":"UpdateConfiguration","prompt":"\"format_turns\""}"#, None),
            (r#"{"type":"KeepAlive","format_turns":true}"#, None),
            (r#"{"type":"UpdateConfiguration","format_turns":null}"#, None),
        ] {
            assert_eq!(formats(frame), said, "{frame}");
        }
    }
}
