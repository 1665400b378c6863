//! Starts an attempt: gets what it needs (permission of the circuit breaker, a concurrency slot, rates, money) and
//! writes its record.
//!
//! Waits only for admission to the endpoint and for money. Does not know which candidate is asked next, nor how an
//! attempt ends.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::in_flight::{Admission, InFlight, Probe};
use super::run::{Run, next_id};
use crate::base::time::unix_ms;
use crate::gateway::admission::budget::{Budget, Reservation, Reserved};
use crate::gateway::admission::circuit_breaker::Decision;
use crate::gateway::admission::fair_queue::QueueKey;
use crate::gateway::admission::limiter::Permit;
use crate::gateway::admission::token_estimate::TokenEstimate;
use crate::gateway::attempt::record::AttemptRecord;
use crate::gateway::catalogue::capabilities::adapt;
use crate::gateway::catalogue::endpoint::EndpointModel;
use crate::gateway::catalogue::prompt_cache::Planned;
use crate::gateway::code::Code;
use crate::gateway::error::{Failure, GatewayError};
use crate::llm::{ChatRequest, SchemaMode};
use crate::types::{AttemptBegun, Why};

impl<'a> Run<'a> {
    /// Gets everything that an attempt needs: permission of the breaker, a slot, rates, money. `None` if another
    /// candidate must be picked.
    pub(super) async fn start<'r>(
        &mut self,
        position: usize,
        remote: Arc<EndpointModel>,
        request: &'r ChatRequest,
    ) -> Result<Option<InFlight<'a, 'r>>, GatewayError> {
        let request = match adapt(&remote, request) {
            Ok(request) => request,
            Err(message) => {
                self.candidates[position].dead = true;
                self.note(&remote, Failure::request(Code::Unsupported, message), None);
                return Ok(None);
            }
        };
        let decision = remote.breaker.ask(Instant::now());
        if let Decision::Wait(wait, code) = decision {
            let message = format!("not asked: it failed recently; the next attempt is in {} ms", wait.as_millis());
            self.candidates[position].dead = true;
            self.shared.metrics.passed_over(&remote.endpoint.name, "breaker");
            self.note(&remote, Failure { retry_after: Some(wait), ..Failure::busy(code, message) }, None);
            return Ok(None);
        }
        let probe = Probe::new(&remote, &self.shared.metrics, decision == Decision::Probe);
        if probe.pending {
            self.show_breaker(&remote);
        }
        let Some((permit, reservation)) = self.admit(position, &remote, &request).await? else { return Ok(None) };
        let progress = &self.candidates[position];
        let why = match &self.last {
            _ if progress.stepping => Why::SchemaStep,
            _ if progress.tries > 0 => Why::Retry,
            None if self.repairing => Why::Repair,
            _ if self.attempts == 0 && position == 0 => Why::First,
            _ => Why::Failover,
        };
        Ok(self.launch(position, remote, Admission { probe, permit, reservation }, why, request))
    }

    /// Gets a slot at the endpoint, and money. `None` if there is no slot. A request that waits for money holds no slot
    /// meanwhile: the request that holds the money may be waiting for that slot.
    async fn admit(
        &mut self,
        position: usize,
        remote: &EndpointModel,
        request: &ChatRequest,
    ) -> Result<Option<(Option<Permit>, Option<Reservation>)>, GatewayError> {
        let shared = self.shared;
        loop {
            let changed = shared.budget.as_ref().and_then(|budget| budget.watch());
            let limiter = &remote.endpoint.limiter;
            let entered = limiter
                .enter(
                    &remote.vendor_limits,
                    || self.queue_key(),
                    || TokenEstimate::of(request, remote.token_ratio()),
                    self.deadline,
                )
                .await;
            let permit = match entered {
                Ok(permit) => permit,
                Err(refusal) => {
                    self.pass_over(position, remote, refusal);
                    return Ok(None);
                }
            };
            if let Some(waited) = permit.as_ref().map(|permit| permit.waited).filter(|waited| !waited.is_zero()) {
                shared.metrics.waited(&remote.endpoint.name, waited);
            }
            let Some(budget) = &shared.budget else { return Ok(Some((permit, None))) };
            match budget.reserve(self.origin.call.as_ref(), || remote.pricing(unix_ms()), request)? {
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

    /// Starts the attempt: counts it and writes its record. `None` if the vendor's format cannot express the request; the
    /// candidate is then passed over.
    pub(super) fn launch<'r>(
        &mut self,
        position: usize,
        remote: Arc<EndpointModel>,
        pass: Admission<'a>,
        why: Why,
        request: Cow<'r, ChatRequest>,
    ) -> Option<InFlight<'a, 'r>> {
        let modes = remote.schema_modes();
        let mode_step = self.candidates[position].schema_step.min(modes.len().saturating_sub(1));
        let schema_mode = modes.get(mode_step).copied().unwrap_or(SchemaMode::Prompt);
        let planned = remote.plan_caching(&request, self.origin.analysis.as_deref(), unix_ms());
        let marks = planned.as_ref().map(Planned::marks).unwrap_or_default();
        let wire = match remote.encode(&request, schema_mode, marks) {
            Ok(wire) => wire,
            Err(error) => {
                self.candidates[position].dead = true;
                self.note(&remote, Failure::request(Code::Unsupported, error.to_string()), None);
                return None;
            }
        };
        let Admission { probe, permit, reservation } = pass;
        let progress = &mut self.candidates[position];
        progress.tries += u32::from(!std::mem::take(&mut progress.stepping));
        progress.why = Some(why);
        self.attempts += 1;
        if self.resolved.hedge.is_some() && why != Why::Hedge {
            remote.endpoint.hedges.earn();
        }
        let begun = self.begun(&remote, why);
        let (recorder, metrics) = (self.shared.recorder.as_ref(), &self.shared.metrics);
        let mut record =
            Box::new(AttemptRecord::begin(begun, &remote, reservation, permit, request.stream, recorder, metrics));
        record.planned = planned;
        record.estimated = remote.sample_tokens(&request);
        record.edit(|done| done.shares.clone_from(&self.shares));
        Some(InFlight { position, remote, request, record, probe, mode_step, schema_mode, wire })
    }

    /// The key under which requests share one turn in a queue.
    fn queue_key(&self) -> QueueKey {
        match &self.origin.call {
            Some(call) => QueueKey::Call(call.clone()),
            None => QueueKey::Client(self.origin.key.clone()),
        }
    }

    fn begun(&self, remote: &EndpointModel, why: Why) -> AttemptBegun {
        let at_ms = unix_ms();
        AttemptBegun {
            id: next_id(at_ms),
            request: self.id,
            at_ms,
            key: self.origin.key.clone(),
            call: self.origin.call.clone(),
            analysis: self.origin.analysis.clone(),
            route: Arc::clone(&self.resolved.route),
            variant: Arc::clone(&self.resolved.variant),
            model: Arc::clone(&self.resolved.model),
            endpoint: Arc::clone(&remote.endpoint.name),
            provider: remote.endpoint.config.provider.name(),
            vendor_model: Arc::clone(&remote.vendor_model),
            number: self.attempts,
            why,
        }
    }
}
