//! A stream's way to its session, for those who cannot ask their producer to send again: the proxy's tap and the sources
//! that we dial. Frames are kept until the session covers them; where a session is lost, they go to the next one.
//!
//! Knows no socket.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use tokio::sync::oneshot;

use super::pump::Pump;
use super::record::{Recorder, Track};
use crate::base::queue::Sender;
use crate::base::ws::Utf8Bytes;
use crate::protocol::{CloseCode, ErrorCode};
use crate::session::command::{Attach, Attached, Command, Detach, Frames, Gap, Outlet, Welcome};
use crate::session::{SessionError, Sessions};
use crate::stt::{self, Dialect, Fit};
use crate::types::id::{self, MAX_ID_BYTES};
use crate::types::{CallId, JsonMap, Seq, StreamId, SttEvent};

/// How often the same frames are taken to a new session before they are given up.
const TRIES: u32 = 5;

/// What feeds count.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    /// Frames taken to the pipeline.
    pub(super) frames: Counter<u64, AtomicU64>,
    /// Frames that the pipeline could not read.
    pub(super) garbled: Counter<u64, AtomicU64>,
    /// Connections of which nothing was understood.
    pub(super) not_understood: Counter<u64, AtomicU64>,
    /// Streams for which no call could be had.
    pub(super) refused: Counter<u64, AtomicU64>,
}

/// What a feed is told of its stream.
pub(super) struct Stream {
    /// Its name.
    pub(super) stream: StreamId,
    /// Its wire format.
    pub(super) dialect: &'static dyn Dialect,
    /// Its call; `None`: named after the vendor's session.
    pub(super) call: Option<CallId>,
    /// Merged into the call's.
    pub(super) meta: JsonMap,
    /// Analyses that the call is to run; `None`: as any call.
    pub(super) analyses: Option<Vec<String>>,
    /// Route to variant, for the call's jobs.
    pub(super) variants: BTreeMap<String, String>,
}

struct Attachment {
    commands: Sender<Command>,
    outlet: Arc<Outlet>,
    welcome: Welcome,
}

/// One stream being fed.
pub(super) struct Feed {
    like: Stream,
    pump: Pump,
    attached: Option<Attachment>,
    /// Frames that the session has not covered yet, oldest first; the number of each on this connection, once sent.
    unacked: VecDeque<(u64, Utf8Bytes)>,
    /// How many of them have been sent on this connection.
    sent: usize,
    /// There is no call for this stream: what still comes is dropped.
    refused: bool,
    recorder: Recorder,
    track: Option<Track>,
    sessions: Sessions,
    counters: Counters,
}

impl Feed {
    /// A feed that attaches with its first speech.
    pub(super) fn new(like: Stream, sessions: Sessions, recorder: Recorder, counters: Counters) -> Self {
        Self {
            pump: Pump::new(like.dialect, &Arc::default()),
            like,
            attached: None,
            unacked: VecDeque::new(),
            sent: 0,
            refused: false,
            recorder,
            track: None,
            sessions,
            counters,
        }
    }

