//! What producers do to a call: connect, speak, correct, end, leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::bounds;
use super::command::{Ack, Attach, Attached, Complaint, ConnectionNo, Frames, Goodbye, RATE_LIMITED, Welcome};
use super::fitting;
use super::held::Holding;
use super::record::{Mark, Private};
use super::task::{Effect, Left, Live, Task};
use crate::base::measure;
use crate::hub::{LiveFrame, LiveKind};
use crate::journal::CallState as State;
use crate::stt;
use crate::turns::{Change, ChangeKind, TurnError};
use crate::types::{Event, JsonMap, StreamId, SttEvent, TurnKey, id};

/// Partials and other frames without effect are acknowledged in passing, at the latest after this many.
const QUIET_FRAMES: u64 = 64;

/// Longest code or message of a vendor error in the log, bytes.
const VENDOR_ERROR_BYTES: usize = 500;
/// Limit for the insights in a `welcome` as JSON, bytes. Leaves room for its other members in a frame of 1 MiB.
const WELCOME_INSIGHT_BYTES: usize = 900 * 1024;

/// Close code for a call that takes nothing any more.
const CALL_COMPLETED: u16 = 4410;
/// Close code for a fault of ours.
const INTERNAL: u16 = 4500;
/// Close code for a connection that a newer one replaced.
const SUPERSEDED: u16 = 4409;
/// Error code for a stream over `limits.streams_per_call`.
const TOO_MANY_STREAMS: &str = "too_many_streams";

impl Task {
    pub(super) fn attach(&mut self, mut attach: Attach) {
        attach.stream = self.state.root(&attach.stream);
        if let Some(older) = self.live.get(&attach.stream) {
            // The newer one wins, but only after what the older one has read is applied: it waits for its farewell.
            older.outlet.close(Goodbye {
                complaint: Some(Complaint::new("superseded", "another connection took this stream over").fatal()),
                code: SUPERSEDED,
                reason: "superseded",
            });
            self.taking_over.push(attach);
            return;
        }
        if self.state.status != State::Open || self.state.ending {
            self.attach_late(attach);
            return;
        }
        if let Some(refused) = self.one_too_many(&attach.stream) {
            self.effects.push(Effect::Attached(attach.reply, refused));
            return;
        }
        let previous = self.previous(&attach.stream);
        self.state.connections += 1;
        let connection = self.state.connections;
        self.state.newest_connection.insert(attach.stream.clone(), connection);
        self.entry_changed = true;
        let complaint = self.open_call(&attach.meta, attach.analyses, attach.variants);
        let current = self.state.newest_of(&attach.stream);
        let acked = self.state.turns.acked(&current);
        let began = self.state.stream(&current).map(|stream| stream.dialect_name.as_str());
        let dialect = stt::resumed(attach.dialect, began);
        self.tell_newcomer(&attach.outlet);
        let suppress = match &previous {
            Some(left) if !dialect.names_turns() => left.effect.saturating_sub(left.covered),
            _ => 0,
        };
        let carry = previous.as_ref().map(|left| Arc::clone(&left.carry)).unwrap_or_default();
        self.live.insert(
            attach.stream.clone(),
            Live {
                connection,
                outlet: attach.outlet,
                count: 0,
                covered: 0,
                holding: Holding::resume(Arc::clone(&carry)),
                effect: 0,
                suppress,
                offset_ms: attach.offset_ms,
                dialect,
                current,
                begun: false,
                refused: false,
                session: None,
            },
        );
        self.left.remove(&attach.stream);
        self.unattended_since = None;
        self.heard_ms = self.now();
        self.note_ends();
        let frames = previous.map(|left| left.covered);
        let welcome = self.welcome(connection, dialect.name(), acked, frames);
        let welcome = Welcome { carry, complaints: complaint.into_iter().collect(), ..welcome };
        self.effects.push(Effect::Attached(attach.reply, Attached::Welcome(welcome)));
    }

