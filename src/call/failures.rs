//! Publishes failures of a call's analyses: `insight.failed` at most once per second for each analysis.
//!
//! Knows no journal and no clock: the caller passes the time. A failure that comes too soon waits. Of a rolling
//! analysis only the newest failure is kept; of a per-turn analysis every one, because every turn gets an answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::answer::Failed;
use super::task::TaskKey;
use crate::types::TurnNo;

/// Minimum time between two failures of one analysis of a call, ms.
const APART_MS: u64 = 1_000;

/// The failures of one analysis.
#[derive(Debug, Default)]
struct Waiting {
    /// When the next one may be published.
    free_ms: u64,
    /// Set if all waiting failures may be published now.
    hurried: bool,
    whole: Option<Failed>,
    turns: VecDeque<(TurnNo, Failed)>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.whole.is_none() && self.turns.is_empty()
    }
}

/// The failures of one call.
#[derive(Debug, Default)]
pub(super) struct Failures {
    by_analysis: BTreeMap<Arc<str>, Waiting>,
}

impl Failures {
    /// Adds a failure; [`Failures::next`] returns it when it may be published.
    pub(super) fn push(&mut self, key: &TaskKey, failed: Failed) {
        let waiting = self.by_analysis.entry(Arc::clone(&key.analysis)).or_default();
        match key.turn {
            None => waiting.whole = Some(failed),
            Some(turn) => waiting.turns.push_back((turn, failed)),
        }
    }

    /// Drops the waiting failure of the rolling analysis `name`, which has succeeded.
    pub(super) fn succeeded(&mut self, name: &str) {
        if let Some(waiting) = self.by_analysis.get_mut(name) {
            waiting.whole = None;
        }
    }

    /// The call ends: no event may follow its last one, so all waiting failures may be published at once.
    pub(super) fn hurry(&mut self) {
        self.by_analysis.values_mut().for_each(|waiting| waiting.hurried = true);
    }

    /// Takes a failure that may be published now.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<(TaskKey, Failed)> {
        let ready = |waiting: &Waiting| !waiting.is_empty() && (waiting.hurried || waiting.free_ms <= now_ms);
        for waiting in self.by_analysis.values_mut().filter(|waiting| waiting.is_empty()) {
            waiting.hurried = false;
        }
        let (name, waiting) = self.by_analysis.iter_mut().find(|(_, waiting)| ready(waiting))?;
        waiting.free_ms = now_ms.saturating_add(APART_MS);
        let analysis = Arc::clone(name);
        match waiting.turns.pop_front() {
            Some((turn, failed)) => Some((TaskKey { analysis, turn: Some(turn) }, failed)),
            None => waiting.whole.take().map(|failed| (TaskKey { analysis, turn: None }, failed)),
        }
    }

    /// When [`Failures::next`] may return one, if nothing else happens.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.by_analysis.values().filter(|waiting| !waiting.is_empty()).map(|waiting| waiting.free_ms).min()
    }

    /// Returns true if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.by_analysis.values().all(Waiting::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::FailureCode;

    fn failed(message: &str) -> Failed {
        Failed { code: FailureCode::UpstreamError, message: message.to_owned(), temporary: true }
    }

    fn key(analysis: &str, turn: Option<TurnNo>) -> TaskKey {
        TaskKey { analysis: analysis.into(), turn }
    }

    /// The failures that are published from `from_ms` on and before `to_ms`, checked every 10 ms: time, analysis and
    /// reason.
    fn out(failures: &mut Failures, from_ms: u64, to_ms: u64) -> Vec<(u64, Option<TurnNo>, String)> {
        let mut out = Vec::new();
        for now_ms in (from_ms..to_ms).step_by(10) {
            while let Some((key, failed)) = failures.next(now_ms) {
                out.push((now_ms, key.turn, failed.message));
            }
        }
        out
    }

    #[test]
    fn a_rolling_analysis_that_fails_all_the_time_says_so_once_a_second_and_the_newest() {
        let mut failures = Failures::default();
        let mut seen = Vec::new();
        for now_ms in (0..2_500).step_by(10) {
            failures.push(&key("summary", None), failed(&now_ms.to_string()));
            seen.extend(out(&mut failures, now_ms, now_ms + 10));
        }
        let of = |now_ms: u64| (now_ms, None, now_ms.to_string());
        assert_eq!(seen, [of(0), of(1_000), of(2_000)]);
        assert_eq!(failures.next_ms(), Some(3_000));
        failures.succeeded("summary");
        assert!(failures.is_empty() && failures.next_ms().is_none());
    }

    #[test]
    fn every_turn_has_its_failure_in_order_a_second_apart() {
        let mut failures = Failures::default();
        for turn in 0..5 {
            failures.push(&key("translation", Some(turn)), failed("timeout"));
        }
        let of = |turn: u64| (turn * 1_000, Some(turn), "timeout".to_owned());
        assert_eq!(out(&mut failures, 0, 10_000), (0..5).map(of).collect::<Vec<_>>());
        assert!(failures.is_empty());
    }

    #[test]
    fn failures_that_wait_are_sent_at_the_end() {
        let mut failures = Failures::default();
        for turn in 0..5 {
            failures.push(&key("translation", Some(turn)), failed("timeout"));
        }
        assert_eq!(out(&mut failures, 0, 10).len(), 1);
        failures.hurry();
        assert_eq!(out(&mut failures, 10, 20).len(), 4);
        failures.push(&key("translation", None), failed("refused"));
        assert_eq!(out(&mut failures, 20, 2_000), [(1_010, None, "refused".to_owned())]);
    }

    #[test]
    fn analyses_do_not_wait_for_each_other() {
        let mut failures = Failures::default();
        for name in ["sentiment", "summary"] {
            failures.push(&key(name, None), failed(name));
        }
        assert_eq!(out(&mut failures, 0, 10).len(), 2);
    }
}
