//! Processes the frames of connected producers: words that wait for the end of their turn, partials and turns.
//!
//! Does not know how producers connect and leave, and no analysis: a new turn is passed to the schedule.

use std::sync::Arc;

use super::Call;
use super::bounds;
use super::effects::{Note, Partial, Reply, Tell};
use super::input::Frames;
use super::numbers::ConnectionNo;
use super::record::Private;
use crate::protocol::ingest::Ack;
use crate::protocol::{ErrorCode, ErrorFrame, Event, tag};
use crate::stt;
use crate::turns::{Change, ChangeKind, TurnError};
use crate::types::{StreamId, SttEvent, Turn, TurnKey};

/// Partials and other frames without effect are acknowledged together with later ones; if finals name their turn, at
/// the latest after this many frames.
const QUIET_FRAMES: u64 = 64;

/// Longest code or message of a vendor error in the log, bytes.
const VENDOR_ERROR_BYTES: usize = 500;

impl Call {
    pub(super) fn frames(&mut self, frames: &Frames, watched: bool) {
        let now = self.now.ms;
        let ending = self.ending() || !self.is_open();
        let root = self.log.root(&frames.stream);
        let Some(live) = self.producers.live.get_mut(&root).filter(|live| live.connection == frames.connection) else {
            return;
        };
        live.count = frames.count;
        let suppressed = frames.count <= live.suppress;
        let refused = live.refused;
        // Also for a call that has ended: its producer may send more speech, and its turns are answered.
        self.turns_asked(&root, &frames.asks);
        let Some(live) = self.producers.live.get_mut(&root).filter(|_| !refused) else { return };
        if ending {
            if !frames.events.is_empty() {
                let error = ErrorFrame::new(ErrorCode::CallCompleted, "the call has ended; this frame was ignored");
                self.effects.tells.push(Tell::Error(live.peer, error));
            }
            return;
        }
        let says_more = live.holding.note(&frames.carry, now);
        let holds = !live.holding.is_empty();
        self.life.heard_ms = now;
        if says_more {
            self.spoke();
        }
        let before = self.log.head;
        let mut quiet = true;
        // The picked dialect applies to later frames, whether or not this frame had its effect before.
        let again = |event: &&SttEvent| !suppressed || matches!(event, SttEvent::Dialect { .. });
        for event in frames.events.iter().filter(again) {
            let silent = matches!(
                event,
                SttEvent::Partial { .. }
                    | SttEvent::Unknown { .. }
                    | SttEvent::Begin { .. }
                    | SttEvent::Dialect { .. }
                    | SttEvent::SpeechStarted
                    | SttEvent::Silence { .. }
            );
            quiet &= silent;
            self.speech(&root, event, watched);
            if matches!(event, SttEvent::Begin { .. } | SttEvent::Restarted)
                && self.producers.live.get(&root).is_none_or(|live| live.refused)
            {
                return;
            }
        }
        if holds && !suppressed {
            // The stream's offset is that of its first words, not that of the end of their turn.
            self.begin_stream(&root, None);
        }
        self.covered(&root, before, quiet || frames.events.is_empty());
    }

