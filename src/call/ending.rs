//! How a call ends: linger, idleness and silence, the final runs, `call.completed`. Also how it continues after a
//! start.
//!
//! Knows no clock: the timers are times of the call's own clock, and [`Call::wake_at`] says when one of them is due.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Call;
use super::answer::Failed;
use super::record::Private;
use super::schedule::{Last, Phase, Rolling};
use super::task::{Target, TaskKey};
use crate::base::time::millis;
use crate::protocol::{Event, FailureCode};
use crate::types::JsonMap;

/// A completed call stays in memory this long after its last request, ms.
const COMPLETED_STAYS_MS: u64 = 2_000;

/// A call's timers and their decisions. None of it is in the log: after a start, the timers begin again.
pub(super) struct Life {
    /// Since when no producer is connected; `None` while one is.
    pub(super) unattended_since: Option<u64>,
    /// Since when all streams have ended; `None` while one has not.
    pub(super) ended_since: Option<u64>,
    /// When a producer last sent speech.
    pub(super) heard_ms: u64,
    /// When the final runs began.
    ending_since: Option<u64>,
    /// Set if a timer decided that the call ends.
    pub(super) ending: bool,
    /// Set if the daemon stops.
    pub(super) stopping: bool,
}

impl Life {
    /// Timers that begin at `now_ms`.
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            unattended_since: Some(now_ms),
            ended_since: None,
            heard_ms: now_ms,
            ending_since: None,
            ending: false,
            stopping: false,
        }
    }
}

/// `since` plus `after`.
fn at(since: u64, after: Duration) -> u64 {
    since.saturating_add(millis(after))
}

impl Call {
    /// After a rebuild, makes due again what was due.
    pub(super) fn resume(&mut self, overdue: bool) {
        if self.log.head == 0 || !self.is_open() {
            return;
        }
        self.plan_after_rebuild();
        self.resume_rules();
        self.note_ends();
        self.life.ending |= overdue;
    }

