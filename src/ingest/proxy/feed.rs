//! From the tap to the session: attaches to the call, decodes, and takes the call up again where its session was lost.
//!
//! May wait for the session as long as it likes: nothing waits for it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::{oneshot, watch};

use super::super::pump::Pump;
use super::Deps;
use super::query::Sidetone;
use super::tap::{Drawn, Tapped};
use crate::base::queue::Sender;
use crate::base::ws::Utf8Bytes;
use crate::session::command::{Attach, Attached, Command, Frames, Outlet, Welcome};
use crate::session::{SessionError, Sessions};
use crate::stt;
use crate::types::id::{self, MAX_ID_BYTES};
use crate::types::{CallId, JsonMap, Seq, StreamId, SttEvent};

/// How often the same frames are taken to a new session before they are given up.
const TRIES: u32 = 5;

/// The call that a stream feeds, once it is known, and the position from which its events are new.
pub(super) type Found = Option<(CallId, Seq)>;

/// Feeds one stream from the tap until that is over.
pub(super) async fn run(mut drawn: Drawn, sidetone: Sidetone, found: watch::Sender<Found>, deps: Deps) {
    let Some(dialect) = stt::dialect("assemblyai") else { return };
    let mut feed = Feed {
        stream: sidetone.stream_id.clone().unwrap_or_else(StreamId::mint),
        call: sidetone.call_id.clone(),
        pump: Pump::new(dialect),
        dialect,
        attached: None,
        unacked: VecDeque::new(),
        sent: 0,
        refused: false,
        sidetone,
        found,
        deps,
    };
    loop {
        let acks = feed.attached.as_ref().map(|attached| Arc::clone(&attached.outlet));
        let tapped = tokio::select! {
            tapped = drawn.next() => tapped,
            outbound = async {
                match &acks {
                    Some(outlet) => outlet.next().await,
                    None => std::future::pending().await,
                }
            } => {
                if let Some(ack) = outbound.ack {
                    feed.acked(ack.frames);
                }
                if outbound.goodbye.is_some() {
                    // The call is over, or another connection has the stream: what still comes asks anew.
                    feed.attached = None;
                }
                continue;
            }
        };
        match tapped {
            Tapped::Frame(text) => feed.frame(text).await,
            Tapped::Hole(hole) => {
                feed.deps.metrics.overruns.inc();
                if let Some(attached) = &feed.attached {
                    let (from_ms, to_ms) = (hole.from_ms, hole.to_ms);
                    let gap = Command::Gap { stream: feed.stream.clone(), cause: "tap_overrun", from_ms, to_ms };
                    // A session that is gone is found out by the next frame.
                    let _ = attached.commands.send(gap).await;
                }
            }
            Tapped::Over => break,
        }
    }
    if let Some(attached) = feed.attached {
        let gone = Command::Detach { connection: attached.welcome.connection, stream: feed.stream };
        let _ = attached.commands.send(gone).await;
    }
}

struct Attachment {
    commands: Sender<Command>,
    outlet: Arc<Outlet>,
    welcome: Welcome,
}

struct Feed {
    stream: StreamId,
    call: Option<CallId>,
    dialect: &'static dyn stt::Dialect,
    pump: Pump,
    attached: Option<Attachment>,
    /// Frames that the session has not covered yet, oldest first; the number of each on this connection, once sent.
    unacked: VecDeque<(u64, Utf8Bytes)>,
    /// How many of them have been sent on this connection.
    sent: usize,
    /// There is no call for this stream: what still comes is dropped.
    refused: bool,
    sidetone: Sidetone,
    found: watch::Sender<Found>,
    deps: Deps,
}

impl Feed {
    fn acked(&mut self, frames: u64) {
        while self.sent > 0 && self.unacked.front().is_some_and(|(count, _)| *count <= frames) {
            self.unacked.pop_front();
            self.sent -= 1;
        }
    }