    /// What a producer is told whose stream would be one more than a call may have.
    fn one_too_many(&self, stream: &StreamId) -> Option<Attached> {
        let known = self.state.newest_connection.contains_key(stream) || self.state.stream(stream).is_some();
        let room = self.state.newest_connection.len() < self.deps.limits.streams_per_call && self.has_stream_room();
        (!known && !room).then(|| Attached::Refused {
            code: TOO_MANY_STREAMS,
            message: self.streams_message(stream),
            close: RATE_LIMITED,
        })
    }

    /// Whether one more stream may begin.
    pub(super) fn has_stream_room(&self) -> bool {
        self.state.streams.len() < self.deps.limits.streams_per_call
    }

    fn streams_message(&self, stream: &StreamId) -> String {
        format!(
            "call {} has as many streams as a call may have, {} (limits.streams_per_call): {stream} is not taken",
            self.state.call_id, self.deps.limits.streams_per_call
        )
    }

    /// Another vendor session behind the producer of `root` would be one stream too many: its connection ends.
    pub(super) fn refuse_stream(&mut self, root: &StreamId) {
        let message = self.streams_message(root);
        if let Some(live) = self.live.get_mut(root) {
            live.refused = true;
            live.outlet.close(Goodbye {
                complaint: Some(Complaint::new(TOO_MANY_STREAMS, message).fatal()),
                code: RATE_LIMITED,
                reason: TOO_MANY_STREAMS,
            });
        }
    }

    /// A connection to a call that is over, or about to be.
    fn attach_late(&mut self, attach: Attach) {
        if self.state.status == State::Failed {
            let refused = Attached::Refused {
                code: "call_failed",
                message: "the call has failed; see the daemon's log".into(),
                close: INTERNAL,
            };
            self.effects.push(Effect::Attached(attach.reply, refused));
            return;
        }
        let answer = if self.state.stream(&attach.stream).is_some() {
            let previous = self.previous(&attach.stream);
            let acked = self.state.turns.acked(&self.state.newest_of(&attach.stream));
            Attached::Completed(self.welcome(0, attach.dialect.name(), acked, previous.map(|left| left.covered)))
        } else {
            Attached::Refused {
                code: "call_completed",
                message: format!(
                    "call {} is completed and takes no new stream; use another call_id",
                    self.state.call_id
                ),
                close: CALL_COMPLETED,
            }
        };
        self.effects.push(Effect::Attached(attach.reply, answer));
    }

    fn welcome(
        &self,
        connection: ConnectionNo,
        dialect: &'static str,
        acked: Option<u64>,
        frames: Option<u64>,
    ) -> Welcome {
        let shown = fitting::within(self.state.insights(), WELCOME_INSIGHT_BYTES);
        Welcome {
            epoch: self.state.epoch.clone(),
            connection,
            acked,
            dialect,
            frames,
            carry: Arc::default(),
            insights: shown.insights,
            insights_omitted: shown.omitted,
            complaints: Vec::new(),
            seq: self.state.head,
        }
    }

    /// Where the previous connection of `stream` was, from memory or from its records.
    fn previous(&self, stream: &StreamId) -> Option<Left> {
        if let Some(left) = self.left.get(stream) {
            return Some(left.clone());
        }
        let connection = *self.state.newest_connection.get(stream)?;
        if let Some(mark) = self.state.marked(stream, connection) {
            return Some(Left { covered: mark.covered, effect: mark.frame, carry: Arc::clone(&mark.carry) });
        }
        // A connection without a record knew what the one before had left.
        let mark = self.state.stream(stream).and_then(|stream| stream.mark.as_ref());
        Some(Left { covered: 0, effect: 0, carry: mark.map(|mark| Arc::clone(&mark.carry)).unwrap_or_default() })
    }

    /// Emits the call's first event, or an update with what a further producer adds. Returns an error for the producer if
    /// its `meta` exceeds the limit and was ignored.
    fn open_call(
        &mut self,
        meta: &JsonMap,
        analyses: Option<Vec<String>>,
        mut variants: BTreeMap<String, String>,
    ) -> Option<Complaint> {
        let (meta, complaint) = match self.merged(meta) {
            Ok(merged) => (merged, None),
            Err(message) => {
                let message = format!("meta: {message}; what this connection gave is left out");
                (self.state.meta.clone(), Some(Complaint::new("bad_parameter", message)))
            }
        };
        if self.state.head == 0 {
            let names = analyses.unwrap_or_else(|| self.deps.default_analyses.clone());
            let event = Event::CallStarted { epoch: id::random_suffix(), meta };
            self.emit(&event, &Private { analyses: names, variants, ..Private::default() });
            self.plan_analyses();
            return complaint;
        }
        variants.retain(|route, _| !self.state.variants.contains_key(route));
        let mut added = analyses.unwrap_or_default();
        added.retain(|name| !self.state.analyses.contains(name));
        self.update(meta, added, variants);
        complaint
    }

