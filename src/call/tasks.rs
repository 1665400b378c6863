//! Starts tasks of a call that have their permit: decides which analyses are asked together, and about which turns.
//!
//! Knows neither the gateway nor a permit, and not what is due: the chosen model is an input.

use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::answer::Failed;
use super::effects::TaskEffect;
use super::schedule::{Cause, Last, Phase};
use super::task::{Asks, Begun, BegunMember, Choice, Chosen, Member, Other, Run, Start, Target, TaskKey, TaskNo};
use crate::analysis::{self, Analysis, Facts};
use crate::base::tokens::Fit;
use crate::context::{DEFAULT_BUDGET_TOKENS, Snapshot, Window};
use crate::protocol::FailureCode;
use crate::rules::SPEAKERS;
use crate::types::{JsonMap, TurnNo};

impl Call {
    /// What the driver needs to choose a model; `None` if the task is no longer wanted.
    pub(crate) fn choice(&self, task: TaskNo) -> Option<Choice<'_>> {
        let key = match &self.tasks.out.get(&task)?.target {
            Target::Insights(keys) => keys.first()?,
            Target::Reply(key) => return self.question(*key).map(Choice::Question),
            // The model of the analysis makes it.
            Target::Digest(key) => return self.asks(&key.analysis, Vec::new()),
        };
        self.asks(&key.analysis, self.others(key))
    }

    fn asks<'call>(&'call self, name: &str, others: Vec<Other<'call>>) -> Option<Choice<'call>> {
        let (analysis, pinned) = (self.schedule.analysis(name)?, self.pinned(name));
        Some(Choice::Analysis { analysis, pinned, variants: &self.log.variants, others })
    }

    /// The task of an analysis that waits for a permit of its own.
    fn unstarted(&self, name: &str, turn: Option<TurnNo>) -> Option<TaskNo> {
        let is_it = |target: &Target| match target {
            Target::Insights(keys) => keys.iter().any(|key| *key.analysis == *name && key.turn == turn),
            Target::Reply(_) | Target::Digest(_) => false,
        };
        self.tasks.out.iter().find(|(_, out)| out.run.is_none() && is_it(&out.target)).map(|(no, _)| *no)
    }

    /// Handles a task that got its permit.
    pub(super) fn ready(&mut self, no: TaskNo, chosen: Result<Chosen, Failed>) {
        let Some(out) = self.tasks.out.get(&no).filter(|out| out.run.is_none()) else { return };
        match out.target.clone() {
            Target::Insights(keys) => {
                if let Some(due) = keys.first() {
                    self.insights_ready(no, due, chosen);
                }
            }
            Target::Reply(key) => self.reply_ready(no, key, chosen),
            Target::Digest(key) => self.digest_ready(no, &key, chosen),
        }
    }

    /// Roles and names of the speakers, for prompts.
    pub(super) fn speakers(&self) -> JsonMap {
        let newest = self.log.standings.get(SPEAKERS).and_then(|standing| standing.latest.as_ref());
        analysis::speakers(&self.log.meta, newest.map(|insight| &insight.value))
    }

    /// Takes the snapshot and starts the task: for the analysis that is due, and for those that were chosen with it.
    fn insights_ready(&mut self, no: TaskNo, due: &TaskKey, chosen: Result<Chosen, Failed>) {
        let now = self.now.ms;
        let Some((_, cause, _)) = self.slot_facts(due).filter(|(_, cause, _)| *cause != Cause::Bundle) else {
            self.tasks.out.remove(&no);
            return;
        };
        let is_final = self.is_final(cause);
        let Chosen { route, variant, local, fit, members } = match chosen {
            Ok(chosen) => chosen,
            Err(failed) => {
                self.begin(no, due);
                self.tasks.out.remove(&no);
                return self.task_failed(due, is_final, failed);
            }
        };
        let bundled = members.len() > 1;
        let first = members.first().map(|member| Arc::clone(&member.analysis));
        let (mut asked, mut begun) = (Vec::new(), Vec::new());
        for member in members {
            let key = TaskKey { analysis: member.analysis, turn: due.turn };
            if key != *due && !self.joins(&key, is_final) {
                continue;
            }
            let Some((analysis, cause, fired_ms, news_ms)) = self.begin(no, &key) else { continue };
            // The client that requested the run waits for an insight with this trigger.
            let cause = if is_final && cause != Cause::Manual { Cause::End } else { cause };
            let rev = 1 + match key.turn {
                None => self.log.standings.get(&*key.analysis).map_or(0, |standing| standing.rev),
                Some(_) => 0,
            };
            let standing = self.log.standings.get(&*key.analysis).filter(|_| key.turn.is_none());
            let current = standing.and_then(|standing| standing.latest.clone());
            asked.push(Member { key: key.clone(), analysis, rev, current });
            begun.push(BegunMember { key, prompt: member.prompt, cause, news_ms, fired_ms });
        }
        let snapshot = self.take_snapshot(&asked, first.as_deref(), due.turn, (local, fit), is_final);
        if snapshot.is_empty() {
            self.tasks.out.remove(&no);
            let spoken = self.log.turns.iter().any(|turn| !turn.text.is_empty());
            for member in &begun {
                if spoken && member.key.turn.is_none() {
                    self.task_failed(&member.key, is_final, too_long());
                } else {
                    self.nothing_to_ask(&member.key);
                }
            }
            return;
        }
        let facts = Facts {
            call_id: self.log.call_id.clone(),
            meta: self.log.meta.clone(),
            speakers: self.speakers(),
            turn: due.turn,
        };
        let deadline = is_final.then(|| Duration::from_millis(self.final_left()));
        let (covers, turns) = (snapshot.covers(), self.log.turns.len() as u64);
        if let Some(out) = self.tasks.out.get_mut(&no) {
            out.target = Target::Insights(begun.iter().map(|member| member.key.clone()).collect());
            let begun = Begun { route, variant, covers, turns, is_final, bundled, started_ms: now, members: begun };
            out.run = Some(Run::Insights(Box::new(begun)));
        }
        let (asks, last) = (Asks::Insights(asked), is_final);
        self.effects.start = Some(Box::new(Start { no, asks, snapshot, facts, last, deadline }));
    }

    /// Returns true if a run for this cause is the last run of the call.
    pub(super) fn is_final(&self, cause: Cause) -> bool {
        self.ending() && cause == Cause::End
    }

    /// Begins one analysis of a task. Its trigger is used up now, whatever the result: a failed task waits before its
    /// repetition. Returns the analysis, why it runs, when it became due, and since when its insight is awaited.
    fn begin(&mut self, no: TaskNo, key: &TaskKey) -> Option<(Arc<Analysis>, Cause, u64, u64)> {
        let (analysis, mut cause, fired_ms) = self.slot_facts(key)?;
        if self.schedule.rolling(&key.analysis).is_some_and(|slot| key.turn.is_none() && slot.manual) {
            cause = Cause::Manual;
        }
        // The analysis no longer waits for a permit of its own.
        if let Some(other) = self.unstarted(&key.analysis, key.turn).filter(|other| *other != no) {
            self.tasks.out.remove(&other);
            self.effects.tasks.push(TaskEffect::Abort(other));
        }
        if let (Some(turn), Some(queue)) = (key.turn, self.schedule.per_turn(&key.analysis)) {
            queue.turns.take(turn);
        }
        let news_ms = self.started(key, fired_ms, cause);
        Some((analysis, cause, fired_ms, news_ms))
    }

    /// The analysis, why it runs, and since when; `None` if it is running already.
    pub(super) fn slot_facts(&mut self, key: &TaskKey) -> Option<(Arc<Analysis>, Cause, u64)> {
        let now = self.now.ms;
        if key.turn.is_some() {
            let queue = self.schedule.per_turn(&key.analysis)?;
            return Some((Arc::clone(&queue.analysis), Cause::Turn, now));
        }
        let slot = self.schedule.rolling(&key.analysis)?;
        match slot.phase {
            Phase::Queued { cause, fired_ms } => Some((Arc::clone(&slot.analysis), cause, fired_ms)),
            Phase::Idle => Some((Arc::clone(&slot.analysis), Cause::Bundle, now)),
            Phase::Running => None,
        }
    }

    /// The context of the analyses. A bundle uses the window of the `first` analysis in its schema, which is always the
    /// same, whichever of them are asked.
    fn take_snapshot(
        &mut self,
        asked: &[Member],
        first: Option<&str>,
        turn: Option<TurnNo>,
        (local, fit): (bool, Fit),
        is_final: bool,
    ) -> Snapshot {
        let settings = || asked.iter().map(|member| &member.analysis.settings);
        // The embedded provider reads any length at no cost, so its context needs no limit.
        let budget = if local { Some(u64::MAX) } else { settings().map(|settings| settings.max_context_tokens).min() };
        let budget = fit.within(budget.unwrap_or(DEFAULT_BUDGET_TOKENS));
        if let Some(turn) = turn {
            let before = settings().map(|settings| settings.context_turns).max().unwrap_or(0);
            return self.log.context.snapshot_turn(turn, before, budget);
        }
        let windowed = first.and_then(|first| self.windowed(first, budget, fit.room(), is_final));
        windowed.unwrap_or_else(|| self.log.context.snapshot_final(&mut Window::new(budget)))
    }

    /// Marks the slot as running. Returns since when its insight is awaited: the time of the newest turn or correction
    /// in its snapshot, or of the manual request.
    pub(super) fn started(&mut self, key: &TaskKey, fired_ms: u64, cause: Cause) -> u64 {
        let now = self.now.ms;
        match key.turn {
            Some(_) => fired_ms,
            None => self.schedule.rolling(&key.analysis).map_or(now, |slot| {
                slot.started(now);
                if cause == Cause::Manual { fired_ms } else { slot.news_ms }
            }),
        }
    }

    /// Handles the case that all turns lost their text, so there is nothing to ask about.
    pub(super) fn nothing_to_ask(&mut self, key: &TaskKey) {
        match key.turn {
            Some(turn) => self.schedule.turn_over(&key.analysis, turn),
            None => {
                if let Some(slot) = self.schedule.rolling(&key.analysis) {
                    slot.succeeded();
                    slot.last = Last::Missing(FailureCode::NoTurns);
                }
            }
        }
    }
}

/// Why nothing of a call that has text can be shown to a model.
fn too_long() -> Failed {
    Failed {
        code: FailureCode::TooComplex,
        message: "the newest turn alone has more tokens than max_context_tokens of the analysis, or than its model has room for; \
                  raise max_context_tokens, or choose a model with more room"
            .to_owned(),
        temporary: false,
    }
}