    /// The dialect that is asked for.
    pub(super) fn dialect(&self) -> &'static dyn Dialect {
        self.like.dialect
    }

    /// The call, and the position after which its events are new, while attached.
    pub(super) fn call(&self) -> Option<(CallId, Seq)> {
        Some((self.like.call.clone()?, self.attached.as_ref()?.welcome.seq))
    }

    /// Waits for something from the session, and notes it. Never ends while there is no session.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn listen(&mut self) {
        let Some(attached) = &self.attached else { return std::future::pending().await };
        let outbound = attached.outlet.next().await;
        for complaint in &outbound.complaints {
            self.counters.garbled.inc();
            tracing::debug!(code = complaint.code.as_str(), "a frame was refused");
        }
        if let Some(ack) = outbound.ack {
            while self.sent > 0 && self.unacked.front().is_some_and(|(count, _)| *count <= ack.frames) {
                self.unacked.pop_front();
                self.sent -= 1;
            }
        }
        if let Some(goodbye) = outbound.goodbye {
            // The call is over, or another connection has the stream: what still comes asks anew. Over a limit, it would
            // meet that again.
            self.attached = None;
            self.refused |= goodbye.code == CloseCode::RateLimited;
        }
    }

    /// Takes the next frame to the session; waits for it as long as need be. Says whether the dialect knew it.
    pub(super) async fn frame(&mut self, text: Utf8Bytes) -> Fit {
        self.counters.frames.inc();
        if self.refused {
            return Fit::Neutral;
        }
        if self.attached.is_none() {
            let (begins, fit) = self.begins(&text);
            if !begins {
                return fit;
            }
        }
        // The first frame is recorded once it is known which call the stream feeds: that may be one that continues another.
        let first = self.track.is_none().then(|| text.clone());
        if first.is_none() {
            self.record(&text);
        }
        self.unacked.push_back((0, text));
        self.take().await;
        if let Some(first) = first {
            self.record(&first);
        }
        self.pump.fit
    }

    /// Takes what has not been taken yet to the session.
    async fn take(&mut self) {
        for _ in 0..TRIES {
            if self.attached.is_none() && !self.attach().await {
                (self.refused, self.sent) = (true, 0);
                self.unacked.clear();
                self.counters.refused.inc();
                return;
            }
            if self.send().await {
                return;
            }
            self.attached = None;
            tracing::warn!(call = ?self.like.call, "a fed call's session was lost; taking it up again");
        }
        tracing::error!(call = ?self.like.call, "a fed call could not be taken up again");
    }

    /// Tells the session of a stretch that was lost.
    pub(super) async fn gap(&mut self, cause: &'static str, from_ms: u64, to_ms: u64) {
        if let Some(attached) = &self.attached {
            let gap = Gap { stream: self.like.stream.clone(), cause, from_ms, to_ms };
            // A session that is gone is found out by the next frame.
            let _ = attached.commands.send(Command::Gap(Box::new(gap))).await;
        }
    }

    /// The connection is gone; the stream has ended only if its last frames said so.
    pub(super) async fn detach(self) {
        if let Some(attached) = self.attached {
            let gone = Detach { connection: attached.welcome.connection, stream: self.like.stream };
            let _ = attached.commands.send(Command::Detach(Box::new(gone))).await;
        }
    }

    fn record(&mut self, text: &Utf8Bytes) {
        if self.track.is_none()
            && let Some(call) = &self.like.call
        {
            self.track = self.recorder.track(call, &self.like.stream, self.like.dialect.name());
        }
        if let Some(track) = &self.track {
            track.frame(text);
        }
    }

    /// Whether a stream without a session can start one with this frame. `Begin` names the call that has no name.
    fn begins(&mut self, text: &Utf8Bytes) -> (bool, Fit) {
        let mut events = Vec::new();
        let mut decoder = self.like.dialect.open();
        let result = decoder.decode(text, &mut events);
        let fit = Fit::of(&result, &events, decoder.holding());
        // Dialects that hold their finals say nothing with their first one.
        let mut speech = decoder.holding();
        decoder.finish(&mut events);
        for event in &events {
            match event {
                SttEvent::Begin { vendor_session: Some(session) } if self.like.call.is_none() => {
                    self.like.call = CallId::parse(&id::sanitize(session)).ok();
                    speech = true;
                }
                SttEvent::VendorError { .. }
                | SttEvent::Unknown { .. }
                | SttEvent::Dialect { .. }
                | SttEvent::End { .. } => {}
                _ => speech = true,
            }
        }
        if speech && self.like.call.is_none() {
            self.like.call = Some(CallId::mint());
        }
        (speech, fit)
    }

    /// Sends what has not been sent on this connection; `false` where the session is gone.
    async fn send(&mut self) -> bool {
        let Some(attached) = &self.attached else { return false };
        while let Some((number, text)) = self.unacked.get_mut(self.sent) {
            let (events, complaint) = self.pump.feed(text);
            *number = self.pump.count;
            self.sent += 1;
            if let Some(complaint) = complaint {
                self.counters.garbled.inc();
                tracing::debug!(code = complaint.code.as_str(), "a frame is left out");
            }
            let frames = Frames {
                connection: attached.welcome.connection,
                stream: self.like.stream.clone(),
                count: self.pump.count,
                carry: Arc::clone(&self.pump.carry),
                events,
                lease: None,
            };
            if attached.commands.send(Command::Frames(Box::new(frames))).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Attaches to the call, or to what continues it; `false` where that is not to be had.
    async fn attach(&mut self) -> bool {
        let Some(mut call) = self.like.call.clone() else { return false };
        let mut meta = self.like.meta.clone();
        loop {
            let outlet = Arc::new(Outlet::default());
            let Stream { stream, dialect, analyses, variants, .. } = &self.like;
            let like = Like { stream: stream.clone(), dialect: *dialect, analyses: analyses.as_deref(), variants };
            match attach(&self.sessions, &call, like, &meta, &outlet).await {
                Ok((commands, Attached::Welcome(welcome))) => {
                    for complaint in &welcome.complaints {
                        tracing::warn!(%call, message = complaint.message, "a part of a stream's request was ignored");
                    }
                    self.like.call = Some(call);
                    // A connection counts from one; what is sent again begins where the one before was covered.
                    let dialect = stt::dialect(welcome.dialect).unwrap_or(self.like.dialect);
                    (self.pump, self.sent) = (Pump::new(dialect, &welcome.carry), 0);
                    self.attached = Some(Attachment { commands, outlet, welcome });
                    return true;
                }
                // The call is over: this is another one, which says what it continues.
                Ok((_, Attached::Completed(_) | Attached::Refused { code: ErrorCode::CallCompleted, .. })) => {
                    meta.insert("continues".to_owned(), json!(self.like.call));
                    call = successor(&call);
                }
                Ok((_, Attached::Refused { message, .. })) => {
                    tracing::warn!(%call, message, "a stream goes on without its call");
                    return false;
                }
                Err(error) => {
                    tracing::warn!(%call, %error, "a stream goes on without its call");
                    return false;
                }
            }
        }
    }
}

/// What every attempt to attach has in common.
pub(super) struct Like<'a> {
    pub(super) stream: StreamId,
    pub(super) dialect: &'static dyn Dialect,
    pub(super) analyses: Option<&'a [String]>,
    pub(super) variants: &'a BTreeMap<String, String>,
}

