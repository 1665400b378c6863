//! The record of an attempt: reports it to the ledger, the metrics and the budget, exactly once.
//!
//! Knows no HTTP and no answer: its caller passes what to report.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::gateway::admission::budget::Reservation;
use crate::gateway::admission::limiter::Permit;
use crate::gateway::admission::token_estimate::TokenEstimate;
use crate::gateway::catalogue::endpoint::EndpointModel;
use crate::gateway::catalogue::prompt_cache::{Miss, Planned};
use crate::gateway::error::Failure;
use crate::gateway::metrics::{AttemptLabels, Meters, Metrics};
use crate::gateway::price::{self, Price};
use crate::gateway::recorder::Recorder;
use crate::llm::Usage;
use crate::types::{AttemptBegun, AttemptDone, Outcome, Why};

/// Code of an attempt that a faster one made unnecessary.
const HEDGE_LOST: &str = "hedge_lost";

/// The record of an attempt: completed exactly once; on drop it is completed as aborted, unless that was done before.
pub(in crate::gateway) struct AttemptRecord {
    done: Option<AttemptDone>,
    pub(in crate::gateway) started: Instant,
    recorder: Option<Arc<dyn Recorder>>,
    metrics: Arc<Metrics>,
    meters: Arc<Meters>,
    price: Option<Price>,
    reservation: Option<Reservation>,
    permit: Option<Permit>,
    remote: Arc<EndpointModel>,
    /// Why the attempt was made.
    pub(in crate::gateway) why: Why,
    /// How the attempt uses the vendor's prompt cache.
    pub(in crate::gateway) planned: Option<Planned>,
    /// Estimated tokens of the prompt, if the vendor's count is used to correct the estimates.
    pub(in crate::gateway) estimated: Option<u64>,
    streamed: bool,
    /// Number of implausible token counts in the newest usage.
    implausible: u64,
}

impl AttemptRecord {
    /// Writes the record of an attempt that begins. `permit` and `reservation` are held until the attempt ends, and then
    /// settled.
    pub(in crate::gateway) fn begin(
        begun: AttemptBegun,
        remote: &Arc<EndpointModel>,
        reservation: Option<Reservation>,
        mut permit: Option<Permit>,
        streamed: bool,
        recorder: Option<&Arc<dyn Recorder>>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let meters = metrics.begun(AttemptLabels::new(&begun));
        let price = remote.price(begun.at_ms);
        let why = begun.why;
        remote.latency.begin();
        if let Some(permit) = &mut permit {
            permit.sent();
        }
        let done = AttemptDone {
            id: begun.id,
            outcome: Outcome::Aborted,
            code: None,
            status: None,
            input: None,
            cached: None,
            cache_write: None,
            output: None,
            reasoning: None,
            cost_pico: None,
            first_token_us: None,
            total_us: 0,
            shares: Vec::new(),
        };
        if let Some(recorder) = recorder {
            recorder.begun(begun);
        }
        Self {
            done: Some(done),
            started: Instant::now(),
            recorder: recorder.map(Arc::clone),
            metrics: Arc::clone(metrics),
            meters,
            price,
            reservation,
            permit,
            remote: Arc::clone(remote),
            why,
            planned: None,
            estimated: None,
            streamed,
            implausible: 0,
        }
    }

    pub(in crate::gateway) fn edit(&mut self, edit: impl FnOnce(&mut AttemptDone)) {
        if let Some(done) = &mut self.done {
            edit(done);
        }
    }

    /// Sets tokens and cost from the vendor's raw counts. Implausible counts become unknown.
    pub(in crate::gateway) fn usage(&mut self, usage: Usage) {
        let (usage, implausible) = usage.plausible();
        self.implausible = implausible;
        let cost = self.price.and_then(|price| price::cost(price, usage));
        self.edit(|done| {
            done.cost_pico = cost;
            done.input = usage.input;
            done.cached = usage.cached;
            done.cache_write = usage.cache_write;
            done.output = usage.output;
            done.reasoning = usage.reasoning;
        });
    }

