//! Jobs of a call: fired by triggers, held by permits, run by workers, published here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::command::{MAX_MESSAGE_BYTES, RunRefusal};
use super::record::Private;
use super::schedule::{Last, Phase, TURN_WAITING};
use super::task::{Done, Effect, Outcome, Task};
use super::worker::{self, Answered, Failed, Job, JobKey};
use crate::analysis::{Analysis, Facts, Prompt};
use crate::base::{measure, names};
use crate::context::Snapshot;
use crate::gateway::Resolved;
use crate::journal::CallState as State;
use crate::types::{Event, Insight, InsightFailure, LatencyMs, Provenance, Seq, Status, Turn, id};

impl Task {
    /// Takes up the analyses that the call is to run.
    pub(super) fn plan_analyses(&mut self) {
        for name in self.state.analyses.clone() {
            match self.deps.analyses.get(&name) {
                Some(analysis) => {
                    self.schedule.add(analysis);
                }
                None => {
                    tracing::warn!(call = %self.state.call_id, analysis = name, "no such analysis is configured; skipped")
                }
            }
        }
    }

    /// After a rebuild: what was due, waiting or out when the daemon went is due again.
    pub(super) fn plan_after_rebuild(&mut self) {
        self.plan_analyses();
        let now = self.now();
        let turns: Vec<Arc<Turn>> = self.state.turns.iter().cloned().collect();
        let mut refused = Vec::new();
        for slot in &mut self.schedule.rolling {
            let name = slot.analysis.name.to_string();
            let seen = self.state.standings.get(&name).and_then(|standing| standing.latest.as_ref());
            let covered = seen.and_then(|insight| insight.covers.to);
            for turn in turns.iter().filter(|turn| covered.is_none_or(|covered| turn.turn > covered)) {
                slot.turn(now, self.state.context.tokens(turn.turn));
            }
            let revision = seen.map_or(0, |insight| insight.covers.revision);
            if self.state.context.revision() > revision && !slot.dirty {
                slot.revision(now);
            }
        }
        for queue in &mut self.schedule.per_turn {
            let standing = self.state.standings.get(&*queue.analysis.name);
            for turn in &turns {
                let settled = standing.is_some_and(|standing| {
                    standing.by_turn.contains_key(&turn.turn) || standing.failed_turns.contains(&turn.turn)
                });
                if !settled && !turn.text.is_empty() && !queue.turn(turn.turn) {
                    refused.push(JobKey { analysis: Arc::clone(&queue.analysis.name), turn: Some(turn.turn) });
                }
            }
        }
        self.overloaded(&refused);
    }

    /// A turn became final.
    pub(super) fn new_turn(&mut self, turn: &Turn, now: u64) {
        if turn.text.is_empty() {
            return;
        }
        let tokens = self.state.context.tokens(turn.turn);
        for slot in &mut self.schedule.rolling {
            slot.turn(now, tokens);
        }
        let mut refused = Vec::new();
        for queue in &mut self.schedule.per_turn {
            if !queue.turn(turn.turn) {
                refused.push(JobKey { analysis: Arc::clone(&queue.analysis.name), turn: Some(turn.turn) });
            }
        }
        self.overloaded(&refused);
    }

    /// Turns for which the queue of a per-turn analysis has no room.
    fn overloaded(&mut self, refused: &[JobKey]) {
        for key in refused {
            let message = format!("{TURN_WAITING} turns of this call wait for {} already", key.analysis);
            self.job_failed(key, false, Failed { code: "overloaded".to_owned(), message, temporary: true });
        }
    }

    /// Fires what is due and starts what may start.
    pub(super) fn launch_due(&mut self) {
        if self.state.turns.is_empty() || self.state.status == State::Failed || self.deps.drain.stopping() {
            return;
        }
        if !self.has_room() {
            // What would be answered could not be written.
            return;
        }
        let now = self.now();
        for index in 0..self.schedule.rolling.len() {
            let slot = &mut self.schedule.rolling[index];
            let last_run = self.state.ending && slot.last == Last::Due && slot.analysis.settings.triggers.on_end;
            let reason = if last_run && slot.phase == Phase::Idle {
                // A completed call is at its end for ever: what is asked for then is still a run by hand.
                let reason = if slot.manual { "manual" } else { "end" };
                (slot.retry_at_ms.is_none_or(|at| at <= now)).then_some(reason)
            } else if self.state.status == State::Open && !self.state.ending || slot.manual {
                slot.fire(now)
            } else {
                None
            };
            if let Some(reason) = reason {
                slot.phase = Phase::Queued { reason, fired_ms: now };
                let key = JobKey { analysis: Arc::clone(&slot.analysis.name), turn: None };
                self.ask_permit(key);
            }
        }
        for index in 0..self.schedule.per_turn.len() {
            while let Some(turn) = self.schedule.per_turn[index].next() {
                let key =
                    JobKey { analysis: Arc::clone(&self.schedule.per_turn[index].analysis.name), turn: Some(turn) };
                self.ask_permit(key);
            }
        }
    }

