//! Decides which tasks of a call run and when: after new turns, when a trigger is due, and on request.
//!
//! Does not know what happens to a task after it is requested.

use std::sync::Arc;

use super::Call;
use super::answer::{Failed, RunRefusal};
use super::effects::{Note, Reply, TaskEffect, Tell};
use super::numbers::PeerNo;
use super::schedule::{Cause, Phase, TURN_WAITING};
use super::task::{Out, Target, TaskKey, TaskNo};
use crate::analysis::{Scope, gate};
use crate::protocol::FailureCode;
use crate::types::Turn;
use crate::types::directory::CallState as State;

impl Call {
    /// Adds the analyses that the call runs.
    pub(super) fn plan_analyses(&mut self) {
        for name in &self.log.analyses {
            match self.settings.analyses.get(name) {
                Some(analysis) => {
                    self.schedule.add(analysis);
                }
                None => self.effects.notes.push(Note::UnknownAnalysis(name.clone())),
            }
        }
    }

    /// After a rebuild, makes due again what was due, waiting or running when the daemon stopped.
    pub(super) fn plan_after_rebuild(&mut self) {
        self.plan_analyses();
        let now = self.now.ms;
        let turns: Vec<Arc<Turn>> = self.log.turns.iter().cloned().collect();
        let mut refused = Vec::new();
        for slot in &mut self.schedule.rolling {
            let seen = self.log.standings.get(&*slot.analysis.name).and_then(|standing| standing.latest.as_ref());
            let covered = seen.and_then(|insight| insight.covers.to);
            for (index, turn) in turns.iter().enumerate() {
                if covered.is_some_and(|covered| turn.turn <= covered) {
                    continue;
                }
                if slot.analysis.settings.gate && adds_nothing(turn, turns[..index].iter().rev()) {
                    slot.idle_turn();
                } else {
                    slot.turn(now, self.log.context.tokens(turn.turn));
                }
            }
            let revision = seen.map_or(0, |insight| insight.covers.revision);
            if self.log.context.revision() > revision && !slot.dirty {
                slot.revision(now);
            }
        }
        self.repair_all();
        for queue in &mut self.schedule.per_turn {
            let standing = self.log.standings.get(&*queue.analysis.name);
            for turn in &turns {
                let settled = standing.is_some_and(|standing| {
                    standing.by_turn.contains_key(&turn.turn) || standing.failed_turns.contains(&turn.turn)
                });
                if !settled && !turn.text.is_empty() && !queue.turns.push(turn.turn) {
                    refused.push(TaskKey { analysis: Arc::clone(&queue.analysis.name), turn: Some(turn.turn) });
                }
            }
        }
        self.overloaded(&refused);
    }

    /// Handles a turn that became final.
    pub(super) fn new_turn(&mut self, turn: &Turn, now: u64) {
        if turn.text.is_empty() {
            return;
        }
        let tokens = self.log.context.tokens(turn.turn);
        let gated = self.schedule.rolling.iter().any(|slot| slot.analysis.settings.gate);
        let idle = gated && adds_nothing(turn, self.log.turns.iter().rev().filter(|earlier| earlier.turn < turn.turn));
        for slot in &mut self.schedule.rolling {
            if idle && slot.analysis.settings.gate {
                slot.idle_turn();
                self.effects.counts.gated += 1;
            } else {
                slot.turn(now, tokens);
            }
        }
        let mut refused = Vec::new();
        for queue in &mut self.schedule.per_turn {
            if !queue.turns.push(turn.turn) {
                refused.push(TaskKey { analysis: Arc::clone(&queue.analysis.name), turn: Some(turn.turn) });
            }
        }
        self.overloaded(&refused);
    }

    /// Reports turns for which the queue of a per-turn analysis has no room.
    fn overloaded(&mut self, refused: &[TaskKey]) {
        for key in refused {
            let message = format!("{TURN_WAITING} turns of this call already wait for {}", key.analysis);
            self.failures.push(key, Failed { code: FailureCode::Overloaded, message, temporary: true });
        }
    }

