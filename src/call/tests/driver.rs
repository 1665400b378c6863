//! What the session's task does, on a virtual clock: inputs, settling, one append in flight, permits.

use std::sync::Arc;

use super::checks::Checks;
use super::honest::honest;
use super::models::failed;
use super::world::World;
use crate::base::tokens::{Fit, Ratio};
use crate::call::Call;
use crate::call::answer::Attached;
use crate::call::effects::{Batch, Reply, TaskEffect, Tell};
use crate::call::input::{Input, Now};
use crate::call::numbers::PeerNo;
use crate::call::schedule::{Phase, Rolling};
use crate::call::task::{Choice, Chosen, ChosenMember, Output, Target, TaskNo};
use crate::protocol::ErrorCode;

/// The batch that is being written.
pub(super) struct Flight {
    pub(super) batch: Batch,
    /// When a failed batch is tried again.
    retry_at: Option<u64>,
    failures: u32,
}

/// Wall-clock time at the beginning of a run, ms since 1970.
const BEGAN_MS: i64 = 1_790_000_000_000;

impl World {
    pub(super) fn now(&self) -> Now {
        let unix_ms = BEGAN_MS + i64::try_from(self.now_ms).expect("short");
        Now { ms: self.now_ms - self.loaded_ms, unix_ms }
    }

    fn call(&mut self) -> &mut Call {
        self.call.as_mut().expect("a call in memory")
    }

    /// Passes an input to the call, and carries out the effects that wait for no record.
    pub(super) fn input(&mut self, input: Input) {
        let now = self.now();
        let effects = self.call().on(input, now);
        let tells = std::mem::take(&mut effects.tells);
        effects.partials.clear();
        effects.notes.clear();
        for tell in tells {
            match tell {
                Tell::Error(peer, error) => {
                    if error.code == ErrorCode::CallCompleted {
                        self.producer(peer, |producer| producer.over = true);
                    }
                    assert!(
                        matches!(error.code, ErrorCode::CallCompleted | ErrorCode::JournalUnavailable),
                        "{}: {}",
                        error.code,
                        error.message
                    );
                }
                Tell::Close(peer, _) => self.producer(peer, |producer| {
                    for connection in producer.connections.iter_mut().filter(|connection| connection.peer == peer) {
                        connection.closing = true;
                    }
                }),
                Tell::Refuse(..) => {}
                Tell::Reply(peer, reply) => {
                    let mut heard = false;
                    self.producer(peer, |producer| heard = producer.replied(peer, reply.turn_order));
                    assert!(heard, "an answer to a turn that nobody waits for");
                }
            }
        }
    }

    fn producer(&mut self, peer: PeerNo, with: impl FnOnce(&mut super::producer::Producer)) {
        let owner = self.producers.iter_mut().find(|producer| {
            producer.attaching == Some(peer) || producer.connections.iter().any(|connection| connection.peer == peer)
        });
        if let Some(owner) = owner {
            with(owner);
        }
    }

    /// Does what a session does after each input: starts tasks, then appends records until an append has to wait.
    pub(super) fn settle(&mut self) {
        self.settle_and_append();
        self.note_ends();
    }

    fn settle_and_append(&mut self) {
        loop {
            while self.models.has_permit()
                && let Some(task) = self.models.waiting.pop_front()
            {
                self.ready(task);
            }
            self.input(Input::Settle);
            while self.start_tasks() {
                self.input(Input::Settle);
            }
            if self.flight.is_some() {
                return;
            }
            let now = self.now();
            let Some(batch) = self.call().batch(now) else { return };
            if batch.records.is_empty() && batch.entry.is_none() {
                return self.reply(batch.replies);
            }
            self.checks.handed(&batch.records);
            self.checks.knows(&self.call.as_ref().expect("a call in memory").log);
            self.flight = Some(Flight { batch, retry_at: None, failures: 0 });
            if !self.random.chance(self.knobs.commits_at_once) || !self.append() {
                return;
            }
        }
    }

