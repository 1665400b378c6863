//! Tasks of a call once they are wanted: started with the permit, published or failed with the result.
//!
//! Knows neither the gateway nor a permit, and not what is due: who is asked comes in as an input.

use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::record::Private;
use super::schedule::{Cause, Last, Phase};
use super::task::{Answered, Choice, Chosen, Failed, Out, Run, Start, TaskKey, TaskNo};
use crate::analysis::{Analysis, Facts};
use crate::base::measure;
use crate::context::Snapshot;
use crate::protocol::{Event, MAX_MESSAGE_BYTES};
use crate::types::directory::CallState as State;
use crate::types::{Insight, InsightFailure, LatencyMs, Provenance, Status};

impl Call {
    /// What the driver must know to choose who is asked; `None` where the task is no longer wanted.
    pub(crate) fn choice(&self, task: TaskNo) -> Option<Choice<'_>> {
        let key = &self.tasks.out.get(&task)?.key;
        let analysis = self.schedule.analysis(&key.analysis)?;
        let standing = self.log.standings.get(&*key.analysis);
        let pinned = standing.and_then(|standing| standing.pinned.as_ref()).map(|(variant, _)| variant.as_str());
        Some(Choice { analysis, pinned, variants: &self.log.variants })
    }

    /// Takes the snapshot and starts the task, which has its permit.
    pub(super) fn ready(&mut self, no: TaskNo, chosen: Result<Chosen, Failed>) {
        let now = self.now.ms;
        let Some(out) = self.tasks.out.get(&no).filter(|out| out.run.is_none()) else { return };
        let key = out.key.clone();
        let Some((analysis, cause, fired_ms)) = self.slot_facts(&key) else {
            self.tasks.out.remove(&no);
            return;
        };
        let is_final = self.ending() && cause == Cause::End;
        // From here on the trigger is used up, whatever comes of it: a task that fails waits before it is tried again.
        let news_ms = self.started(&key, fired_ms, cause);
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(failed) => {
                self.tasks.out.remove(&no);
                return self.task_failed(&key, is_final, failed);
            }
        };
        let snapshot = self.take_snapshot(&key, &analysis, chosen.local, is_final);
        if snapshot.is_empty() {
            self.tasks.out.remove(&no);
            return self.nothing_to_ask(&key);
        }
        let rev = 1 + match key.turn {
            None => self.log.standings.get(&*key.analysis).map_or(0, |standing| standing.rev),
            Some(_) => 0,
        };
        let facts = Facts { call_id: self.log.call_id.clone(), meta: self.log.meta.clone(), turn: key.turn };
        let deadline = is_final.then(|| Duration::from_millis(self.final_left()));
        let run = Run {
            chosen,
            covers: snapshot.covers(),
            turns: self.log.turns.len() as u64,
            cause,
            is_final,
            news_ms,
            fired_ms,
            started_ms: now,
        };
        if let Some(out) = self.tasks.out.get_mut(&no) {
            out.run = Some(Box::new(run));
        }
        self.effects.start = Some(Box::new(Start { no, key, analysis, snapshot, facts, rev, deadline }));
    }

    /// The analysis, why it runs and since when; `None` where the slot has moved on.
    fn slot_facts(&mut self, key: &TaskKey) -> Option<(Arc<Analysis>, Cause, u64)> {
        if key.turn.is_some() {
            let queue = self.schedule.per_turn(&key.analysis)?;
            return Some((Arc::clone(&queue.analysis), Cause::Turn, self.now.ms));
        }
        let slot = self.schedule.rolling(&key.analysis)?;
        match slot.phase {
            Phase::Queued { cause, fired_ms } => Some((Arc::clone(&slot.analysis), cause, fired_ms)),
            Phase::Idle | Phase::Running => None,
        }
    }

    fn take_snapshot(&mut self, key: &TaskKey, analysis: &Analysis, local: bool, is_final: bool) -> Snapshot {
        // The embedded provider reads any length at no price: nothing has to leave its context.
        let budget = if local { u64::MAX } else { analysis.settings.max_context_tokens };
        let context = &self.log.context;
        match key.turn {
            Some(turn) => context.snapshot_turn(turn, analysis.settings.context_turns, budget),
            None if is_final => context.snapshot_final(budget),
            None => match self.schedule.rolling(&key.analysis) {
                Some(slot) => {
                    slot.window.set_budget(budget);
                    context.snapshot(&mut slot.window)
                }
                None => context.snapshot_final(budget),
            },
        }
    }

    /// Marks the slot as running; since when its insight is waited for: the newest turn or correction of its snapshot, or
    /// the moment at which it was asked for by hand.
    fn started(&mut self, key: &TaskKey, fired_ms: u64, cause: Cause) -> u64 {
        let now = self.now.ms;
        match key.turn {
            Some(_) => fired_ms,
            None => self.schedule.rolling(&key.analysis).map_or(now, |slot| {
                slot.started(now);
                if cause == Cause::Manual { fired_ms } else { slot.news_ms }
            }),
        }
    }

    /// All turns lost their text: there is nothing to ask about.
    fn nothing_to_ask(&mut self, key: &TaskKey) {
        match key.turn {
            Some(turn) => self.schedule.turn_over(&key.analysis, turn),
            None => {
                if let Some(slot) = self.schedule.rolling(&key.analysis) {
                    slot.succeeded();
                    slot.last = Last::Missing("no_turns".to_owned());
                }
            }
        }
    }

    /// A task came back. One that was aborted meanwhile is no longer known.
    pub(super) fn task_done(&mut self, no: TaskNo, result: Result<Answered, Failed>) {
        let Some(Out { key, run: Some(run) }) = self.tasks.out.remove(&no) else { return };
        match result {
            Ok(_) if self.overtaken(&key, &run) => {
                let jitter = self.jitter();
                let now = self.now.ms;
                if let Some(slot) = self.schedule.rolling(&key.analysis) {
                    // As after a failure: turns that are revised all the time must not make it ask all the time.
                    slot.failed(now, true, jitter);
                    slot.manual |= run.cause == Cause::Manual;
                }
            }
            Ok(answered) => self.publish(&key, *run, answered),
            Err(failed) => self.task_failed(&key, run.is_final, failed),
        }
    }

    /// With `on_revision = "refuse"`: a turn that the task covered was revised meanwhile.
    fn overtaken(&mut self, key: &TaskKey, run: &Run) -> bool {
        if run.is_final || key.turn.is_some() {
            return false;
        }
        let refuses = self.schedule.rolling(&key.analysis).is_some_and(|slot| slot.analysis.settings.refuses_revised);
        refuses && self.log.context.revised_since(run.covers.revision, run.covers.to)
    }

    fn publish(&mut self, key: &TaskKey, run: Run, answered: Answered) {
        let now = self.now.ms;
        let Run { chosen, covers, turns, cause, is_final, news_ms, fired_ms, started_ms } = run;
        let Answered { value, evidence, model, endpoint, attempts, usage, cost_usd, degraded, first_token, took } =
            answered;
        let (route, variant, prompt) =
            (chosen.route.to_string(), chosen.variant.to_string(), chosen.prompt.to_string());
        let standing = self.log.standings.get(&*key.analysis);
        let rev = 1 + match key.turn {
            None => standing.map_or(0, |standing| standing.rev),
            Some(turn) => standing.and_then(|standing| standing.by_turn.get(&turn)).map_or(0, |insight| insight.rev),
        };
        let first = standing.is_none_or(|standing| standing.pinned.is_none());
        let pinned = first.then(|| (route.clone(), variant.clone(), prompt.clone()));
        let last_word = is_final || key.turn.is_some() || self.log.status == State::Completed;
        let insight = Insight {
            id: format!("i_{}", self.random_suffix()),
            analysis: key.analysis.to_string(),
            rev,
            status: if last_word { Status::Final } else { Status::Provisional },
            degraded,
            turn: key.turn,
            covers,
            behind_turns: match key.turn {
                Some(_) => 0,
                None => (self.log.turns.len() as u64).saturating_sub(turns),
            },
            trigger: cause.as_str().to_owned(),
            value,
            evidence,
            provenance: Provenance { route, variant, model, endpoint, prompt, attempts, usage, cost_usd },
            latency_ms: LatencyMs {
                debounce: fired_ms.saturating_sub(news_ms),
                queue: started_ms.saturating_sub(fired_ms),
                first_token: first_token.map(millis),
                model: millis(took),
                total: now.saturating_sub(news_ms),
            },
        };
        self.emit(&Event::InsightUpdated { insight: Arc::new(insight) }, &Private { pinned, ..Private::default() });
        match key.turn {
            Some(turn) => self.schedule.turn_over(&key.analysis, turn),
            None => {
                self.failures.succeeded(&key.analysis);
                if let Some(slot) = self.schedule.rolling(&key.analysis) {
                    slot.succeeded();
                    if is_final {
                        slot.last = Last::Done;
                    }
                }
            }
        }
    }

    /// Every failure comes by here, before an attempt or after: it waits before it is tried again, and is published.
    fn task_failed(&mut self, key: &TaskKey, is_final: bool, failed: Failed) {
        match key.turn {
            Some(turn) => self.schedule.turn_over(&key.analysis, turn),
            None => {
                let (now, jitter) = (self.now.ms, self.jitter());
                if let Some(slot) = self.schedule.rolling(&key.analysis) {
                    slot.failed(now, failed.temporary, jitter);
                    if is_final && !failed.temporary {
                        slot.last = Last::Missing(failed.code.clone());
                    }
                }
            }
        }
        self.failures.push(key, failed);
    }

    /// From 0 to 1.
    fn jitter(&mut self) -> f64 {
        let [.., low, high] = (self.entropy)().to_le_bytes();
        f64::from(u16::from_le_bytes([low, high])) / f64::from(u16::MAX)
    }

    /// Publishes failures whose time has come.
    pub(super) fn publish_failures(&mut self) {
        if self.failures.is_empty() {
            return;
        }
        while self.has_room()
            && let Some((key, failed)) = self.failures.next(self.now.ms)
        {
            self.publish_failure(&key, failed);
        }
    }

    pub(super) fn publish_failure(&mut self, key: &TaskKey, mut failed: Failed) {
        measure::cut(&mut failed.message, MAX_MESSAGE_BYTES);
        let standing = self.log.standings.get(&*key.analysis);
        let last_good_rev = match key.turn {
            None => standing.map(|standing| standing.rev).filter(|rev| *rev > 0),
            Some(turn) => standing.and_then(|standing| standing.by_turn.get(&turn)).map(|insight| insight.rev),
        };
        let failure = InsightFailure {
            analysis: key.analysis.to_string(),
            turn: key.turn,
            code: failed.code,
            message: failed.message,
            temporary: failed.temporary,
            last_good_rev,
        };
        self.emit(&Event::InsightFailed { failure }, &Private::default());
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
