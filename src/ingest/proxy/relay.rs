//! Relays two directions, each with its own backpressure, and ends the session in order.
//!
//! Reads frames only as far as necessary: `Termination` is held until the answers in flight are sent, and `Terminate`
//! is sent upstream for a client that left without it, because the vendor bills open sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::answers::Answers;
use super::tap::Tap;
use super::upward::{BATCH, Stopped, client_lost, up};
use super::{Bounds, Metrics, frames};
use crate::base::ws::{Incoming, ReadHalf, Socket, Utf8Bytes, WriteHalf, WsError};
use crate::protocol::CloseCode;
use crate::session::command::TurnReply;
use crate::types::SttEvent;

/// Longest time that `Termination` is held for answers in flight. Also the longest wait for the vendor's last finals
/// after the client left.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// After a failed write to the vendor, its last frames and its close frame are awaited for this long.
const LAST_READ: Duration = Duration::from_secs(2);
/// The client's message that ends its session.
const TERMINATE: &str = r#"{"type":"Terminate"}"#;

/// How the session of a client ended.
pub(super) enum Ended {
    /// The client ended it.
    Client,
    /// The vendor ended it with this close frame.
    Closed { code: u16, reason: String },
    /// The connection to the vendor failed; the client gets this message.
    Failed(String),
    /// The client sent something that it must not send.
    Refused(String),
    /// The session reached the duration that its token allows.
    Expired,
    /// The session's key was revoked.
    Revoked,
}

/// Relays one session.
pub(super) struct Relay {
    pub(super) tap: Tap,
    pub(super) answers: Option<Answers>,
    /// Insights and errors for the client.
    pub(super) injections: mpsc::Receiver<Utf8Bytes>,
    /// The number of the newest turn in the vendor's frames, if it is needed.
    pub(super) newest: Option<Arc<AtomicI64>>,
    /// What ends the session if neither side does.
    pub(super) bounds: Bounds,
    /// Longest silence of the vendor at the start.
    pub(super) patience: Duration,
    /// Cancelled when the daemon has no more time before it stops.
    pub(super) kill: CancellationToken,
    pub(super) metrics: Metrics,
}

