//! Feeds a stream to its session when the producer cannot be asked to send again: for the proxy's tap and for sources.
//! Frames are kept until the session has made them durable; if a session is lost, they are sent to the next one.
//!
//! Knows no socket.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use serde_json::json;

use super::attachment::{Attachment, NotAttached, Wanted};
use super::record::{Recorder, Track};
use super::unacked::Unacked;
use crate::analysis::Spoken;
use crate::base::ws::Utf8Bytes;
use crate::protocol::{CloseCode, ErrorCode, FailureCode, GapCause};
use crate::session::Sessions;
use crate::session::command::{Asking, Failed, Frames, TurnReply};
use crate::stt::{Dialect, Fit};
use crate::types::id::{self, MAX_ID_BYTES};
use crate::types::{CallId, JsonMap, Seq, StreamId, SttEvent};

/// Number of sessions to which the same frames are sent before they are given up.
const TRIES: u32 = 5;

/// Counters of feeds.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    /// Frames sent to sessions.
    pub(super) frames: Counter<u64, AtomicU64>,
    /// Frames that could not be decoded.
    pub(super) garbled: Counter<u64, AtomicU64>,
    /// Connections of which no frame was understood.
    pub(super) not_understood: Counter<u64, AtomicU64>,
    /// Streams for which no call could be opened.
    pub(super) refused: Counter<u64, AtomicU64>,
}

/// Describes the stream that is fed.
pub(super) struct Stream {
    pub(super) stream: StreamId,
    /// The stream's wire format.
    pub(super) dialect: &'static dyn Dialect,
    /// The stream's call; if `None`, the call is named after the vendor's session.
    pub(super) call: Option<CallId>,
    /// Metadata that is merged into the call's.
    pub(super) meta: JsonMap,
    /// Analyses that the call runs; `None` for the configured default.
    pub(super) analyses: Option<Vec<String>>,
    /// Chosen variants for the call's jobs, by route.
    pub(super) variants: BTreeMap<String, String>,
    /// The question that the producer asks about each of its turns.
    pub(super) asking: Option<Asking>,
}

/// Feeds one stream.
pub(super) struct Feed {
    like: Stream,
    attached: Option<Attachment>,
    unacked: Unacked,
    /// How well the newest frame fits the dialect.
    fit: Fit,
    /// Set if no call can be opened for this stream; the reason. All further frames are dropped.
    refused: Option<String>,
    recorder: Recorder,
    track: Option<Track>,
    sessions: Sessions,
    counters: Counters,
}

impl Feed {
    /// Makes a feed that attaches when the first speech arrives.
    pub(super) fn new(like: Stream, sessions: Sessions, recorder: Recorder, counters: Counters) -> Self {
        Self {
            like,
            attached: None,
            unacked: Unacked::default(),
            fit: Fit::default(),
            refused: None,
            recorder,
            track: None,
            sessions,
            counters,
        }
    }