    fn ask_permit(&mut self, key: JobKey) {
        // The permit is there at once in the usual case; then the job goes out without another hop.
        match Arc::clone(&self.deps.permits).try_acquire_owned() {
            Ok(permit) => self.launch(key, permit),
            Err(_) => {
                let permits = Arc::clone(&self.deps.permits);
                let waiting = self.deps.metrics.permits_waiting.clone();
                self.jobs.spawn(async move {
                    waiting.inc();
                    let permit = permits.acquire_owned().await;
                    waiting.dec();
                    match permit {
                        Ok(permit) => Outcome::Permit { key, permit },
                        // The semaphore is never closed.
                        Err(_) => std::future::pending().await,
                    }
                });
            }
        }
    }

    pub(super) fn job_back(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Permit { key, permit } => self.launch(key, permit),
            Outcome::Done(done) => self.job_done(*done),
        }
    }

    /// Takes the snapshot and sends the job out.
    fn launch(&mut self, key: JobKey, permit: tokio::sync::OwnedSemaphorePermit) {
        let now = self.now();
        let name = Arc::clone(&key.analysis);
        let Some((analysis, reason, fired_ms)) = self.slot_facts(&key, now) else { return };
        let is_final = self.state.ending && reason == "end";
        // From here on the trigger is used up, whatever comes of it: what fails waits before it is tried again.
        let news_ms = self.started(&key, now, fired_ms, reason);
        let (arm, prompt) = match self.prepare(&analysis) {
            Ok(prepared) => prepared,
            Err(failed) => return self.job_failed(&key, is_final, failed),
        };
        let snapshot = self.take_snapshot(&key, &analysis, arm.local(), is_final);
        if snapshot.is_empty() {
            return self.nothing_to_ask(&key);
        }
        let rev = 1 + match key.turn {
            None => self.state.standings.get(&*name).map_or(0, |standing| standing.rev),
            Some(_) => 0,
        };
        let facts = Facts { call_id: self.state.call_id.clone(), meta: self.state.meta.clone(), turn: key.turn };
        let deadline = is_final.then(|| Duration::from_millis(self.final_left(now)));
        let job = Job {
            key: key.clone(),
            analysis,
            prompt,
            arm,
            snapshot,
            facts,
            call: self.state.call_id.clone(),
            rev,
            deadline,
            insight_bytes: self.deps.limits.insight_bytes,
        };
        let (gateway, hub) = (self.deps.gateway.clone(), self.deps.hub.clone());
        let snapshot_len = self.state.turns.len() as u64;
        self.deps.metrics.jobs_running.inc();
        let running = self.deps.metrics.jobs_running.clone();
        self.jobs.spawn(async move {
            let gauge = scopeguard(running);
            let result = worker::run(&job, &gateway, &hub).await;
            drop((permit, gauge));
            Outcome::Done(Box::new(Done {
                covers: job.snapshot.covers(),
                snapshot_len,
                route: job.arm.route.to_string(),
                variant: job.arm.variant.to_string(),
                prompt: job.prompt.id.to_string(),
                key: job.key,
                result,
                reason,
                is_final,
                news_ms,
                fired_ms,
                started_ms: now,
            }))
        });
    }

    /// Resolves the variant that is asked and its prompt; a pinned variant stays.
    fn prepare(&self, analysis: &Analysis) -> Result<(Arc<Resolved>, Arc<Prompt>), Failed> {
        let name = &analysis.name;
        let target = self.deps.gateway.target(name, analysis.settings.route.as_deref());
        let pinned = self.state.standings.get(&**name).and_then(|standing| standing.pinned.clone());
        let resolve =
            |variant: Option<&str>| self.deps.gateway.resolve_pinned(&target, self.state.call_id.as_str(), variant);
        let resolved = match &pinned {
            Some((variant, _)) => resolve(Some(variant)),
            // Which route answers is known only now: an analysis may leave that to the default route.
            None => resolve(None).and_then(|arm| match self.state.variants.get(&*arm.route) {
                Some(variant) => resolve(Some(variant)),
                None => Ok(arm),
            }),
        };
        let arm = resolved.map_err(|error| Failed {
            code: error.code().as_str().to_owned(),
            message: error.message().to_owned(),
            temporary: error.temporary(),
        })?;
        let prompt = analysis.prompt(arm.prompt.as_deref()).map_err(|error| Failed {
            code: "bad_prompt".into(),
            message: error.to_string(),
            temporary: false,
        })?;
        Ok((arm, prompt))
    }

    /// The analysis, why it runs and since when; `None` where the slot has moved on.
    fn slot_facts(&mut self, key: &JobKey, now: u64) -> Option<(Arc<Analysis>, &'static str, u64)> {
        if key.turn.is_some() {
            let queue = self.schedule.per_turn(&key.analysis)?;
            return Some((Arc::clone(&queue.analysis), "turn", now));
        }
        let slot = self.schedule.rolling(&key.analysis)?;
        match slot.phase {
            Phase::Queued { reason, fired_ms } => Some((Arc::clone(&slot.analysis), reason, fired_ms)),
            Phase::Idle | Phase::Running => None,
        }
    }

    fn take_snapshot(&mut self, key: &JobKey, analysis: &Arc<Analysis>, local: bool, is_final: bool) -> Snapshot {
        // The embedded provider reads any length at no price: nothing has to leave its context.
        let budget = if local { u64::MAX } else { analysis.settings.max_context_tokens };
        match key.turn {
            Some(turn) => self.state.context.snapshot_turn(turn, analysis.settings.context_turns, budget),
            None if is_final => self.state.context.snapshot_final(budget),
            None => match self.schedule.rolling(&key.analysis) {
                Some(slot) => {
                    slot.window.set_budget(budget);
                    self.state.context.snapshot(&mut slot.window)
                }
                None => self.state.context.snapshot_final(budget),
            },
        }
    }

    /// Marks the slot as running; since when its insight is waited for: the newest turn or correction of its snapshot, or
    /// the moment at which it was asked for by hand.
    fn started(&mut self, key: &JobKey, now: u64, fired_ms: u64, reason: &str) -> u64 {
        match key.turn {
            Some(_) => fired_ms,
            None => self.schedule.rolling(&key.analysis).map_or(now, |slot| {
                slot.started(now);
                if reason == "manual" { fired_ms } else { slot.news_ms }
            }),
        }
    }

    /// All turns lost their text: there is nothing to ask about.
    fn nothing_to_ask(&mut self, key: &JobKey) {
        match key.turn {
            Some(turn) => {
                if let Some(queue) = self.schedule.per_turn(&key.analysis) {
                    queue.running.remove(&turn);
                }
            }
            None => {
                if let Some(slot) = self.schedule.rolling(&key.analysis) {
                    slot.succeeded();
                    slot.last = Last::Missing("no_turns".to_owned());
                }
            }
        }
    }

    fn job_done(&mut self, done: Done) {
        let now = self.now();
        self.deps.metrics.job(&done.key.analysis, done.result.is_ok());
        match &done.result {
            Ok(_) if self.overtaken(&done) => {
                if let Some(slot) = self.schedule.rolling(&done.key.analysis) {
                    // As after a failure: turns that are revised all the time must not make it ask all the time.
                    slot.failed(now, true, rand::random::<f64>());
                    slot.manual |= done.reason == "manual";
                }
            }
            Ok(_) => self.publish(done),
            Err(failed) => {
                let failed = failed.clone();
                self.job_failed(&done.key, done.is_final, failed);
            }
        }
    }

    /// With `on_revision = "refuse"`: a turn that the job covered was revised meanwhile.
    fn overtaken(&mut self, done: &Done) -> bool {
        if done.is_final || done.key.turn.is_some() {
            return false;
        }
        let refuses =
            self.schedule.rolling(&done.key.analysis).is_some_and(|slot| slot.analysis.settings.refuses_revised);
        refuses && self.state.context.revised_since(done.covers.revision, done.covers.to)
    }

    fn publish(&mut self, done: Done) {
        let now = self.now();
        let Done { key, result, covers, snapshot_len, route, variant, prompt, reason, is_final, .. } = done;
        let Ok(answered) = result else { return };
        let Answered { value, evidence, model, endpoint, attempts, usage, cost_usd, degraded, first_token, took } =
            answered;
        let standing = self.state.standings.entry(key.analysis.to_string()).or_default();
        let rev = match key.turn {
            None => standing.rev + 1,
            Some(turn) => standing.by_turn.get(&turn).map_or(0, |insight| insight.rev) + 1,
        };
        let pinned = standing.pinned.is_none().then(|| (route.clone(), variant.clone(), prompt.clone()));
        let debounce = done.fired_ms.saturating_sub(done.news_ms);
        let insight = Insight {
            id: format!("i_{}", id::random_suffix()),
            analysis: key.analysis.to_string(),
            rev,
            status: if is_final || key.turn.is_some() || self.state.status == State::Completed {
                Status::Final
            } else {
                Status::Provisional
            },
            degraded,
            turn: key.turn,
            covers,
            behind_turns: if key.turn.is_some() {
                0
            } else {
                (self.state.turns.len() as u64).saturating_sub(snapshot_len)
            },
            trigger: reason.to_owned(),
            value,
            evidence,
            provenance: Provenance { route, variant, model, endpoint, prompt, attempts, usage, cost_usd },
            latency_ms: LatencyMs {
                debounce,
                queue: done.started_ms.saturating_sub(done.fired_ms),
                first_token: first_token.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
                model: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                total: now.saturating_sub(done.news_ms),
            },
        };
        self.emit(&Event::InsightUpdated { insight: Arc::new(insight) }, &Private { pinned, ..Private::default() });
        match key.turn {
            Some(turn) => {
                if let Some(queue) = self.schedule.per_turn(&key.analysis) {
                    queue.running.remove(&turn);
                }
            }
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

    /// All that fails comes by here, before an attempt or after: it waits before it is tried again, and is told.
    fn job_failed(&mut self, key: &JobKey, is_final: bool, failed: Failed) {
        let now = self.now();
        match key.turn {
            Some(turn) => {
                if let Some(queue) = self.schedule.per_turn(&key.analysis) {
                    queue.running.remove(&turn);
                }
            }
            None => {
                if let Some(slot) = self.schedule.rolling(&key.analysis) {
                    slot.failed(now, failed.temporary, rand::random::<f64>());
                    if is_final && !failed.temporary {
                        slot.last = Last::Missing(failed.code.clone());
                    }
                }
            }
        }
        self.failures.push(key, failed);
    }

    /// Publishes failures whose time has come.
    pub(super) fn publish_failures(&mut self) {
        if self.failures.is_empty() {
            return;
        }
        let now = self.now();
        while self.has_room()
            && let Some((key, failed)) = self.failures.next(now)
        {
            self.publish_failure(&key, failed);
        }
    }

    pub(super) fn publish_failure(&mut self, key: &JobKey, mut failed: Failed) {
        measure::cut(&mut failed.message, MAX_MESSAGE_BYTES);
        let standing = self.state.standings.get(&*key.analysis);
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

    pub(super) fn run_now(&mut self, name: &str, reply: oneshot::Sender<Result<Seq, RunRefusal>>) {
        self.heard_ms = self.now();
        let refusal = match self.deps.analyses.get(name) {
            None => Some(RunRefusal::Unknown(names::unknown("analysis", name, self.deps.analyses.names()))),
            Some(analysis) if analysis.scope == crate::analysis::Scope::Turn => {
                Some(RunRefusal::PerTurn(name.to_owned()))
            }
            Some(_) if self.state.turns.is_empty() => Some(RunRefusal::NoTurns),
            Some(_) if self.state.status == State::Failed => {
                Some(RunRefusal::Unavailable("the call has failed".to_owned()))
            }
            Some(analysis) => {
                self.schedule.add(analysis);
                if let Some(slot) = self.schedule.rolling(name) {
                    slot.ask();
                }
                None
            }
        };
        match refusal {
            // Whoever asked may be gone.
            Some(refusal) => drop(reply.send(Err(refusal))),
            None => self.effects.push(Effect::Run(reply, self.state.head)),
        }
    }

    /// At the deadline of a shutdown: what is still out is told as failed; it runs again after the next start.
    pub(super) fn mark_aborted(&mut self) {
        let mut out: Vec<JobKey> = Vec::new();
        for slot in &self.schedule.rolling {
            if slot.phase == Phase::Running {
                out.push(JobKey { analysis: Arc::clone(&slot.analysis.name), turn: None });
            }
        }
        self.jobs.abort_all();
        for key in out {
            let failed = Failed {
                code: "shutdown".to_owned(),
                message: "the daemon stopped while this was being asked; it is asked again after the restart"
                    .to_owned(),
                temporary: true,
            };
            self.failures.push(&key, failed);
        }
        self.publish_failures();
    }
}

/// Lowers the gauge again however the job ends.
fn scopeguard(gauge: prometheus_client::metrics::gauge::Gauge) -> impl Drop {
    struct Lower(prometheus_client::metrics::gauge::Gauge);
    impl Drop for Lower {
        fn drop(&mut self) {
            self.0.dec();
        }
    }
    Lower(gauge)
}
