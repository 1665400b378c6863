//! The attempt scheduler: sends one request to its candidates, with retries, failover and at most one hedge, inside one
//! deadline. Streams and plain requests are treated alike: an attempt counts as successful once it reaches its commit
//! point.
//!
//! Decides which candidate is asked next, and what an attempt at its commit point means for its endpoint. [`board`]
//! gets what an attempt needs before it starts; [`failures`] decides what follows a failure. Knows nothing of an answer
//! beyond its commit point.

mod board;
mod failures;
mod hedge;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use self::board::Flight;
use super::Inner;
use super::attempt::{self, Context, Opened, Start};
use super::balance;
use super::catalogue::{Arm, Target};
use super::error::{AttemptFailure, Failure, GatewayError};
use crate::base::stopwatch::waiting;
use crate::llm::{ChatRequest, ResponseFormat};
use crate::types::attempt::first_id;
use crate::types::{CallId, RequestDone};

/// Origin of a request, for the rows of its attempts.
#[derive(Debug, Clone, Default)]
pub(super) struct Asker {
    pub(super) key: Option<Arc<str>>,
    pub(super) call: Option<CallId>,
    pub(super) analysis: Option<Arc<str>>,
}

/// One request in progress.
pub(super) struct Run<'a> {
    inner: &'a Inner,
    arm: &'a Arm,
    asker: Asker,
    deadline: Instant,
    keep_raw: bool,
    one_call: bool,
    answering: Option<&'a AtomicBool>,
    id: i64,
    at_ms: i64,
    /// Code of the error, if the request has no answer.
    code: Option<&'static str>,
    candidates: Vec<Progress>,
    failures: Vec<AttemptFailure>,
    last: Option<Failure>,
    /// Number of HTTP calls made.
    pub(super) attempts: u32,
    /// Time spent waiting for the network and the vendors, including the waits before retries.
    pub(super) waited: Duration,
    repairing: bool,
    hedged: bool,
    current: usize,
}

/// Progress of one candidate.
struct Progress {
    target: Target,
    tries: u32,
    ready_at: Instant,
    dead: bool,
    /// Number of schema modes that this request has stepped down at this candidate.
    schema_step: usize,
    stepping: bool,
    /// Set if a step down followed a server error (HTTP 500), which may have had another cause than the schema mode.
    schema_doubtful: bool,
    /// Set if the candidate was passed over before; that failure is recorded already.
    shifted: bool,
    /// Why its newest attempt was made.
    why: Option<&'static str>,
}

type Landed = Result<Start, Failure>;

/// Result of [`Run::next`].
pub(super) enum Reached {
    /// An attempt at its commit point.
    Opened(Opened),
    /// The embedded provider is the next candidate.
    Local,
}

