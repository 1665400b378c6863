//! Rules whose time comes without an event: silence, words that do not come, values that stay.
//!
//! Times that are counted from records are wall time, so that they are kept over a restart; silence is counted on the call's
//! own clock, while a stream is connected.

use std::sync::Arc;

use super::Finding;
use crate::call::Call;
use crate::rules::{Condition, Rule};

impl Call {
    /// Somebody spoke: a partial or a final with words in it.
    pub(in crate::call) fn spoke(&mut self) {
        self.watch.spoke_ms = self.now.ms;
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

    /// A producer is about to connect: without another one, silence begins now.
    pub(in crate::call) fn note_connection(&mut self) {
        if !self.leg_is_live() {
            self.watch.spoke_ms = self.now.ms;
        }
    }

    /// Looks at the rules whose time has come.
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
                    let silent = self.leg_is_live() && self.now.ms >= self.watch.spoke_ms.saturating_add(*over_ms);
                    if silent {
                        self.level(index, rule, Some(Finding::default()));
                    }
                }
                Condition::Keyword(said) if was_held_back => self.keyword_again(index, rule, said),
                // What is over by now is not worth an alert: the newest turn alone is looked at.
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

    /// When time alone changes something next, on the call's clock; may be in the past.
    pub(in crate::call) fn rules_next_ms(&self) -> Option<u64> {
        if self.settings.rules.is_empty() || !self.may_alert() {
            return None;
        }
        let silence = self.settings.rules.iter().filter_map(|(_, rule)| self.silence_due(rule)).min();
        let timed = self.rules_due_ms().map(|due| self.on_own_clock(due));
        [silence, timed].into_iter().flatten().min()
    }

    /// When a rule is due next whether or not the call is in memory, wall time.
    pub(in crate::call) fn rules_due_ms(&self) -> Option<i64> {
        if !self.may_alert() {
            return None;
        }
        self.settings.rules.iter().filter_map(|(index, rule)| self.rule_due(index, rule)).min()
    }

    /// A wall time on the call's own clock; now, if it has passed.
    fn on_own_clock(&self, unix_ms: i64) -> u64 {
        let left = u64::try_from(unix_ms.saturating_sub(self.now.unix_ms)).unwrap_or(0);
        self.now.ms.saturating_add(left)
    }

    fn silence_due(&self, rule: &Rule) -> Option<u64> {
        let Condition::Silence(over_ms) = rule.condition else { return None };
        let waits = self.log.alerts.open(&rule.name).is_none() && self.leg_is_live();
        let pause_end = self.pause_end(rule);
        let pause = if pause_end == 0 { 0 } else { self.on_own_clock(pause_end) };
        waits.then(|| self.watch.spoke_ms.saturating_add(over_ms).max(pause))
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

    /// The directory is to know when a rule is due: after a restart, the call is rebuilt by then.
    pub(in crate::call) fn note_due(&mut self) {
        let due = if self.log.head > 0 && self.is_open() { self.rules_due_ms() } else { None };
        self.directory.note_due(due);
    }
}
