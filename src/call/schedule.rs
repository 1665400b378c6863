//! When each analysis of a call runs: one slot per rolling analysis, one small queue per per-turn analysis.
//!
//! Knows no permit and no clock: the caller passes the time. While an LLM is slow, its work is coalesced here: a
//! rolling analysis has at most one job in flight and one dirty bit.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::analysis::trigger::{Reason, Trigger};
use crate::analysis::{Analysis, Scope};
use crate::base::backoff::Backoff;
use crate::base::time::millis;
use crate::context::Window;
use crate::protocol::FailureCode;
use crate::types::TurnNo;

/// Maximum number of running tasks of a per-turn analysis, for one call.
pub(super) const TURN_JOBS: usize = 4;
/// Maximum number of waiting turns of a per-turn analysis, for one call.
pub(super) const TURN_WAITING: usize = 64;
/// Maximum number of turns that wait for the answer to a producer's own question. More are refused.
pub const OPEN_TURNS: usize = TURN_JOBS + TURN_WAITING;
/// Waits before a failed task is repeated; a recovered LLM is noticed within the longest.
const RETRIES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(4)).with_jitter(0.25);

/// After so many consecutive invalid parts of answers to its bundle, an analysis is asked alone until it succeeds.
const MAX_BROKEN: u32 = 2;

/// Why a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A trigger of the analysis fired.
    Trigger(Reason),
    /// The previous task failed, and its wait is over.
    Retry,
    /// A client requested the run.
    Manual,
    /// The call ends.
    End,
    /// A turn became final, and the analysis is per turn.
    Turn,
    /// Another analysis of the same bundle is due, and both run together.
    Bundle,
}

/// The phase of a rolling analysis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// The analysis is not due.
    Idle,
    /// The analysis is due and waits for a permit.
    Queued {
        /// Why the analysis became due.
        cause: Cause,
        /// When the analysis became due.
        fired_ms: u64,
    },
    /// A task runs.
    Running,
}

/// The state of an analysis' last run, once the call is ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Last {
    /// The analysis has not run yet.
    Due,
    /// The analysis's insight is final.
    Done,
    /// The analysis will give no insight; the reason.
    Missing(FailureCode),
}

/// One rolling analysis of a call.
pub(super) struct Rolling {
    pub(super) analysis: Arc<Analysis>,
    /// When the analysis is due.
    pub(super) trigger: Trigger,
    /// The first turn of its context.
    pub(super) window: Window,
    pub(super) phase: Phase,
    /// Set if something has changed since the snapshot of the newest task, or if that task failed.
    pub(super) dirty: bool,
    /// Waits after consecutive failures.
    backoff: Backoff,
    /// Number of consecutive answers to its bundle whose part for it was invalid.
    broken: u32,
    /// Set if a request of its bundle was refused as a whole: from then on, it is asked alone.
    left_bundle: bool,
    /// When a failed task is repeated.
    pub(super) retry_at_ms: Option<u64>,
    /// After a failure, no trigger has an effect before this time.
    pub(super) hold_ms: u64,
    /// Set if a client requested it since the last snapshot.
    pub(super) manual: bool,
    /// The state of the analysis's last run.
    pub(super) last: Last,
    /// When the newest turn or correction came.
    pub(super) news_ms: u64,
}

