//! A subscriber's connection: subscribes, passes on every frame, and after a lost connection continues at the same
//! position (DESIGN 5.2).
//!
//! Knows no terminal: frames are passed to a function.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Result, bail};
use http::{HeaderValue, header};
use serde::Deserialize as _;
use serde_json::Value;
use tokio::time::Instant;

use crate::base::ws::{self, ClientSocket, DialError, Incoming, Utf8Bytes};
use crate::cli::reconnect::{RECONNECTS, after_dial, pause};
use crate::cli::target::{Target, next_step};
use crate::protocol::close::{CloseCode, ReconnectWhen, reconnect_after};
use crate::protocol::subscribe::{ServerFrame, Welcome};
use crate::protocol::{self, ErrorFrame, Reconnect, tag};

use super::positions::{ID, Positions};

/// Timeout of a connection and its handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest frame that the daemon sends, with a margin.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Interval of the daemon's pings, unless it announces another.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Argument of the function that receives the frames.
pub(crate) enum Heard<'a> {
    /// A frame: its text, and its parsed value.
    Frame(&'a str, &'a Value),
    /// The connection was lost; another attempt follows.
    Lost(&'a str),
    /// The connection is restored.
    Back,
}

enum End {
    Done,
    Dropped { when: ReconnectWhen, wait: Option<Duration>, why: String },
}

/// Follows `positions` until `take` ends it. A daemon that cannot be reached at the start is an error; later, a lost
/// connection is restored.
///
/// # Errors
/// The daemon cannot be reached at the start; it refused the subscription; it closed with a code that means "never"; or
/// `take` failed.
///
/// # Cancel safety
/// Dropping the future closes the connection; a frame may have been received and not passed on.
pub(crate) async fn follow(
    target: &Target,
    positions: &mut Positions,
    mut take: impl FnMut(Heard<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let url = target.ws("/v1/subscribe", &[]);
    let mut headers = target.headers();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("sidetone.v1"));
    let mut backoff = RECONNECTS;
    let mut connected = false;
    let mut lost = false;
    loop {
        let (when, wait, why) = match ws::connect(&url, &headers, MAX_MESSAGE_BYTES, DIAL_TIMEOUT).await {
            Err(error @ (DialError::Connect(_) | DialError::Timeout(_))) if !connected => {
                bail!("no daemon at {target}: {error}; start one with `sidetone serve`, or name another with --to");
            }
            Ok(socket) => {
                connected = true;
                if std::mem::take(&mut lost) && take(Heard::Back)?.is_break() {
                    return Ok(());
                }
                let since = Instant::now();
                match Box::pin(converse(socket, positions, &mut take)).await? {
                    End::Done => return Ok(()),
                    End::Dropped { when, wait, why } => {
                        // A connection that lasted is not a failure: the backoff starts over.
                        if since.elapsed() > Duration::from_secs(1) {
                            backoff.reset();
                        }
                        (when, wait, why)
                    }
                }
            }
            Err(error) => (after_dial(&error), None, error.to_string()),
        };
        if when == ReconnectWhen::Never {
            bail!("{target}: {why}");
        }
        if !std::mem::replace(&mut lost, true) && take(Heard::Lost(&why))?.is_break() {
            return Ok(());
        }
        tokio::time::sleep(wait.unwrap_or_else(|| pause(&mut backoff, when))).await;
    }
}

