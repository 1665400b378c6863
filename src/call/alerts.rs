//! Alerts of a call: rules are applied when turns are new or corrected, when other events are emitted, and when a rule
//! is due. An alert that they raise or clear is an event too, in the same append.
//!
//! The log contains the state of alerts ([`crate::rules::Standing`]). The additional state ([`Watch`]) follows from the
//! log and is computed again when the call is rebuilt, except for the time since somebody spoke, which begins at the
//! next connection. Does not know how conditions compare words and values: see [`crate::rules`].

mod timers;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Call;
use super::effects::Note;
use super::record::Private;
use super::schedule::Cause;
use crate::analysis::Analysis;
use crate::analysis::trigger::Reason;
use crate::base::budget::Exceeded;
use crate::protocol::Event;
use crate::rules::{Condition, Marks, Reading, Roles, Rule, SPEAKERS, Since, overlap, quote_of};
use crate::types::{Alert, ClearedAlert, Insight, StreamId, Trigger, Turn, TurnNo};

/// Number of turns before and after a turn that are checked for an overlap.
const NEAR_TURNS: u64 = 32;

/// The state of a call's rules that is not in its log.
#[derive(Default)]
pub(super) struct Watch {
    roles: Roles,
    /// When somebody last spoke, or when a producer connected while no other was connected; on the call's clock, and
    /// before its start if the vendor reports that.
    spoke_ms: i64,
    /// The newest silence that a stream's vendor detected, in ms of stream time.
    silence: Option<(StreamId, u64, u64)>,
    /// A turn that contains the words, by rule and window of an absence.
    said: BTreeMap<(usize, u64), TurnNo>,
    /// Rules that did not raise an alert because their newest alert is too recent.
    held_back: BTreeSet<usize>,
}

/// The place at which a condition holds.
#[derive(Default)]
struct Finding {
    turn: Option<TurnNo>,
    quote: Option<String>,
}

impl Call {
    /// Applies the rules about turns to turns that are new or corrected and have their records.
    pub(super) fn apply_rules_to(&mut self, turns: &[Arc<Turn>]) {
        if self.settings.rules.is_empty() || !self.is_open() {
            return;
        }
        for turn in turns {
            self.words_of(turn);
            self.overlaps_of(turn);
        }
    }

    /// Applies the rules that an emitted event concerns.
    pub(super) fn apply_rules(&mut self, event: &Event) {
        if self.settings.rules.is_empty() || !self.is_open() {
            return;
        }
        match event {
            Event::CallStarted { .. } | Event::CallUpdated { .. } => self.roles_may_change(),
            Event::InsightUpdated { insight } => {
                if insight.analysis == SPEAKERS {
                    self.roles_may_change();
                }
                self.each_reading(|reading| reading.analysis == insight.analysis);
            }
            Event::AlertRaised { alert } => self.windows_change(&alert.rule, true),
            Event::AlertCleared { alert } => self.windows_change(&alert.rule, false),
            Event::TurnFinal { .. }
            | Event::TurnRevised { .. }
            | Event::StreamStarted { .. }
            | Event::StreamEnded { .. }
            | Event::Gap { .. }
            | Event::InsightFailed { .. }
            | Event::CallCompleted { .. }
            | Event::CallFailed { .. } => {}
        }
    }

    /// What the record of `event` must contain about conditions that must hold for a while.
    pub(super) fn marks(&self, event: &Event) -> Option<Marks> {
        let Event::InsightUpdated { insight } = event else { return None };
        if self.settings.rules.is_empty() || !self.is_open() || self.is_outdated(insight) {
            return None;
        }
        let mut marks = Marks::default();
        for (_, rule) in self.settings.rules.iter() {
            let Condition::Insight(reading) = &rule.condition else { continue };
            if reading.for_ms == 0 || reading.analysis != insight.analysis {
                continue;
            }
            match (reading.holds(&insight.value), self.log.alerts.since(&rule.name).is_some()) {
                (true, false) => marks.begin.push(rule.name.to_string()),
                (false, true) => marks.end.push(rule.name.to_string()),
                _ => {}
            }
        }
        (!marks.is_empty()).then_some(marks)
    }

    /// Returns true if the insight is about a turn before the newest one with a result.
    fn is_outdated(&self, insight: &Insight) -> bool {
        let standing = self.log.standings.get(&insight.analysis);
        let newest = standing.and_then(|standing| standing.by_turn.last_key_value()).map(|(turn, _)| *turn);
        insight.turn.is_some_and(|turn| newest.is_some_and(|newest| turn < newest))
    }