    /// When a timer is due next, on the call's clock; may be in the past.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        if self.life.stopping {
            return None;
        }
        let next = if self.is_open() { self.next_while_open() } else { self.next_at_rest() };
        let failures = self.failures.next_ms().filter(|_| self.has_room());
        [next, failures].into_iter().flatten().min()
    }

    fn next_while_open(&self) -> Option<u64> {
        let (ingest, life) = (&self.settings.ingest, &self.life);
        let final_timeout = life.ending_since.map(|since| at(since, ingest.final_timeout));
        let timers = (!self.ending() && self.log.head > 0).then(|| {
            let held = self.producers.live.values().filter_map(|live| live.holding.due_ms(millis(ingest.held))).min();
            let linger = life.ended_since.map(|since| at(since, ingest.linger));
            let idle = life.unattended_since.map(|since| at(since, ingest.idle_timeout));
            let silence = life.unattended_since.is_none().then(|| at(life.heard_ms, ingest.max_silence));
            [linger, idle, silence, held].into_iter().flatten().min()
        });
        // No model is asked and nothing is published while the results could not be written.
        let writable = self.has_room();
        let last_runs = || {
            let waits = |slot: &&Rolling| slot.has_last_run() && slot.phase == Phase::Idle;
            let due = self.schedule.rolling.iter().filter(waits);
            let digest = |slot: &Rolling| {
                self.digest_until().filter(|_| self.makes_digest(slot.analysis.settings.max_context_tokens))
            };
            // One that waits for a digest is not repeated before.
            due.filter_map(|slot| digest(slot).or(slot.retry_at_ms)).min()
        };
        let rules = (writable && !self.ending() && self.log.head > 0).then(|| self.rules_next_ms()).flatten();
        let retry = if self.ending() && writable { last_runs() } else { None };
        // Once the end is decided, triggers have no effect.
        let due = if writable && !self.ending() && !self.log.turns.is_empty() { self.schedule.next_ms() } else { None };
        [final_timeout, timers.flatten(), rules, retry, due].into_iter().flatten().min()
    }

    fn next_at_rest(&self) -> Option<u64> {
        self.at_rest().then(|| self.life.heard_ms.saturating_add(COMPLETED_STAYS_MS))
    }

    /// Checks the timers; what is due is started when the call settles.
    pub(super) fn timers(&mut self) {
        if !self.is_open() || self.ending() || self.log.head == 0 {
            return;
        }
        let now = self.now.ms;
        if let Some(until) = now.checked_sub(millis(self.settings.ingest.held)) {
            self.let_out(until);
        }
        self.rule_timers();
        let (ingest, life) = (&self.settings.ingest, &self.life);
        let past = |since: Option<u64>, after: Duration| since.is_some_and(|since| now >= at(since, after));
        let lingered = past(life.ended_since, ingest.linger);
        let idle = past(life.unattended_since, ingest.idle_timeout);
        let silent = life.unattended_since.is_none() && now >= at(life.heard_ms, ingest.max_silence);
        if lingered || idle || silent {
            self.let_all_out();
            self.life.ending = true;
        }
    }

    /// Begins the final runs if the end was decided, and completes the call once they are over.
    pub(super) fn check_ending(&mut self) {
        if !self.ending() || !self.is_open() {
            return;
        }
        if self.life.ending_since.is_none() {
            self.begin_ending();
            self.launch_due();
        }
        let late = self.final_left() == 0;
        let runs = self.schedule.rolling.iter().any(|slot| slot.has_last_run());
        let turns = self.schedule.per_turn.iter().any(|queue| !queue.turns.is_idle());
        let failures = !self.failures.is_empty();
        let nothing_said = self.log.turns.is_empty();
        if late || nothing_said || !(runs || turns || failures) {
            self.answer_all_turns();
            self.complete(late);
        }
    }

    fn begin_ending(&mut self) {
        self.life.ending_since = Some(self.now.ms);
        for slot in &mut self.schedule.rolling {
            slot.retry_at_ms = None;
        }
    }

    /// Time left for the final runs, ms.
    pub(super) fn final_left(&self) -> u64 {
        let since = self.life.ending_since.unwrap_or(self.now.ms);
        at(since, self.settings.ingest.final_timeout).saturating_sub(self.now.ms)
    }

    /// At the deadline, marks turns whose tasks are not over as failed, and publishes all failures.
    fn answer_all_turns(&mut self) {
        let mut late = Vec::new();
        for queue in &self.schedule.per_turn {
            let turns = queue.turns.open();
            late.extend(turns.map(|turn| TaskKey { analysis: Arc::clone(&queue.analysis.name), turn: Some(turn) }));
        }
        for key in &late {
            let message = "the call has ended, and the time for final runs is over \
                (ingest.final_timeout_ms)"
                .to_owned();
            self.failures.push(key, Failed { code: FailureCode::Timeout, message, temporary: false });
        }
        self.failures.hurry();
        while let Some((key, failed)) = self.failures.next(self.now.ms) {
            self.publish_failure(&key, failed);
        }
    }

    fn complete(&mut self, late: bool) {
        let mut finals = JsonMap::new();
        let mut missing = JsonMap::new();
        let said = !self.log.turns.is_empty();
        for slot in &self.schedule.rolling {
            let name = slot.analysis.name.to_string();
            let rev = self.log.standings.get(&name).map(|standing| standing.rev).filter(|rev| *rev > 0);
            let on_end = slot.analysis.settings.triggers.on_end;
            match (&slot.last, rev) {
                (Last::Done, Some(rev)) => drop(finals.insert(name, json!(rev))),
                (_, Some(rev)) if !on_end => drop(finals.insert(name, json!(rev))),
                (Last::Missing(code), _) => drop(missing.insert(name, Value::from(code.as_str()))),
                _ if late && said && on_end => drop(missing.insert(name, Value::from(FailureCode::Timeout.as_str()))),
                _ => {}
            }
        }
        for queue in &mut self.schedule.per_turn {
            if !queue.turns.is_idle() {
                missing.insert(queue.analysis.name.to_string(), Value::from(FailureCode::Timeout.as_str()));
                queue.turns.clear();
            }
        }
        // Results that come later are ignored: only manual runs may follow `call.completed`.
        self.abort_tasks(|target| matches!(target, Target::Insights(_) | Target::Digest(_)));
        self.schedule.aborted();
        let cost_usd = self.log.cost_usd;
        self.emit(&Event::CallCompleted { r#final: finals, missing, cost_usd }, &Private::default());
        self.directory.changed = true;
        self.life.heard_ms = self.now.ms;
    }

    /// Returns true if the call has nothing more to do: it has ended durably, nobody is connected, and no request is
    /// open.
    pub(crate) fn finished(&self, now_ms: u64) -> bool {
        !self.is_open() && self.at_rest() && now_ms >= self.life.heard_ms.saturating_add(COMPLETED_STAYS_MS)
    }

    /// Returns true if records and entry are durable, no task runs, and nobody is connected.
    fn at_rest(&self) -> bool {
        let written = self.outbox.durable == self.log.head && !self.outbox.in_flight && !self.directory.changed;
        written && self.producers.live.is_empty() && self.tasks.out.is_empty() && self.failures.is_empty()
    }
}
