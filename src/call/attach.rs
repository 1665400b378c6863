//! How producers connect to a call and leave it: take-overs, the call's first event, `welcome`, `meta`.
//!
//! Does not know the frames that they send once they are connected.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::{Attached, Welcome};
use super::effects::{Reply, Tell};
use super::held::Holding;
use super::input::Attach;
use super::numbers::ConnectionNo;
use super::producers::{Left, Live, Replies};
use super::record::Private;
use super::{Call, fitting, unavailable};
use crate::base::measure;
use crate::protocol::{Close, CloseCode, ErrorCode, ErrorFrame, Event};
use crate::stt;
use crate::types::directory::CallState as State;
use crate::types::{JsonMap, StreamId};

/// Limit for the insights in a `welcome` as JSON, bytes. It leaves room for its other members in a frame of 1 MiB.
const WELCOME_INSIGHT_BYTES: usize = 900 * 1024;

impl Call {
    pub(super) fn attach(&mut self, mut attach: Attach) {
        attach.stream = self.log.root(&attach.stream);
        if let Some(older) = self.producers.live.get(&attach.stream) {
            // The newer connection wins, but only after the frames that the older one has read are applied: it waits
            // until the older one is gone.
            let error = ErrorFrame::new(ErrorCode::Superseded, "another connection has taken over this stream").fatal();
            let close = Close::after(error, CloseCode::Superseded, "superseded");
            self.effects.tells.push(Tell::Close(older.peer, close));
            self.producers.taking_over.push(attach);
            return;
        }
        if !self.is_open() || self.ending() {
            return self.attach_late(&attach);
        }
        if let Some(refused) = self.one_too_many(&attach.stream) {
            self.outbox.replies.push(Reply::Attached(attach.peer, refused));
            return;
        }
        let previous = self.previous(&attach.stream);
        let connection = self.directory.connect(&attach.stream);
        let error = self.open_call(&attach.meta, attach.analyses, attach.variants);
        let current = self.log.newest_of(&attach.stream);
        let acked = self.log.turns.acked(&current);
        let began = self.log.stream(&current).map(|stream| stream.dialect_name.as_str());
        let dialect = stt::resumed(attach.dialect, began);
        if self.health.told {
            self.effects.tells.push(Tell::Error(attach.peer, unavailable()));
        }
        let suppress = match &previous {
            Some(left) if !dialect.names_turns() => left.effect.saturating_sub(left.covered),
            _ => 0,
        };
        let carry = previous.as_ref().map(|left| Arc::clone(&left.carry)).unwrap_or_default();
        self.note_connection();
        self.producers.left.remove(&attach.stream);
        self.producers.live.insert(
            attach.stream,
            Live {
                connection,
                peer: attach.peer,
                count: 0,
                covered: 0,
                acked: 0,
                holding: Holding::resume(Arc::clone(&carry)),
                effect: 0,
                suppress,
                offset_ms: attach.offset_ms,
                dialect,
                current,
                begun: false,
                refused: false,
                session: None,
                replies: attach.question.map(Replies::new),
            },
        );
        self.life.unattended_since = None;
        self.life.heard_ms = self.now.ms;
        self.note_ends();
        let frames = previous.map(|left| left.covered);
        let welcome = self.welcome(connection, dialect.name(), acked, frames);
        let welcome = Welcome { carry, errors: error.into_iter().collect(), ..welcome };
        self.outbox.replies.push(Reply::Attached(attach.peer, Attached::Welcome(welcome)));
    }

    /// The answer to a producer whose stream would exceed the limit on streams per call.
    fn one_too_many(&self, stream: &StreamId) -> Option<Attached> {
        let known = self.directory.newest(stream).is_some() || self.log.stream(stream).is_some();
        let room = self.directory.streams() < self.settings.limits.streams_per_call && self.has_stream_room();
        (!known && !room).then(|| Attached::Refused {
            code: ErrorCode::TooManyStreams,
            message: self.streams_message(stream),
            close: CloseCode::RateLimited,
        })
    }

    /// Returns true if one more stream may begin.
    pub(super) fn has_stream_room(&self) -> bool {
        self.log.streams.len() < self.settings.limits.streams_per_call
    }

    fn streams_message(&self, stream: &StreamId) -> String {
        format!(
            "call {} has the maximum number of streams, {} (limits.streams_per_call): {stream} is refused",
            self.log.call_id, self.settings.limits.streams_per_call
        )
    }

    /// Ends the connection of a producer behind which another vendor session began, because that would be one stream
    /// too many.
    pub(super) fn refuse_stream(&mut self, root: &StreamId) {
        let message = self.streams_message(root);
        if let Some(live) = self.producers.live.get_mut(root) {
            live.refused = true;
            let error = ErrorFrame::new(ErrorCode::TooManyStreams, message).fatal();
            let close = Close::after(error, CloseCode::RateLimited, ErrorCode::TooManyStreams.as_str());
            self.effects.tells.push(Tell::Close(live.peer, close));
        }
    }

    /// Answers a connection to a call that has ended or is ending.
    fn attach_late(&mut self, attach: &Attach) {
        let answer = if self.log.status == State::Failed {
            Attached::Refused {
                code: ErrorCode::CallFailed,
                message: "the call has failed; see the daemon's log".into(),
                close: CloseCode::Internal,
            }
        } else if self.log.stream(&attach.stream).is_some() {
            let previous = self.previous(&attach.stream);
            let acked = self.log.turns.acked(&self.log.newest_of(&attach.stream));
            Attached::Completed(self.welcome(0, attach.dialect.name(), acked, previous.map(|left| left.covered)))
        } else {
            Attached::Refused {
                code: ErrorCode::CallCompleted,
                message: format!("call {} is completed and takes no new stream; use another call_id", self.log.call_id),
                close: CloseCode::CallCompleted,
            }
        };
        self.outbox.replies.push(Reply::Attached(attach.peer, answer));
    }