async fn converse(
    mut socket: ClientSocket,
    positions: &mut Positions,
    take: &mut impl FnMut(Heard<'_>) -> Result<ControlFlow<()>>,
) -> Result<End> {
    let dropped = |why: String| End::Dropped { when: ReconnectWhen::Now, wait: None, why };
    let subscribe = Utf8Bytes::from(protocol::text(&positions.subscribe()));
    if let Err(error) = socket.send([subscribe]).await {
        return Ok(dropped(error.to_string()));
    }
    let mut ping_interval = PING_INTERVAL;
    loop {
        // Nothing was received for two and a half ping intervals: the peer is gone, although the connection was not
        // closed.
        let text = match tokio::time::timeout(ping_interval * 5 / 2, socket.recv()).await {
            Err(_) => return Ok(dropped("nothing was received, not even a ping".to_owned())),
            Ok(Err(error)) => return Ok(dropped(error.to_string())),
            Ok(Ok(Incoming::Closed { code, .. })) if code == CloseCode::Done.number() => return Ok(End::Done),
            Ok(Ok(Incoming::Closed { code, reason })) => {
                let why = format!("the daemon closed the connection: {code} {reason}");
                return Ok(End::Dropped { when: reconnect_after(code), wait: None, why });
            }
            Ok(Ok(Incoming::Text(text))) => text,
            Ok(Ok(_)) => continue,
        };
        let Ok(frame) = serde_json::from_str::<Value>(&text) else { continue };
        if positions.accept(&frame) && take(Heard::Frame(&text, &frame))?.is_break() {
            socket.close(CloseCode::Done.number(), "done").await;
            return Ok(End::Done);
        }
        match control(&frame) {
            Some(ServerFrame::Welcome(welcome)) => {
                ping_interval = Duration::from_millis(welcome.ping_interval_ms.max(1000));
            }
            Some(ServerFrame::Error(error)) if error.fatal || error.id.as_deref() == Some(&Value::from(ID)) => {
                let said = format!("{}: {}", error.code, error.message);
                if error.temporary {
                    return Ok(End::Dropped { when: ReconnectWhen::Later, wait: None, why: said });
                }
                bail!("the daemon refused: {said}{}", next_step(&error.code));
            }
            Some(ServerFrame::Reconnect(Reconnect { after_ms, grace_ms, .. })) => {
                let why = "the daemon asked the client to reconnect".to_owned();
                // Frames that the daemon still has come before its close frame.
                let drained = drain(socket, positions, take, Duration::from_millis(grace_ms)).await?;
                let wait = Some(Duration::from_millis(after_ms));
                return Ok(drained.unwrap_or(End::Dropped { when: ReconnectWhen::Now, wait, why }));
            }
            _ => {}
        }
    }
}

/// Takes frames until the daemon closes, for the grace time that it announced, at most 2 s.
async fn drain(
    mut socket: ClientSocket,
    positions: &mut Positions,
    take: &mut impl FnMut(Heard<'_>) -> Result<ControlFlow<()>>,
    grace: Duration,
) -> Result<Option<End>> {
    let until = Instant::now() + grace.min(Duration::from_secs(2));
    while let Ok(Ok(incoming)) = tokio::time::timeout_at(until, socket.recv()).await {
        match incoming {
            Incoming::Text(text) => {
                let Ok(frame) = serde_json::from_str::<Value>(&text) else { continue };
                if positions.accept(&frame) && take(Heard::Frame(&text, &frame))?.is_break() {
                    return Ok(Some(End::Done));
                }
            }
            Incoming::Closed { .. } => return Ok(None),
            _ => {}
        }
    }
    socket.close(CloseCode::GoingAway.number(), "as asked").await;
    Ok(None)
}

/// The frames that the connection itself acts on; none of them is an event.
fn control(frame: &Value) -> Option<ServerFrame> {
    match frame["type"].as_str()? {
        tag::Welcome::TEXT => Welcome::deserialize(frame).ok().map(ServerFrame::Welcome),
        tag::Error::TEXT => ErrorFrame::deserialize(frame).ok().map(ServerFrame::Error),
        tag::Reconnect::TEXT => Reconnect::deserialize(frame).ok().map(ServerFrame::Reconnect),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;
    use crate::base::ws::ServerSocket;
    use crate::cli::scripted;
    use crate::cli::watch::Selection;
    use crate::protocol::subscribe::Include;
    use crate::types::CallId;

    async fn say(socket: &mut ServerSocket, frames: &[Value]) {
        let frames: Vec<Utf8Bytes> = frames.iter().map(|frame| Utf8Bytes::from(frame.to_string())).collect();
        socket.send(frames).await.expect("send");
    }

    fn call() -> CallId {
        CallId::parse("c").expect("id")
    }

    fn turn(seq: u64) -> Value {
        json!({"type": "turn.final", "call_id": "c", "seq": seq, "turn": {}})
    }

    #[tokio::test]
    async fn a_restart_is_outlived_and_each_event_is_seen_once() {
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let noted = Arc::clone(&asked);
        let target = scripted::daemon(
            move |number, mut socket| {
                let asked = Arc::clone(&noted);
                async move {
                    say(&mut socket, &[json!({"type": "welcome", "version": 1, "ping_interval_ms": 20_000})]).await;
                    let Ok(Incoming::Text(text)) = socket.recv().await else { panic!("no subscribe") };
                    asked.lock().expect("lock").push(serde_json::from_str(&text).expect("json"));
                    match number {
                        0 => {
                            let started = json!({"type": "call.started", "call_id": "c", "epoch": "e", "seq": 1});
                            say(&mut socket, &[started, turn(2)]).await;
                            drop(socket);
                        }
                        1 => {
                            let back = json!({"type": "reconnect", "after_ms": 5, "grace_ms": 1000});
                            say(&mut socket, &[turn(2), turn(3), back, turn(4)]).await;
                            socket.close(1001, "").await;
                        }
                        _ => {
                            say(&mut socket, &[turn(4), turn(5)]).await;
                            let _ = socket.recv().await;
                        }
                    }
                }
            },
            |_| None,
        )
        .await;
        let mut positions = Positions::new(Selection::Calls(vec![call()]), vec![], vec![Include::Turns]);
        let (mut seen, mut lost) = (Vec::new(), 0);
        follow(&target, &mut positions, |heard| {
            match heard {
                Heard::Frame(_, frame) => seen.extend(frame["seq"].as_u64()),
                Heard::Lost(_) => lost += 1,
                Heard::Back => {}
            }
            Ok(if seen.last() == Some(&5) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .await
        .expect("followed");
        assert_eq!((seen, lost), (vec![1, 2, 3, 4, 5], 2));
        let asked = asked.lock().expect("lock");
        assert_eq!(asked[0]["resume"], Value::Null);
        assert_eq!(asked[1]["resume"], json!({"c": {"epoch": "e", "seq": 2}}));
        assert_eq!(asked[2]["resume"], json!({"c": {"epoch": "e", "seq": 4}}));
    }

    #[tokio::test]
    async fn a_refused_subscribe_is_an_error_that_says_why() {
        let target = scripted::daemon(
            |_, mut socket| async move {
                let refusal = json!({"type": "error", "id": "1", "code": "unknown_analysis", "message": "there are: a",
                    "fatal": false, "temporary": false});
                say(&mut socket, &[refusal]).await;
                let _ = socket.recv().await;
            },
            |_| None,
        )
        .await;
        let mut positions = Positions::new(Selection::All, vec!["b".into()], vec![]);
        let error = follow(&target, &mut positions, |_| Ok(ControlFlow::Continue(()))).await.expect_err("refused");
        assert!(error.to_string().contains("unknown_analysis: there are: a"), "{error}");
    }
}