    /// The dialect that was requested.
    pub(super) fn dialect(&self) -> &'static dyn Dialect {
        self.like.dialect
    }

    /// While attached: the call, and the position after which its events are new.
    pub(super) fn call(&self) -> Option<(CallId, Seq)> {
        Some((self.like.call.clone()?, self.attached.as_ref()?.welcome.seq))
    }

    /// Waits for a message from the session and processes it. Never ends while no session is attached.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn listen(&mut self) {
        let Some(attached) = &self.attached else { return std::future::pending().await };
        let outbound = attached.outlet.next().await;
        for error in &outbound.errors {
            self.counters.garbled.inc();
            tracing::debug!(code = error.code.as_str(), "a frame was refused");
        }
        if let Some(ack) = outbound.ack {
            self.unacked.covered(ack.frames);
        }
        if let Some(close) = outbound.close {
            // The call has ended, or another connection feeds the stream: the next frame attaches again. After a limit
            // was reached, that would only reach the same limit again.
            self.attached = None;
            if close.code == CloseCode::RateLimited {
                self.refused = Some(close.error.map_or_else(String::new, |error| error.message));
            }
            if close.code == CloseCode::Superseded {
                self.unacked.forget_numbers();
            }
        }
    }

    /// Sends the next frame to the session, with the turns in it that are to be answered; waits as long as necessary.
    /// Returns how well the frame fits the dialect.
    pub(super) async fn frame(&mut self, text: Utf8Bytes, asks: Vec<Spoken>) -> Fit {
        self.counters.frames.inc();
        if self.refused.is_some() {
            self.refuse(asks);
            return Fit::Neutral;
        }
        if self.attached.is_none() {
            let (begins, fit) = self.begins(&text);
            if !begins {
                self.refuse(asks);
                return fit;
            }
        }
        // The first frame is recorded only once the call is known that the stream feeds, because that may be a
        // successor of the named call.
        let first = self.track.is_none().then(|| text.clone());
        if first.is_none() {
            self.record(&text);
        }
        self.unacked.push(text, asks);
        self.take().await;
        if let Some(first) = first {
            self.record(&first);
        }
        self.fit
    }

    /// Sends the frames to the session that were not sent yet.
    async fn take(&mut self) {
        for _ in 0..TRIES {
            if self.attached.is_none()
                && let Err(why) = self.attach().await
            {
                self.refused = Some(why);
                let asks = self.unacked.clear();
                self.refuse(asks);
                self.counters.refused.inc();
                return;
            }
            if self.send().await {
                return;
            }
            self.attached = None;
            tracing::warn!(call_id = ?self.like.call, "a stream lost the session of its call; attaching it again");
        }
        tracing::error!(call_id = ?self.like.call, "a stream could not be attached to its call again; its frames are lost");
    }

    /// Answers that no call can answer these turns.
    fn refuse(&self, asks: Vec<Spoken>) {
        let Some(asking) = &self.like.asking else { return };
        for turn in asks {
            let why = self.refused.as_deref().unwrap_or("no call has begun");
            let message = format!("the stream has no call that can answer: {why}");
            let failed = Failed { code: FailureCode::NoCall, message, temporary: true };
            // The asker may be gone.
            let _ = asking.replies.try_send(TurnReply { turn_order: turn.turn_order, result: Err(failed) });
        }
    }

    /// Reports lost speech to the session.
    pub(super) async fn gap(&mut self, cause: GapCause, from_ms: u64, to_ms: u64) {
        if let Some(attached) = &mut self.attached {
            attached.gap(cause, from_ms, to_ms).await;
        }
    }

    /// Detaches after the connection was lost. The stream has ended only if its last frames say so.
    pub(super) async fn detach(self) {
        if let Some(attached) = self.attached {
            let _ = attached.detach().await;
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

    /// Returns true if this frame can start a session for a stream that has none. A `Begin` names the call if it has no
    /// name.
    fn begins(&mut self, text: &Utf8Bytes) -> (bool, Fit) {
        let mut events = Vec::new();
        let mut decoder = self.like.dialect.open();
        let result = decoder.decode(text, &mut events);
        let fit = Fit::of(&result, &events, decoder.holding());
        // Dialects that hold their finals yield no event for the first one.
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
                | SttEvent::SpeechStarted
                | SttEvent::Silence { .. }
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

    /// Sends the frames that were not sent on this connection; returns false if the session is gone.
    async fn send(&mut self) -> bool {
        let Some(attached) = &mut self.attached else { return false };
        while let Some((text, asks)) = self.unacked.next() {
            let (frames, error) = attached.decode(&text, None);
            let frames = Frames { asks, ..frames };
            self.fit = attached.fit();
            self.unacked.sent(frames.count);
            if let Some(error) = error {
                self.counters.garbled.inc();
                tracing::debug!(code = error.code.as_str(), "a frame cannot be decoded and is left out");
            }
            if !attached.send(frames).await {
                return false;
            }
        }
        true
    }

    /// Attaches to the call or to its successor; the error says why that failed.
    async fn attach(&mut self) -> Result<(), String> {
        let Some(mut call) = self.like.call.clone() else { return Err("it has no name".to_owned()) };
        let mut meta = self.like.meta.clone();
        loop {
            let Stream { stream, dialect, analyses, variants, asking, .. } = &self.like;
            let (dialect, analyses, asking) = (*dialect, analyses.as_deref(), asking.as_ref());
            let wanted = Wanted { stream, dialect, offset_ms: None, meta: &meta, analyses, variants, asking };
            match Attachment::attach(&self.sessions, &call, wanted, None).await {
                Ok(attached) if !attached.is_over() => {
                    for error in &attached.welcome.errors {
                        tracing::warn!(%call, message = error.message, "a part of a stream's request was ignored");
                    }
                    self.like.call = Some(call);
                    self.unacked.reconnected(attached.welcome.frames);
                    self.attached = Some(attached);
                    return Ok(());
                }
                // The call has ended: attaches to a new one, which names the call that it continues.
                Ok(_) | Err(NotAttached::Refused { code: ErrorCode::CallCompleted, .. }) => {
                    meta.insert("continues".to_owned(), json!(self.like.call));
                    call = successor(&call);
                }
                Err(NotAttached::Refused { message, .. }) => {
                    tracing::warn!(%call, message, "a stream cannot be attached to its call; its session continues, but its turns are lost");
                    return Err(message);
                }
                Err(NotAttached::Session(error)) => {
                    tracing::warn!(%call, %error, "a stream cannot be attached to its call; its session continues, but its turns are lost");
                    return Err(error.to_string());
                }
            }
        }
    }
}

/// The name of the next call in the chain: `ID~2` after `ID`, `ID~3` after `ID~2`.
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
