//! Alerts of a call: rules are looked at when turns are new or corrected, when other events are emitted, and when a time
//! has come. What they raise and clear is an event too, in the same append.
//!
//! What the log says of alerts is in the log ([`crate::rules::Standing`]). What is known beside it ([`Watch`]) follows from the
//! log and is made anew when the call is rebuilt, but for the time since somebody spoke: that is counted from the next
//! connection on. Does not know how conditions compare words and values: that is [`crate::rules`].

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
use crate::types::{Alert, ClearedAlert, Insight, Turn, TurnNo};

/// Turns before and after one that are looked at for an overlap.
const NEAR_TURNS: u64 = 32;

/// The state of a call's rules that its log does not hold.
#[derive(Default)]
pub(super) struct Watch {
    roles: Roles,
    /// When somebody spoke last, or when a producer connected while no other was; on the call's clock.
    spoke_ms: u64,
    /// By rule of absence and window: a turn that has the words.
    said: BTreeMap<(usize, u64), TurnNo>,
    /// Rules that did not raise an alert because their newest one is not long ago.
    held_back: BTreeSet<usize>,
}

/// Where a condition holds.
#[derive(Default)]
struct Finding {
    turn: Option<TurnNo>,
    quote: Option<String>,
}

impl Call {
    /// Turns are new or were corrected, and have their records: rules about them are looked at.
    pub(super) fn apply_rules_to(&mut self, turns: &[Arc<Turn>]) {
        if self.settings.rules.is_empty() || !self.is_open() {
            return;
        }
        for turn in turns {
            self.words_of(turn);
            self.overlaps_of(turn);
        }
    }

    /// An event was emitted: rules that it concerns are looked at.
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

    /// What the record of `event` is to say of conditions that must hold for a while.
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

    /// It is about a turn before the newest one that has a result.
    fn is_outdated(&self, insight: &Insight) -> bool {
        let standing = self.log.standings.get(&insight.analysis);
        let newest = standing.and_then(|standing| standing.by_turn.last_key_value()).map(|(turn, _)| *turn);
        insight.turn.is_some_and(|turn| newest.is_some_and(|newest| turn < newest))
    }

    /// After a rebuild: what follows from the log.
    pub(super) fn resume_rules(&mut self) {
        self.watch.roles = self.roles();
        let rules = Arc::clone(&self.settings.rules);
        for (index, rule) in rules.iter() {
            let open = self.log.alerts.open(&rule.name).is_some();
            match &rule.condition {
                Condition::Keyword(_) if !open && self.pause_end(rule) > self.now.unix_ms => {
                    self.watch.held_back.insert(index);
                }
                // An open alert says that the words have not come.
                Condition::Absence(absence) if !open || absence.since == Since::Stream => {
                    self.seek_in_windows(index, rule, absence);
                }
                _ => {}
            }
            self.due_again(index, rule);
        }
    }

    /// Analyses that an alert made due, and that have had no result since.
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

    /// Makes the alert of a rule what the condition says: `holds` is where it does.
    fn level(&mut self, index: usize, rule: &Rule, holds: Option<Finding>) {
        match (self.log.alerts.open(&rule.name).is_some(), holds) {
            (false, Some(finding)) => self.raise(index, rule, finding),
            (true, None) => self.clear(rule),
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Raises an alert, if the call may have another one, and the rule's newest one is long enough ago. No alert of the
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

    /// Whether the call may have one more alert.
    fn may_alert(&self) -> bool {
        self.log.alerts.given() < self.settings.limits.alerts_per_call
    }

    /// Until when the rule raises nothing, wall time: its newest alert is not long ago. 0 if it may. A clock that was set
    /// back holds up nothing.
    fn pause_end(&self, rule: &Rule) -> i64 {
        let pause = i64::try_from(self.settings.limits.alert_pause.as_millis()).unwrap_or(i64::MAX);
        let raised = self.log.alerts.raised(&rule.name).map(|raised| raised.at_ms);
        let recent = raised.filter(|at| (0..pause).contains(&self.now.unix_ms.saturating_sub(*at)));
        recent.map_or(0, |at| at.saturating_add(pause))
    }

    /// Looks at the rules about values of insights that `concerned` takes.
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

    /// When the condition has held for long enough, wall time; `None` if the newest insight says otherwise.
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

    /// A turn is new or was corrected: rules about speakers who speak at once.
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
            // A correction took it away, or the talk went on after it.
            let is_over = there.is_none_or(|(_, end)| turn.turn > first && here.is_none() && turn.start_ms >= end);
            if is_over {
                self.clear(rule);
            }
        }
    }

    /// The longest overlap of a turn with others near it, if it is as long as that.
    fn long_overlap(&self, turn: &Turn, over_ms: u64) -> Option<(u64, u64)> {
        let near = turn.turn.saturating_sub(NEAR_TURNS)..turn.turn.saturating_add(NEAR_TURNS);
        let near = near.filter_map(|number| self.log.turns.get(number));
        overlap(turn, near.map(AsRef::as_ref)).filter(|(start, end)| end - start >= over_ms)
    }

    /// Rules were not looked at, because that would be too much work.
    fn skipped(&mut self, rule: &Rule, over: Exceeded) {
        self.effects.notes.push(Note::RuleSkipped(Arc::clone(&rule.name), over));
    }

    /// Why a task runs, as in an insight's `trigger`.
    pub(super) fn trigger_name(&self, cause: Cause) -> String {
        match cause {
            Cause::Trigger(Reason::Alert(index)) => {
                let rule = self.settings.rules.at(usize::from(index));
                rule.map_or_else(|| cause.as_str().to_owned(), |rule| format!("alert:{}", rule.name))
            }
            _ => cause.as_str().to_owned(),
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
