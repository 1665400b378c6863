//! What producers do to a call: connect, speak, correct, end, leave.

use std::sync::Arc;

use serde_json::json;

use super::command::{Ack, Attach, Attached, Complaint, ConnectionNo, Frames, Gap, Goodbye, Welcome};
use super::record::{Mark, Private};
use super::state::{STT_DISCONNECT, Stream};
use super::task::{Effect, Left, Live, Task};
use crate::base::time;
use crate::context::{Change, ChangeKind, TurnError};
use crate::hub::{LiveFrame, LiveKind};
use crate::journal::CallState as State;
use crate::stt;
use crate::types::{EndScope, Event, JsonMap, StreamId, SttEvent, TurnKey, id};

/// Partials and other frames without effect are acknowledged in passing, at the latest after this many.
const QUIET_FRAMES: u64 = 64;

/// Close code for a call that takes nothing any more.
const CALL_COMPLETED: u16 = 4410;
/// Close code for a fault of ours.
const INTERNAL: u16 = 4500;
/// Close code for a connection that a newer one replaced.
const SUPERSEDED: u16 = 4409;

impl Task {
    pub(super) fn attach(&mut self, attach: Attach) {
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
        let previous = self.previous(&attach.stream);
        self.state.connections += 1;
        let connection = self.state.connections;
        self.state.newest_connection.insert(attach.stream.clone(), connection);
        self.entry_changed = true;
        self.open_call(&attach.meta, attach.analyses);
        let acked = self.state.turns.acked(&attach.stream);
        let began = self.state.stream(&attach.stream).map(|stream| stream.dialect_name.as_str());
        let dialect = stt::resumed(attach.dialect, began);
        let suppress =
            if dialect.names_turns() { 0 } else { previous.map_or(0, |left| left.effect.saturating_sub(left.covered)) };
        self.live.insert(
            attach.stream.clone(),
            Live {
                connection,
                outlet: attach.outlet,
                count: 0,
                covered: 0,
                effect: 0,
                suppress,
                offset_ms: attach.offset_ms,
                dialect,
            },
        );
        self.left.remove(&attach.stream);
        self.unattended_since = None;
        self.heard_ms = self.now();
        self.note_ends();
        let welcome = self.welcome(connection, dialect.name(), acked, previous.map(|left| left.covered));
        self.effects.push(Effect::Attached(attach.reply, Attached::Welcome(welcome)));
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
            let acked = self.state.turns.acked(&attach.stream);
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
        Welcome {
            epoch: self.state.epoch.clone(),
            connection,
            acked,
            dialect,
            frames,
            insights: self.state.insights().into_iter().collect(),
            seq: self.state.head,
        }
    }

    /// Where the previous connection of `stream` was, from memory or from its records.
    fn previous(&self, stream: &StreamId) -> Option<Left> {
        if let Some(left) = self.left.get(stream) {
            return Some(*left);
        }
        let connection = *self.state.newest_connection.get(stream)?;
        let (covered, effect) = self.state.marked(stream, connection);
        Some(Left { covered, effect })
    }

    /// The call's first event, or what a further producer adds to it.
    fn open_call(&mut self, meta: &JsonMap, analyses: Option<Vec<String>>) {
        if self.state.head == 0 {
            let names = analyses.unwrap_or_else(|| self.deps.default_analyses.clone());
            let event = Event::CallStarted { epoch: id::random_suffix(), meta: meta.clone() };
            self.emit(&event, &Private { analyses: names, ..Private::default() });
            self.plan_analyses();
            return;
        }
        let mut added = analyses.unwrap_or_default();
        added.retain(|name| !self.state.analyses.contains(name));
        self.merge_meta(meta, added);
    }

    /// Merges `meta`; an event only where that changes something (or analyses were added).
    fn merge_meta(&mut self, meta: &JsonMap, added: Vec<String>) {
        let mut merged = self.state.meta.clone();
        merged.extend(meta.iter().map(|(key, value)| (key.clone(), value.clone())));
        if merged == self.state.meta && added.is_empty() {
            return;
        }
        self.entry_changed = true;
        self.emit(&Event::CallUpdated { meta: merged }, &Private { analyses: added, ..Private::default() });
        self.plan_analyses();
    }

