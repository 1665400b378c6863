//! One call as a pure state machine: inputs describe what happened, and effects say what to do.
//!
//! Knows no task, no clock, no journal and no socket. [`Call::on`] takes one [`Input`] and the time and returns the
//! [`Effects`]; [`Call::batch`] returns the next records to append, with the answers that wait for them. All of a
//! call's state is here: the state that its log determines ([`log`]), the state that is only in the directory
//! ([`directory`]), its producers ([`producers`]), its analyses ([`schedule`], [`bundle`], [`standing`], [`repair`],
//! [`digests`], [`failures`]), its producers' own questions ([`replies`]), its rules ([`alerts`]) and its timers ([`ending`]). A log
//! folds back into the same [`Log`].
//!
//! The driver keeps to these rules:
//! * Inputs come in the order in which they happened, and `now` never goes back.
//! * After all available inputs it gives [`Input::Settle`]. Only then does the call ask for tasks and publish failures,
//!   so that a burst of turns leads to one snapshot.
//! * At most one batch is in flight. A failed batch is appended again unchanged; [`Input::Committed`] says that it is
//!   durable.
//! * Each [`TaskEffect::Want`] is answered by one [`Input::Ready`], and each task that is started by one
//!   [`Input::Done`], unless it is aborted.

mod alerts;
pub mod answer;
mod attach;
pub(crate) mod bill;
pub mod bounds;
mod bundle;
mod computed;
pub mod config;
mod digests;
mod directory;
pub(crate) mod effects;
mod ending;
mod failures;
pub mod fitting;
mod held;
pub mod input;
mod log;
pub mod numbers;
mod outcomes;
pub(crate) mod outline;
mod plan;
mod producers;
pub(crate) mod record;
mod repair;
mod replies;
mod schedule;
mod speech;
mod standing;
mod streams;
pub(crate) mod task;
mod tasks;
mod voice;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::alerts::Watch;
use self::digests::Compactions;
use self::directory::Directory;
use self::effects::{Batch, Effects, Reply, TaskEffect, Tell};
use self::ending::Life;
use self::failures::Failures;
use self::input::{Input, Now};
pub(crate) use self::log::Log;
use self::producers::Producers;
use self::record::{Outgoing, Private};
pub use self::schedule::OPEN_TURNS;
use self::schedule::Schedule;
use self::task::{Out, Start, Target, TaskNo};
use crate::analysis::Registry as Analyses;
use crate::base::time;
use crate::protocol::{ErrorCode, ErrorFrame, Event, Stamp};
use crate::rules::Rules;
use crate::types::directory::{CallState as State, Entry};
use crate::types::view::View;
use crate::types::{Seq, Turn};

/// Maximum size of the records that wait while the journal accepts none, bytes. Beyond it, sockets of producers are not
/// read.
const PENDING_BYTES: usize = 256 * 1024;

/// Settings that all calls of a daemon share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configured analyses.
    pub analyses: Arc<Analyses>,
    /// Analyses that a call runs unless its producer names others.
    pub default_analyses: Vec<String>,
    /// The rules that raise alerts.
    pub rules: Arc<Rules>,
    pub ingest: config::IngestConfig,
    pub limits: config::LimitsConfig,
}

/// A source of random numbers: returns 128 random bits per call of it.
pub(crate) type Entropy = Box<dyn FnMut() -> u128 + Send>;

/// Tasks that were requested and are not over.
#[derive(Default)]
struct Tasks {
    given: TaskNo,
    out: BTreeMap<TaskNo, Out>,
}

/// Records that wait to be appended, and answers that wait for them.
#[derive(Default)]
struct Outbox {
    records: Vec<Outgoing>,
    /// Size of the records.
    bytes: usize,
    replies: Vec<Reply>,
    /// Newest durable event of the log.
    durable: Seq,
    /// Set while a batch is in flight.
    in_flight: bool,
}

