//! What follows after a candidate failed or could not be asked: when it may be asked again, if at all, and which error
//! the caller gets once no candidate is left.
//!
//! Only this module moves on to another candidate after a failure, and makes the final error. Does not know which
//! candidate is asked next, nor when an attempt counts as failed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::run::Run;
use crate::gateway::admission::circuit_breaker::Phase;
use crate::gateway::admission::refusal::{Cause, Refusal};
use crate::gateway::catalogue::config::EndpointConfig;
use crate::gateway::catalogue::endpoint::EndpointModel;
use crate::gateway::catalogue::resolved::Candidate;
use crate::gateway::code::Code;
use crate::gateway::error::{AttemptFailure, Failure, GatewayError};
use crate::gateway::metrics::EndpointLabels;
use crate::types::Why;

/// Minimum wait before a candidate that was passed over is considered again.
const LEAST_WAIT: Duration = Duration::from_millis(1);

impl Run<'_> {
    /// Handles an attempt that failed after its commit point; the failure is recorded like any other.
    pub(super) fn broke(&mut self, failure: Failure) {
        let position = self.current;
        if let Candidate::Remote(remote) = &self.candidates[position].candidate {
            let remote = Arc::clone(remote);
            self.failed(position, &remote, failure, false);
        }
    }

    /// Handles an attempt that failed; with `step`, it is repeated in the next lesser schema mode.
    pub(super) fn failed(&mut self, position: usize, remote: &Arc<EndpointModel>, failure: Failure, step: bool) {
        let now = Instant::now();
        // A refusal of the schema mode says nothing about the endpoint.
        if failure.counts && !step && remote.breaker.failed(now, failure.code) {
            let endpoint = Arc::clone(&remote.endpoint.name);
            tracing::warn!(%endpoint, model = %remote.vendor_model, code = failure.code.as_str(), "circuit breaker opened");
            self.shared.metrics.breakers_opened.get_or_create(&EndpointLabels { endpoint }).inc();
        }
        if failure.counts && remote.breaker.phase() != Phase::Closed {
            self.show_breaker(remote);
        }
        if let (Some(after), Code::RateLimited) = (failure.retry_after, failure.code) {
            remote.vendor_limits.cool(after, now);
        }
        let progress = &mut self.candidates[position];
        if step {
            progress.schema_step += 1;
            progress.stepping = true;
        } else if failure.retry {
            let pause = progress.backoff.pause(rand::random());
            progress.ready_at = now + failure.retry_after.unwrap_or_default().max(pause);
        } else {
            progress.dead = true;
        }
        let why = progress.why;
        self.note(remote, failure, why);
    }

    /// Shows the state of a candidate's circuit breaker in the metrics.
    pub(super) fn show_breaker(&self, remote: &EndpointModel) {
        let state = remote.breaker.phase() as i64;
        self.shared.metrics.breaker(&remote.endpoint.name, &remote.vendor_model, state);
    }

    /// Records a failure. `why` is the reason of the attempt, if one was made.
    pub(super) fn note(&mut self, remote: &EndpointModel, failure: Failure, why: Option<Why>) {
        tracing::debug!(
            endpoint = %remote.endpoint.name, model = %remote.vendor_model, code = failure.code.as_str(),
            status = failure.status, why = why.map(Why::as_str), "attempt failed"
        );
        self.failures.push(AttemptFailure {
            endpoint: Arc::clone(&remote.endpoint.name),
            model: Arc::clone(&remote.vendor_model),
            status: failure.status,
            code: failure.code,
            why,
            message: failure.message.clone(),
        });
        // The failure of a candidate that could not be asked does not replace the failure of one that was asked.
        if failure.code != Code::Unsupported || self.last.is_none() {
            self.last = Some(failure);
        }
    }

    /// Passes over a candidate that has no capacity: until it has some, or for good if that time is unknown.
    pub(super) fn pass_over(&mut self, position: usize, remote: &EndpointModel, refusal: Refusal) {
        self.shared.metrics.passed_over(&remote.endpoint.name, refusal.cause.as_str());
        let progress = &mut self.candidates[position];
        match refusal.wait {
            Some(wait) => progress.ready_at = Instant::now() + wait.max(LEAST_WAIT),
            None => progress.dead = true,
        }
        if !std::mem::replace(&mut progress.passed_over, true) {
            self.note(remote, no_room(&remote.endpoint.config, refusal), None);
        }
    }

    /// Records that the newest answer violates the schema: its attempt completed, but the answer cannot be used.
    pub(super) fn mismatched(&mut self) {
        let answered = &self.candidates[self.current];
        if let Candidate::Remote(remote) = &answered.candidate {
            let (endpoint, model) = (Arc::clone(&remote.endpoint.name), Arc::clone(&remote.vendor_model));
            self.failures.push(AttemptFailure::mismatch(endpoint, model, answered.why));
        }
    }

    /// Records that the newest answer could not be checked.
    pub(super) fn unchecked(&mut self, error: &GatewayError) {
        let before = self.failures.len();
        self.mismatched();
        for failure in &mut self.failures[before..] {
            failure.code = error.code();
            error.message().clone_into(&mut failure.message);
        }
    }

    /// Takes the failures recorded so far.
    pub(super) fn take_failures(&mut self) -> Vec<AttemptFailure> {
        std::mem::take(&mut self.failures)
    }

    /// The error when all candidates have failed; it has the code of the last failure.
    pub(super) fn error(&mut self) -> GatewayError {
        let failure = self.last.take().unwrap_or_else(|| Failure::busy(Code::Unsupported, "no candidate"));
        self.code = Some(failure.code);
        let last = self.failures.last();
        let place = last.map_or_else(String::new, |last| format!(" of {}/{}", last.endpoint, last.model));
        let status = failure.status.map_or_else(String::new, |status| format!(" (HTTP {status})"));
        let tried = self.failures.len();
        let message = format!("{}: last failure{place}{status}, of {tried} in all", in_words(&failure));
        let mut error = GatewayError::new(failure.code, message)
            .with_attempts(std::mem::take(&mut self.failures))
            .with_waited(self.waited)
            .with_retry_after(failure.retry_after);
        if failure.temporary {
            error = error.temporarily();
        }
        error
    }
}

