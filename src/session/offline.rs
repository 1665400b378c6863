//! Plays a recorded call on a virtual clock: the second driver of [`Call`], without a journal and without a producer's
//! connection.
//!
//! Like the [actor](super::actor), it decides nothing, and its tasks go through the same code as those of live calls.
//! The virtual clock stands still while a request is made; the answer arrives on the virtual clock after the time that
//! the models took, measured or recorded. The same recording with the same answers gives the same events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Deps;
use super::runs::{Returned, Runs};
use crate::base::random::Random;
use crate::call::answer::{Attached, Failed};
use crate::call::effects::{Counts, Effects, Reply, TaskEffect, Tell};
use crate::call::input::{Attach, Frames, Input, Now};
use crate::call::numbers::{ConnectionNo, PeerNo};
use crate::call::task::{Output, TaskNo};
use crate::call::{Call, Log, record};
use crate::gateway::exchanges::Exchanges;
use crate::protocol::Event;
use crate::stt::Dialect;
use crate::types::{CallId, Carry, JsonMap, StreamId, SttEvent};

/// Wall time at the beginning of each call, ms since 1970. The value has no meaning, but it is fixed so that events are
/// reproducible.
const BEGAN_MS: i64 = 1_767_225_600_000;
/// The only producer.
const PRODUCER: PeerNo = 1;
/// If timers are due this many times in a row without any progress of time, the call is given up.
const IDLE_TIMERS: u32 = 10_000;
/// Maximum number of errors about the recording that are kept.
const ERRORS_KEPT: usize = 20;

/// The input of one run.
pub struct Script {
    pub call: CallId,
    pub dialect: &'static dyn Dialect,
    /// The recording, decoded, in order of time. The last frame ends the call.
    pub frames: VecDeque<TimedFrame>,
    /// Analyses to run.
    pub analyses: Vec<String>,
    /// Pinned variants, by route.
    pub variants: BTreeMap<String, String>,
}

/// A frame of the recording.
#[derive(Debug)]
pub struct TimedFrame {
    /// Call time, ms.
    pub at_ms: u64,
    /// The decoder's state after the frame.
    pub carry: Arc<Carry>,
    pub events: Vec<SttEvent>,
}

/// An event of the call.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedEvent {
    /// Call time, ms.
    pub at_ms: u64,
    pub event: Event,
}

/// The result of playing a recording.
#[derive(Debug, Default)]
pub struct Played {
    /// The events, in order.
    pub events: Vec<TimedEvent>,
    /// The parts of the recording that the call refused, and why.
    pub errors: Vec<String>,
}

/// Plays a recording until its call has completed.
///
/// # Errors
/// The call refuses the recording, a request has no stored answer, or the call does not end.
///
/// # Cancel safety
/// Dropping the future aborts the request in progress; nothing is left.
pub async fn play(deps: &Arc<Deps>, exchanges: &Exchanges, script: Script) -> Result<Played, String> {
    Player::new(deps, exchanges, &script.call).run(script).await
}

struct Player<'a> {
    call_id: CallId,
    call: Call,
    runs: Runs,
    exchanges: &'a Exchanges,
    now_ms: u64,
    /// Answers that are due later on the virtual clock, by that time.
    due: BTreeMap<(u64, TaskNo), Result<Output, Failed>>,
    connection: Option<ConnectionNo>,
    /// The error that stops the call.
    fault: Option<String>,
    over: bool,
    played: Played,
}

impl<'a> Player<'a> {
    fn new(deps: &Arc<Deps>, exchanges: &'a Exchanges, call_id: &CallId) -> Self {
        let mut random = Random::of(call_id.as_str());
        let entropy = move || u128::from(random.bits()) << 64 | u128::from(random.bits());
        let log = Log::new(call_id.clone());
        let now = Now { ms: 0, unix_ms: BEGAN_MS };
        Self {
            call: Call::new(Arc::clone(&deps.call), log, None, false, Box::new(entropy), now),
            runs: Runs::new(Arc::clone(deps), call_id.clone()),
            call_id: call_id.clone(),
            exchanges,
            now_ms: 0,
            due: BTreeMap::new(),
            connection: None,
            fault: None,
            over: false,
            played: Played::default(),
        }
    }

    async fn run(mut self, script: Script) -> Result<Played, String> {
        let Script { dialect, mut frames, analyses, variants, .. } = script;
        let stream = StreamId::parse("s_1").map_err(|error| error.to_string())?;
        self.on(Input::Attach(Attach {
            peer: PRODUCER,
            stream: stream.clone(),
            dialect,
            offset_ms: Some(0),
            meta: JsonMap::new(),
            analyses: Some(analyses),
            variants,
            question: None,
        }));
        self.settle().await;
        let (mut count, mut idle) = (0, 0);
        while !self.over {
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            // In the order of the actor: results first, then input, then time.
            let result = self.due.first_key_value().map(|((at, _), _)| *at);
            let next = frames.front().map(|frame| frame.at_ms);
            let Some(at) = [result, next, self.call.wake_at()].into_iter().flatten().min() else {
                return Err("the call waits for nothing and does not end".to_owned());
            };
            idle = if at > self.now_ms { 0 } else { idle };
            self.now_ms = self.now_ms.max(at);
            if result.is_some_and(|at| at <= self.now_ms) {
                self.answer();
            } else if next.is_some_and(|at| at <= self.now_ms) {
                while frames.front().is_some_and(|frame| frame.at_ms <= self.now_ms)
                    && let Some(frame) = frames.pop_front()
                {
                    count += 1;
                    self.take(&stream, count, frame);
                }
            } else {
                idle += 1;
                if idle > IDLE_TIMERS {
                    return Err(format!("the call makes no progress at {} ms", self.now_ms));
                }
                self.on(Input::Timer);
            }
            self.settle().await;
        }
        self.fault.map_or(Ok(self.played), Err)
    }

