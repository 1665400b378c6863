//! The attempt scheduler: one request over its candidates, by retries, failovers and at most one hedge, inside one
//! deadline. Streams and plain requests alike: an attempt counts as good once its commit point is reached.

mod hedge;

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::Inner;
use super::attempt::{self, Context, Opened, Start};
use super::balance;
use super::breaker::{Leave, Phase};
use super::budget::{Budget, Reservation, Reserved};
use super::catalogue::{Arm, Target};
use super::endpoint::Remote;
use super::error::{AttemptFailure, Failure, GatewayError};
use super::fit::fit;
use super::gate::{Party, Permit, Refusal};
use super::metrics::{EndpointLabels, Metrics};
use super::rate::Need;
use super::row::Row;
use crate::base::stopwatch::waiting;
use crate::llm::{ChatRequest, ResponseFormat, SchemaMode};
use crate::types::{AttemptBegun, CallId, RequestDone};

/// First wait before a retry; doubles, with jitter.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait before a retry, unless the vendor says more.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// A candidate that is passed over is not looked at again before this.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// Who asks: for the rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Asker {
    pub(super) key: Option<Arc<str>>,
    pub(super) call: Option<CallId>,
    pub(super) analysis: Option<Arc<str>>,
}

/// One request on its way.
pub(super) struct Run<'a> {
    inner: &'a Inner,
    arm: &'a Arm,
    asker: Asker,
    deadline: Instant,
    keep_raw: bool,
    answering: Option<&'a AtomicBool>,
    id: i64,
    at_ms: i64,
    /// Why it has no answer.
    code: Option<&'static str>,
    candidates: Vec<Progress>,
    failures: Vec<AttemptFailure>,
    last: Option<Failure>,
    /// HTTP calls made.
    pub(super) attempts: u32,
    /// How long the network and the vendors were waited for.
    pub(super) waited: Duration,
    repairing: bool,
    hedged: bool,
    current: usize,
}

/// How far one candidate is.
struct Progress {
    target: Target,
    tries: u32,
    ready_at: Instant,
    dead: bool,
    /// Steps down the schema modes, in this request.
    schema_step: usize,
    stepping: bool,
    /// A step was taken because of a server error, which may have been no more than that.
    schema_doubtful: bool,
    /// It was passed over once already, and that is noted.
    shifted: bool,
    /// Why it was asked last.
    why: Option<&'static str>,
}

/// An attempt on its way.
struct Flight<'a, 'r> {
    position: usize,
    remote: Arc<Remote>,
    /// As this model takes it.
    request: Cow<'r, ChatRequest>,
    row: Box<Row>,
    probe: Probe<'a>,
    mode_step: usize,
    schema_mode: SchemaMode,
}

type Landed = Result<Start, Failure>;

/// What the scheduler came to.
pub(super) enum Reached {
    /// An attempt at its commit point.
    Opened(Opened),
    /// The embedded provider's turn.
    Local,
}