/// The known state of the journal.
#[derive(Default)]
struct Health {
    /// Set if this call's own append failed, and has not succeeded since.
    append_fails: bool,
    /// Set once the producers were told that the journal accepts no writes.
    told: bool,
}

/// One call.
pub(crate) struct Call {
    settings: Arc<Settings>,
    entropy: Entropy,
    now: Now,
    log: Log,
    directory: Directory,
    producers: Producers,
    schedule: Schedule,
    failures: Failures,
    watch: Watch,
    compactions: Compactions,
    tasks: Tasks,
    life: Life,
    health: Health,
    outbox: Outbox,
    effects: Effects,
}

impl Call {
    /// Makes the call with this `log`, or a new one if the log has no record; `entry` is its directory entry.
    /// `overdue`: a timer expired while the call was not in memory.
    pub(crate) fn new(
        settings: Arc<Settings>,
        mut log: Log,
        entry: Option<&Entry>,
        overdue: bool,
        entropy: Entropy,
        now: Now,
    ) -> Self {
        let directory = match entry {
            Some(entry) if log.head > 0 => Directory::adopt(&mut log, entry),
            _ => Directory::default(),
        };
        let (durable, compactions) = (log.head, Compactions::new(&log));
        let mut this = Self {
            settings,
            entropy,
            now,
            log,
            directory,
            producers: Producers::default(),
            schedule: Schedule::default(),
            failures: Failures::default(),
            watch: Watch::default(),
            compactions,
            tasks: Tasks::default(),
            life: Life::new(now.ms),
            health: Health::default(),
            outbox: Outbox { durable, ..Outbox::default() },
            effects: Effects::default(),
        };
        this.resume(overdue);
        this
    }

    /// Processes one input. The effects stay in the buffer until they are taken out.
    pub(crate) fn on(&mut self, input: Input, now: Now) -> &mut Effects {
        self.now = now;
        match input {
            Input::Attach(attach) => self.attach(attach),
            Input::Frames { frames, watched } => self.frames(&frames, watched),
            Input::Detach(gone) => self.detach(gone.connection, &gone.stream),
            Input::Gap(gap) => self.gap(gap),
            Input::Run { ask, analysis } => self.run_now(ask, &analysis),
            Input::View { ask } => {
                let view = Arc::new(self.view());
                self.outbox.replies.push(Reply::View(ask, view));
            }
            Input::Journal { well: false } => self.tell_unavailable(),
            // While the call's own append fails, its producers stay informed until that append succeeds.
            Input::Journal { well: true } => self.health.told &= self.health.append_fails,
            Input::AppendFailed => {
                self.health.append_fails = true;
                self.tell_unavailable();
            }
            Input::Committed { head } => {
                (self.outbox.durable, self.outbox.in_flight) = (head, false);
                self.health = Health::default();
            }
            Input::Ready { task, chosen } => self.ready(task, chosen),
            Input::Done { task, result } => self.task_done(task, result),
            Input::Timer => self.timers(),
            Input::Settle => self.settle(),
            Input::Stop => {
                self.life.stopping = true;
                // It is made again after the start.
                self.abort_tasks(|target| matches!(target, Target::Digest(_)));
            }
            Input::Kill => self.kill(),
        }
        &mut self.effects
    }

    /// Takes the tasks that are wanted or no longer wanted.
    pub(crate) fn task_effects(&mut self) -> Vec<TaskEffect> {
        std::mem::take(&mut self.effects.tasks)
    }

    /// Takes the task to start.
    pub(crate) fn start(&mut self) -> Option<Box<Start>> {
        self.effects.start.take()
    }

