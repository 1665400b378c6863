//! Gets what an attempt needs before it starts (permission of the circuit breaker, a concurrency slot, rates, money),
//! and starts it.
//!
//! Waits only for admission to the endpoint and for money. Does not know which candidate is asked next, nor what
//! becomes of an attempt.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{Run, next_id};
use crate::gateway::breaker::Leave;
use crate::gateway::budget::{Budget, Reservation, Reserved};
use crate::gateway::endpoint::Remote;
use crate::gateway::error::{Failure, GatewayError};
use crate::gateway::fit::fit;
use crate::gateway::gate::{Party, Permit};
use crate::gateway::metrics::Metrics;
use crate::gateway::rate::Need;
use crate::gateway::row::Row;
use crate::llm::{ChatRequest, SchemaMode, Wire};
use crate::types::AttemptBegun;

/// A started attempt.
pub(super) struct Flight<'a, 'r> {
    pub(super) position: usize,
    pub(super) remote: Arc<Remote>,
    /// The request, adapted to this model.
    pub(super) request: Cow<'r, ChatRequest>,
    pub(super) row: Box<Row>,
    pub(super) probe: Probe<'a>,
    pub(super) mode_step: usize,
    pub(super) schema_mode: SchemaMode,
    /// The encoded request in the vendor's format; taken out when it is sent.
    pub(super) wire: Wire,
}

/// Everything that an attempt must have before it starts. Dropping it unused gives everything back.
pub(super) struct Pass<'a> {
    /// Permission of the circuit breaker.
    pub(super) probe: Probe<'a>,
    /// A concurrency slot and a share of the rates; `None` where nothing is limited.
    pub(super) permit: Option<Permit>,
    /// Reserved money; `None` where nothing is capped or no price is known.
    pub(super) reservation: Option<Reservation>,
}

/// The right to be the breaker's probe; given back on drop if the attempt did not decide the probe.
pub(super) struct Probe<'a> {
    remote: Arc<Remote>,
    metrics: &'a Metrics,
    pub(super) pending: bool,
}

impl<'a> Probe<'a> {
    pub(super) fn new(remote: &Arc<Remote>, metrics: &'a Metrics, pending: bool) -> Self {
        Self { remote: Arc::clone(remote), metrics, pending }
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if self.pending {
            self.remote.breaker.given_up();
            self.metrics.breaker(&self.remote);
        }
    }
}

impl<'a> Run<'a> {
    /// Gets everything that an attempt needs: permission of the breaker, a slot, rates, money. `None` if another
    /// candidate must be picked.
    pub(super) async fn board<'r>(
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
        let probe = Probe::new(&remote, &self.inner.metrics, leave == Leave::Probe);
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
        Ok(self.launch(position, remote, Pass { probe, permit, reservation }, why, request))
    }

    /// Gets a slot at the endpoint, and money. `None` if there is no slot. A request that waits for money holds no slot
    /// meanwhile: the request that holds the money may be waiting for that slot.
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

    /// Starts the attempt: counts it and writes its row. `None` if the vendor's format cannot express the request; the
    /// candidate is then passed over.
    pub(super) fn launch<'r>(
        &mut self,
        position: usize,
        remote: Arc<Remote>,
        pass: Pass<'a>,
        why: &'static str,
        request: Cow<'r, ChatRequest>,
    ) -> Option<Flight<'a, 'r>> {
        let modes = remote.schema_modes();
        let mode_step = self.candidates[position].schema_step.min(modes.len().saturating_sub(1));
        let schema_mode = modes.get(mode_step).copied().unwrap_or(SchemaMode::Prompt);
        let wire = match remote.encode(&request, schema_mode) {
            Ok(wire) => wire,
            Err(error) => {
                self.candidates[position].dead = true;
                self.note(&remote, Failure::request("unsupported", error.to_string()), None);
                return None;
            }
        };
        let Pass { probe, permit, reservation } = pass;
        let progress = &mut self.candidates[position];
        progress.tries += u32::from(!std::mem::take(&mut progress.stepping));
        progress.why = Some(why);
        self.attempts += 1;
        if self.arm.hedge.is_some() && why != "hedge" {
            remote.endpoint.hedges.earn();
        }
        let begun = self.begun(&remote, why);
        let (recorder, metrics) = (self.inner.recorder.as_ref(), &self.inner.metrics);
        let row = Box::new(Row::begin(begun, &remote, reservation, permit, request.stream, recorder, metrics));
        Some(Flight { position, remote, request, row, probe, mode_step, schema_mode, wire })
    }

    /// The key under which requests share one turn in a queue.
    fn party(&self) -> Party {
        match &self.asker.call {
            Some(call) => Party::Call(call.clone()),
            None => Party::Key(self.asker.key.clone()),
        }
    }

    fn begun(&self, remote: &Remote, why: &'static str) -> AttemptBegun {
        let at_ms = crate::base::time::unix_ms();
        AttemptBegun {
            id: next_id(at_ms),
            request: self.id,
            at_ms,
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
}