/// Attaches a connection to a call, which is made where it is not known.
pub(super) async fn attach(
    sessions: &Sessions,
    call: &CallId,
    like: Like<'_>,
    meta: &JsonMap,
    outlet: &Arc<Outlet>,
) -> Result<(Sender<Command>, Attached), SessionError> {
    for _ in 0..TRIES {
        let (reply, answer) = oneshot::channel();
        let attach = Attach {
            stream: like.stream.clone(),
            dialect: like.dialect,
            offset_ms: None,
            meta: meta.clone(),
            analyses: like.analyses.map(<[String]>::to_vec),
            variants: like.variants.clone(),
            outlet: Arc::clone(outlet),
            reply,
        };
        let commands = sessions.tell(call, true, Command::Attach(Box::new(attach))).await?;
        // An answer that never comes means that the session was just leaving: ask again.
        if let Ok(attached) = answer.await {
            return Ok((commands, attached));
        }
    }
    Err(SessionError::Failed(call.clone()))
}

/// `ID~2` after `ID`, `ID~3` after `ID~2`.
fn successor(call: &CallId) -> CallId {
    let text = call.as_str();
    let (stem, number) = text
        .rsplit_once('~')
        .and_then(|(stem, number)| Some((stem, number.parse::<u32>().ok()?)))
        .filter(|(stem, _)| !stem.is_empty())
        .unwrap_or((text, 1));
    let suffix = format!("~{}", number.saturating_add(1));
    let stem: String = stem.chars().take(MAX_ID_BYTES - suffix.len()).collect();
    CallId::parse(&format!("{stem}{suffix}")).unwrap_or_else(|_| CallId::mint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_continue_by_number() {
        let next = |call: &str| successor(&CallId::parse(call).expect("id")).to_string();
        assert_eq!(next("c_1"), "c_1~2");
        assert_eq!(next("c_1~2"), "c_1~3");
        assert_eq!(next("a~b"), "a~b~2");
        assert_eq!(next(&"x".repeat(128)), format!("{}~2", "x".repeat(126)));
    }
}
