//! The task of one call, which drives the call's state machine.
//!
//! Makes no decisions: inputs go into [`Call::on`], and this task carries out the effects. It never awaits an append or
//! an LLM: at most one append is in flight, and records that arise meanwhile form the next batch; analyses report back
//! through a `JoinSet`. Priority of its `select!`: stop, then results (commits, tasks), then input, then time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Deps;
use super::arriving::Arriving;
use super::command::Command;
use super::live;
use super::peers::{Ask, Peers};
use super::pipeline::{Failure, Pipeline};
use super::runs::{Returned, Runs};
use crate::base::queue::Receiver;
use crate::base::time;
use crate::call::effects::{Effects, Note, Reply, TaskEffect};
use crate::call::input::{Attach, Input, Now};
use crate::call::task::TaskNo;
use crate::call::{Call, Log};
use crate::journal::{Commit, Entry, JournalError};
use crate::types::CallId;

/// Maximum number of commands that are taken from the queue before the batch is appended.
const COMMANDS_PER_BATCH: usize = 64;

/// Why a call's task ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// The call has nothing more to do.
    Finished,
    /// The daemon stops.
    Stopped,
    /// Another writer has appended to the call's log, so the state in memory is invalid.
    Fenced,
    /// The log permanently accepts no append.
    Unwritable,
}

pub(super) struct Actor {
    deps: Arc<Deps>,
    call_id: CallId,
    call: Call,
    /// The instant at which the call's own clock is 0.
    clock: Instant,
    input: Receiver<Command>,
    peers: Peers,
    runs: Runs,
    pipeline: Pipeline,
    /// Held until the first commit of a new call.
    arriving: Option<Arriving>,
    stopping: bool,
}

impl Actor {
    /// Makes the task of the call with this `log` and `entry`. `overdue`: a timer expired while the call was not in
    /// memory.
    pub(super) fn new(
        deps: Arc<Deps>,
        log: Log,
        entry: Option<&Entry>,
        overdue: bool,
        arriving: Option<Arriving>,
        input: Receiver<Command>,
    ) -> Self {
        let call_id = log.call_id().clone();
        let now = Now { ms: 0, unix_ms: time::unix_ms() };
        let call = Call::new(Arc::clone(&deps.call), log, entry, overdue, Box::new(rand::random::<u128>), now);
        Self {
            pipeline: Pipeline::new(Arc::clone(&deps.store), call_id.clone()),
            runs: Runs::new(Arc::clone(&deps), call_id.clone()),
            deps,
            call_id,
            call,
            clock: Instant::now(),
            input,
            peers: Peers::default(),
            arriving,
            stopping: false,
        }
    }

    /// Runs until the call has nothing more to do or the daemon stops.
    pub(super) async fn run(&mut self) -> Exit {
        match self.go().await {
            Ok(exit) | Err(exit) => exit,
        }
    }

    /// Ends the task because another writer has the call: producers are asked to reconnect, and nothing that runs here
    /// is used any more.
    pub(super) fn let_go(&mut self) {
        self.peers.reconnect("the call continues in another session");
        self.runs.abort_all();
    }

