//! When a rolling analysis is due, and when it fires: a pure state machine.
//!
//! Knows no clock (times are ms on whatever clock the caller keeps), no job and no permit.
//!
//! An analysis becomes *due* after `every_n_turns` new turns, or `interval_ms` after its last run with something new,
//! but not below `min_new_tokens`. Due, it waits for `debounce_ms` without a new turn, at most `max_wait_ms` since it
//! became due. An alert or a silence makes it due as well, whatever is new. What is absent is off. The last run at a
//! call's end, and runs by hand, are the caller's and ask nobody.

/// The rules. Times in ms; `None` = off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triggers {
    /// Due after so many new turns.
    pub every_n_turns: Option<u64>,
    /// Due so long after the last run (or, before the first, after the first turn), with something new.
    pub interval_ms: Option<u64>,
    /// Not due below so many new tokens.
    pub min_new_tokens: Option<u64>,
    /// Due, waits so long without a new turn.
    pub debounce_ms: Option<u64>,
    /// Due, waits at most so long.
    pub max_wait_ms: Option<u64>,
    /// Runs once more at the call's end.
    pub on_end: bool,
}

impl Triggers {
    /// Only at the end.
    pub const OFF: Self = Self {
        every_n_turns: None,
        interval_ms: None,
        min_new_tokens: None,
        debounce_ms: None,
        max_wait_ms: None,
        on_end: true,
    };
}

/// Why an analysis fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Due by new turns, and there is no debounce.
    Turns,
    /// Due by the interval, and there is no debounce.
    Interval,
    /// Nobody has finished a turn for `debounce_ms`.
    Debounce,
    /// It has waited `max_wait_ms`.
    MaxWait,
    /// Due by a silence.
    Silence,
    /// Due by an alert of the rule at this place of the configuration.
    Alert(u16),
}

impl Reason {
    /// As in an insight's `trigger`; of an alert, without the name of its rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Turns => "turns",
            Self::Interval => "interval",
            Self::Debounce => "debounce",
            Self::MaxWait => "max_wait",
            Self::Silence => "silence",
            Self::Alert(_) => "alert",
        }
    }
}

/// Where one analysis of one call stands.
#[derive(Debug, Clone)]
pub struct Trigger {
    rules: Triggers,
    new_turns: u64,
    new_tokens: u64,
    /// A turn was corrected since the last run.
    revised: bool,
    /// Start of the interval: the last run, or the first news.
    interval_from_ms: Option<u64>,
    last_turn_ms: u64,
    /// The last turn or correction.
    last_news_ms: u64,
    due: Option<(u64, Reason)>,
}

impl Trigger {
    /// A trigger that has seen nothing.
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
        }
    }

    /// A new turn of about `tokens` came.
    pub fn on_turn(&mut self, now_ms: u64, tokens: u64) {
        self.new_turns += 1;
        self.new_tokens = self.new_tokens.saturating_add(tokens);
        self.last_turn_ms = now_ms;
        self.last_news_ms = now_ms;
        self.interval_from_ms.get_or_insert(now_ms);
        self.check(now_ms);
    }

    /// A turn was corrected: something new for the interval, but no new turn.
    pub fn on_revision(&mut self, now_ms: u64) {
        self.revised = true;
        self.last_news_ms = now_ms;
        self.interval_from_ms.get_or_insert(now_ms);
        self.check(now_ms);
    }

    /// Something happened that makes it due: `reason` is [`Reason::Silence`] or [`Reason::Alert`].
    pub fn on_event(&mut self, now_ms: u64, reason: Reason) {
        let since = self.due.map_or(now_ms, |(since, _)| since);
        self.due = Some((since, reason));
    }

    /// When [`Trigger::poll`] may next say yes without anything else happening; may be in the past. `None` = not before
    /// something comes.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.due {
            Some((since, _)) => Some(self.fires_at(since)),
            None => self.interval_at(),
        }
    }

    /// Why it is to run now. Says so until [`Trigger::ran`].
    pub fn poll(&mut self, now_ms: u64) -> Option<Reason> {
        self.check(now_ms);
        let (since, reason) = self.due?;
        if now_ms < self.fires_at(since) {
            return None;
        }
        if matches!(reason, Reason::Silence | Reason::Alert(_)) {
            return Some(reason);
        }
        let Some(debounce) = self.rules.debounce_ms else { return Some(reason) };
        let quiet = now_ms >= self.last_turn_ms.saturating_add(debounce);
        Some(if quiet { Reason::Debounce } else { Reason::MaxWait })
    }

    /// A snapshot was taken: what comes from here on is new.
    pub fn ran(&mut self, now_ms: u64) {
        self.new_turns = 0;
        self.new_tokens = 0;
        self.revised = false;
        self.interval_from_ms = Some(now_ms);
        self.due = None;
    }

    /// Makes it due, if it is.
    fn check(&mut self, now_ms: u64) {
        if self.due.is_some() || !self.has_enough() {
            return;
        }
        let by_turns = self.rules.every_n_turns.is_some_and(|turns| self.new_turns >= turns);
        // Due since the interval passed and there was news, not since somebody looked.
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

    /// When the interval makes it due, if nothing else comes.
    fn interval_at(&self) -> Option<u64> {
        let something_new = self.new_turns > 0 || self.revised;
        if !something_new || !self.has_enough() {
            return None;
        }
        Some(self.interval_from_ms?.saturating_add(self.rules.interval_ms?))
    }

    fn fires_at(&self, since: u64) -> u64 {
        let Some(debounce) = self.rules.debounce_ms else { return since };
        let quiet_at = self.last_turn_ms.saturating_add(debounce);
        let latest = self.rules.max_wait_ms.map_or(u64::MAX, |wait| since.saturating_add(wait));
        quiet_at.min(latest)
    }
}

#[cfg(test)]
mod tests;