    async fn frame(&mut self, text: Utf8Bytes) {
        self.deps.metrics.frames.inc();
        if self.refused || (self.attached.is_none() && !self.begins(&text)) {
            return;
        }
        self.unacked.push_back((0, text));
        for _ in 0..TRIES {
            if self.attached.is_none() && !self.attach().await {
                (self.refused, self.sent) = (true, 0);
                self.unacked.clear();
                self.deps.metrics.refused.inc();
                return;
            }
            if self.send().await {
                return;
            }
            self.attached = None;
            tracing::warn!(call = ?self.call, "a tapped call's session was lost; taking it up again");
        }
        tracing::error!(call = ?self.call, "a tapped call could not be taken up again");
    }

    /// Whether a stream without a call can start one with this frame. `Begin` names the call that has no other name.
    fn begins(&mut self, text: &Utf8Bytes) -> bool {
        let mut events = Vec::new();
        if self.dialect.open().decode(text, &mut events).is_err() {
            return false;
        }
        for event in &events {
            if let (SttEvent::Begin { vendor_session: Some(session) }, None) = (event, &self.call) {
                self.call = CallId::parse(&id::sanitize(session)).ok();
            }
        }
        let speech = events.iter().any(|event| {
            matches!(
                event,
                SttEvent::Begin { .. } | SttEvent::Final(_) | SttEvent::Partial { .. } | SttEvent::Revise(_)
            )
        });
        speech && self.call.is_some()
    }

    /// Sends what has not been sent on this connection; `false` where the session is gone.
    async fn send(&mut self) -> bool {
        let Some(attached) = &self.attached else { return false };
        while let Some((number, text)) = self.unacked.get_mut(self.sent) {
            let (events, complaint) = self.pump.feed(text);
            *number = self.pump.count;
            self.sent += 1;
            if let Some(complaint) = complaint {
                self.deps.metrics.garbled.inc();
                tracing::debug!(code = complaint.code, "a tapped frame is left out");
            }
            let frames = Frames {
                connection: attached.welcome.connection,
                stream: self.stream.clone(),
                count: self.pump.count,
                covered: self.pump.covered,
                events,
            };
            if attached.commands.send(Command::Frames(Box::new(frames))).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Attaches to the call, or to what continues it; `false` where that is not to be had.
    async fn attach(&mut self) -> bool {
        let Some(mut call) = self.call.clone() else { return false };
        let mut meta = self.sidetone.meta.clone();
        loop {
            let outlet = Arc::new(Outlet::default());
            let like =
                Like { stream: self.stream.clone(), dialect: self.dialect, analyses: self.sidetone.analyses.clone() };
            match attach(&self.deps.sessions, &call, like, &meta, &outlet).await {
                Ok((commands, Attached::Welcome(welcome))) => {
                    self.found.send_replace(Some((call.clone(), welcome.seq)));
                    self.call = Some(call);
                    self.attached = Some(Attachment { commands, outlet, welcome });
                    // A connection counts from one, with a decoder of its own.
                    (self.pump, self.sent) = (Pump::new(self.dialect), 0);
                    return true;
                }
                // The call is over: this is another one, which says what it continues.
                Ok((_, Attached::Completed(_) | Attached::Refused { code: "call_completed", .. })) => {
                    meta.insert("continues".to_owned(), json!(self.call));
                    call = successor(&call);
                }
                Ok((_, Attached::Refused { message, .. })) => {
                    tracing::warn!(%call, message, "a proxied stream is relayed without its call");
                    return false;
                }
                Err(error) => {
                    tracing::warn!(%call, %error, "a proxied stream is relayed without its call");
                    return false;
                }
            }
        }
    }
}

/// What every attempt to attach has in common.
struct Like {
    stream: StreamId,
    dialect: &'static dyn stt::Dialect,
    analyses: Vec<String>,
}

async fn attach(
    sessions: &Sessions,
    call: &CallId,
    like: Like,
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
            analyses: like.analyses.clone(),
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
