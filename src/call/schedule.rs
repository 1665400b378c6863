//! When which analysis of a call runs: one slot per rolling analysis, one small queue per per-turn analysis.
//!
//! Knows no permit and no clock but the ms that it is given. LLM slowness is coalesced here: a rolling
//! analysis has at most one job in flight and one dirty bit.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::analysis::trigger::{Reason, Trigger};
use crate::analysis::{Analysis, Scope};
use crate::context::Window;
use crate::protocol::FailureCode;
use crate::types::TurnNo;

/// Tasks of a per-turn analysis that are out at once, for one call.
pub(super) const TURN_JOBS: usize = 4;
/// Turns of a per-turn analysis that may wait, for one call.
pub(super) const TURN_WAITING: usize = 64;
/// Turns of a producer's own question that may be without an answer at once. More are refused.
pub const OPEN_TURNS: usize = TURN_JOBS + TURN_WAITING;
/// First wait before a failed job is tried again, ms.
const RETRY_FIRST_MS: u64 = 500;
/// Longest such wait, ms: an LLM that is well again is noticed within it.
const RETRY_MAX_MS: u64 = 4_000;

/// Why a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A trigger of the analysis fired.
    Trigger(Reason),
    /// The task before it failed, and its wait is over.
    Retry,
    /// Somebody asked for it.
    Manual,
    /// The call ends.
    End,
    /// A turn became final, and the analysis is per turn.
    Turn,
    /// Another analysis of its bundle ran.
    Bundle,
}

impl Cause {
    /// As in an insight's `trigger`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Trigger(reason) => reason.as_str(),
            Self::Retry => "retry",
            Self::Manual => "manual",
            Self::End => "end",
            Self::Turn => "turn",
            Self::Bundle => "bundle",
        }
    }
}

/// Where a rolling analysis stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing to do, or not due.
    Idle,
    /// Fired; waits for a permit.
    Queued {
        /// Why it fired.
        cause: Cause,
        /// When.
        fired_ms: u64,
    },
    /// A task is out.
    Running,
}

/// Where the last run of an analysis stands, once the call is ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Last {
    /// Still to be run.
    Due,
    /// Its insight is final.
    Done,
    /// It will not come, and why.
    Missing(FailureCode),
}

/// One rolling analysis of a call.
pub(super) struct Rolling {
    /// The question.
    pub(super) analysis: Arc<Analysis>,
    /// When it is due.
    pub(super) trigger: Trigger,
    /// Where its context begins.
    pub(super) window: Window,
    /// Where it stands.
    pub(super) phase: Phase,
    /// Something came since the snapshot of the newest task, or that task failed.
    pub(super) dirty: bool,
    /// Failures in a row.
    pub(super) failures: u32,
    /// When a failed task is tried again.
    pub(super) retry_at_ms: Option<u64>,
    /// After a failure, nothing fires before this time.
    pub(super) hold_ms: u64,
    /// Asked for by hand since the last snapshot.
    pub(super) manual: bool,
    /// The last run.
    pub(super) last: Last,
    /// When the newest turn or correction came.
    pub(super) news_ms: u64,
}

impl Rolling {
    /// A slot that has run nothing.
    pub(super) fn new(analysis: Arc<Analysis>) -> Self {
        let trigger = Trigger::new(&analysis.settings.triggers);
        let window = Window::new(analysis.settings.max_context_tokens);
        let last = Last::Due;
        Self {
            analysis,
            trigger,
            window,
            phase: Phase::Idle,
            dirty: false,
            failures: 0,
            retry_at_ms: None,
            hold_ms: 0,
            manual: false,
            last,
            news_ms: 0,
        }
    }

    /// A new turn of about `tokens`.
    pub(super) fn turn(&mut self, now_ms: u64, tokens: u64) {
        self.dirty = true;
        self.news_ms = now_ms;
        self.trigger.on_turn(now_ms, tokens);
    }

    /// A turn was corrected.
    pub(super) fn revision(&mut self, now_ms: u64) {
        self.dirty = true;
        self.news_ms = now_ms;
        self.trigger.on_revision(now_ms);
    }

    /// When [`Rolling::fire`] may say yes without anything else happening.
    pub(super) fn next_ms(&self) -> Option<u64> {
        if self.phase != Phase::Idle {
            return None;
        }
        let next = [self.trigger.next_deadline(), self.retry_at_ms].into_iter().flatten().min();
        next.map(|at| at.max(self.hold_ms))
    }

    /// Why it is to run now, if it is. The caller queues it.
    pub(super) fn fire(&mut self, now_ms: u64) -> Option<Cause> {
        if self.phase != Phase::Idle || now_ms < self.hold_ms {
            return None;
        }
        if self.manual {
            return Some(Cause::Manual);
        }
        if let Some(reason) = self.trigger.poll(now_ms) {
            return Some(Cause::Trigger(reason));
        }
        self.retry_at_ms.filter(|at| *at <= now_ms).map(|_| Cause::Retry)
    }

    /// Asked for by hand: at once, whatever failed before.
    pub(super) fn ask(&mut self) {
        self.manual = true;
        self.retry_at_ms = None;
        self.hold_ms = 0;
    }

    /// A snapshot was taken, or could not be: the trigger is used up, and what comes from here on is news.
    pub(super) fn started(&mut self, now_ms: u64) {
        self.phase = Phase::Running;
        self.dirty = false;
        self.manual = false;
        self.retry_at_ms = None;
        self.trigger.ran(now_ms);
    }