impl Relay {
    /// Relays until either side ends the session. Returns the client's socket, to be closed.
    pub(super) async fn run<C, U>(mut self, client: Socket<C>, upstream: Socket<U>) -> (Option<Socket<C>>, Ended)
    where
        C: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut client_in, mut client_out) = client.split();
        let (mut upstream_in, mut upstream_out) = upstream.split();
        let terminated = AtomicBool::new(false);
        let metrics = self.metrics.clone();
        let revoked = self.bounds.revoked.clone();
        let stopped = {
            let formats = self.answers.as_ref().map(|answers| answers.questions.formats());
            let up = up(&mut client_in, &mut upstream_out, &terminated, formats.as_deref(), &metrics);
            let down = self.down(&mut upstream_in, &mut client_out);
            let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
            tokio::select! {
                biased;
                // The revocation also interrupts a write to a client that does not read.
                () = revoked.cancelled() => Stopped::Revoked,
                stopped = &mut down => stopped,
                stopped = &mut up => match stopped {
                    // The vendor's last frames may say why.
                    Stopped::UpstreamGone(why) => {
                        timeout(LAST_READ, &mut down).await.unwrap_or(Stopped::UpstreamGone(why))
                    }
                    stopped => stopped,
                },
            }
        };
        let ended = match stopped {
            Stopped::ClientGone | Stopped::Evicted | Stopped::ClientBroke(_) | Stopped::Expired | Stopped::Revoked => {
                if !terminated.load(Ordering::Relaxed) {
                    let goodbye = Incoming::Text(Utf8Bytes::from_static(TERMINATE));
                    // A vendor that accepts no bytes is not waited for.
                    let _ = timeout(LAST_WORDS, upstream_out.relay([goodbye])).await;
                }
                self.last_words(&mut upstream_in, terminated.load(Ordering::Relaxed)).await;
                match stopped {
                    Stopped::ClientBroke(why) => Ended::Refused(why),
                    Stopped::Expired => Ended::Expired,
                    Stopped::Revoked => Ended::Revoked,
                    Stopped::Evicted => {
                        Ended::Closed { code: CloseCode::TooSlow.number(), reason: WsError::Evicted.to_string() }
                    }
                    _ => Ended::Client,
                }
            }
            Stopped::UpstreamClosed { code, reason } => {
                // 1005 and 1006 cannot be sent.
                let code = if matches!(code, 1005 | 1006 | 1015) { 3005 } else { code };
                Ended::Closed { code, reason }
            }
            Stopped::UpstreamGone(why) => Ended::Closed { code: 3005, reason: why },
            Stopped::UpstreamMute => {
                Ended::Failed(format!("the STT vendor sent nothing for {} s", self.patience.as_secs()))
            }
            Stopped::Killed => Ended::Failed("the daemon is stopping".to_owned()),
        };
        // The pipeline does not wait for the vendor's close: a client that returns to the call finds its stream ended.
        drop(self);
        if let Some(upstream) = Socket::join(upstream_in, upstream_out) {
            upstream.close(CloseCode::Done.number(), "").await;
        }
        (Socket::join(client_in, client_out), ended)
    }

    /// Relays from the vendor to the client.
    async fn down<C, U>(&mut self, upstream: &mut ReadHalf<U>, client: &mut WriteHalf<C>) -> Stopped
    where
        C: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let kill = self.kill.clone();
        let began = Instant::now();
        // Made once and not for every message: a timer, and an entry in a list that all sessions share.
        let mut expiry = std::pin::pin!(tokio::time::sleep(self.bounds.limit.unwrap_or_default()));
        let mut killed = std::pin::pin!(kill.cancelled());
        let mut heard = false;
        let mut injecting = true;
        loop {
            let first = tokio::select! {
                biased;
                first = upstream.recv() => first,
                frame = self.injections.recv(), if injecting => {
                    let Some(frame) = frame else {
                        injecting = false;
                        continue;
                    };
                    if let Err(error) = client.relay([Incoming::Text(frame)]).await {
                        return client_lost(&error);
                    }
                    continue;
                }
                reply = next_reply(&mut self.answers) => {
                    let frame = self.take(reply);
                    if let Err(error) = client.relay(frame.map(Incoming::Text)).await {
                        return client_lost(&error);
                    }
                    continue;
                }
                () = tokio::time::sleep_until(began + self.patience), if !heard => return Stopped::UpstreamMute,
                () = &mut expiry, if self.bounds.limit.is_some() => return Stopped::Expired,
                () = &mut killed => return Stopped::Killed,
            };
            heard = true;
            let mut batch = Vec::new();
            let mut next = Some(first);
            let mut stopped = None;
            while let Some(message) = next.take() {
                match message {
                    Ok(Incoming::Closed { code, reason }) => stopped = Some(Stopped::UpstreamClosed { code, reason }),
                    Ok(message) => {
                        let mut after = Vec::new();
                        if let Incoming::Text(text) = &message {
                            after = match self.look(text, &mut batch, client).await {
                                Ok(after) => after,
                                Err(stopped) => return stopped,
                            };
                        }
                        batch.push(message);
                        batch.extend(after.into_iter().map(Incoming::Text));
                        if batch.len() < BATCH {
                            next = upstream.ready();
                        }
                    }
                    Err(WsError::Evicted) => stopped = Some(Stopped::Evicted),
                    Err(error) => stopped = Some(Stopped::UpstreamGone(error.to_string())),
                }
            }
            self.metrics.relayed.inc_by(batch.len() as u64);
            if let Err(error) = client.relay(batch).await {
                return client_lost(&error);
            }
            if let Some(stopped) = stopped {
                return stopped;
            }
        }
    }

    /// Passes a copy of a frame to the pipeline, with the turns to answer. Before `Termination`, sends `batch` and
    /// waits for the answers in flight. Returns what follows the frame, which is nothing for the last one.
    async fn look<C>(
        &mut self,
        text: &Utf8Bytes,
        batch: &mut Vec<Incoming>,
        client: &mut WriteHalf<C>,
    ) -> Result<Vec<Utf8Bytes>, Stopped>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(newest) = &self.newest
            && let Some(order) = turn_order(text)
        {
            newest.fetch_max(order, Ordering::Relaxed);
        }
        let last = is_termination(text);
        let refused = self.ask(text, last);
        if !last {
            return Ok(refused);
        }
        batch.extend(refused.into_iter().map(Incoming::Text));
        if self.all_answered() {
            return Ok(Vec::new());
        }
        client.relay(batch.drain(..)).await.map_err(|error| client_lost(&error))?;
        let deadline = Instant::now() + LAST_WORDS;
        while !self.all_answered() {
            let frame = tokio::select! {
                biased;
                () = sleep_until(deadline) => break,
                reply = next_reply(&mut self.answers) => self.take(reply),
                Some(frame) = self.injections.recv() => Some(frame),
            };
            let sent = client.relay(frame.map(Incoming::Text)).await;
            sent.map_err(|error| client_lost(&error))?;
        }
        let late = self.answers.as_mut().map(Answers::give_up).unwrap_or_default();
        batch.extend(late.into_iter().map(Incoming::Text));
        Ok(Vec::new())
    }

    /// Passes a copy of a frame to the pipeline, with the turns that the call is to answer. Returns the answers for
    /// turns that it is not to answer; they are sent directly after the frame.
    fn ask(&mut self, text: &Utf8Bytes, last: bool) -> Vec<Utf8Bytes> {
        let Some(answers) = &mut self.answers else {
            self.tap.offer(text, Vec::new());
            return Vec::new();
        };
        let (asks, mut refused) = answers.see(text, last);
        refused.extend(answers.not_taken(self.tap.offer(text, asks)));
        refused
    }

    fn all_answered(&self) -> bool {
        self.answers.as_ref().is_none_or(Answers::are_complete)
    }

    /// The frame of an answer whose turn still waits for it.
    fn take(&mut self, reply: TurnReply) -> Option<Utf8Bytes> {
        self.answers.as_mut()?.take(reply)
    }

    /// Reads the vendor's remaining frames after the client left. The vendor's `Termination` ends the stream only if
    /// the client asked for it: a client whose connection was lost may return to its call.
    async fn last_words<U>(&mut self, upstream: &mut ReadHalf<U>, terminated: bool)
    where
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let listen = async {
            while let Ok(message) = upstream.recv().await {
                match message {
                    Incoming::Text(text) => {
                        let last = is_termination(&text);
                        if !last || terminated {
                            self.tap.offer(&text, Vec::new());
                        }
                        if last {
                            return;
                        }
                    }
                    Incoming::Closed { .. } => return,
                    _ => {}
                }
            }
        };
        // Later frames are not waited for.
        let _ = timeout(LAST_WORDS, listen).await;
    }
}