impl Rolling {
    /// A slot that has not run.
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
            backoff: RETRIES,
            broken: 0,
            left_bundle: false,
            retry_at_ms: None,
            hold_ms: 0,
            manual: false,
            last,
            news_ms: 0,
        }
    }

    /// Records a new turn of about `tokens`.
    pub(super) fn turn(&mut self, now_ms: u64, tokens: u64) {
        self.dirty = true;
        self.news_ms = now_ms;
        self.trigger.on_turn(now_ms, tokens);
    }

    /// Records a new turn that adds nothing: the next task covers it, and it makes nothing due.
    pub(super) fn idle_turn(&mut self) {
        self.dirty = true;
    }

    /// Records that a turn was corrected.
    pub(super) fn revision(&mut self, now_ms: u64) {
        self.dirty = true;
        self.news_ms = now_ms;
        self.trigger.on_revision(now_ms);
    }

    /// When [`Rolling::fire`] may return a cause without a further input.
    pub(super) fn next_ms(&self) -> Option<u64> {
        if self.phase != Phase::Idle {
            return None;
        }
        let next = [self.trigger.next_deadline(), self.retry_at_ms].into_iter().flatten().min();
        next.map(|at| at.max(self.hold_ms))
    }

    /// Why the analysis must run now, if it must. The caller queues it.
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

    /// Makes the analysis due at once by request, whatever failed before.
    pub(super) fn ask(&mut self) {
        self.manual = true;
        self.retry_at_ms = None;
        self.hold_ms = 0;
    }

    /// A snapshot was taken, or could not be: resets the trigger, so that only later changes count.
    pub(super) fn started(&mut self, now_ms: u64) {
        self.phase = Phase::Running;
        self.dirty = false;
        self.manual = false;
        self.retry_at_ms = None;
        self.trigger.ran(now_ms);
    }

    /// Returns true if the analysis's run at the call's end has not happened yet.
    pub(super) fn has_last_run(&self) -> bool {
        self.last == Last::Due && self.analysis.settings.triggers.on_end
    }

    /// Records that the task gave an insight.
    pub(super) fn succeeded(&mut self) {
        self.phase = Phase::Idle;
        self.backoff.reset();
        self.broken = 0;
        self.hold_ms = 0;
    }

    /// Records that its part of the answer to its bundle was invalid.
    pub(super) fn broke_its_part(&mut self) {
        self.broken = self.broken.saturating_add(1);
    }

    /// Records that a request of its bundle was refused as a whole.
    pub(super) fn leave_bundle(&mut self) {
        self.left_bundle = true;
    }

    /// Returns true if its next request asks it alone, although it has a bundle.
    pub(super) fn is_apart(&self) -> bool {
        self.left_bundle || self.broken >= MAX_BROKEN
    }

    /// Records a failed task: the slot is dirty and waits. It is repeated after the wait if that may help, otherwise by
    /// the next trigger. `random` is from 0 to 1.
    pub(super) fn failed(&mut self, now_ms: u64, temporary: bool, random: f64) {
        self.phase = Phase::Idle;
        self.dirty = true;
        self.hold_ms = now_ms.saturating_add(millis(self.backoff.pause(random)));
        self.retry_at_ms = temporary.then_some(self.hold_ms);
    }
}

/// Turns that wait for a task of their own, and those whose task runs.
pub(super) struct TurnQueue<T> {
    /// Waiting turns, oldest first.
    waiting: VecDeque<T>,
    running: BTreeSet<T>,
}

impl<T: Copy + Ord> TurnQueue<T> {
    /// An empty queue.
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), running: BTreeSet::new() }
    }

    /// Queues `turn`; returns false if the queue is full: then this turn gets no result.
    pub(super) fn push(&mut self, turn: T) -> bool {
        let room = self.waiting.len() < TURN_WAITING;
        if room {
            self.waiting.push_back(turn);
        }
        room
    }

    /// The next turn whose task may start now. The caller starts it.
    pub(super) fn next(&mut self) -> Option<T> {
        if self.running.len() >= TURN_JOBS {
            return None;
        }
        let turn = self.waiting.pop_front()?;
        self.running.insert(turn);
        Some(turn)
    }

    /// Records that the task of `turn` starts now, even if other turns waited before it.
    pub(super) fn take(&mut self, turn: T) {
        self.waiting.retain(|waiting| *waiting != turn);
        self.running.insert(turn);
    }

    /// Records that the task of `turn` ended.
    pub(super) fn over(&mut self, turn: T) {
        self.running.remove(&turn);
    }

    /// The turns without a result: those whose task runs, then those that wait.
    pub(super) fn open(&self) -> impl Iterator<Item = T> {
        self.running.iter().chain(&self.waiting).copied()
    }

    /// Removes all turns.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.running.clear();
    }

    /// Returns true if no turn waits and no task runs.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }
}

/// One per-turn analysis of a call.
pub(super) struct PerTurn {
    pub(super) analysis: Arc<Analysis>,
    pub(super) turns: TurnQueue<TurnNo>,
}

/// All analyses of one call.
#[derive(Default)]
pub(super) struct Schedule {
    /// Analyses of the whole context.
    pub(super) rolling: Vec<Rolling>,
    /// Analyses of each turn.
    pub(super) per_turn: Vec<PerTurn>,
}

impl Schedule {
    /// Adds `analysis`, unless it exists; returns true if it was added.
    pub(super) fn add(&mut self, analysis: &Arc<Analysis>) -> bool {
        if self.rolling(&analysis.name).is_some() || self.per_turn(&analysis.name).is_some() {
            return false;
        }
        match analysis.scope {
            Scope::Rolling | Scope::End => {
                // A call runs only a few analyses, known from its start, so no spare capacity is reserved.
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

    /// Records that running tasks were aborted, so that later manual requests can run.
    pub(super) fn aborted(&mut self) {
        for slot in self.rolling.iter_mut().filter(|slot| slot.phase != Phase::Idle) {
            slot.phase = Phase::Idle;
        }
    }

    pub(super) fn analysis(&self, name: &str) -> Option<&Arc<Analysis>> {
        let rolling = self.rolling.iter().map(|slot| &slot.analysis);
        rolling.chain(self.per_turn.iter().map(|queue| &queue.analysis)).find(|analysis| *analysis.name == *name)
    }

    /// Records that the task of the per-turn analysis `name` about `turn` ended.
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
