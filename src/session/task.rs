//! The task of one call: owner of all its state, only writer of its `seq`.
//!
//! It never awaits an append or an LLM: one append is in flight, and what comes meanwhile is the next batch; jobs report
//! back through a `JoinSet`. Order of its `select!`: stop, then what comes back (commits, jobs), then input, then time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Deps;
use super::command::{Ack, Attach, Attached, Command, Complaint, ConnectionNo, Outlet, RunRefusal};
use super::failures::Failures;
use super::held::Holding;
use super::record::{self, Private};
use super::registry::Arriving;
use super::schedule::Schedule;
use super::state::CallState;
use super::worker::{Answered, Failed, JobKey};
use crate::base::queue::Receiver;
use crate::base::time;
use crate::journal::{CommitFuture, JournalError, NewRecord};
use crate::types::view::View;
use crate::types::{Carry, Event, Seq, Stamp, StreamId};

/// Records that may wait for a journal that does not take them, bytes; beyond it input is left in its sockets.
const PENDING_BYTES: usize = 256 * 1024;
/// Commands taken from the queue before the batch is appended.
const COMMANDS_PER_BATCH: usize = 64;
/// First wait before a failed append is tried again; doubles to a second.
const JOURNAL_RETRY: Duration = Duration::from_millis(50);

/// A connected producer.
pub(super) struct Live {
    pub(super) connection: ConnectionNo,
    pub(super) outlet: Arc<Outlet>,
    /// Frames read.
    pub(super) count: u64,
    /// Frames of which nothing lives in memory alone.
    pub(super) covered: u64,
    /// What its decoder holds.
    pub(super) holding: Holding,
    /// Newest frame that led to a record.
    pub(super) effect: u64,
    /// Frames up to this one had their effect on an earlier connection.
    pub(super) suppress: u64,
    /// The producer's own offset.
    pub(super) offset_ms: Option<u64>,
    /// Its dialect.
    pub(super) dialect: &'static dyn crate::stt::Dialect,
    /// The stream that its events belong to: the one that it named, or one that a later vendor session made of it.
    pub(super) current: StreamId,
    /// A vendor's session began on this connection.
    pub(super) begun: bool,
    /// It met a limit and is being closed: what still comes on it is not taken.
    pub(super) refused: bool,
    /// The vendor's session, where the stream had begun before it was known.
    pub(super) session: Option<String>,
}

/// Where the previous connection of a stream was when it went.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) covered: u64,
    pub(super) effect: u64,
    /// What its decoder knew after the frames covered.
    pub(super) carry: Arc<Carry>,
}

/// What is to be done once all records before it are durable.
pub(super) enum Effect {
    Ack(Arc<Outlet>, Ack),
    Attached(oneshot::Sender<Attached>, Attached),
    View(oneshot::Sender<Arc<View>>, Arc<View>),
    Run(oneshot::Sender<Result<Seq, RunRefusal>>, Seq),
}

/// What a job's task came back with.
pub(super) enum Outcome {
    /// The permit that a queued analysis waited for.
    Permit { key: JobKey, permit: OwnedSemaphorePermit },
    /// A job's end.
    Done(Box<Done>),
}

/// A job's end, and what must be known of its start.
pub(super) struct Done {
    pub(super) key: JobKey,
    pub(super) result: Result<Answered, Failed>,
    pub(super) covers: crate::types::Coverage,
    pub(super) snapshot_len: u64,
    pub(super) route: String,
    pub(super) variant: String,
    pub(super) prompt: String,
    pub(super) reason: &'static str,
    pub(super) is_final: bool,
    /// When the newest of what the job is about came (a turn, or a correction of one), the trigger fired, and the job went
    /// out; ms of the session's clock.
    pub(super) news_ms: u64,
    pub(super) fired_ms: u64,
    pub(super) started_ms: u64,
}

/// Why a task is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// The call has nothing more to do.
    Finished,
    /// The daemon stops.
    Stopped,
    /// Someone else wrote to the log: what is in memory is not what happened.
    Fenced,
}

struct InFlight {
    commit: CommitFuture,
    batch: Vec<NewRecord>,
    entry: Option<crate::journal::Entry>,
    effects: Vec<Effect>,
    after: Seq,
}

/// A call's task.
pub(super) struct Task {
    pub(super) deps: Arc<Deps>,
    pub(super) state: CallState,
    pub(super) schedule: Schedule,
    pub(super) failures: Failures,
    pub(super) input: Receiver<Command>,
    pub(super) live: HashMap<StreamId, Live>,
    pub(super) left: HashMap<StreamId, Left>,
    /// Producers that wait for the older connection of their stream to be gone.
    pub(super) taking_over: Vec<Attach>,
    pub(super) jobs: JoinSet<Outcome>,
    pub(super) clock: Instant,
    /// Since when no socket is live; `None` while one is.
    pub(super) unattended_since: Option<u64>,
    /// Since when all streams have ended; `None` while one has not.
    pub(super) ended_since: Option<u64>,
    /// When a producer was last heard.
    pub(super) heard_ms: u64,
    /// When the final runs began.
    pub(super) ending_since: Option<u64>,
    pub(super) durable: Seq,
    /// Held until the first commit of a new call.
    arriving: Option<Arriving>,
    pending: Vec<NewRecord>,
    pending_bytes: usize,
    pub(super) entry_changed: bool,
    pub(super) effects: Vec<Effect>,
    in_flight: Option<InFlight>,
    journal_failures: u32,
    /// The producers were told that the journal takes no writes.
    told_unavailable: bool,
    journal_retry_at: Option<Instant>,
}