    /// Computes the additional state after a rebuild.
    pub(super) fn resume_rules(&mut self) {
        self.watch.roles = self.roles();
        let rules = Arc::clone(&self.settings.rules);
        for (index, rule) in rules.iter() {
            let open = self.log.alerts.open(&rule.name).is_some();
            match &rule.condition {
                Condition::Keyword(_) if !open && self.pause_end(rule) > self.now.unix_ms => {
                    self.watch.held_back.insert(index);
                }
                // The open alert shows that the words have not been said.
                Condition::Absence(absence) if !open || absence.since == Since::Stream => {
                    self.seek_in_windows(index, rule, absence);
                }
                _ => {}
            }
            self.due_again(index, rule);
        }
    }

    /// Analyses that an alert made due and that have had no result since.
    fn due_again(&mut self, index: usize, rule: &Rule) {
        let Some(raised) = self.log.alerts.raised(&rule.name) else { return };
        let now = self.now.ms;
        for slot in &mut self.schedule.rolling {
            let newest = self.log.newest.get(&*slot.analysis.name).and_then(|newest| newest.whole);
            if let Some(reason) = due_by(index, rule, &slot.analysis)
                && newest.is_none_or(|newest| newest < raised.seq)
            {
                slot.trigger.on_event(now, reason);
            }
        }
    }