    /// Replaces `meta`. Emits an event only if it changed or analyses or variants were added.
    fn update(&mut self, meta: JsonMap, analyses: Vec<String>, variants: BTreeMap<String, String>) {
        if meta == self.state.meta && analyses.is_empty() && variants.is_empty() {
            return;
        }
        self.entry_changed = true;
        self.emit(&Event::CallUpdated { meta }, &Private { analyses, variants, ..Private::default() });
        self.plan_analyses();
    }

    pub(super) fn frames(&mut self, frames: Frames) {
        let now = self.now();
        let root = self.state.root(&frames.stream);
        let Some(live) = self.live.get_mut(&root).filter(|live| live.connection == frames.connection) else {
            return;
        };
        live.count = frames.count;
        let suppressed = frames.count <= live.suppress;
        if live.refused {
            return;
        }
        if self.state.ending || self.state.status != State::Open {
            if !frames.events.is_empty() {
                let message = "the call was ended; this frame was not taken";
                live.outlet.complain(Complaint::new("call_completed", message));
            }
            return;
        }
        live.holding.note(&frames.carry, now);
        let holds = !live.holding.is_empty();
        self.heard_ms = now;
        let before = self.state.head;
        let mut quiet = true;
        // The dialect that was picked holds for what comes next, whether or not this frame had its effect before.
        let again = |event: &&SttEvent| !suppressed || matches!(event, SttEvent::Dialect { .. });
        for event in frames.events.iter().filter(again) {
            let silent = matches!(
                event,
                SttEvent::Partial { .. } | SttEvent::Unknown { .. } | SttEvent::Begin { .. } | SttEvent::Dialect { .. }
            );
            quiet &= silent;
            self.speech(&root, event);
            if matches!(event, SttEvent::Begin { .. } | SttEvent::Restarted)
                && self.live.get(&root).is_none_or(|live| live.refused)
            {
                return;
            }
        }
        if holds && !suppressed {
            // Its offset is that of its first words, not that of the end of their turn.
            self.begin_stream(&root, None);
        }
        self.covered(&root, before, quiet || frames.events.is_empty());
    }

    /// Words that came by `until_ms` of the session's clock and still wait for the end of their turn become turns now.
    /// What comes later for such a turn is a revision of it.
    pub(super) fn let_out(&mut self, until_ms: u64) {
        let mut waiting: Vec<(ConnectionNo, StreamId)> = self
            .live
            .iter()
            .filter(|(_, live)| live.holding.due_ms(0).is_some_and(|since| since <= until_ms))
            .map(|(root, live)| (live.connection, root.clone()))
            .collect();
        waiting.sort();
        for (_, root) in waiting {
            self.let_out_of(&root, until_ms);
        }
    }

    fn let_out_of(&mut self, root: &StreamId, until_ms: u64) {
        if self.state.status != State::Open || self.state.ending {
            return;
        }
        let before = self.state.head;
        let due = self.live.get_mut(root).map(|live| live.holding.let_out(until_ms)).unwrap_or_default();
        for last in due {
            self.speech(root, &SttEvent::Final(Box::new(last)));
        }
        self.covered(root, before, true);
    }

    /// The last chance of all words that wait for the end of their turn.
    pub(super) fn let_all_out(&mut self) {
        self.let_out(u64::MAX);
    }