    /// Requests the tasks that are due.
    pub(super) fn launch_due(&mut self) {
        if self.log.turns.is_empty() || self.log.status == State::Failed || !self.has_room() {
            // Without room, the results could not be written.
            return;
        }
        let now = self.now.ms;
        let (open, ending) = (self.is_open(), self.ending());
        for index in 0..self.schedule.rolling.len() {
            let slot = &self.schedule.rolling[index];
            // A completed call has had its last runs, so a later request is a manual run.
            let last_run = open && ending && slot.has_last_run();
            if last_run && slot.phase == Phase::Idle && !slot.manual && self.stands(slot) {
                let key = TaskKey { analysis: Arc::clone(&slot.analysis.name), turn: None };
                self.publish_final(&key);
                continue;
            }
            if last_run && slot.phase == Phase::Idle && self.awaits_digest(index) {
                continue;
            }
            let slot = &mut self.schedule.rolling[index];
            let cause = if last_run && slot.phase == Phase::Idle {
                let cause = if slot.manual { Cause::Manual } else { Cause::End };
                (slot.retry_at_ms.is_none_or(|at| at <= now)).then_some(cause)
            } else if open && !ending || slot.manual {
                slot.fire(now)
            } else {
                None
            };
            if let Some(cause) = cause {
                slot.phase = Phase::Queued { cause, fired_ms: now };
                let (key, computed) =
                    (TaskKey { analysis: Arc::clone(&slot.analysis.name), turn: None }, slot.analysis.is_computed());
                if computed {
                    self.compute(&key);
                } else {
                    self.want(Target::Insights(vec![key]));
                }
            }
        }
        for index in 0..self.schedule.per_turn.len() {
            while let Some(turn) = self.schedule.per_turn[index].turns.next() {
                let analysis = Arc::clone(&self.schedule.per_turn[index].analysis.name);
                self.want(Target::Insights(vec![TaskKey { analysis, turn: Some(turn) }]));
            }
        }
    }

    pub(super) fn want(&mut self, target: Target) {
        self.tasks.given += 1;
        let no = self.tasks.given;
        self.tasks.out.insert(no, Out { target, run: None });
        self.effects.tasks.push(TaskEffect::Want(no));
    }

    pub(super) fn run_now(&mut self, ask: PeerNo, name: &str) {
        self.life.heard_ms = self.now.ms;
        let analyses = &self.settings.analyses;
        let refusal = match analyses.get(name) {
            None => RunRefusal::Unknown(analyses.unknown(name)),
            Some(analysis) if analysis.scope == Scope::Turn => RunRefusal::PerTurn(name.to_owned()),
            Some(_) if self.log.turns.is_empty() => RunRefusal::NoTurns,
            Some(_) if self.log.status == State::Failed => RunRefusal::Unavailable("the call has failed".to_owned()),
            Some(analysis) => {
                self.schedule.add(analysis);
                if let Some(slot) = self.schedule.rolling(name) {
                    slot.ask();
                }
                return self.outbox.replies.push(Reply::Run(ask, self.log.head));
            }
        };
        self.effects.tells.push(Tell::Refuse(ask, refusal));
    }

    /// Aborts the tasks that `which` selects.
    pub(super) fn abort_tasks(&mut self, which: impl Fn(&Target) -> bool) {
        let given_up: Vec<TaskNo> =
            self.tasks.out.iter().filter(|(_, out)| which(&out.target)).map(|(no, _)| *no).collect();
        for no in given_up {
            self.tasks.out.remove(&no);
            self.effects.tasks.push(TaskEffect::Abort(no));
        }
    }

    /// At the deadline of a shutdown, publishes the remaining tasks as failed; they run again after the next start.
    pub(super) fn kill(&mut self) {
        self.let_all_out();
        self.abort_tasks(|_| true);
        // Answers are not requested again: their connections end with the daemon.
        for live in self.producers.live.values_mut() {
            live.replies = None;
        }
        for slot in self.schedule.rolling.iter().filter(|slot| slot.phase == Phase::Running) {
            let key = TaskKey { analysis: Arc::clone(&slot.analysis.name), turn: None };
            let message = "the daemon stopped during this run; it runs again after the restart";
            let failed = Failed { code: FailureCode::Shutdown, message: message.to_owned(), temporary: true };
            self.failures.push(&key, failed);
        }
        self.publish_failures();
    }
}

/// Returns true if a turn adds nothing to those before it, which come newest first.
fn adds_nothing<'a>(turn: &Turn, before: impl Iterator<Item = &'a Arc<Turn>>) -> bool {
    gate::adds_nothing(&turn.text, before.map(|earlier| earlier.text.as_str()).filter(|text| !text.is_empty()))
}