/// The next unique number of an attempt or a request: grows with time, also over restarts.
fn next_id() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    // 2^20 numbers a millisecond last until the year 2248.
    let now = crate::base::time::unix_ms() << 20;
    let step = |last: i64| Some(now.max(last + 1));
    match LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
        Ok(last) | Err(last) => now.max(last + 1),
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
        Self {
            inner,
            arm,
            asker,
            deadline,
            keep_raw,
            answering,
            id: next_id(),
            at_ms: crate::base::time::unix_ms(),
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

    /// The next attempt is a repair: all candidates may be asked again, first the one that answered.
    pub(super) fn repair(&mut self) {
        let now = Instant::now();
        self.repairing = true;
        self.last = None;
        for progress in &mut self.candidates {
            progress.tries = 0;
            progress.ready_at = now;
        }
        // A lesser schema mode, taken for a server error alone, has just broken the schema: that speaks for the better one.
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

    /// Goes on until an attempt reaches its commit point.
    ///
    /// # Errors
    /// No candidate is left, or the deadline has come.
    ///
    /// # Cancel safety
    /// Dropped, the attempt under way is aborted and its row completed.
    pub(super) async fn next(&mut self, request: &ChatRequest) -> Result<Reached, GatewayError> {
        loop {
            let Some(position) = self.pick() else { return Err(self.error()) };
            let ready_at = self.candidates[position].ready_at;
            if ready_at > Instant::now() {
                if ready_at >= self.deadline {
                    return Err(self.error());
                }
                sleep_until(ready_at).await;
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

    /// The candidate to ask next: the one that is ready first, in their order.
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

    /// Gets all that an attempt needs: leave of the breaker, a place, rates, money. `None`: it has to be another.
    async fn board<'r>(
        &mut self,
        position: usize,
        remote: Arc<Remote>,
        request: &'r ChatRequest,
    ) -> Result<Option<Flight<'a, 'r>>, GatewayError> {
        let request = match fit(&remote, request) {
            Ok(request) => request,
            Err(message) => {
                self.candidates[position].dead = true;
                self.note(&remote, Failure::request("unsupported", message), None);
                return Ok(None);
            }
        };
        let leave = remote.breaker.ask(Instant::now());
        if let Leave::Wait(wait, code) = leave {
            let message = format!("not asked: it keeps failing; the next try is in {} ms", wait.as_millis());
            self.candidates[position].dead = true;
            self.inner.metrics.shift(&remote.endpoint.name, "breaker");
            self.note(&remote, Failure { retry_after: Some(wait), ..Failure::busy(code, message) }, None);
            return Ok(None);
        }
        let metrics = &*self.inner.metrics;
        let probe = Probe { remote: Arc::clone(&remote), metrics, pending: leave == Leave::Probe };
        if probe.pending {
            self.inner.metrics.breaker(&remote);
        }
        let Some((permit, reservation)) = self.admit(position, &remote, &request).await? else { return Ok(None) };
        let progress = &self.candidates[position];
        let why = match &self.last {
            _ if progress.stepping => "schema_step",
            _ if progress.tries > 0 => "retry",
            None if self.repairing => "repair",
            _ if self.attempts == 0 && position == 0 => "first",
            _ => "failover",
        };
        Ok(Some(self.launch(position, remote, probe, permit, reservation, why, request)))
    }

    /// A place at the endpoint, and money. `None`: there is no place. Who waits for money holds no place meanwhile, which
    /// may be what somebody else waits for.
    async fn admit(
        &mut self,
        position: usize,
        remote: &Remote,
        request: &ChatRequest,
    ) -> Result<Option<(Option<Permit>, Option<Reservation>)>, GatewayError> {
        let inner = self.inner;
        loop {
            let changed = inner.budget.as_ref().and_then(|budget| budget.watch());
            let gate = &remote.endpoint.gate;
            let entered = gate.enter(&remote.told, || self.party(), || Need::of(request), self.deadline).await;
            let permit = match entered {
                Ok(permit) => permit,
                Err(refusal) => {
                    self.shift(position, remote, refusal);
                    return Ok(None);
                }
            };
            if let Some(waited) = permit.as_ref().map(|permit| permit.waited).filter(|waited| !waited.is_zero()) {
                inner.metrics.waited(&remote.endpoint.name, waited);
            }
            let Some(budget) = &inner.budget else { return Ok(Some((permit, None))) };
            match budget.reserve(self.asker.call.as_ref(), remote, request)? {
                Reserved::Unneeded => return Ok(Some((permit, None))),
                Reserved::Money(reservation) => return Ok(Some((permit, Some(reservation)))),
                Reserved::Later => drop(permit),
            }
            if let Some(changed) = changed
                && timeout_at(self.deadline, changed).await.is_err()
            {
                return Err(Budget::held_by_others());
            }
        }
    }

    /// The attempt begins: it is counted, and its row written.
    #[expect(clippy::too_many_arguments, reason = "all that an attempt has")]
    fn launch<'r>(
        &mut self,
        position: usize,
        remote: Arc<Remote>,
        probe: Probe<'a>,
        permit: Option<Permit>,
        reservation: Option<Reservation>,
        why: &'static str,
        request: Cow<'r, ChatRequest>,
    ) -> Flight<'a, 'r> {
        let modes = remote.schema_modes();
        let progress = &mut self.candidates[position];
        let mode_step = progress.schema_step.min(modes.len().saturating_sub(1));
        let schema_mode = modes.get(mode_step).copied().unwrap_or(SchemaMode::Prompt);
        progress.tries += u32::from(!std::mem::take(&mut progress.stepping));
        progress.why = Some(why);
        self.attempts += 1;
        if self.arm.hedge.is_some() && why != "hedge" {
            remote.endpoint.hedges.earn();
        }
        let begun = self.begun(&remote, why);
        let (recorder, metrics) = (self.inner.recorder.as_ref(), &self.inner.metrics);
        let row = Box::new(Row::begin(begun, &remote, reservation, permit, request.stream, recorder, metrics));
        Flight { position, remote, request, row, probe, mode_step, schema_mode }
    }

    /// Goes on to the commit point of an attempt, or of its hedge.
    async fn fly(&mut self, mut flight: Flight<'a, '_>, request: &ChatRequest) -> Option<Opened> {
        // Writing the request and reading the answer is work of ours.
        let after = self.hedge_after(&flight.remote, &flight.request);
        if let Some(after) = after {
            // Two attempts take twice the memory: on the heap, for those who want them.
            let mut racing = Box::pin(self.race(flight, after, request));
            let (opened, waited) = waiting(racing.as_mut()).await;
            drop(racing);
            self.waited += waited;
            return opened;
        }
        let (landed, waited) = {
            let context = self.context(flight.schema_mode, &flight.request);
            waiting(pin!(attempt::open(context, &flight.remote, &mut flight.row))).await
        };
        self.waited += waited;
        self.land(flight, landed)
    }

    fn context<'r>(&self, schema_mode: SchemaMode, request: &'r ChatRequest) -> Context<'r>
    where
        'a: 'r,
    {
        let (inner, arm): (&'a Inner, &'a Arm) = (self.inner, self.arm);
        Context {
            http: &inner.http,
            arm,
            request,
            schema_mode,
            deadline: self.deadline,
            plain_header: self.plain_header(),
            keep_raw: self.keep_raw,
            answering: self.answering,
        }
    }

    /// An attempt reached its commit point, or failed before it.
    fn land(&mut self, flight: Flight<'a, '_>, landed: Landed) -> Option<Opened> {
        let Flight { position, remote, request, row, mut probe, mode_step, schema_mode } = flight;
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
                // Only a failure that the breaker is told of decides the probe; any other gives it back.
                probe.pending &= !failure.counts || step;
                self.failed(position, &remote, failure, step);
                None
            }
        }
    }

    /// A candidate has no room now: it is passed over until it has, or for good.
    fn shift(&mut self, position: usize, remote: &Remote, refusal: Refusal) {
        self.inner.metrics.shift(&remote.endpoint.name, refusal.cause.as_str());
        let progress = &mut self.candidates[position];
        match refusal.wait {
            Some(wait) => progress.ready_at = Instant::now() + wait.max(LEAST_WAIT),
            None => progress.dead = true,
        }
        if !std::mem::replace(&mut progress.shifted, true) {
            self.note(remote, Failure::no_room(&remote.endpoint.config, refusal), None);
        }
    }

    /// Who shares one turn in a queue.
    fn party(&self) -> Party {
        match &self.asker.call {
            Some(call) => Party::Call(call.clone()),
            None => Party::Key(self.asker.key.clone()),
        }
    }

    /// An attempt failed beyond its commit point, by a failure that is noted here as any other.
    pub(super) fn broke(&mut self, failure: Failure) {
        let position = self.current;
        if let Target::Remote(remote) = &self.candidates[position].target {
            let remote = Arc::clone(remote);
            self.failed(position, &remote, failure, false);
        }
    }

    fn failed(&mut self, position: usize, remote: &Arc<Remote>, failure: Failure, step: bool) {
        let now = Instant::now();
        // A refusal of the schema mode says nothing about the endpoint.
        if failure.counts && !step && remote.breaker.failed(now, failure.code) {
            let endpoint = Arc::clone(&remote.endpoint.name);
            tracing::warn!(%endpoint, model = %remote.vendor_model, code = failure.code, "circuit breaker opened");
            self.inner.metrics.breakers_opened.get_or_create(&EndpointLabels { endpoint }).inc();
        }
        if failure.counts && remote.breaker.phase() != Phase::Closed {
            self.inner.metrics.breaker(remote);
        }
        if let (Some(after), "rate_limited") = (failure.retry_after, failure.code) {
            remote.told.cool(now + after);
        }
        let progress = &mut self.candidates[position];
        if step {
            progress.schema_step += 1;
            progress.stepping = true;
        } else if failure.retry {
            let doubled = BACKOFF.saturating_mul(1 << progress.tries.saturating_sub(1).min(10)).min(MAX_BACKOFF);
            let jittered = doubled.mul_f64(0.5 + rand::random::<f64>() / 2.0);
            progress.ready_at = now + failure.retry_after.unwrap_or(jittered).max(jittered);
        } else {
            progress.dead = true;
        }
        let why = progress.why;
        self.note(remote, failure, why);
    }

    /// Remembers a failure; `why` the attempt was made, if one was.
    fn note(&mut self, remote: &Remote, failure: Failure, why: Option<&'static str>) {
        tracing::debug!(
            endpoint = %remote.endpoint.name, model = %remote.vendor_model, code = failure.code, status = failure.status,
            why, "attempt failed"
        );
        self.failures.push(AttemptFailure {
            endpoint: Arc::clone(&remote.endpoint.name),
            model: Arc::clone(&remote.vendor_model),
            status: failure.status,
            code: failure.code,
            why,
            message: failure.message.clone(),
        });
        // What could not even be asked says less than a candidate that failed.
        if failure.code != "unsupported" || self.last.is_none() {
            self.last = Some(failure);
        }
    }

    /// A plain answer comes whole, after all of its tokens: its header may take a fair share of the time that is left.
    fn plain_header(&self) -> Instant {
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        let fresh = self.candidates.iter().filter(|progress| !progress.dead && progress.tries == 0).count();
        let share = left / u32::try_from(fresh + 1).unwrap_or(u32::MAX);
        self.deadline.min(now + share.max(self.arm.clocks.header))
    }

    fn begun(&self, remote: &Remote, why: &'static str) -> AttemptBegun {
        AttemptBegun {
            id: next_id(),
            request: self.id,
            at_ms: crate::base::time::unix_ms(),
            key: self.asker.key.clone(),
            call: self.asker.call.clone(),
            analysis: self.asker.analysis.clone(),
            route: Arc::clone(&self.arm.route),
            variant: Arc::clone(&self.arm.variant),
            model: Arc::clone(&self.arm.model),
            endpoint: Arc::clone(&remote.endpoint.name),
            provider: remote.endpoint.config.provider.name(),
            vendor_model: Arc::clone(&remote.vendor_model),
            number: self.attempts,
            why,
        }
    }

    /// The endpoint and the vendor's model of the newest attempt.
    pub(super) fn current(&self) -> Option<(Arc<str>, Arc<str>)> {
        match &self.candidates.get(self.current)?.target {
            Target::Remote(remote) => Some((Arc::clone(&remote.endpoint.name), Arc::clone(&remote.vendor_model))),
            Target::Local => None,
        }
    }

    /// The newest answer broke the schema: an attempt that reached its end and helped nobody.
    pub(super) fn mismatched(&mut self) {
        let answered = &self.candidates[self.current];
        if let Target::Remote(remote) = &answered.target {
            let (endpoint, model) = (Arc::clone(&remote.endpoint.name), Arc::clone(&remote.vendor_model));
            self.failures.push(AttemptFailure::mismatch(endpoint, model, answered.why));
        }
    }

    /// The failures so far.
    pub(super) fn take_failures(&mut self) -> Vec<AttemptFailure> {
        std::mem::take(&mut self.failures)
    }

    /// All have failed: the last failure's class speaks for all.
    pub(super) fn error(&mut self) -> GatewayError {
        let failure = self.last.take().unwrap_or_else(|| Failure::busy("unsupported", "no candidate"));
        self.code = Some(failure.code);
        let last = self.failures.last();
        let place = last.map_or_else(String::new, |last| format!(" of {}/{}", last.endpoint, last.model));
        let status = failure.status.map_or_else(String::new, |status| format!(" (HTTP {status})"));
        let what = match failure.code {
            _ if failure.unsent => failure.message.as_str(),
            "refused" => "connection refused",
            "timeout" => "no answer in time",
            "rate_limited" => "too many requests for now",
            "quota_exhausted" => "the vendor's quota or spending limit is used up",
            "upstream_auth" => "the vendor does not accept the configured key",
            "invalid_request" => "the vendor does not take this request",
            "model_not_found" => "the vendor has no such model",
            "interrupted" => "the answer was cut off",
            "malformed" => "the answer made no sense",
            "unsupported" => failure.message.as_str(),
            _ => "the vendor failed",
        };
        let tried = self.failures.len();
        let message = format!("{what}: last failure{place}{status}, of {tried} in all");
        let mut error = GatewayError::new(failure.code, message)
            .with_attempts(std::mem::take(&mut self.failures))
            .with_retry_after(failure.retry_after);
        if failure.temporary {
            error = error.temporarily();
        }
        error
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

/// Leave to probe, given back if the probe says nothing.
struct Probe<'a> {
    remote: Arc<Remote>,
    metrics: &'a Metrics,
    pending: bool,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if self.pending {
            self.remote.breaker.given_up();
            self.metrics.breaker(&self.remote);
        }
    }
}

fn has_schema(request: &ChatRequest) -> bool {
    matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. }))
}