/// Describes a failure in a few words: our own message if nothing was sent, otherwise the meaning of its code.
fn in_words(failure: &Failure) -> &str {
    match failure.code {
        _ if failure.unsent => &failure.message,
        Code::Refused => "connection refused",
        Code::Timeout => "no answer in time",
        Code::RateLimited => "the vendor's rate limit is reached",
        Code::QuotaExhausted => "the vendor's quota or spending limit is used up",
        Code::UpstreamAuth => "the vendor does not accept the configured key",
        Code::InvalidRequest => "the vendor does not accept this request",
        Code::ModelNotFound => "the vendor has no such model",
        Code::Interrupted => "the answer was cut off",
        Code::Malformed => "the answer was malformed",
        Code::Unsupported => &failure.message,
        _ => "the vendor failed",
    }
}

/// A refusal by an endpoint's limiter; the message names the limit.
fn no_room(endpoint: &EndpointConfig, refusal: Refusal) -> Failure {
    let EndpointConfig { name, limits, .. } = endpoint;
    let count = |limit: Option<u64>| limit.map_or_else(String::new, |limit| limit.to_string());
    let in_ms = refusal.wait.unwrap_or_default().as_millis();
    let (code, message) = match refusal.cause {
        Cause::Concurrency => {
            let (within, most) = (limits.max_wait.as_millis(), limits.concurrency.unwrap_or_default());
            (Code::Overloaded, format!("no free slot within {within} ms: endpoints.{name}.max_concurrency is {most}"))
        }
        Cause::Waiting => (
            Code::Overloaded,
            format!("not asked: endpoints.{name}.max_waiting is {}, and as many requests wait", limits.max_waiting),
        ),
        Cause::Requests => {
            let limit = count(limits.requests);
            (
                Code::RateLimited,
                format!("not asked: endpoints.{name}.requests_per_minute is {limit}; room in {in_ms} ms"),
            )
        }
        Cause::Tokens => {
            let limit = count(limits.tokens);
            (Code::RateLimited, format!("not asked: endpoints.{name}.tokens_per_minute is {limit}; room in {in_ms} ms"))
        }
        Cause::Vendor => {
            (Code::RateLimited, format!("not asked: according to the vendor, {name} has no capacity for {in_ms} ms"))
        }
    };
    Failure { retry_after: refusal.wait, ..Failure::busy(code, message) }
}
