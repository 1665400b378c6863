//! Decides when a rolling analysis is due, and when it runs: a pure state machine.
//!
//! Knows no clock (times are ms on any clock of the caller), no job and no permit.
//!
//! An analysis becomes *due* after `every_n_turns` new turns, or `interval_ms` after its last run if something is new,
//! but only with at least `min_new_tokens`. Once due, it waits for `debounce_ms` without a new turn, at most
//! `max_wait_ms`. Three more things make it due: an alert, even if nothing is new; a correction of a turn on which its
//! newest result rests, without any wait if the speaker changed; and the vendor's voice detection, if something is new.
//! Absent settings are off. The caller handles the last run at a call's end and manual runs, which do not depend on this.

/// The rules. Times in ms; `None` = off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triggers {
    /// Due after this many new turns.
    pub every_n_turns: Option<u64>,
    /// Due this long after the last run (before the first run: after the first turn), if something is new.
    pub interval_ms: Option<u64>,
    /// Not due with fewer new tokens than this.
    pub min_new_tokens: Option<u64>,
    /// Once due, waits for this long without a new turn.
    pub debounce_ms: Option<u64>,
    /// Once due, waits at most this long.
    pub max_wait_ms: Option<u64>,
    /// Runs once more at the call's end.
    pub on_end: bool,
}

impl Triggers {
    /// Runs only at the call's end.
    pub const OFF: Self = Self {
        every_n_turns: None,
        interval_ms: None,
        min_new_tokens: None,
        debounce_ms: None,
        max_wait_ms: None,
        on_end: true,
    };
}

/// Why an analysis runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The analysis became due by new turns, without a debounce.
    Turns,
    /// The analysis became due by the interval, without a debounce.
    Interval,
    /// No turn has ended for `debounce_ms`.
    Debounce,
    /// The analysis has waited `max_wait_ms`.
    MaxWait,
    /// A silence made it due.
    Silence,
    /// The beginning of speech made it due.
    SpeechStarted,
    /// The correction of a turn on which its newest result rests made it due.
    Revision,
    /// An alert made it due; the index of its rule in the configuration.
    Alert(u16),
}

impl Reason {
    /// Returns true if it stays the reason after the debounce.
    fn outlasts_its_wait(self) -> bool {
        match self {
            Self::Turns | Self::Interval | Self::Debounce | Self::MaxWait => false,
            Self::Silence | Self::SpeechStarted | Self::Revision | Self::Alert(_) => true,
        }
    }
}
/// The state of one analysis of one call.
#[derive(Debug, Clone)]
pub struct Trigger {
    rules: Triggers,
    new_turns: u64,
    new_tokens: u64,
    /// Set if a turn was corrected since the last run.
    revised: bool,
    /// Start of the interval: the last run, or the first new turn.
    interval_from_ms: Option<u64>,
    last_turn_ms: u64,
    /// Time of the last turn or correction.
    last_news_ms: u64,
    due: Option<(u64, Reason)>,
    /// Set if it is due without any wait.
    at_once: bool,
    /// Set if the vendor detected silence when nothing was new.
    quiet: bool,
}

impl Trigger {
    /// A trigger without any input.
    pub fn new(rules: &Triggers) -> Self {
        Self {
            rules: *rules,
            new_turns: 0,
            new_tokens: 0,
            revised: false,
            interval_from_ms: None,
            last_turn_ms: 0,
            last_news_ms: 0,
            due: None,
            at_once: false,
            quiet: false,
        }
    }

    /// Records a new turn of about `tokens`.
    pub fn on_turn(&mut self, now_ms: u64, tokens: u64) {
        self.new_turns += 1;
        self.new_tokens = self.new_tokens.saturating_add(tokens);
        self.last_turn_ms = now_ms;
        self.last_news_ms = now_ms;
        self.interval_from_ms.get_or_insert(now_ms);
        if std::mem::take(&mut self.quiet) {
            self.on_event(now_ms, Reason::Silence);
        }
        self.check(now_ms);
    }

    /// Records that a turn was corrected: this counts as new for the interval, but not as a new turn.
    pub fn on_revision(&mut self, now_ms: u64) {
        self.revised = true;
        self.last_news_ms = now_ms;
        self.interval_from_ms.get_or_insert(now_ms);
        self.check(now_ms);
    }