    pub(super) fn frames(&mut self, frames: Frames) {
        let Some(live) = self.live.get_mut(&frames.stream).filter(|live| live.connection == frames.connection) else {
            return;
        };
        live.count = frames.count;
        let suppressed = frames.count <= live.suppress;
        if self.state.ending || self.state.status != State::Open {
            if !frames.events.is_empty() {
                let message = "the call was ended; this frame was not taken";
                live.outlet.complain(Complaint::new("call_completed", message));
            }
            return;
        }
        self.heard_ms = self.now();
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
            self.speech(&frames, event);
        }
        // A revision that waits for its turn lives in memory alone until the stream's next record.
        let waits = self.state.turns.holding(&frames.stream);
        let Some(live) = self.live.get_mut(&frames.stream) else { return };
        let covered = if waits { live.covered } else { frames.covered.max(live.covered) };
        let unacked = covered - live.covered;
        live.covered = covered;
        let changed = self.state.head > before;
        if changed {
            live.effect = frames.count;
        }
        if changed || (unacked > 0 && !quiet && !frames.events.is_empty()) || unacked >= QUIET_FRAMES {
            let ack = Ack { frames: live.covered, turn_order: self.state.turns.acked(&frames.stream) };
            self.effects.push(Effect::Ack(Arc::clone(&live.outlet), ack));
        }
    }

    fn speech(&mut self, frames: &Frames, event: &SttEvent) {
        let stream = &frames.stream;
        if !matches!(event, SttEvent::Meta(_) | SttEvent::Unknown { .. } | SttEvent::Dialect { .. }) {
            self.begin_stream(frames, event);
        }
        match event {
            SttEvent::Begin { .. } => {}
            SttEvent::Dialect { name } => {
                if let (Some(live), Some(dialect)) = (self.live.get_mut(stream), stt::dialect(name)) {
                    live.dialect = dialect;
                }
            }
            SttEvent::Partial { key, speaker, text } => self.partial(stream, key, speaker.as_deref(), text),
            SttEvent::Final(_) | SttEvent::Revise(_) | SttEvent::MergeSpeakers { .. } => self.turn(frames, event),
            SttEvent::Meta(meta) => self.meta(stream, meta),
            SttEvent::End { reason, scope } => self.end_stream(frames, reason.clone(), *scope),
            SttEvent::VendorError { code, message } => {
                tracing::warn!(call = %self.state.call_id, stream = %stream, code, message, "the STT vendor reported an error");
                self.deps.metrics.vendor_errors.inc();
            }
            SttEvent::Unknown { .. } => {
                self.deps.metrics.unknown_messages.inc();
            }
        }
    }

    /// The stream's first frame: its offset is derived once and kept.
    fn begin_stream(&mut self, frames: &Frames, event: &SttEvent) {
        let stream = &frames.stream;
        if self.state.stream(stream).is_some() {
            return;
        }
        let Some(live) = self.live.get(stream) else { return };
        let vendor_session = match event {
            SttEvent::Begin { vendor_session } => vendor_session.clone(),
            _ => None,
        };
        let now = self.call_ms();
        let first = self.state.streams.is_empty();
        let offset_ms = live.offset_ms.unwrap_or(if first { 0 } else { now });
        let hole = self.hole_before(stream);
        let started = Event::StreamStarted {
            stream_id: stream.clone(),
            dialect: live.dialect.name().to_owned(),
            vendor_session,
            offset_ms,
        };
        let mark = self.mark(frames);
        self.emit(&started, &Private { mark: Some(mark), ..Private::default() });
        if let Some(from_ms) = hole {
            let to_ms = offset_ms.max(from_ms);
            let gap = Event::Gap { stream_id: stream.clone(), cause: STT_DISCONNECT.into(), from_ms, to_ms };
            self.emit(&gap, &Private::default());
        }
        self.entry_changed = true;
        self.note_ends();
    }

    /// Where speech was last known before `stream`, if it begins after a loss: no other leg is live, and the newest
    /// stream never ended.
    fn hole_before(&self, stream: &StreamId) -> Option<u64> {
        let other_live = self.live.keys().any(|id| id != stream && self.state.stream(id).is_none_or(|leg| !leg.ended));
        let last = self.state.streams.last()?;
        if other_live || last.ended {
            return None;
        }
        let heard = self.state.turns.iter().map(|turn| turn.end_ms).max();
        Some(heard.unwrap_or(last.offset_ms))
    }

    fn partial(&mut self, stream: &StreamId, key: &TurnKey, speaker: Option<&str>, text: &str) {
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

    fn turn(&mut self, frames: &Frames, event: &SttEvent) {
        let stream = &frames.stream;
        let limit = self.deps.limits.turn_bytes;
        let text = match event {
            SttEvent::Final(turn) => turn.text.len(),
            SttEvent::Revise(revision) => revision.text.as_ref().map_or(0, String::len),
            _ => 0,
        };
        if text > limit {
            self.complain(
                stream,
                "bad_field",
                format!("turn.text: {text} bytes are over the limit of {limit} (limits.turn_bytes)"),
            );
            return;
        }
        let arrival_ms = self.call_ms();
        let Some(known) = self.state.stream(stream) else { return };
        let (offset_ms, splits) = (known.offset_ms, known.dialect.is_none_or(|dialect| dialect.splits()));
        let mut changes = Vec::new();
        if let Err(error) = self.state.turns.apply(stream, splits, offset_ms, arrival_ms, event, &mut changes) {
            let code = match error {
                TurnError::TooManyEarly => "too_many_revisions",
                TurnError::Unnamed | TurnError::Hole { .. } => "bad_field",
            };
            self.complain(stream, code, error.to_string());
            return;
        }
        for change in changes {
            self.turn_changed(frames, change);
        }
    }

    fn turn_changed(&mut self, frames: &Frames, change: Change) {
        let Change { turn, kind, private: known } = change;
        self.state.context.upsert(&turn);
        let now = self.now();
        let private = Private { turn: Some(known), mark: Some(self.mark(frames)), ..Private::default() };
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
        let limit = self.deps.limits.meta_bytes;
        let mut merged = self.state.meta.clone();
        merged.extend(meta.iter().map(|(key, value)| (key.clone(), value.clone())));
        let size = serde_json::to_vec(&merged).map_or(0, |bytes| bytes.len());
        if size > limit {
            self.complain(
                stream,
                "bad_field",
                format!(
                    "meta.meta: the call's meta would be {size} bytes, over the limit of {limit} (limits.meta_bytes)"
                ),
            );
            return;
        }
        self.merge_meta(meta, Vec::new());
    }

    fn end_stream(&mut self, frames: &Frames, reason: Option<String>, scope: EndScope) {
        let stream = &frames.stream;
        let ended = self.state.stream(stream).is_some_and(|stream: &Stream| stream.ended);
        let ending = scope == EndScope::Call;
        if ended && !ending {
            return;
        }
        let mark = self.mark(frames);
        let event = Event::StreamEnded { stream_id: stream.clone(), reason };
        self.emit(&event, &Private { mark: Some(mark), ending, ..Private::default() });
        self.entry_changed = true;
        self.note_ends();
    }

    pub(super) fn detach(&mut self, connection: ConnectionNo, stream: &StreamId) {
        if self.live.get(stream).is_none_or(|live| live.connection != connection) {
            return;
        }
        if let Some(live) = self.live.remove(stream) {
            let left = Left { covered: live.covered, effect: live.effect.max(live.suppress) };
            self.left.insert(stream.clone(), left);
        }
        if self.live.is_empty() {
            self.unattended_since = Some(self.now());
        }
        self.note_ends();
        if let Some(position) = self.taking_over.iter().position(|attach| attach.stream == *stream) {
            let attach = self.taking_over.remove(position);
            self.attach(attach);
        }
    }

    pub(super) fn gap(&mut self, gap: Gap) {
        let Gap { stream, cause, from_ms, to_ms } = gap;
        if self.state.status != State::Open || self.state.head == 0 {
            return;
        }
        let offset_ms = self.state.stream(&stream).map_or(0, |stream| stream.offset_ms);
        let (from_ms, to_ms) = (from_ms + offset_ms, to_ms + offset_ms);
        self.emit(&Event::Gap { stream_id: stream, cause: cause.into(), from_ms, to_ms }, &Private::default());
    }

    /// Starts and stops the linger clock.
    pub(super) fn note_ends(&mut self) {
        let leg_live = self.live.keys().any(|id| self.state.stream(id).is_none_or(|stream| !stream.ended));
        let all_ended =
            !self.state.streams.is_empty() && self.state.streams.iter().all(|stream| stream.ended || stream.replaced);
        self.ended_since = (all_ended && !leg_live).then(|| self.ended_since.unwrap_or_else(|| self.now()));
    }

    fn mark(&self, frames: &Frames) -> Mark {
        Mark {
            stream: frames.stream.clone(),
            connection: frames.connection,
            covered: frames.covered,
            frame: frames.count,
        }
    }

    fn complain(&self, stream: &StreamId, code: &'static str, message: String) {
        if let Some(live) = self.live.get(stream) {
            live.outlet.complain(Complaint::new(code, message));
        }
    }

    /// ms since the call began.
    fn call_ms(&self) -> u64 {
        u64::try_from(time::unix_ms() - self.state.started_at_ms).unwrap_or(0)
    }
}