    /// At the call's end it runs once more, and has not yet.
    pub(super) fn has_last_run(&self) -> bool {
        self.last == Last::Due && self.analysis.settings.triggers.on_end
    }

    /// The task gave an insight.
    pub(super) fn succeeded(&mut self) {
        self.phase = Phase::Idle;
        self.failures = 0;
        self.hold_ms = 0;
    }

    /// The task failed: it is dirty, waits for a while, and is tried again then if that may help, else by the next trigger.
    /// `jitter` is from 0 to 1.
    pub(super) fn failed(&mut self, now_ms: u64, temporary: bool, jitter: f64) {
        self.phase = Phase::Idle;
        self.dirty = true;
        self.hold_ms = now_ms.saturating_add(backoff_ms(self.failures, jitter));
        self.retry_at_ms = temporary.then_some(self.hold_ms);
        self.failures = self.failures.saturating_add(1);
    }
}

/// Wait before try `failures + 1`: doubles up to the maximum, of which a quarter is jitter.
pub(super) fn backoff_ms(failures: u32, jitter: f64) -> u64 {
    let full = RETRY_FIRST_MS.saturating_mul(1 << failures.min(16)).min(RETRY_MAX_MS);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a few seconds"
    )]
    let part = (full as f64 / 4.0 * jitter.clamp(0.0, 1.0)) as u64;
    full - part
}

/// Turns that wait for a task of their own, and those whose task is out.
pub(super) struct TurnQueue<T> {
    /// Oldest first.
    waiting: VecDeque<T>,
    running: BTreeSet<T>,
}

impl<T: Copy + Ord> TurnQueue<T> {
    /// A queue that has run nothing.
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), running: BTreeSet::new() }
    }

    /// Queues `turn`; `false` where the queue is full: then this turn gets no result.
    pub(super) fn push(&mut self, turn: T) -> bool {
        let room = self.waiting.len() < TURN_WAITING;
        if room {
            self.waiting.push_back(turn);
        }
        room
    }

    /// The next turn to ask about, if one may go out now. The caller starts it.
    pub(super) fn next(&mut self) -> Option<T> {
        if self.running.len() >= TURN_JOBS {
            return None;
        }
        let turn = self.waiting.pop_front()?;
        self.running.insert(turn);
        Some(turn)
    }

    /// The turn's task goes out now, although others may be before it.
    pub(super) fn take(&mut self, turn: T) {
        self.waiting.retain(|waiting| *waiting != turn);
        self.running.insert(turn);
    }

    /// The task about `turn` is over.
    pub(super) fn over(&mut self, turn: T) {
        self.running.remove(&turn);
    }

    /// The turns without a result: those whose task is out, then those that wait.
    pub(super) fn open(&self) -> impl Iterator<Item = T> {
        self.running.iter().chain(&self.waiting).copied()
    }

    /// Forgets what waits and what is out.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.running.clear();
    }

    /// Nothing waits and nothing is out.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }
}

/// One per-turn analysis of a call.
pub(super) struct PerTurn {
    /// The question.
    pub(super) analysis: Arc<Analysis>,
    /// The turns.
    pub(super) turns: TurnQueue<TurnNo>,
}

/// All analyses of one call.
#[derive(Default)]
pub(super) struct Schedule {
    /// Over the whole context.
    pub(super) rolling: Vec<Rolling>,
    /// Once a turn.
    pub(super) per_turn: Vec<PerTurn>,
}

impl Schedule {
    /// Adds `analysis`, unless it is there; whether it was added.
    pub(super) fn add(&mut self, analysis: &Arc<Analysis>) -> bool {
        if self.rolling(&analysis.name).is_some() || self.per_turn(&analysis.name).is_some() {
            return false;
        }
        match analysis.scope {
            Scope::Rolling | Scope::End => {
                // A call runs a few, known from its start: no room is held for more.
                self.rolling.reserve_exact(1);
                self.rolling.push(Rolling::new(Arc::clone(analysis)));
            }
            Scope::Turn => self.per_turn.push(PerTurn { analysis: Arc::clone(analysis), turns: TurnQueue::new() }),
        }
        true
    }

    /// The rolling analysis `name`.
    pub(super) fn rolling(&mut self, name: &str) -> Option<&mut Rolling> {
        self.rolling.iter_mut().find(|slot| *slot.analysis.name == *name)
    }

    /// The per-turn analysis `name`.
    pub(super) fn per_turn(&mut self, name: &str) -> Option<&mut PerTurn> {
        self.per_turn.iter_mut().find(|queue| *queue.analysis.name == *name)
    }

    /// Tasks that were out never come back: what is asked for by hand from here on runs.
    pub(super) fn aborted(&mut self) {
        for slot in self.rolling.iter_mut().filter(|slot| slot.phase != Phase::Idle) {
            slot.phase = Phase::Idle;
        }
    }

    /// The question of the analysis `name`.
    pub(super) fn analysis(&self, name: &str) -> Option<&Arc<Analysis>> {
        let rolling = self.rolling.iter().map(|slot| &slot.analysis);
        rolling.chain(self.per_turn.iter().map(|queue| &queue.analysis)).find(|analysis| *analysis.name == *name)
    }

    /// The task of the per-turn analysis `name` about `turn` is over.
    pub(super) fn turn_over(&mut self, name: &str, turn: TurnNo) {
        if let Some(queue) = self.per_turn(name) {
            queue.turns.over(turn);
        }
    }

    /// When something may be due next.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.rolling.iter().filter_map(Rolling::next_ms).min()
    }
}

#[cfg(test)]
mod tests;