    /// Words that came by `until_ms` of the session's clock and still wait for the end of their turn become turns now.
    /// Later words of such a turn revise it.
    pub(super) fn let_out(&mut self, until_ms: u64) {
        let mut waiting: Vec<(ConnectionNo, StreamId)> = self
            .producers
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

    pub(super) fn let_out_of(&mut self, root: &StreamId, until_ms: u64) {
        if !self.is_open() || self.ending() {
            return;
        }
        let before = self.log.head;
        let due = self.producers.live.get_mut(root).map(|live| live.holding.let_out(until_ms)).unwrap_or_default();
        for last in due {
            // Rare, so the check whether a subscriber wants partials is made when they are sent.
            self.speech(root, &SttEvent::Final(Box::new(last)), true);
        }
        self.covered(root, before, true);
    }

    /// Releases all words that wait for the end of their turn, because no other chance follows.
    pub(super) fn let_all_out(&mut self) {
        self.let_out(u64::MAX);
    }

    /// Updates the number of covered frames and acknowledges it: at once if there are records after `before`, later if
    /// the frames were `quiet`.
    fn covered(&mut self, root: &StreamId, before: u64, quiet: bool) {
        let Some(live) = self.producers.live.get(root) else { return };
        // A revision that waits for its turn exists only in memory until the stream's next record.
        let waits = self.log.turns.holding(&live.current);
        let changed = self.log.head > before;
        let out = live.holding.is_out() && !waits;
        // The record of this frame may not be about the stream: for example, that of a cleared alert.
        let recorded = self.directory.mark(&self.log, root);
        let recorded = recorded.is_some_and(|mark| (mark.connection, mark.frame) == (live.connection, live.count));
        if out && !recorded && live.holding.ended_unseen() {
            // The journal shows this turn as unfinished; its end must survive a crash too.
            if let Some(mark) = self.producers.mark(root) {
                self.directory.place(mark);
            }
        }
        let Some(live) = self.producers.live.get_mut(root) else { return };
        let before = live.covered;
        if out {
            live.covered = live.count;
            live.holding.cover();
        }
        let moved = live.covered > before;
        // If finals do not name their turn, quiet frames may be words that only the mark of the next record contains.
        let many = live.dialect.names_turns() && live.covered - live.acked >= QUIET_FRAMES;
        if changed {
            live.effect = live.count;
        }
        if changed || (moved && !quiet) || many {
            live.acked = live.covered;
            let turn_order = self.log.turns.acked(&live.current);
            let (stream_id, frames) = (live.current.clone(), live.covered);
            let ack = Ack { tag: tag::Ack, stream_id, frames, turn_order };
            self.outbox.replies.push(Reply::Ack(live.peer, ack));
        }
    }

    /// Applies one event of a frame to the stream that its producer named `root`.
    fn speech(&mut self, root: &StreamId, event: &SttEvent, watched: bool) {
        if let Err(message) = bounds::check(event, &self.settings.limits) {
            return self.report_error(root, ErrorCode::BadField, message);
        }
        match event {
            SttEvent::Begin { vendor_session } => self.vendor_begins(root, vendor_session.as_deref()),
            SttEvent::Restarted => self.restart(root, None),
            SttEvent::Meta(_)
            | SttEvent::Unknown { .. }
            | SttEvent::Dialect { .. }
            | SttEvent::SpeechStarted
            | SttEvent::Silence { .. } => {}
            _ => self.begin_stream(root, None),
        }
        if has_words(event) {
            self.spoke();
        }
        match event {
            SttEvent::Begin { .. } | SttEvent::Restarted => {}
            SttEvent::Dialect { name } => {
                if let (Some(live), Some(dialect)) = (self.producers.live.get_mut(root), stt::dialect(name)) {
                    live.dialect = dialect;
                }
            }
            SttEvent::SpeechStarted => self.speech_detected(),
            SttEvent::Silence { span } => self.silence_detected(root, *span),
            SttEvent::Partial { key, speaker, text } => self.partial(root, key, speaker.as_deref(), text, watched),
            SttEvent::Final(_) | SttEvent::Revise(_) | SttEvent::MergeSpeakers { .. } => self.turn(root, event),
            SttEvent::Meta(meta) => self.meta(root, meta),
            SttEvent::End { reason, scope } => self.end_stream(root, reason.clone(), *scope),
            SttEvent::VendorError { code, message } => {
                let short = |text: &str| text[..text.floor_char_boundary(VENDOR_ERROR_BYTES)].to_owned();
                let (code, message) = (short(code), short(message));
                self.effects.notes.push(Note::VendorError { stream: root.clone(), code, message });
                self.effects.counts.vendor_errors += 1;
            }
            SttEvent::Unknown { .. } => self.effects.counts.unknown_messages += 1,
        }
    }

    fn partial(&mut self, root: &StreamId, key: &TurnKey, speaker: Option<&str>, text: &str, watched: bool) {
        let Some(live) = self.producers.live.get(root) else { return };
        let (stream, text) = (&live.current, live.holding.rest(key, text));
        let Some(turn_order) = self.log.turns.partial_order(stream, key) else { return };
        self.effects.counts.partials += 1;
        if watched {
            let (speaker, text) = (speaker.map(str::to_owned), text.to_owned());
            self.effects.partials.push(Partial { stream: stream.clone(), turn_order, speaker, text });
        }
    }

    fn turn(&mut self, root: &StreamId, event: &SttEvent) {
        let arrival_ms = self.call_ms();
        let Some(stream) = self.producers.live.get(root).map(|live| live.current.clone()) else { return };
        let Some(known) = self.log.stream(&stream) else { return };
        let (offset_ms, splits) = (known.offset_ms, known.dialect.is_none_or(|dialect| dialect.splits()));
        let mut changes = Vec::new();
        if let Err(error) = self.log.turns.apply(&stream, splits, offset_ms, arrival_ms, event, &mut changes) {
            let code = match error {
                TurnError::TooManyEarly => ErrorCode::TooManyRevisions,
                TurnError::Unnamed | TurnError::Hole { .. } => ErrorCode::BadField,
            };
            self.report_error(root, code, error.to_string());
            return;
        }
        let grew = changes.iter().any(|change| matches!(change.kind, ChangeKind::Revised(_)));
        let mut changed = Vec::new();
        if !self.settings.rules.is_empty() {
            changed.extend(changes.iter().map(|change| Arc::clone(&change.turn)));
        }
        for change in changes {
            self.turn_changed(root, change);
        }
        self.apply_rules_to(&changed);
        if let SttEvent::Final(last) = event
            && grew
            && matches!(last.key, TurnKey::Held(_) | TurnKey::Ended(_))
        {
            // The words that were shown as the partial of the next turn are part of the turn that they belong to.
            self.partial(root, &TurnKey::Next, None, "", true);
        }
    }

    fn turn_changed(&mut self, root: &StreamId, change: Change) {
        let Change { turn, kind, private: known } = change;
        let now = self.now.ms;
        let private = Private { turn: Some(known), mark: self.producers.mark(root), ..Private::default() };
        let event_turn = Turn { words: Vec::new(), ..(*turn).clone() };
        match kind {
            ChangeKind::New => {
                self.emit_about(&Event::TurnFinal { turn: event_turn }, &private, Some(&turn));
                self.new_turn(&turn, now);
            }
            ChangeKind::Revised(changed) => {
                let changed = changed.into_iter().map(str::to_owned).collect();
                self.emit_about(&Event::TurnRevised { turn: event_turn, changed }, &private, Some(&turn));
                for slot in &mut self.schedule.rolling {
                    slot.revision(now);
                }
                self.repair_after_correction();
            }
        }
    }

    pub(super) fn report_error(&mut self, stream: &StreamId, code: ErrorCode, message: String) {
        if let Some(live) = self.producers.live.get(stream) {
            self.effects.tells.push(Tell::Error(live.peer, ErrorFrame::new(code, message)));
        }
    }
}

/// Returns true if somebody speaks or has spoken.
fn has_words(event: &SttEvent) -> bool {
    match event {
        SttEvent::Partial { text, .. } => !text.trim().is_empty(),
        SttEvent::Final(last) => !last.text.trim().is_empty(),
        _ => false,
    }
}