impl Task {
    pub(super) fn new(deps: Arc<Deps>, state: CallState, arriving: Option<Arriving>, input: Receiver<Command>) -> Self {
        let durable = state.head;
        Self {
            deps,
            state,
            schedule: Schedule::default(),
            failures: Failures::default(),
            input,
            live: HashMap::new(),
            left: HashMap::new(),
            taking_over: Vec::new(),
            jobs: JoinSet::new(),
            clock: Instant::now(),
            unattended_since: Some(0),
            ended_since: None,
            heard_ms: 0,
            ending_since: None,
            durable,
            arriving,
            pending: Vec::new(),
            pending_bytes: 0,
            entry_changed: false,
            effects: Vec::new(),
            in_flight: None,
            journal_failures: 0,
            told_unavailable: false,
            journal_retry_at: None,
        }
    }

    /// Milliseconds on the session's own clock.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Runs until the call has nothing more to do or the daemon stops. `overdue`: a timer ran out while the call was not
    /// in memory.
    pub(super) async fn run(&mut self, overdue: bool) -> Exit {
        self.resume(overdue);
        let drain = self.deps.drain.clone();
        loop {
            if let Err(exit) = self.settle() {
                return exit;
            }
            if self.finished() {
                return Exit::Finished;
            }
            if drain.stopping() {
                return self.stop().await;
            }
            let wake_at = self.wake_at();
            let reading = self.has_room();
            let retry_at = self.journal_retry_at;
            tokio::select! {
                biased;
                () = drain.stop.cancelled() => {}
                result = async { match &mut self.in_flight { Some(flight) => (&mut flight.commit).await, None => std::future::pending().await } },
                    if self.in_flight.is_some() && retry_at.is_none() =>
                {
                    if let Err(exit) = self.committed(result) {
                        return exit;
                    }
                }
                Some(outcome) = self.jobs.join_next() => match outcome {
                    Ok(outcome) => self.job_back(outcome),
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                },
                command = self.input.recv(), if reading => {
                    let Some(command) = command else { return Exit::Finished };
                    self.command(command);
                    for _ in 1..COMMANDS_PER_BATCH {
                        let Some(command) = self.input.try_recv() else { break };
                        self.command(command);
                    }
                }
                () = sleep_until(wake_at) => self.timers(),
                () = sleep_until(retry_at), if retry_at.is_some() => self.retry_append(),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Attach(attach) => self.attach(*attach),
            Command::Frames(frames) => self.frames(*frames),
            Command::Detach(gone) => self.detach(gone.connection, &gone.stream),
            Command::Run(run) => self.run_now(&run.analysis, run.reply),
            Command::View(reply) => {
                let view = Arc::new(self.state.view());
                self.effects.push(Effect::View(reply, view));
            }
            Command::Gap(gap) => self.gap(*gap),
            Command::Journal { well: false } => self.tell_unavailable(),
            // Whose own append fails still hears no more before that one is through.
            Command::Journal { well: true } => self.told_unavailable &= self.journal_failures > 0,
        }
    }

    /// Whether records may be added to those that wait for the journal.
    pub(super) fn has_room(&self) -> bool {
        self.pending_bytes < PENDING_BYTES
    }

    /// Stamps `event`, applies it and queues its record.
    pub(super) fn emit(&mut self, event: &Event, private: &Private) {
        let stamp = Stamp {
            call_id: self.state.call_id.clone(),
            seq: self.state.head + 1,
            at: time::rfc3339_ms(time::unix_ms()),
        };
        self.state.head = stamp.seq;
        let record = record::encode(&stamp, event, private);
        self.pending_bytes += record.frame.len() + record.private.len();
        self.pending.push(record);
        self.deps.metrics.event(event);
        self.state.fold(event, private, &stamp.at);
    }

    /// Starts what is due and appends what is pending, as often as commits come at once.
    fn settle(&mut self) -> Result<(), Exit> {
        loop {
            self.launch_due();
            self.publish_failures();
            self.check_ending();
            if self.in_flight.is_some() {
                return Ok(());
            }
            if self.pending.is_empty() && !self.entry_changed {
                self.run_effects();
                return Ok(());
            }
            self.append_pending();
            let now = self.in_flight.as_mut().and_then(|flight| (&mut flight.commit).now_or_never());
            match now {
                Some(result) => self.committed(result)?,
                None => return Ok(()),
            }
            if self.journal_retry_at.is_some() {
                return Ok(());
            }
        }
    }

    fn append_pending(&mut self) {
        let batch = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let entry = std::mem::take(&mut self.entry_changed).then(|| self.state.entry(time::unix_ms()));
        let effects = std::mem::take(&mut self.effects);
        let after = self.durable;
        let commit = self.deps.store.append(&self.state.call_id, after, batch.clone(), entry.clone());
        self.in_flight = Some(InFlight { commit, batch, entry, effects, after });
    }

    fn retry_append(&mut self) {
        self.journal_retry_at = None;
        if let Some(flight) = &mut self.in_flight {
            let (batch, entry) = (flight.batch.clone(), flight.entry.clone());
            flight.commit = self.deps.store.append(&self.state.call_id, flight.after, batch, entry);
        }
    }

    fn committed(&mut self, result: Result<crate::journal::Commit, JournalError>) -> Result<(), Exit> {
        match result {
            Ok(commit) => {
                if let Some(flight) = self.in_flight.take() {
                    self.arriving = None;
                    self.durable = commit.head;
                    self.journal_failures = 0;
                    self.told_unavailable = false;
                    let newer = std::mem::replace(&mut self.effects, flight.effects);
                    self.run_effects();
                    self.effects = newer;
                }
                Ok(())
            }
            Err(JournalError::Unavailable(message)) => {
                if self.journal_failures == 0 {
                    tracing::error!(call = %self.state.call_id, message, "the journal does not take appends");
                    self.tell_unavailable();
                }
                let wait = JOURNAL_RETRY.saturating_mul(1 << self.journal_failures.min(4)).min(Duration::from_secs(1));
                self.journal_failures = self.journal_failures.saturating_add(1);
                self.journal_retry_at = Some(Instant::now() + wait);
                Ok(())
            }
            Err(error) => {
                tracing::error!(call = %self.state.call_id, %error, "the call's log cannot be written to");
                Err(Exit::Fenced)
            }
        }
    }

    fn run_effects(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            // Whoever asked may be gone by now.
            match effect {
                Effect::Ack(outlet, ack) => outlet.ack(ack),
                Effect::Attached(reply, attached) => drop(reply.send(attached)),
                Effect::View(reply, view) => drop(reply.send(view)),
                Effect::Run(reply, seq) => drop(reply.send(Ok(seq))),
            }
        }
    }