/// The next unique id of an attempt or request that starts now; increases with time, also across restarts.
fn next_id(now_ms: i64) -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let first = first_id(now_ms);
    let step = |last: i64| Some(first.max(last + 1));
    match LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
        Ok(last) | Err(last) => first.max(last + 1),
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(
        inner: &'a Inner,
        arm: &'a Arm,
        asker: Asker,
        deadline: Instant,
        request: &ChatRequest,
        keep_raw: bool,
        answering: Option<&'a AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        let candidates = balance::arrange(arm, request)
            .into_iter()
            .map(|target| Progress {
                target,
                tries: 0,
                ready_at: now,
                dead: false,
                schema_step: 0,
                stepping: false,
                schema_doubtful: false,
                shifted: false,
                why: None,
            })
            .collect();
        let at_ms = crate::base::time::unix_ms();
        Self {
            inner,
            arm,
            asker,
            deadline,
            keep_raw,
            one_call: request.parallel_tool_calls == Some(false),
            answering,
            id: next_id(at_ms),
            at_ms,
            code: None,
            candidates,
            failures: Vec::new(),
            last: None,
            attempts: 0,
            waited: Duration::ZERO,
            repairing: false,
            hedged: false,
            current: 0,
        }
    }

    /// Prepares a repair: every candidate may be asked again, starting with the one that answered.
    pub(super) fn repair(&mut self) {
        let now = Instant::now();
        self.repairing = true;
        self.last = None;
        for progress in &mut self.candidates {
            progress.tries = 0;
            progress.ready_at = now;
        }
        // A lesser schema mode was used only because of a server error, and its answer violates the schema: go back to
        // the better mode.
        let answered = &mut self.candidates[self.current];
        if std::mem::take(&mut answered.schema_doubtful) {
            answered.schema_step = 0;
            if let Target::Remote(remote) = &answered.target {
                remote.trust_schema_mode();
            }
        }
        self.candidates.swap(0, self.current);
        self.current = 0;
    }

    /// Makes attempts until one reaches its commit point.
    ///
    /// # Errors
    /// No candidate is left, or the deadline has passed.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the attempt in progress and completes its row.
    pub(super) async fn next(&mut self, request: &ChatRequest) -> Result<Reached, GatewayError> {
        loop {
            let Some(position) = self.pick() else { return Err(self.error()) };
            let ready_at = self.candidates[position].ready_at;
            if ready_at > Instant::now() {
                if ready_at >= self.deadline {
                    return Err(self.error());
                }
                let began = Instant::now();
                sleep_until(ready_at).await;
                self.waited += began.elapsed();
            }
            if Instant::now() >= self.deadline {
                self.last.get_or_insert_with(|| Failure::timeout("no answer", self.arm.clocks.total));
                return Err(self.error());
            }
            let remote = match &self.candidates[position].target {
                Target::Local => {
                    self.current = position;
                    return Ok(Reached::Local);
                }
                Target::Remote(remote) => Arc::clone(remote),
            };
            if let Some(flight) = self.board(position, remote, request).await?
                && let Some(opened) = self.fly(flight, request).await
            {
                return Ok(Reached::Opened(opened));
            }
        }
    }

    /// The candidate to ask next: the one that may be asked earliest; among equals, the first in the list.
    fn pick(&self) -> Option<usize> {
        let now = Instant::now();
        (0..self.candidates.len())
            .filter(|position| self.may_try(*position))
            .min_by_key(|position| (self.candidates[*position].ready_at.max(now), *position))
    }

    fn may_try(&self, position: usize) -> bool {
        let progress = &self.candidates[position];
        !progress.dead && (progress.tries <= self.arm.retries || progress.stepping)
    }

    /// Runs an attempt, and its hedge if there is one, up to the commit point.
    async fn fly(&mut self, mut flight: Flight<'a, '_>, request: &ChatRequest) -> Option<Opened> {
        // `waiting` counts pending time only: encoding the request and decoding the answer are our own work.
        let after = self.hedge_after(&flight.remote, &flight.request);
        if let Some(after) = after {
            // Two attempts take twice the memory: on the heap, so that only hedged requests pay for it.
            let mut racing = Box::pin(self.race(flight, after, request));
            let (opened, waited) = waiting(racing.as_mut()).await;
            drop(racing);
            self.waited += waited;
            return opened;
        }
        let (landed, waited) = {
            let context = self.context(&flight.request);
            let wire = std::mem::take(&mut flight.wire);
            waiting(pin!(attempt::open(context, wire, &flight.remote, &mut flight.row))).await
        };
        self.waited += waited;
        self.land(flight, landed)
    }

    fn context<'r>(&self, request: &'r ChatRequest) -> Context<'r>
    where
        'a: 'r,
    {
        let (inner, arm): (&'a Inner, &'a Arm) = (self.inner, self.arm);
        Context {
            http: &inner.http,
            arm,
            request,
            deadline: self.deadline,
            plain_header: self.plain_header(),
            keep_raw: self.keep_raw,
            one_call: self.one_call,
            answering: self.answering,
        }
    }

    /// Handles an attempt that reached its commit point, or failed before it.
    fn land(&mut self, flight: Flight<'a, '_>, landed: Landed) -> Option<Opened> {
        let Flight { position, remote, request, row, mut probe, mode_step, schema_mode, wire: _ } = flight;
        match landed {
            Ok(start) => {
                probe.pending = false;
                if remote.breaker.succeeded() {
                    self.inner.metrics.breaker(&remote);
                }
                let progress = &mut self.candidates[position];
                if mode_step == 0 {
                    if has_schema(&request) {
                        remote.prove_schema_mode();
                    }
                } else if !progress.schema_doubtful || remote.doubt_schema_mode() {
                    remote.learn_schema_mode(schema_mode);
                    progress.schema_step = 0;
                }
                self.current = position;
                Some(Opened::new(start, row))
            }
            Err(failure) => {
                row.fail(&failure);
                let doubtful = failure.status == Some(500);
                let step = has_schema(&request)
                    && failure.maybe_schema
                    && (!doubtful || remote.schema_mode_in_question())
                    && mode_step + 1 < remote.schema_modes().len();
                self.candidates[position].schema_doubtful |= step && doubtful;
                // Only a failure that the breaker counts decides the probe; after any other, the probe is given back.
                probe.pending &= !failure.counts || step;
                self.failed(position, &remote, failure, step);
                None
            }
        }
    }

    /// Deadline for the header of a plain answer. Such an answer arrives whole, after all of its tokens: its header may
    /// take a fair share of the time that is left.
    fn plain_header(&self) -> Instant {
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        let fresh = self.candidates.iter().filter(|progress| !progress.dead && progress.tries == 0).count();
        let share = left / u32::try_from(fresh + 1).unwrap_or(u32::MAX);
        self.deadline.min(now + share.max(self.arm.clocks.header))
    }

    /// The endpoint and the vendor model of the candidate that answered last; `None` for the embedded provider.
    pub(super) fn current(&self) -> Option<(Arc<str>, Arc<str>)> {
        match &self.candidates.get(self.current)?.target {
            Target::Remote(remote) => Some((Arc::clone(&remote.endpoint.name), Arc::clone(&remote.vendor_model))),
            Target::Local => None,
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let Some(recorder) = &self.inner.recorder else { return };
        recorder.over(RequestDone {
            id: self.id,
            at_ms: self.at_ms,
            key: self.asker.key.take(),
            call: self.asker.call.take(),
            analysis: self.asker.analysis.take(),
            route: Arc::clone(&self.arm.route),
            variant: Arc::clone(&self.arm.variant),
            model: Arc::clone(&self.arm.model),
            attempts: self.attempts,
            code: self.code,
        });
    }
}

fn has_schema(request: &ChatRequest) -> bool {
    matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. }))
}