    /// The journal answers. Returns true if the batch is durable.
    pub(super) fn append(&mut self) -> bool {
        let full = self.disk_is_full();
        let Some(flight) = &mut self.flight else { return false };
        if flight.retry_at.is_some_and(|at| at > self.now_ms) {
            return false;
        }
        let fails = full || self.random.chance(self.knobs.append_fails);
        match self.disk.append(&flight.batch, fails, &mut self.random) {
            Ok(stored) => {
                let batch = self.flight.take().map(|flight| flight.batch).expect("in flight");
                self.checks.committed(&stored);
                self.log.extend(stored);
                let head = self.disk.head();
                self.input(Input::Committed { head });
                self.reply(batch.replies);
                true
            }
            Err(()) => {
                flight.failures += 1;
                flight.retry_at = Some(self.now_ms + (50 << flight.failures.min(4)));
                if flight.failures == 1 {
                    self.input(Input::AppendFailed);
                }
                false
            }
        }
    }

    /// When the batch in flight is tried again.
    pub(super) fn retry_at(&self) -> Option<u64> {
        self.flight.as_ref()?.retry_at
    }

    fn reply(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            match reply {
                Reply::Ack(peer, ack) => {
                    let mut acked = Vec::new();
                    self.producer(peer, |producer| {
                        if let Some(range) = producer.ack(peer, &ack) {
                            acked = producer.script[range].iter().flat_map(|frame| frame.words().to_vec()).collect();
                        }
                    });
                    self.checks.are_durable(&acked);
                }
                Reply::Attached(peer, attached) => {
                    let resends = self.random.chance(self.knobs.resends);
                    let mut random = self.random.clone();
                    self.random.next();
                    if let Attached::Welcome(welcome) = &attached {
                        assert!(welcome.seq <= self.disk.head(), "a welcome before its record is durable");
                    }
                    self.producer(peer, |producer| producer.attached(peer, &attached, resends, &mut random));
                }
                Reply::View(_, view) => assert!(view.seq <= self.disk.head(), "a view of what is not durable"),
                Reply::Run(..) | Reply::Gone(_) => {}
            }
        }
    }

    fn start_tasks(&mut self) -> bool {
        let tasks = self.call().task_effects();
        let any = !tasks.is_empty();
        for effect in tasks {
            match effect {
                TaskEffect::Want(task) => {
                    let call = self.call.as_ref().expect("a call in memory");
                    // The task was requested and aborted in the same step, because the call ended at once.
                    let Some(target) = call.tasks.out.get(&task).map(|out| out.target.clone()) else { continue };
                    if let Target::Insights(keys) = &target {
                        let key = &keys[0];
                        let mut slots = call.schedule.rolling.iter();
                        let by_hand = slots.any(|slot| slot.analysis.name == key.analysis && slot.manual);
                        let forced = call.ending() || by_hand;
                        self.checks.wanted(key, self.now_ms, forced);
                    }
                    if self.models.has_permit() {
                        self.ready(task);
                    } else {
                        self.models.waiting.push_back(task);
                    }
                }
                TaskEffect::Abort(task) => self.models.abort(task),
            }
        }
        any
    }

    /// A task gets its permit.
    pub(super) fn ready(&mut self, task: TaskNo) {
        let Some(choice) = self.call().choice(task) else { return };
        let (due, pinned, others) = match &choice {
            Choice::Analysis { analysis, pinned, others, .. } => {
                let owned = |pinned: &Option<&str>| pinned.map(str::to_owned);
                let others = others.iter().map(|other| (Arc::clone(other.analysis), owned(&other.pinned)));
                (Some(Arc::clone(analysis)), owned(pinned), others.collect())
            }
            Choice::Question(_) => (None, None, Vec::new()),
        };
        let nobody = self.random.chance(self.models.manners.nobody);
        let temporary = self.random.chance(500);
        let variant = pinned.unwrap_or_else(|| if temporary { "a" } else { "b" }.to_owned());
        let mut members: Vec<Arc<str>> = due.iter().map(|analysis| Arc::clone(&analysis.name)).collect();
        for (other, pinned) in others {
            let same = self.knobs.bundles && !self.knobs.local && pinned.is_none_or(|pinned| pinned == variant);
            if same && due.as_ref().is_some_and(|due| due.goes_with(&other, "r")) {
                members.push(Arc::clone(&other.name));
            }
        }
        members.sort_unstable();
        let chosen = Chosen {
            route: Arc::from("r"),
            variant: Arc::from(variant),
            local: self.knobs.local,
            fit: Fit::new(Ratio::from_per_mille(if temporary { 1_500 } else { 1_000 }), None),
            members: members
                .iter()
                .map(|analysis| ChosenMember { analysis: Arc::clone(analysis), prompt: Arc::from("p/v1@0") })
                .collect(),
        };
        let target = self.call().tasks.out.get(&task).map(|out| out.target.clone());
        if nobody {
            if let Some(Target::Insights(keys)) = target {
                self.checks.failed(&keys[0], self.now_ms);
            }
            return self.input(Input::Ready { task, chosen: Err(failed(temporary)) });
        }
        let queued = self.queued();
        self.input(Input::Ready { task, chosen: Ok(chosen) });
        if let Some(start) = self.call().start() {
            honest(&start.snapshot);
            let target = self.call().tasks.out[&task].target.clone();
            if let Target::Insights(keys) = &target {
                keys.iter().for_each(|key| Checks::started(key, &self.models.running));
                for key in keys.iter().filter(|key| !queued.contains(&key.analysis)) {
                    self.checks.wanted(key, self.now_ms, start.last || key.turn.is_some());
                }
                self.takes_all_news(&members, start.last);
            }
            let turns = self.call().log.turns.len();
            self.models.start(&start, target, turns, self.now_ms, &mut self.random);
        }
    }

    /// Analyses that wait for a permit of their own.
    fn queued(&self) -> Vec<Arc<str>> {
        let call = self.call.as_ref().expect("a call in memory");
        let waits = |slot: &&Rolling| matches!(slot.phase, Phase::Queued { .. });
        call.schedule.rolling.iter().filter(waits).map(|slot| Arc::clone(&slot.analysis.name)).collect()
    }

    /// A bundle's request that was just started asks all of its analyses for which something is new.
    fn takes_all_news(&self, members: &[Arc<str>], last: bool) {
        let (call, now_ms) = (self.call.as_ref().expect("a call in memory"), self.now().ms);
        let bundle = call.schedule.rolling.iter().filter(|slot| members.contains(&slot.analysis.name));
        for slot in bundle.filter(|slot| !last && slot.phase != Phase::Running && !slot.is_apart()) {
            assert!(!slot.dirty || slot.hold_ms > now_ms, "{} is left behind by its bundle", slot.analysis.name);
        }
    }

    /// A model answers.
    pub(super) fn answer(&mut self, task: TaskNo) {
        let Some(running) = self.models.running.remove(&task) else { return };
        let result = self.models.result(&running.target, running.source.as_ref(), &mut self.random);
        let bill = match &result {
            Ok(Output::Insights(answered)) => answered.bill.cost_usd,
            _ => None,
        };
        let good: Vec<bool> = match &result {
            Ok(Output::Insights(answered)) => answered.members.iter().map(Result::is_ok).collect(),
            Ok(Output::Reply(_) | Output::Digest(_)) => Vec::new(),
            Err(_) => vec![false; running.keys().len()],
        };
        let revs: Vec<u64> = running.keys().iter().map(|key| self.rev(&key.analysis)).collect();
        self.input(Input::Done { task, result });
        let mut costs = Vec::new();
        for ((key, good), rev) in running.keys().iter().zip(good).zip(revs) {
            if !good || key.turn.is_some() {
                self.checks.failed(key, self.now_ms);
                continue;
            }
            if self.rev(&key.analysis) == rev {
                // The result was rejected, because a turn that it covers was revised: the analysis waits as after a
                // failure.
                self.checks.failed(key, self.now_ms);
                continue;
            }
            self.checks.succeeded(key);
            let call = self.call.as_ref().expect("a call in memory");
            let latest = call.log.standings.get(&*key.analysis).and_then(|standing| standing.latest.clone());
            let insight = latest.expect("its insight");
            assert_eq!(insight.covers, running.covers, "an insight covers what its snapshot held");
            assert_eq!(insight.behind_turns, (call.log.turns.len() - running.turns) as u64);
            costs.push(insight.provenance.cost_usd);
        }
        let pico = |usd: Option<f64>| usd.map(|usd| (usd * 1e12).round());
        let sum: Option<f64> = costs.iter().map(|cost| pico(*cost)).sum();
        assert!(costs.is_empty() || sum == pico(bill), "{costs:?} are not the bill of {bill:?}");
    }

    /// The newest revision of a rolling analysis.
    fn rev(&mut self, analysis: &str) -> u64 {
        self.call().log.standings.get(analysis).map_or(0, |standing| standing.rev)
    }
}
