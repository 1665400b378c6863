//! Rules that become due by time, without an event: silence, words that do not come, values that last.
//!
//! Times that begin at a record are wall-clock times, so that they continue over a restart. Silence is counted on the
//! call's own clock, while a stream is connected, and from the start of a silence that the vendor of the only stream
//! detected.

use std::sync::Arc;

use super::Finding;
use crate::call::Call;
use crate::rules::{Condition, Rule};
use crate::types::StreamId;

/// Silences of a stream that are not further apart than this are one, ms: nobody says anything in so short a time.
const APART_MS: u64 = 250;

impl Call {
    /// Records that somebody spoke: a partial or a final that contains words, or speech that the vendor detected.
    pub(in crate::call) fn spoke(&mut self) {
        self.watch.spoke_ms = signed(self.now.ms);
        self.watch.silence = None;
        if self.settings.rules.is_empty() || !self.is_open() {
            return;
        }
        let rules = Arc::clone(&self.settings.rules);
        for (_, rule) in rules.iter() {
            if matches!(rule.condition, Condition::Silence(_)) {
                self.clear(rule);
            }
        }
    }

    /// Records that the vendor detected silence on a stream, between two times of the stream of which the second is about
    /// now. It counts if no other stream is connected.
    pub(in crate::call) fn silent(&mut self, root: &StreamId, (from_ms, to_ms): (u64, u64)) {
        let (from_ms, to_ms) = match self.watch.silence.take() {
            Some((stream, from, to)) if stream == *root && (from..=to.saturating_add(APART_MS)).contains(&from_ms) => {
                (from, to.max(to_ms))
            }
            _ => (from_ms, to_ms),
        };
        self.watch.silence = Some((root.clone(), from_ms, to_ms));
        if self.connected_streams().all(|live| live == root) {
            let since = signed(self.now.ms).saturating_sub(signed(to_ms.saturating_sub(from_ms)));
            self.watch.spoke_ms = self.watch.spoke_ms.min(since);
        }
    }

    /// Records that a producer is about to connect: if it is the only one, silence begins now.
    pub(in crate::call) fn note_connection(&mut self) {
        if !self.has_connected_producer() {
            self.watch.spoke_ms = signed(self.now.ms);
        }
    }

    /// When nobody has spoken for `over_ms`, on the call's clock.
    fn silent_at(&self, over_ms: u64) -> u64 {
        u64::try_from(self.watch.spoke_ms.saturating_add(signed(over_ms))).unwrap_or(0)
    }

    /// Applies the rules that are due.
    pub(in crate::call) fn rule_timers(&mut self) {
        if !self.has_room() {
            return;
        }
        let rules = Arc::clone(&self.settings.rules);
        for (index, rule) in rules.iter() {
            let was_held_back = self.watch.held_back.remove(&index);
            match &rule.condition {
                Condition::Absence(absence) => self.absence(index, rule, absence),
                Condition::Silence(over_ms) => {
                    if self.has_connected_producer() && self.now.ms >= self.silent_at(*over_ms) {
                        self.level(index, rule, Some(Finding::default()));
                    }
                }
                Condition::Keyword(said) if was_held_back => self.keyword_again(index, rule, said),
                // An overlap that is over is not worth an alert, so only the newest turn is checked.
                Condition::Overlap(_) if was_held_back => {
                    let newest = self.log.turns.iter().next_back().cloned();
                    if let Some(newest) = newest {
                        self.overlaps_of(&newest);
                    }
                }
                Condition::Keyword(_) | Condition::Overlap(_) | Condition::Insight(_) => {}
            }
        }
        self.each_reading(|_| true);
    }

    /// When a rule is due next, on the call's clock; may be in the past.
    pub(in crate::call) fn rules_next_ms(&self) -> Option<u64> {
        if self.settings.rules.is_empty() || !self.may_alert() {
            return None;
        }
        let silence = self.settings.rules.iter().filter_map(|(_, rule)| self.silence_due(rule)).min();
        let timed = self.rules_due_ms().map(|due| self.on_own_clock(due));
        [silence, timed].into_iter().flatten().min()
    }

    /// When a rule is due next whether or not the call is in memory, as wall-clock time.
    pub(in crate::call) fn rules_due_ms(&self) -> Option<i64> {
        if !self.may_alert() {
            return None;
        }
        self.settings.rules.iter().filter_map(|(index, rule)| self.rule_due(index, rule)).min()
    }

    /// A wall-clock time on the call's own clock; now, if it has passed.
    fn on_own_clock(&self, unix_ms: i64) -> u64 {
        let left = u64::try_from(unix_ms.saturating_sub(self.now.unix_ms)).unwrap_or(0);
        self.now.ms.saturating_add(left)
    }

    fn silence_due(&self, rule: &Rule) -> Option<u64> {
        let Condition::Silence(over_ms) = rule.condition else { return None };
        let waits = self.log.alerts.open(&rule.name).is_none() && self.has_connected_producer();
        let pause_end = self.pause_end(rule);
        let pause = if pause_end == 0 { 0 } else { self.on_own_clock(pause_end) };
        waits.then(|| self.silent_at(over_ms).max(pause))
    }

    fn rule_due(&self, index: usize, rule: &Rule) -> Option<i64> {
        if self.log.alerts.open(&rule.name).is_some() {
            return None;
        }
        let due = match &rule.condition {
            Condition::Absence(absence) => {
                let windows = self.windows(absence);
                let waiting = windows.iter().filter(|window| !self.watch.said.contains_key(&(index, window.id)));
                waiting.map(|window| window.due_ms).min()?
            }
            Condition::Insight(reading) => self.reading_due(rule, reading)?,
            Condition::Keyword(_) | Condition::Overlap(_) => self.watch.held_back.contains(&index).then_some(0)?,
            Condition::Silence(_) => return None,
        };
        Some(due.max(self.pause_end(rule)).max(1))
    }

    /// Records in the directory when a rule is due, so that after a restart the call is rebuilt by then.
    pub(in crate::call) fn note_due(&mut self) {
        let due = if self.log.head > 0 && self.is_open() { self.rules_due_ms() } else { None };
        self.directory.note_due(due);
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