    fn now(&self) -> Now {
        Now { ms: self.now_ms, unix_ms: BEGAN_MS.saturating_add_unsigned(self.now_ms) }
    }

    fn on(&mut self, input: Input) {
        let now = self.now();
        let Effects { tells, partials, notes, counts, .. } = self.call.on(input, now);
        // There are no subscribers and no metrics.
        partials.clear();
        notes.clear();
        *counts = Counts::default();
        for tell in tells.drain(..) {
            let message = match tell {
                Tell::Error(_, frame) => frame.message,
                Tell::Close(_, close) => close.error.map_or_else(|| close.reason.to_owned(), |error| error.message),
                Tell::Refuse(..) | Tell::Reply(..) => continue,
            };
            if self.played.errors.len() < ERRORS_KEPT {
                self.played.errors.push(message);
            }
        }
    }

    fn take(&mut self, stream: &StreamId, count: u64, frame: TimedFrame) {
        let Some(connection) = self.connection else { return };
        let TimedFrame { carry, events, .. } = frame;
        let stream = stream.clone();
        let frames = Frames { connection, stream, count, carry, events, asks: Vec::new(), lease: None };
        self.on(Input::Frames { frames: Box::new(frames), watched: false });
    }

    /// Passes the next answer to the call.
    fn answer(&mut self) {
        if let Some(((_, task), result)) = self.due.pop_first() {
            self.on(Input::Done { task, result });
        }
    }

    /// Lets the call decide, and takes its records, which count as durable at once.
    async fn settle(&mut self) {
        loop {
            self.on(Input::Settle);
            while self.start_tasks().await {
                self.on(Input::Settle);
            }
            let now = self.now();
            let Some(batch) = self.call.batch(now) else { return };
            let written = !batch.records.is_empty() || batch.entry.is_some();
            let head = batch.after + batch.records.len() as u64;
            for (seq, written) in (batch.after + 1..).zip(&batch.records) {
                match record::decode(seq, &written.frame, &written.private) {
                    Ok(decoded) => self.publish(decoded.event),
                    Err(message) => self.fault = Some(message),
                }
            }
            if written {
                self.on(Input::Committed { head });
            }
            for reply in batch.replies {
                match reply {
                    Reply::Attached(_, Attached::Welcome(welcome)) => self.connection = Some(welcome.connection),
                    Reply::Attached(_, Attached::Refused { message, .. }) => self.fault = Some(message),
                    _ => {}
                }
            }
            if !written {
                return;
            }
        }
    }

    fn publish(&mut self, event: Event) {
        match &event {
            Event::CallCompleted { .. } => self.over = true,
            Event::CallFailed { reason } => self.fault = Some(reason.clone()),
            _ => {}
        }
        self.played.events.push(TimedEvent { at_ms: self.now_ms, event });
    }

    async fn start_tasks(&mut self) -> bool {
        let tasks = self.call.task_effects();
        let any = !tasks.is_empty();
        for effect in tasks {
            match effect {
                TaskEffect::Want(task) => self.ask(task).await,
                TaskEffect::Abort(task) => self.due.retain(|(_, due), _| *due != task),
            }
        }
        any
    }

    /// Makes a request as the actor does, and waits for its answer on the real clock, while the virtual clock stands
    /// still.
    async fn ask(&mut self, task: TaskNo) {
        let permit = match self.runs.permit(task) {
            Some(permit) => permit,
            None => match self.runs.next().await {
                Some(Returned::Permit { permit, .. }) => permit,
                _ => return,
            },
        };
        let Some(choice) = self.call.choice(task) else { return };
        let (chosen, asked) = self.runs.choose(&choice);
        self.on(Input::Ready { task, chosen });
        let (Some(start), Some(asked)) = (self.call.start(), asked) else { return };
        self.runs.start(start, asked, permit);
        let Some(Returned::Done { task, result }) = self.runs.next().await else { return };
        let (mut result, waited) = (*result, self.exchanges.take_waited(&self.call_id));
        if let Ok(Output::Insights(answered)) = &mut result {
            answered.took = waited;
        }
        let (_, fault) = self.exchanges.tally(&self.call_id);
        self.fault = self.fault.take().or(fault);
        self.due.insert((self.now_ms.saturating_add(millis(waited)), task), result);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
