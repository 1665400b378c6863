//! Rules about words: said, or not said in time.
//!
//! Only final turns are checked, each when it is new and when it is corrected. All turns are checked again if a
//! correction removed the words, and if it becomes known who speaks.

use std::sync::Arc;

use super::Finding;
use crate::base::budget::Exceeded;
use crate::call::Call;
use crate::rules::{Absence, Condition, Roles, Rule, SCAN_STEPS, SPEAKERS, Said, Since, Steps, TURN_STEPS, Text};
use crate::types::{StreamId, Turn, TurnNo};

/// A period in which words must be said.
pub(super) struct Window {
    /// Distinguishes it from other windows of its rule.
    pub(super) id: u64,
    /// When the window ends, wall-clock time.
    pub(super) due_ms: i64,
    /// Only turns from this one on count.
    from: TurnNo,
    /// If set, only turns of this stream count.
    stream: Option<StreamId>,
}

impl Window {
    fn takes(&self, turn: &Turn) -> bool {
        turn.turn >= self.from && self.stream.as_ref().is_none_or(|stream| *stream == turn.stream_id)
    }
}

/// The words of `said` in a turn of the right speaker. `text` is lower-cased when it is first needed.
fn find<'turn>(
    said: &Said,
    turn: &'turn Turn,
    roles: &Roles,
    text: &mut Option<Text<'turn>>,
    steps: &mut Steps,
) -> Result<Option<String>, Exceeded> {
    if turn.text.is_empty() || !said.is_by(turn, roles) {
        return Ok(None);
    }
    let text = match text {
        Some(text) => text,
        None => text.insert(Text::of(&turn.text, steps)?),
    };
    said.any.find(text, steps)
}

impl Call {
    /// Applies the rules to a new or corrected turn.
    pub(super) fn words_of(&mut self, turn: &Turn) {
        let rules = Arc::clone(&self.settings.rules);
        let mut steps = Steps::new(TURN_STEPS);
        let mut text = None;
        for (index, rule) in rules.iter() {
            let Some(said) = rule.condition.said() else { continue };
            let found = match find(said, turn, &self.watch.roles, &mut text, &mut steps) {
                Ok(found) => found,
                Err(over) => {
                    self.skipped(rule, over);
                    continue;
                }
            };
            if let Condition::Absence(absence) = &rule.condition {
                self.said_in_windows(index, rule, absence, turn, found.is_some());
            } else {
                self.keyword(index, rule, said, turn.turn, found);
            }
        }
    }

    fn keyword(&mut self, index: usize, rule: &Rule, said: &Said, turn: TurnNo, found: Option<String>) {
        match (self.log.alerts.open(&rule.name).map(|open| open.turn), found) {
            (None, Some(quote)) => self.raise(index, rule, Finding { turn: Some(turn), quote: Some(quote) }),
            (Some(about), None) if about == Some(turn) => {
                self.clear(rule);
                self.keyword_again(index, rule, said);
            }
            _ => {}
        }
    }

    /// Checks all turns for words: those of the open alert may be gone, or other turns may have them.
    pub(super) fn keyword_again(&mut self, index: usize, rule: &Rule, said: &Said) {
        if let Some(open) = self.log.alerts.open(&rule.name) {
            let about = open.turn;
            if self.seek(rule, said, |turn| Some(turn.turn) == about).is_some() {
                return;
            }
            self.clear(rule);
        }
        if let Some((turn, quote)) = self.seek(rule, said, |_| true) {
            self.raise(index, rule, Finding { turn: Some(turn), quote: Some(quote) });
        }
    }

    /// The first turn that `wanted` accepts and that contains the words.
    fn seek(&mut self, rule: &Rule, said: &Said, wanted: impl Fn(&Turn) -> bool) -> Option<(TurnNo, String)> {
        let mut steps = Steps::new(SCAN_STEPS);
        let turns = self.log.turns.iter().filter(|turn| wanted(turn));
        let mut outcome = Ok(None);
        for turn in turns {
            outcome = find(said, turn, &self.watch.roles, &mut None, &mut steps)
                .map(|found| found.map(|quote| (turn.turn, quote)));
            if !matches!(outcome, Ok(None)) {
                break;
            }
        }
        match outcome {
            Ok(found) => found,
            Err(over) => {
                self.skipped(rule, over);
                None
            }
        }
    }