    fn welcome(
        &self,
        connection: ConnectionNo,
        dialect: &'static str,
        acked: Option<u64>,
        frames: Option<u64>,
    ) -> Welcome {
        let shown = fitting::within(self.log.insights(), WELCOME_INSIGHT_BYTES);
        Welcome {
            epoch: self.directory.epoch.clone(),
            connection,
            acked,
            dialect,
            frames,
            carry: Arc::default(),
            insights: shown.insights,
            insights_omitted: shown.omitted,
            errors: Vec::new(),
            seq: self.log.head,
        }
    }

    /// The position of the previous connection of `stream`, from memory or from its records.
    fn previous(&self, stream: &StreamId) -> Option<Left> {
        if let Some(left) = self.producers.left.get(stream) {
            return Some(left.clone());
        }
        let connection = self.directory.newest(stream)?;
        let mark = self.directory.mark(&self.log, stream);
        if let Some(mark) = mark.filter(|mark| mark.connection == connection) {
            return Some(Left { covered: mark.covered, effect: mark.frame, carry: Arc::clone(&mark.carry) });
        }
        // A connection without a record had the decoder state that the one before had left.
        Some(Left { covered: 0, effect: 0, carry: mark.map(|mark| Arc::clone(&mark.carry)).unwrap_or_default() })
    }

    /// Emits the call's first event, or an update with what a further producer adds. Returns an error for the producer if
    /// its `meta` exceeds the limit and was ignored.
    fn open_call(
        &mut self,
        meta: &JsonMap,
        analyses: Option<Vec<String>>,
        mut variants: BTreeMap<String, String>,
    ) -> Option<ErrorFrame> {
        let (meta, error) = match self.merged(meta) {
            Ok(merged) => (merged, None),
            Err(message) => {
                let message = format!("meta: {message}; the metadata of this connection is ignored");
                (self.log.meta.clone(), Some(ErrorFrame::new(ErrorCode::BadParameter, message)))
            }
        };
        if self.log.head == 0 {
            let names = analyses.unwrap_or_else(|| self.settings.default_analyses.clone());
            let epoch = self.random_suffix();
            self.directory.epoch.clone_from(&epoch);
            let event = Event::CallStarted { epoch, meta };
            self.emit(&event, &Private { analyses: names, variants, ..Private::default() });
            self.plan_analyses();
            return error;
        }
        variants.retain(|route, _| !self.log.variants.contains_key(route));
        let mut added = analyses.unwrap_or_default();
        added.retain(|name| !self.log.analyses.contains(name));
        self.update(meta, added, variants);
        error
    }

    /// Replaces `meta`. Emits an event only if it changed or analyses or variants were added.
    fn update(&mut self, meta: JsonMap, analyses: Vec<String>, variants: BTreeMap<String, String>) {
        if meta == self.log.meta && analyses.is_empty() && variants.is_empty() {
            return;
        }
        self.directory.changed = true;
        self.emit(&Event::CallUpdated { meta }, &Private { analyses, variants, ..Private::default() });
        self.plan_analyses();
    }

    /// Merges metadata that a producer's frame gives.
    pub(super) fn meta(&mut self, stream: &StreamId, meta: &JsonMap) {
        match self.merged(meta) {
            Ok(merged) => self.update(merged, Vec::new(), BTreeMap::new()),
            Err(message) => self.report_error(stream, ErrorCode::BadField, format!("meta.meta: {message}")),
        }
    }

    /// Merges `meta` into a copy of the call's.
    ///
    /// # Errors
    /// The result exceeds `limits.meta_bytes`.
    fn merged(&self, meta: &JsonMap) -> Result<JsonMap, String> {
        let mut merged = self.log.meta.clone();
        if meta.is_empty() {
            return Ok(merged);
        }
        merged.extend(meta.iter().map(|(key, value)| (key.clone(), value.clone())));
        let (bytes, limit) = (measure::value(&merged), self.settings.limits.meta_bytes);
        if bytes > limit {
            return Err(format!(
                "the call's meta would be {bytes} bytes, over the limit of {limit} (limits.meta_bytes)"
            ));
        }
        Ok(merged)
    }

    pub(super) fn detach(&mut self, connection: ConnectionNo, stream: &StreamId) {
        let root = self.log.root(stream);
        if self.producers.live.get(&root).is_none_or(|live| live.connection != connection) {
            return;
        }
        // Its decoder ended with the connection.
        self.let_out_of(&root, u64::MAX);
        if let Some(live) = self.producers.live.remove(&root) {
            let effect = live.effect.max(live.suppress);
            let left = Left { covered: live.covered, effect, carry: Arc::clone(live.holding.carry(false)) };
            self.producers.left.insert(root.clone(), left);
            self.outbox.replies.push(Reply::Gone(live.peer));
            self.drop_replies(connection);
        }
        if self.producers.live.is_empty() {
            self.life.unattended_since = Some(self.now.ms);
        }
        self.note_ends();
        if let Some(position) = self.producers.taking_over.iter().position(|attach| attach.stream == root) {
            let attach = self.producers.taking_over.remove(position);
            self.attach(attach);
        }
    }
}