    async fn go(&mut self) -> Result<Exit, Exit> {
        let (stop, kill) = (self.deps.drain.stop.clone(), self.deps.drain.kill.clone());
        loop {
            if self.stopping {
                // Frames that producers sent before the request to reconnect are still applied.
                while let Some(command) = self.input.try_recv() {
                    self.command(command);
                }
            }
            self.settle()?;
            if self.stopping && self.call.may_stop() && self.pipeline.is_idle() {
                return Ok(Exit::Stopped);
            }
            if !self.stopping && self.call.finished(self.now().ms) && self.input.is_empty() {
                return Ok(Exit::Finished);
            }
            let wake_at = self.call.wake_at().map(|ms| self.clock + Duration::from_millis(ms));
            let reading = self.stopping || self.call.has_room();
            let retry_at = self.pipeline.retry_at();
            tokio::select! {
                biased;
                () = stop.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    self.on(Input::Stop);
                }
                () = kill.cancelled(), if self.stopping => {
                    self.on(Input::Kill);
                    self.settle()?;
                    return Ok(Exit::Stopped);
                }
                result = self.pipeline.committed() => self.committed(result)?,
                Some(returned) = self.runs.next() => self.returned(returned),
                command = self.input.recv(), if reading => {
                    let Some(command) = command else {
                        return Ok(if self.stopping { Exit::Stopped } else { Exit::Finished });
                    };
                    self.command(command);
                    for _ in 1..COMMANDS_PER_BATCH {
                        let Some(command) = self.input.try_recv() else { break };
                        self.command(command);
                    }
                }
                () = sleep_until(wake_at) => self.on(Input::Timer),
                () = sleep_until(retry_at), if retry_at.is_some() => self.pipeline.retry(),
            }
        }
    }

    fn now(&self) -> Now {
        let ms = time::millis(self.clock.elapsed());
        Now { ms, unix_ms: time::unix_ms() }
    }

    fn command(&mut self, command: Command) {
        let input = match command {
            Command::Attach(attach) => {
                let (question, replies) = attach.asking.map(|asking| (asking.question, asking.replies)).unzip();
                let peer = self.peers.producer(attach.outlet, replies, attach.reply);
                Input::Attach(Attach {
                    peer,
                    stream: attach.stream,
                    dialect: attach.dialect,
                    offset_ms: attach.offset_ms,
                    meta: attach.meta,
                    analyses: attach.analyses,
                    variants: attach.variants,
                    question,
                })
            }
            Command::Frames(frames) => {
                let watched = live::has_partial(&frames.events) && live::wants_partials(&self.deps.hub, &self.call_id);
                Input::Frames { frames, watched }
            }
            Command::Detach(gone) => Input::Detach(*gone),
            Command::Run(run) => Input::Run { ask: self.peers.ask(Ask::Run(run.reply)), analysis: run.analysis },
            Command::View(reply) => Input::View { ask: self.peers.ask(Ask::View(reply)) },
            Command::Gap(gap) => Input::Gap(*gap),
            Command::Journal { well } => Input::Journal { well },
        };
        self.on(input);
    }

    fn returned(&mut self, returned: Returned) {
        match returned {
            Returned::Permit { task, permit } => self.ready(task, permit),
            Returned::Done { task, result } => self.on(Input::Done { task, result: *result }),
        }
    }

    /// Passes an input to the call and carries out the effects, except for starting tasks: see [`Actor::start_tasks`].
    fn on(&mut self, input: Input) {
        let now = self.now();
        let effects = self.call.on(input, now);
        if !effects.is_quiet() {
            perform(effects, &mut self.peers, &self.deps, &self.call_id);
        }
    }

    /// Starts or aborts tasks as the call wants; returns true if it wanted any.
    fn start_tasks(&mut self) -> bool {
        let tasks = self.call.task_effects();
        let any = !tasks.is_empty();
        for effect in tasks {
            match effect {
                // Usually the permit is available at once; then the task starts without going through the `JoinSet`
                // first.
                TaskEffect::Want(task) => {
                    if let Some(permit) = self.runs.permit(task) {
                        self.ready(task, permit);
                    }
                }
                TaskEffect::Abort(task) => self.runs.abort(task),
            }
        }
        any
    }

    /// A task has its permit: chooses the model, and starts the task.
    fn ready(&mut self, task: TaskNo, permit: OwnedSemaphorePermit) {
        let Some(choice) = self.call.choice(task) else { return };
        let (chosen, asked) = self.runs.choose(&choice);
        self.on(Input::Ready { task, chosen });
        if let (Some(start), Some(asked)) = (self.call.start(), asked) {
            self.runs.start(start, asked, permit);
        }
    }

    /// Lets the call decide and appends its records, again as long as commits come at once.
    fn settle(&mut self) -> Result<(), Exit> {
        loop {
            self.on(Input::Settle);
            while self.start_tasks() {
                self.on(Input::Settle);
            }
            if !self.pipeline.is_idle() {
                return Ok(());
            }
            let now = self.now();
            let Some(batch) = self.call.batch(now) else { return Ok(()) };
            if batch.records.is_empty() && batch.entry.is_none() {
                self.reply(batch.replies);
                return Ok(());
            }
            for record in &batch.records {
                self.deps.metrics.event(record.kind(), record.insight.as_deref());
            }
            self.pipeline.append(batch);
            match self.pipeline.committed_now() {
                Some(result) => self.committed(result)?,
                None => return Ok(()),
            }
            if self.pipeline.retry_at().is_some() {
                return Ok(());
            }
        }
    }

    fn committed(&mut self, result: Result<Commit, JournalError>) -> Result<(), Exit> {
        match self.pipeline.finish(result) {
            Ok((head, replies)) => {
                self.arriving = None;
                self.on(Input::Committed { head });
                self.reply(replies);
                Ok(())
            }
            Err(Failure::Again) => Ok(()),
            Err(Failure::First(message)) => {
                tracing::error!(call_id = %self.call_id, message, "the journal does not accept appends");
                self.on(Input::AppendFailed);
                Ok(())
            }
            Err(Failure::Lost(JournalError::Fenced { .. })) => Err(Exit::Fenced),
            Err(Failure::Lost(error)) => {
                tracing::error!(call_id = %self.call_id, %error, "the call's log cannot be written to");
                Err(Exit::Unwritable)
            }
        }
    }

    fn reply(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            self.peers.reply(reply);
        }
    }
}