    /// The windows in which the words of a rule must be said.
    pub(super) fn windows(&self, absence: &Absence) -> Vec<Window> {
        let within = i64::try_from(absence.within_ms).unwrap_or(i64::MAX);
        let due = |since: i64| since.saturating_add(within);
        match &absence.since {
            Since::Call => vec![Window { id: 0, due_ms: due(self.log.started_at_ms), from: 0, stream: None }],
            Since::Stream => {
                let streams = self.log.streams.iter().zip(0..).filter(|(stream, _)| !stream.replaced);
                let windows = streams.filter_map(|(stream, id)| {
                    let due_ms = due(stream.started_at_ms);
                    let in_time = stream.ended_at_ms.is_none_or(|ended| ended >= due_ms);
                    in_time.then(|| Window { id, due_ms, from: 0, stream: Some(stream.id.clone()) })
                });
                windows.collect()
            }
            Since::Alert(before) => {
                // Words that a correction removed count as never said.
                let spoken =
                    self.settings.rules.get(before).is_some_and(|rule| matches!(rule.condition, Condition::Keyword(_)));
                let stands = !spoken || self.log.alerts.open(before).is_some();
                let raised = self.log.alerts.raised(before).filter(|_| stands);
                let window = raised.map(|raised| Window {
                    id: raised.times,
                    due_ms: due(raised.at_ms),
                    from: raised.next_turn,
                    stream: None,
                });
                window.into_iter().collect()
            }
        }
    }

    fn said_in_windows(&mut self, index: usize, rule: &Rule, absence: &Absence, turn: &Turn, found: bool) {
        for window in self.windows(absence).into_iter().filter(|window| window.takes(turn)) {
            let key = (index, window.id);
            if found {
                self.watch.said.entry(key).or_insert(turn.turn);
            } else if self.watch.said.get(&key) == Some(&turn.turn) {
                self.watch.said.remove(&key);
                if let Some((other, _)) = self.seek(rule, &absence.said, |turn| window.takes(turn)) {
                    self.watch.said.insert(key, other);
                }
            }
        }
        self.absence(index, rule, absence);
    }

    /// Records where the words are now.
    pub(super) fn seek_in_windows(&mut self, index: usize, rule: &Rule, absence: &Absence) {
        self.watch.said.retain(|(of, _), _| *of != index);
        for window in self.windows(absence) {
            if let Some((turn, _)) = self.seek(rule, &absence.said, |turn| window.takes(turn)) {
                self.watch.said.insert((index, window.id), turn);
            }
        }
    }

    /// Returns true if the window has ended and the words were not said.
    pub(super) fn absence(&mut self, index: usize, rule: &Rule, absence: &Absence) {
        let now = self.now.unix_ms;
        let is_missing = |window: &Window| window.due_ms <= now && !self.watch.said.contains_key(&(index, window.id));
        let missing = self.windows(absence).iter().any(is_missing);
        self.level(index, rule, missing.then(Finding::default));
    }

    /// Records that an alert of the rule `name` was raised or cleared: windows of other rules may begin there.
    pub(super) fn windows_change(&mut self, name: &str, raised: bool) {
        let rules = Arc::clone(&self.settings.rules);
        for (index, rule) in rules.iter() {
            let Condition::Absence(absence) = &rule.condition else { continue };
            if !matches!(&absence.since, Since::Alert(before) if before == name) {
                continue;
            }
            if raised {
                self.watch.said.retain(|(of, _), _| *of != index);
            }
            self.absence(index, rule, absence);
        }
    }

    /// The known roles of the speakers.
    pub(super) fn roles(&self) -> Roles {
        let speakers = self.log.standings.get(SPEAKERS).and_then(|standing| standing.latest.as_ref());
        Roles::of(&self.log.meta, speakers.map(|insight| &insight.value))
    }

    /// `meta` or the insight about speakers has changed, so words may belong to another speaker.
    pub(super) fn roles_may_change(&mut self) {
        let roles = self.roles();
        if roles == self.watch.roles {
            return;
        }
        self.watch.roles = roles;
        let rules = Arc::clone(&self.settings.rules);
        for (index, rule) in rules.iter() {
            match &rule.condition {
                Condition::Keyword(said) if said.speaker.is_some() => self.keyword_again(index, rule, said),
                Condition::Absence(absence) if absence.said.speaker.is_some() => {
                    self.seek_in_windows(index, rule, absence);
                    self.absence(index, rule, absence);
                }
                _ => {}
            }
        }
    }
}
