//! How a call ends: linger, idleness and silence, the final runs, `call.completed`. And how it comes back after a start.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::record::Private;
use super::schedule::Last;
use super::task::Task;
use super::worker::{Failed, JobKey};
use crate::journal::CallState as State;
use crate::types::{Event, JsonMap};

/// A completed call stays in memory this long after the last that was asked of it, ms.
const COMPLETED_STAYS_MS: u64 = 2_000;

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Task {
    /// The first thing that a task does: after a rebuild, what was due is due again and timers run anew.
    pub(super) fn resume(&mut self, overdue: bool) {
        if self.state.head == 0 {
            return;
        }
        if self.state.status != State::Open {
            return;
        }
        self.plan_after_rebuild();
        self.note_ends();
        self.state.ending |= overdue;
    }

    /// When time alone changes something next.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let at = if self.state.status == State::Open {
            let ingest = &self.deps.ingest;
            let ending = self.ending_since.map(|since| since + ms(ingest.final_timeout));
            let held = self.live.values().filter_map(|live| live.holding.due_ms(ms(ingest.held))).min();
            let open = (!self.state.ending && self.state.head > 0).then(|| {
                let linger = self.ended_since.map(|since| since + ms(ingest.linger));
                let idle = self.unattended_since.map(|since| since + ms(ingest.idle_timeout));
                let silence = self.unattended_since.is_none().then(|| self.heard_ms + ms(ingest.max_silence));
                [linger, idle, silence, held].into_iter().flatten().min()
            });
            let retry = self.state.ending.then(|| {
                self.schedule
                    .rolling
                    .iter()
                    .filter(|slot| slot.last == Last::Due)
                    .filter_map(|slot| slot.retry_at_ms)
                    .min()
            });
            let due = if self.state.turns.is_empty() { None } else { self.schedule.next_ms() };
            // Nothing is asked and nothing is told as long as that could not be written.
            let [due, retry] = [due, retry.flatten()].map(|at| at.filter(|_| self.has_room()));
            [ending, open.flatten(), retry, due].into_iter().flatten().min()
        } else {
            self.at_rest().then(|| self.heard_ms + COMPLETED_STAYS_MS)
        };
        let failures = self.failures.next_ms().filter(|_| self.has_room());
        let at = [at, failures].into_iter().flatten().min();
        at.map(|at| self.clock + Duration::from_millis(at))
    }

    /// Looks at the clocks; what is due starts when the batch is settled.
    pub(super) fn timers(&mut self) {
        if self.state.status != State::Open || self.state.ending || self.state.head == 0 {
            return;
        }
        let now = self.now();
        if let Some(until) = now.checked_sub(ms(self.deps.ingest.held)) {
            self.let_out(until);
        }
        let ingest = &self.deps.ingest;
        let past = |since: Option<u64>, after: Duration| since.is_some_and(|since| now >= since + ms(after));
        let lingered = past(self.ended_since, ingest.linger);
        let idle = past(self.unattended_since, ingest.idle_timeout);
        let silent = self.unattended_since.is_none() && now >= self.heard_ms + ms(ingest.max_silence);
        if lingered || idle || silent {
            self.let_all_out();
            self.state.ending = true;
        }
    }

    /// Begins the final runs where the end was decided, and completes the call once they are over.
    pub(super) fn check_ending(&mut self) {
        if !self.state.ending || self.state.status != State::Open {
            return;
        }
        if self.ending_since.is_none() {
            self.begin_ending();
            self.launch_due();
        }
        let now = self.now();
        let late = self.final_left(now) == 0;
        let runs =
            self.schedule.rolling.iter().any(|slot| slot.last == Last::Due && slot.analysis.settings.triggers.on_end);
        let turns = self.schedule.per_turn.iter().any(|queue| !queue.is_idle());
        let failures = !self.failures.is_empty();
        let nothing_said = self.state.turns.is_empty();
        if late || nothing_said || !(runs || turns || failures) {
            self.answer_all_turns();
            self.complete(late);
        }
    }

    fn begin_ending(&mut self) {
        self.ending_since = Some(self.now());
        for slot in &mut self.schedule.rolling {
            slot.retry_at_ms = None;
        }
    }

    /// ms that final runs have left.
    pub(super) fn final_left(&self, now: u64) -> u64 {
        let since = self.ending_since.unwrap_or(now);
        (since + ms(self.deps.ingest.final_timeout)).saturating_sub(now)
    }

    /// At the deadline, turns whose jobs are not over have failed, and all failures are told.
    fn answer_all_turns(&mut self) {
        let mut late = Vec::new();
        for queue in &self.schedule.per_turn {
            let turns = queue.running.iter().chain(&queue.waiting);
            late.extend(turns.map(|turn| JobKey { analysis: Arc::clone(&queue.analysis.name), turn: Some(*turn) }));
        }
        for key in &late {
            let message = "the call ended, and final_timeout_ms is over (ingest.final_timeout_ms)".to_owned();
            self.failures.push(key, Failed { code: "timeout".to_owned(), message, temporary: false });
        }
        self.failures.hurry();
        let now = self.now();
        while let Some((key, failed)) = self.failures.next(now) {
            self.publish_failure(&key, failed);
        }
    }

    fn complete(&mut self, late: bool) {
        let mut finals = JsonMap::new();
        let mut missing = JsonMap::new();
        let said = !self.state.turns.is_empty();
        for slot in &self.schedule.rolling {
            let name = slot.analysis.name.to_string();
            let rev = self.state.standings.get(&name).map(|standing| standing.rev).filter(|rev| *rev > 0);
            let on_end = slot.analysis.settings.triggers.on_end;
            match (&slot.last, rev) {
                (Last::Done, Some(rev)) => drop(finals.insert(name, json!(rev))),
                (_, Some(rev)) if !on_end => drop(finals.insert(name, json!(rev))),
                (Last::Missing(code), _) => drop(missing.insert(name, Value::from(code.clone()))),
                _ if late && said && on_end => drop(missing.insert(name, Value::from("timeout"))),
                _ => {}
            }
        }
        for queue in &self.schedule.per_turn {
            if !queue.is_idle() {
                missing.insert(queue.analysis.name.to_string(), Value::from("timeout"));
            }
        }
        self.jobs.abort_all();
        let cost_usd = self.state.cost_usd;
        self.emit(&Event::CallCompleted { r#final: finals, missing, cost_usd }, &Private::default());
        self.entry_changed = true;
        self.heard_ms = self.now();
    }

    /// Whether the task has nothing more to do: the call is over, durably, nobody is connected and nothing is asked.
    pub(super) fn finished(&self) -> bool {
        self.state.status != State::Open
            && self.at_rest()
            && self.input.is_empty()
            && self.now() >= self.heard_ms + COMPLETED_STAYS_MS
    }

    /// Nothing is on its way, and nobody is connected.
    fn at_rest(&self) -> bool {
        self.durable == self.state.head && self.live.is_empty() && self.jobs.is_empty() && self.failures.is_empty()
    }
}