/// Waits for the next answer; never ends if the client asks no question.
async fn next_reply(answers: &mut Option<Answers>) -> TurnReply {
    match answers {
        Some(answers) => answers.next().await,
        None => std::future::pending().await,
    }
}

/// The number of the turn that a frame is about.
fn turn_order(text: &str) -> Option<i64> {
    if !text.contains(r#""Turn""#) {
        return None;
    }
    frames::events(text).iter().find_map(|event| match event {
        SttEvent::Final(turn) => frames::order(&turn.key),
        SttEvent::Partial { key, .. } => frames::order(key),
        _ => None,
    })
}

fn is_termination(text: &str) -> bool {
    // The search is cheap, and only a frame that contains the word is parsed.
    text.contains(r#""Termination""#) && frames::events(text).iter().any(|event| matches!(event, SttEvent::End { .. }))
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::super::tap::{Drawn, Tapped, tap};
    use super::*;
    use crate::base::queue::QueueMetrics;
    use crate::base::ws::pair;

    fn relay(bounds: Bounds) -> (Relay, Drawn) {
        let (tap, drawn) = tap(&Arc::new(QueueMetrics::register(&mut Registry::default()).queue("tap")));
        let relay = Relay {
            tap,
            answers: None,
            injections: mpsc::channel(1).1,
            newest: None,
            bounds,
            patience: Duration::from_secs(10),
            kill: CancellationToken::new(),
            metrics: Metrics::default(),
        };
        (relay, drawn)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_loses_its_session_with_its_key_at_once() {
        let ([client_end, client], [mut vendor, vendor_end]) = (pair().await, pair().await);
        let revoked = CancellationToken::new();
        let (relay, _drawn) = relay(Bounds { revoked: revoked.clone(), ..Bounds::default() });
        let session = tokio::spawn(relay.run(client_end, vendor_end));
        let turn = format!(r#"{{"type":"Turn","turn_order":0,"transcript":"{}"}}"#, "x".repeat(20_000));
        vendor.send([Utf8Bytes::from(turn)]).await.expect("sent");
        // The paused clock advances once no task can run: the relay waits for a client that reads nothing.
        tokio::time::sleep(Duration::from_secs(1)).await;
        revoked.cancel();
        assert_eq!(vendor.recv().await.expect("told"), Incoming::Text(Utf8Bytes::from_static(TERMINATE)));
        drop(vendor);
        let (socket, ended) = session.await.expect("no panic");
        assert!(socket.is_some() && matches!(ended, Ended::Revoked));
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn session_ends_with_its_token_and_keeps_the_last_turns() {
        let limit = Duration::from_secs(600);
        let ([client_end, mut client], [mut vendor, vendor_end]) = (pair().await, pair().await);
        let (relay, mut drawn) = relay(Bounds { limit: Some(limit), ..Bounds::default() });
        let began = Instant::now();
        let session = tokio::spawn(relay.run(client_end, vendor_end));
        let said = [r#"{"type":"Begin","id":"v-1"}"#, r#"{"type":"Turn","turn_order":0}"#].map(Utf8Bytes::from_static);
        vendor.send([said[0].clone()]).await.expect("sent");
        assert_eq!(client.recv().await.expect("relayed"), Incoming::Text(said[0].clone()));
        // Nothing more is sent, and the clock advances: the vendor bills open sockets, so it gets a `Terminate`.
        assert_eq!(vendor.recv().await.expect("told"), Incoming::Text(Utf8Bytes::from_static(TERMINATE)));
        assert_eq!(began.elapsed(), limit);
        vendor.send([said[1].clone()]).await.expect("sent");
        drop(vendor);
        let (socket, ended) = session.await.expect("no panic");
        assert!(socket.is_some() && matches!(ended, Ended::Expired));
        for expected in &said {
            assert!(matches!(drawn.next().await, Tapped::Frame(frame, _) if frame == *expected), "{expected}");
        }
    }
}