/// Carries out the effects that wait for no record.
fn perform(effects: &mut Effects, peers: &mut Peers, deps: &Deps, call_id: &CallId) {
    for tell in effects.tells.drain(..) {
        peers.tell(tell);
    }
    for partial in effects.partials.drain(..) {
        live::partial(&deps.hub, call_id, &partial);
    }
    for note in effects.notes.drain(..) {
        match note {
            Note::UnknownAnalysis(analysis) => {
                tracing::warn!(call_id = %call_id, analysis, "a requested analysis is not configured; it is skipped");
            }
            Note::AlertRaised(rule, severity) => {
                deps.metrics.alert_raised(&rule, severity);
                tracing::info!(call_id = %call_id, rule = &*rule, severity = severity.as_str(), "a rule raised an \
                    alert");
            }
            Note::AlertCleared(rule) => {
                deps.metrics.alert_cleared(&rule);
                tracing::info!(call_id = %call_id, rule = &*rule, "an alert was cleared");
            }
            Note::AlertRefused(rule) => {
                deps.metrics.alert_refused(&rule);
                tracing::debug!(call_id = %call_id, rule = &*rule, "an alert was not raised: the call has the maximum \
                    number (limits.alerts_per_call)");
            }
            Note::RuleSkipped(rule, over) => {
                deps.metrics.rule_skipped(&rule);
                tracing::warn!(call_id = %call_id, rule = &*rule, %over, "a rule was not applied to a turn");
            }
            Note::DigestFailed { code, stops } => {
                deps.metrics.digest_failed(stops);
                if stops {
                    tracing::warn!(call_id = %call_id, code = code.as_str(), "no digest of the oldest turns can be made; \
                        for five minutes, turns leave the prompts without");
                }
            }
            Note::VendorError { stream, code, message } => {
                tracing::warn!(call_id = %call_id, stream = %stream, code, message, "the STT vendor reported an error");
            }
        }
    }
    let counts = std::mem::take(&mut effects.counts);
    deps.metrics.partials.inc_by(counts.partials);
    deps.metrics.unknown_messages.inc_by(counts.unknown_messages);
    deps.metrics.vendor_errors.inc_by(counts.vendor_errors);
    deps.metrics.gated.inc_by(counts.gated);
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