    /// Moves on what is covered, and acknowledges it: at once where records came after `before`, in passing where the
    /// frames were `quiet`.
    fn covered(&mut self, root: &StreamId, before: u64, quiet: bool) {
        let Some(live) = self.live.get(root) else { return };
        // A revision that waits for its turn lives in memory alone until the stream's next record.
        let waits = self.state.turns.holding(&live.current);
        let changed = self.state.head > before;
        let out = live.holding.is_out() && !waits;
        if out && !changed && live.holding.ended_unseen() {
            // That a turn ended which is in the journal as one that goes on must be known after a crash too.
            self.state.positions.extend(self.mark(root).map(|mark| (root.clone(), mark)));
            self.entry_changed = true;
        }
        let Some(live) = self.live.get_mut(root) else { return };
        let before = live.covered;
        if out {
            live.covered = live.count;
            live.holding.cover();
        }
        let unacked = live.covered - before;
        if changed {
            live.effect = live.count;
        }
        if changed || (unacked > 0 && !quiet) || unacked >= QUIET_FRAMES {
            let turn_order = self.state.turns.acked(&live.current);
            let ack = Ack { stream: live.current.clone(), frames: live.covered, turn_order };
            self.effects.push(Effect::Ack(Arc::clone(&live.outlet), ack));
        }
    }

    /// Takes what a frame said to the stream that goes by the name `root` for its producer.
    fn speech(&mut self, root: &StreamId, event: &SttEvent) {
        if let Err(message) = bounds::check(event, &self.deps.limits) {
            return self.complain(root, "bad_field", message);
        }
        match event {
            SttEvent::Begin { vendor_session } => self.vendor_begins(root, vendor_session.as_deref()),
            SttEvent::Restarted => self.restart(root, None),
            SttEvent::Meta(_) | SttEvent::Unknown { .. } | SttEvent::Dialect { .. } => {}
            _ => self.begin_stream(root, None),
        }
        match event {
            SttEvent::Begin { .. } | SttEvent::Restarted => {}
            SttEvent::Dialect { name } => {
                if let (Some(live), Some(dialect)) = (self.live.get_mut(root), stt::dialect(name)) {
                    live.dialect = dialect;
                }
            }
            SttEvent::Partial { key, speaker, text } => self.partial(root, key, speaker.as_deref(), text),
            SttEvent::Final(_) | SttEvent::Revise(_) | SttEvent::MergeSpeakers { .. } => self.turn(root, event),
            SttEvent::Meta(meta) => self.meta(root, meta),
            SttEvent::End { reason, scope } => self.end_stream(root, reason.clone(), *scope),
            SttEvent::VendorError { code, message } => {
                let [code, message] = [code, message].map(|text| &text[..text.floor_char_boundary(VENDOR_ERROR_BYTES)]);
                tracing::warn!(call = %self.state.call_id, stream = %root, code, message, "the STT vendor reported an error");
                self.deps.metrics.vendor_errors.inc();
            }
            SttEvent::Unknown { .. } => {
                self.deps.metrics.unknown_messages.inc();
            }
        }
    }

    fn partial(&mut self, root: &StreamId, key: &TurnKey, speaker: Option<&str>, text: &str) {
        let Some(live) = self.live.get(root) else { return };
        let (stream, text) = (&live.current, live.holding.rest(key, text));
        let Some(turn_order) = self.state.turns.partial_order(stream, key) else { return };
        self.deps.metrics.partials.inc();
        if !self.deps.hub.wants(&self.state.call_id, &LiveKind::Partial) {
            return;
        }
        let mut frame = json!({
            "type": "turn.partial", "call_id": self.state.call_id, "stream_id": stream, "turn_order": turn_order,
        });
        if let Some(speaker) = speaker {
            frame["speaker"] = json!(speaker);
        }
        frame["text"] = json!(text);
        let frame = LiveFrame { kind: LiveKind::Partial, frame: bytes::Bytes::from(frame.to_string()) };
        self.deps.hub.live(&self.state.call_id, frame);
    }