    /// Sets the share of the attempt that belongs to each analysis that it asks, in their order.
    pub(in crate::gateway) fn weigh(&mut self, weights: &[u64]) {
        self.edit(|done| {
            for ((_, weight), new) in done.shares.iter_mut().zip(weights) {
                *weight = *new;
            }
        });
    }

    /// Records the arrival of the first token, or of a whole answer.
    pub(in crate::gateway) fn first_token(&mut self, after: Duration) {
        self.edit(|done| done.first_token_us = Some(micros(after)));
        self.remote.latency.answered(self.streamed, after, Instant::now());
    }

    /// Cost so far in pico-dollars, as far as it is known.
    pub(in crate::gateway) fn cost(&self) -> Option<i64> {
        self.done.as_ref()?.cost_pico
    }

    /// Reports how much of an answered prompt the vendor's prompt cache had.
    fn learn_caching(&mut self, done: &AttemptDone) {
        let Some(planned) = self.planned.take().filter(|_| done.outcome == Outcome::Ok) else { return };
        let Some(missed) = self.remote.learn_caching(planned, done.cached, done.cache_write) else { return };
        let Miss { expected, cached, unlogged } = missed;
        self.metrics.cache_missed(&self.remote.endpoint.name);
        if let Some(more) = unlogged {
            let (endpoint, model) = (&self.remote.endpoint.name, &self.remote.vendor_model);
            tracing::warn!(
                %endpoint, %model, expected, cached, more,
                "a prompt began like the previous one, but the vendor's prompt cache had fewer tokens of it (logged \
                 at most once a minute)"
            );
        }
    }

    /// Completes the record of an attempt that succeeded.
    pub(in crate::gateway) fn succeed(mut self) {
        self.edit(|done| done.outcome = Outcome::Ok);
    }

    /// Completes the record of an attempt that lost: another attempt of the same request was faster.
    pub(in crate::gateway) fn lose(mut self) {
        // It would have taken longer still, so its time so far is a lower bound. A hedge started later: its time so far
        // says too little.
        if self.why != Why::Hedge {
            self.remote.latency.answered(self.streamed, self.started.elapsed(), Instant::now());
        }
        self.edit(|done| done.code = Some(HEDGE_LOST));
    }

    /// Completes the record of an attempt that failed, before or after the first token.
    pub(in crate::gateway) fn fail(mut self, failure: &Failure) {
        if failure.counts {
            self.remote.latency.failed(self.started.elapsed(), Instant::now());
        }
        self.edit(|done| {
            done.outcome = if done.first_token_us.is_some() { Outcome::Partial } else { Outcome::Failed };
            done.code = Some(failure.code.as_str());
            done.status = failure.status.or(done.status);
        });
    }
}

impl Drop for AttemptRecord {
    fn drop(&mut self) {
        let Some(mut done) = self.done.take() else { return };
        done.total_us = micros(self.started.elapsed());
        self.remote.latency.end();
        if let Some(cost) = done.cost_pico {
            self.remote.learn_cost(cost);
        }
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(done.cost_pico, done.first_token_us.is_some());
        }
        if let Some(permit) = &mut self.permit {
            let refused = done.status.is_some_and(|status| !(200..300).contains(&status));
            match (done.input, done.output) {
                (None, None) if refused => permit.settle(TokenEstimate::NOTHING),
                (None, None) => {}
                (input, output) => {
                    permit.settle(TokenEstimate { input: input.unwrap_or(0), output: output.unwrap_or(0) });
                }
            }
        }
        if let (Some(estimated), Some(reported), Outcome::Ok) = (self.estimated, done.input, done.outcome) {
            self.remote.learn_tokens(estimated, reported);
        }
        self.learn_caching(&done);
        self.metrics.done(&self.meters, &done);
        if self.implausible > 0 {
            self.metrics.implausible(&self.remote.endpoint.name, self.implausible);
        }
        if let Some(recorder) = &self.recorder {
            recorder.done(done);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