    /// Raises or clears the alert of a rule according to its condition: `holds` is the place where the condition holds.
    fn level(&mut self, index: usize, rule: &Rule, holds: Option<Finding>) {
        match (self.log.alerts.open(&rule.name).is_some(), holds) {
            (false, Some(finding)) => self.raise(index, rule, finding),
            (true, None) => self.clear(rule),
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Raises an alert, if the call may have another one and the rule's newest alert is old enough. No alert of the
    /// rule is open.
    fn raise(&mut self, index: usize, rule: &Rule, finding: Finding) {
        if !self.may_alert() {
            self.effects.notes.push(Note::AlertRefused(Arc::clone(&rule.name)));
            return;
        }
        if self.pause_end(rule) > self.now.unix_ms {
            self.watch.held_back.insert(index);
            return;
        }
        let Finding { turn, quote } = finding;
        let alert = Alert {
            id: format!("a_{}", self.log.alerts.given() + 1),
            rule: rule.name.to_string(),
            severity: rule.severity,
            message: rule.message.clone(),
            turn,
            quote,
        };
        let known = |name: &&String| self.settings.analyses.get(name).is_some() && !self.log.analyses.contains(*name);
        let analyses: Vec<String> = rule.runs.iter().filter(known).cloned().collect();
        let adds = !analyses.is_empty();
        self.emit(&Event::AlertRaised { alert }, &Private { analyses, ..Private::default() });
        if adds {
            self.plan_analyses();
        }
        let now = self.now.ms;
        for slot in &mut self.schedule.rolling {
            if let Some(reason) = due_by(index, rule, &slot.analysis) {
                slot.trigger.on_event(now, reason);
                slot.news_ms = now;
            }
        }
        self.effects.notes.push(Note::AlertRaised(Arc::clone(&rule.name), rule.severity));
    }

    fn clear(&mut self, rule: &Rule) {
        let Some(open) = self.log.alerts.open(&rule.name) else { return };
        let alert = ClearedAlert { id: open.id.clone(), rule: open.rule.clone() };
        self.emit(&Event::AlertCleared { alert }, &Private::default());
        self.effects.notes.push(Note::AlertCleared(Arc::clone(&rule.name)));
    }

    /// Returns true if the call may have one more alert.
    fn may_alert(&self) -> bool {
        self.log.alerts.given() < self.settings.limits.alerts_per_call
    }

    /// Until when the rule raises nothing because its newest alert is too recent, wall-clock time; 0 if it may raise
    /// one. A clock that was set back delays nothing.
    fn pause_end(&self, rule: &Rule) -> i64 {
        let pause = i64::try_from(self.settings.limits.alert_pause.as_millis()).unwrap_or(i64::MAX);
        let raised = self.log.alerts.raised(&rule.name).map(|raised| raised.at_ms);
        let recent = raised.filter(|at| (0..pause).contains(&self.now.unix_ms.saturating_sub(*at)));
        recent.map_or(0, |at| at.saturating_add(pause))
    }

    /// Applies the rules about values of insights that `concerned` accepts.
    fn each_reading(&mut self, concerned: impl Fn(&Reading) -> bool) {
        let rules = Arc::clone(&self.settings.rules);
        for (index, rule) in rules.iter() {
            let Condition::Insight(reading) = &rule.condition else { continue };
            if !concerned(reading) {
                continue;
            }
            let due = self.reading_due(rule, reading);
            let open = self.log.alerts.open(&rule.name).is_some();
            if open && due.is_none() {
                self.clear(rule);
            } else if !open && due.is_some_and(|due| due <= self.now.unix_ms) {
                let finding = self.newest_insight(&reading.analysis).map(evidence_of).unwrap_or_default();
                self.raise(index, rule, finding);
            }
        }
    }

    /// When the condition has held for long enough, wall-clock time; `None` if the newest insight contradicts it.
    fn reading_due(&self, rule: &Rule, reading: &Reading) -> Option<i64> {
        let insight = self.newest_insight(&reading.analysis)?;
        if !reading.holds(&insight.value) {
            return None;
        }
        if reading.for_ms == 0 {
            return Some(0);
        }
        let since = self.log.alerts.since(&rule.name)?;
        Some(since.saturating_add(i64::try_from(reading.for_ms).unwrap_or(i64::MAX)))
    }

    /// The newest insight of an analysis; of a per-turn one, that of the newest turn.
    fn newest_insight(&self, analysis: &str) -> Option<&Arc<Insight>> {
        let standing = self.log.standings.get(analysis)?;
        standing.latest.as_ref().or_else(|| standing.by_turn.last_key_value().map(|(_, insight)| insight))
    }

    /// Applies the rules about simultaneous speech to a new or corrected turn.
    fn overlaps_of(&mut self, turn: &Turn) {
        let rules = Arc::clone(&self.settings.rules);
        for (index, rule) in rules.iter() {
            let Condition::Overlap(over_ms) = rule.condition else { continue };
            let here = self.long_overlap(turn, over_ms);
            let open = self.log.alerts.open(&rule.name).map(|open| open.turn.unwrap_or_default());
            let Some(first) = open else {
                if here.is_some() {
                    let finding = Finding { turn: Some(turn.turn), quote: Some(quote_of(&turn.text)) };
                    self.raise(index, rule, finding);
                }
                continue;
            };
            let there = self.log.turns.get(first).and_then(|first| self.long_overlap(first, over_ms));
            // A correction removed the overlap, or the conversation has continued after it.
            let is_over = there.is_none_or(|(_, end)| turn.turn > first && here.is_none() && turn.start_ms >= end);
            if is_over {
                self.clear(rule);
            }
        }
    }

    /// The longest overlap of a turn with others near it, if it lasts at least `over_ms`.
    fn long_overlap(&self, turn: &Turn, over_ms: u64) -> Option<(u64, u64)> {
        let near = turn.turn.saturating_sub(NEAR_TURNS)..turn.turn.saturating_add(NEAR_TURNS);
        let near = near.filter_map(|number| self.log.turns.get(number));
        overlap(turn, near.map(AsRef::as_ref)).filter(|(start, end)| end - start >= over_ms)
    }

    /// Records that rules were not applied because that would exceed a limit on work.
    fn skipped(&mut self, rule: &Rule, over: Exceeded) {
        self.effects.notes.push(Note::RuleSkipped(Arc::clone(&rule.name), over));
    }

    /// Why a task runs, as an insight's `trigger` says it.
    pub(super) fn trigger_of(&self, cause: Cause) -> Trigger {
        match cause {
            Cause::Trigger(Reason::Turns) => Trigger::Turns,
            Cause::Trigger(Reason::Interval) => Trigger::Interval,
            Cause::Trigger(Reason::Debounce) => Trigger::Debounce,
            Cause::Trigger(Reason::MaxWait) => Trigger::MaxWait,
            Cause::Trigger(Reason::Silence) => Trigger::Silence,
            Cause::Trigger(Reason::SpeechStarted) => Trigger::SpeechStarted,
            Cause::Trigger(Reason::Revision) => Trigger::Revision,
            Cause::Trigger(Reason::Alert(index)) => {
                let rule = self.settings.rules.at(usize::from(index));
                Trigger::Alert(rule.map(|rule| rule.name.to_string()))
            }
            Cause::Retry => Trigger::Retry,
            Cause::Manual => Trigger::Manual,
            Cause::End => Trigger::End,
            Cause::Turn => Trigger::Turn,
            Cause::Bundle => Trigger::Bundle,
        }
    }
}

/// Whether an alert of the rule makes the analysis due, and under which name.
fn due_by(index: usize, rule: &Rule, analysis: &Analysis) -> Option<Reason> {
    let on = &analysis.settings.on;
    let named =
        rule.runs.iter().any(|name| **name == *analysis.name) || on.alerts.iter().any(|name| **name == *rule.name);
    if named {
        return u16::try_from(index).ok().map(Reason::Alert);
    }
    (on.silence && matches!(rule.condition, Condition::Silence(_))).then_some(Reason::Silence)
}

/// The turn and quote that an alert about an insight names: the insight's first verified evidence, else its turn.
fn evidence_of(insight: &Arc<Insight>) -> Finding {
    match insight.evidence.iter().find(|evidence| !evidence.unverified) {
        Some(evidence) => Finding { turn: Some(evidence.turn), quote: Some(quote_of(&evidence.quote)) },
        None => Finding { turn: insight.turn, quote: None },
    }
}

#[cfg(test)]
mod tests;