    fn turn(&mut self, root: &StreamId, event: &SttEvent) {
        let arrival_ms = self.call_ms();
        let Some(stream) = self.live.get(root).map(|live| live.current.clone()) else { return };
        let Some(known) = self.state.stream(&stream) else { return };
        let (offset_ms, splits) = (known.offset_ms, known.dialect.is_none_or(|dialect| dialect.splits()));
        let mut changes = Vec::new();
        if let Err(error) = self.state.turns.apply(&stream, splits, offset_ms, arrival_ms, event, &mut changes) {
            let code = match error {
                TurnError::TooManyEarly => "too_many_revisions",
                TurnError::Unnamed | TurnError::Hole { .. } => "bad_field",
            };
            self.complain(root, code, error.to_string());
            return;
        }
        let grew = changes.iter().any(|change| matches!(change.kind, ChangeKind::Revised(_)));
        for change in changes {
            self.turn_changed(root, change);
        }
        if let SttEvent::Final(last) = event
            && grew
            && matches!(last.key, TurnKey::Held(_) | TurnKey::Ended(_))
        {
            // The words that were shown as the partial of a turn to come stand in the turn that they belong to.
            self.partial(root, &TurnKey::Next, None, "");
        }
    }

    fn turn_changed(&mut self, root: &StreamId, change: Change) {
        let Change { turn, kind, private: known } = change;
        self.state.context.upsert(&turn);
        let now = self.now();
        let private = Private { turn: Some(known), mark: self.mark(root), ..Private::default() };
        let event_turn = crate::types::Turn { words: Vec::new(), ..(*turn).clone() };
        match kind {
            ChangeKind::New => {
                self.emit(&Event::TurnFinal { turn: event_turn }, &private);
                self.new_turn(&turn, now);
            }
            ChangeKind::Revised(changed) => {
                let changed = changed.into_iter().map(str::to_owned).collect();
                self.emit(&Event::TurnRevised { turn: event_turn, changed }, &private);
                for slot in &mut self.schedule.rolling {
                    slot.revision(now);
                }
            }
        }
    }

    fn meta(&mut self, stream: &StreamId, meta: &JsonMap) {
        match self.merged(meta) {
            Ok(merged) => self.update(merged, Vec::new(), BTreeMap::new()),
            Err(message) => self.complain(stream, "bad_field", format!("meta.meta: {message}")),
        }
    }

    /// Merges `meta` into a copy of the call's.
    ///
    /// # Errors
    /// The result exceeds `limits.meta_bytes`.
    fn merged(&self, meta: &JsonMap) -> Result<JsonMap, String> {
        let mut merged = self.state.meta.clone();
        if meta.is_empty() {
            return Ok(merged);
        }
        merged.extend(meta.iter().map(|(key, value)| (key.clone(), value.clone())));
        let (bytes, limit) = (measure::value(&merged), self.deps.limits.meta_bytes);
        if bytes > limit {
            return Err(format!(
                "the call's meta would be {bytes} bytes, over the limit of {limit} (limits.meta_bytes)"
            ));
        }
        Ok(merged)
    }

    pub(super) fn detach(&mut self, connection: ConnectionNo, stream: &StreamId) {
        let root = self.state.root(stream);
        if self.live.get(&root).is_none_or(|live| live.connection != connection) {
            return;
        }
        // Its decoder is gone with it.
        self.let_out_of(&root, u64::MAX);
        if let Some(live) = self.live.remove(&root) {
            let effect = live.effect.max(live.suppress);
            let left = Left { covered: live.covered, effect, carry: Arc::clone(live.holding.carry(false)) };
            self.left.insert(root.clone(), left);
        }
        if self.live.is_empty() {
            self.unattended_since = Some(self.now());
        }
        self.note_ends();
        if let Some(position) = self.taking_over.iter().position(|attach| attach.stream == root) {
            let attach = self.taking_over.remove(position);
            self.attach(attach);
        }
    }

    /// Where the producer of `root` is, for the record of what it led to.
    pub(super) fn mark(&self, root: &StreamId) -> Option<Mark> {
        let live = self.live.get(root)?;
        let out = live.holding.is_out();
        Some(Mark {
            stream: root.clone(),
            connection: live.connection,
            covered: if out { live.count } else { live.covered },
            frame: live.count,
            carry: Arc::clone(live.holding.carry(out)),
        })
    }

    pub(super) fn complain(&self, stream: &StreamId, code: &'static str, message: String) {
        if let Some(live) = self.live.get(stream) {
            live.outlet.complain(Complaint::new(code, message));
        }
    }
}