    /// The next batch to append, if there is anything. The caller has no other batch in flight.
    pub(crate) fn batch(&mut self, now: Now) -> Option<Batch> {
        self.note_due();
        let entry = std::mem::take(&mut self.directory.changed);
        if self.outbox.records.is_empty() && self.outbox.replies.is_empty() && !entry {
            return None;
        }
        self.outbox.bytes = 0;
        self.outbox.in_flight = entry || !self.outbox.records.is_empty();
        Some(Batch {
            after: self.outbox.durable,
            records: std::mem::take(&mut self.outbox.records),
            entry: entry.then(|| self.directory.entry(&self.log, now.unix_ms)),
            replies: std::mem::take(&mut self.outbox.replies),
        })
    }

    /// Returns true if more records may wait for the journal. If false, no producer may be read.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.bytes < PENDING_BYTES
    }

    /// Returns true if nobody is connected and no task runs: a stopping daemon need not wait for this call.
    pub(crate) fn may_stop(&self) -> bool {
        self.tasks.out.is_empty() && self.producers.live.is_empty()
    }

    /// Decides what is due after all available inputs.
    fn settle(&mut self) {
        // Replies are not written, so neither a shutdown nor the journal delays them.
        self.launch_replies();
        if self.life.stopping {
            return;
        }
        self.launch_due();
        self.publish_failures();
        self.check_ending();
    }

    /// Returns true if the end was decided, by a record or by a timer: no turn follows.
    fn ending(&self) -> bool {
        self.log.ending || self.life.ending
    }

    fn is_open(&self) -> bool {
        self.log.status == State::Open
    }

    /// Stamps `event`, applies it and queues its record.
    fn emit(&mut self, event: &Event, private: &Private) {
        self.emit_about(event, private, None);
    }

    /// As [`Call::emit`], for the event of a turn, which is in the turn table already.
    fn emit_about(&mut self, event: &Event, private: &Private, turn: Option<&Arc<Turn>>) {
        let stamp =
            Stamp { call_id: self.log.call_id.clone(), seq: self.log.head + 1, at: time::rfc3339_ms(self.now.unix_ms) };
        let (marks, digest) = (self.marks(event), self.compactions.next_to_write());
        let more = marks.is_some() || digest.is_some();
        let more = more.then(|| Private { rules: marks, digest, ..private.clone() });
        let private = more.as_ref().unwrap_or(private);
        let record = record::encode(&stamp, event, private);
        self.outbox.bytes += record.frame.len() + record.private.len();
        self.outbox.records.push(record);
        self.log.fold(stamp.seq, &stamp.at, event, private, turn);
        if let Some(mark) = &private.mark {
            self.directory.recorded(&mark.stream);
        }
        self.apply_rules(event);
    }

    /// Tells the producers, once per outage, that the journal accepts no writes.
    fn tell_unavailable(&mut self) {
        if !std::mem::replace(&mut self.health.told, true) {
            let peers = self.producers.live.values().map(|live| live.peer);
            self.effects.tells.extend(peers.map(|peer| Tell::Error(peer, unavailable())));
        }
    }

    /// ms since the call began.
    fn call_ms(&self) -> u64 {
        u64::try_from(self.now.unix_ms - self.log.started_at_ms).unwrap_or(0)
    }

    /// 20 characters of base 32, from 100 random bits.
    fn random_suffix(&mut self) -> String {
        crate::types::id::suffix_of((self.entropy)())
    }

    /// The present state of the call.
    fn view(&self) -> View {
        let log = &self.log;
        View {
            call_id: log.call_id.clone(),
            epoch: self.directory.epoch.clone(),
            seq: log.head,
            status: log.status.as_str(),
            started_at: time::rfc3339_ms(log.started_at_ms),
            meta: log.meta.clone(),
            turn_count: log.turns.len() as u64,
            turns: log.turns.iter().cloned().collect(),
            streams: log.stream_views(),
            insights: log.insights(),
            alerts: log.alerts.shown(),
        }
    }
}

fn unavailable() -> ErrorFrame {
    let message = "the journal accepts no writes now; nothing is acknowledged until it does";
    ErrorFrame::new(ErrorCode::JournalUnavailable, message).temporary()
}

#[cfg(test)]
mod tests;