    /// Tells the producers, once in each outage, that the journal takes no writes.
    fn tell_unavailable(&mut self) {
        if !std::mem::replace(&mut self.told_unavailable, true) {
            self.live.values().for_each(|live| live.outlet.complain(unavailable()));
        }
    }

    /// The same for a producer that comes while that is so.
    pub(super) fn tell_newcomer(&self, outlet: &Outlet) {
        if self.told_unavailable {
            outlet.complain(unavailable());
        }
    }

    /// The daemon stops: jobs in flight have until the deadline, then what is pending is appended. The call goes on at
    /// the next start.
    async fn stop(&mut self) -> Exit {
        let kill = self.deps.drain.kill.clone();
        loop {
            // What producers sent before they were told to go is still applied.
            while let Some(command) = self.input.try_recv() {
                self.command(command);
            }
            if let Err(exit) = self.flush_only() {
                return exit;
            }
            let waiting = !self.jobs.is_empty() || !self.live.is_empty();
            if !waiting && self.in_flight.is_none() {
                return Exit::Stopped;
            }
            let retry_at = self.journal_retry_at;
            tokio::select! {
                biased;
                () = kill.cancelled() => {
                    self.let_all_out();
                    self.mark_aborted();
                    return if self.flush_only().is_ok() { Exit::Stopped } else { Exit::Fenced };
                }
                result = async { match &mut self.in_flight { Some(flight) => (&mut flight.commit).await, None => std::future::pending().await } },
                    if self.in_flight.is_some() && retry_at.is_none() =>
                {
                    if let Err(exit) = self.committed(result) {
                        return exit;
                    }
                }
                Some(outcome) = self.jobs.join_next() => {
                    if let Ok(outcome) = outcome {
                        self.job_back(outcome);
                    }
                }
                command = self.input.recv() => match command {
                    Some(command) => self.command(command),
                    None => return Exit::Stopped,
                },
                () = sleep_until(retry_at), if retry_at.is_some() => self.retry_append(),
            }
        }
    }

    /// Appends without starting anything new.
    fn flush_only(&mut self) -> Result<(), Exit> {
        while self.in_flight.is_none() && (!self.pending.is_empty() || self.entry_changed) {
            self.append_pending();
            let now = self.in_flight.as_mut().and_then(|flight| (&mut flight.commit).now_or_never());
            match now {
                Some(result) => self.committed(result)?,
                None => break,
            }
            if self.journal_retry_at.is_some() {
                break;
            }
        }
        if self.in_flight.is_none() {
            self.run_effects();
        }
        Ok(())
    }
}

fn unavailable() -> Complaint {
    let message = "the journal takes no writes at the moment; nothing is acknowledged until it does";
    Complaint::new("journal_unavailable", message).temporary()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