    /// Records an event that makes it due even if nothing is new: `reason` is [`Reason::Silence`] or [`Reason::Alert`].
    pub fn on_event(&mut self, now_ms: u64, reason: Reason) {
        let since = self.due.map_or(now_ms, |(since, _)| since);
        self.due = Some((since, reason));
    }

    /// Records that the vendor detected silence: it is due if something is new. If the text of the speech before the
    /// silence arrives later, it is due with the next turn.
    pub fn on_silence(&mut self, now_ms: u64) {
        self.quiet = !self.has_news();
        if !self.quiet {
            self.on_event(now_ms, Reason::Silence);
        }
    }

    /// Records that the vendor detected the beginning of speech. If `makes_due`, it is due if something is new.
    pub fn on_speech(&mut self, now_ms: u64, makes_due: bool) {
        self.quiet = false;
        if makes_due && self.has_news() {
            self.on_event(now_ms, Reason::SpeechStarted);
        }
    }

    /// Records the correction of a turn on which the newest result rests: it is due, without any wait if `at_once`.
    pub fn on_repair(&mut self, now_ms: u64, at_once: bool) {
        self.at_once |= at_once;
        if self.due.is_none_or(|(_, reason)| !reason.outlasts_its_wait()) {
            self.on_event(now_ms, Reason::Revision);
        }
    }

    /// When [`Trigger::poll`] may next return a reason without another input; may be in the past. `None` if only an
    /// input can make it due.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.due {
            Some((since, _)) => Some(self.fires_at(since)),
            None => self.interval_at(),
        }
    }

    /// The reason to run now, if there is one; returned again until [`Trigger::ran`].
    pub fn poll(&mut self, now_ms: u64) -> Option<Reason> {
        self.check(now_ms);
        let (since, reason) = self.due?;
        if now_ms < self.fires_at(since) {
            return None;
        }
        if reason.outlasts_its_wait() {
            return Some(reason);
        }
        let Some(debounce) = self.rules.debounce_ms else { return Some(reason) };
        let quiet = now_ms >= self.last_turn_ms.saturating_add(debounce);
        Some(if quiet { Reason::Debounce } else { Reason::MaxWait })
    }

    /// Records that a snapshot was taken: only later input is new.
    pub fn ran(&mut self, now_ms: u64) {
        self.new_turns = 0;
        self.new_tokens = 0;
        self.revised = false;
        self.interval_from_ms = Some(now_ms);
        self.due = None;
        self.at_once = false;
    }

    /// Makes the analysis due if a condition is met.
    fn check(&mut self, now_ms: u64) {
        if self.due.is_some() || !self.has_enough() {
            return;
        }
        let by_turns = self.rules.every_n_turns.is_some_and(|turns| self.new_turns >= turns);
        // It became due when the interval passed with something new, not when this was called.
        let by_interval = self.interval_at().filter(|at| *at <= now_ms);
        self.due = match by_interval {
            _ if by_turns => Some((now_ms, Reason::Turns)),
            Some(at) => Some((at.max(self.last_news_ms), Reason::Interval)),
            None => None,
        };
    }

    fn has_enough(&self) -> bool {
        self.rules.min_new_tokens.is_none_or(|tokens| self.new_tokens >= tokens)
    }

    fn has_news(&self) -> bool {
        self.new_turns > 0 || self.revised
    }

    /// When the interval makes it due, without further input.
    fn interval_at(&self) -> Option<u64> {
        if !self.has_news() || !self.has_enough() {
            return None;
        }
        Some(self.interval_from_ms?.saturating_add(self.rules.interval_ms?))
    }

    fn fires_at(&self, since: u64) -> u64 {
        if self.at_once {
            return since;
        }
        let Some(debounce) = self.rules.debounce_ms else { return since };
        let quiet_at = self.last_turn_ms.saturating_add(debounce);
        let latest = self.rules.max_wait_ms.map_or(u64::MAX, |wait| since.saturating_add(wait));
        quiet_at.min(latest)
    }
}

#[cfg(test)]
mod tests;
