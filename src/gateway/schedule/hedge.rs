//! Hedging (off unless configured): a second attempt beside one that takes longer than a quantile of its endpoint's own
//! times to the first token. Of the two, the one that reaches its commit point first counts; the other is aborted.
//!
//! The hedge goes to the next candidate, which does not share the slow one's fault, or to the same endpoint again if no
//! other can take it. It never waits: the breaker must be closed, and a slot, rates and money must be available at
//! once. At most one in twenty of the slow endpoint's requests is hedged.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::time::{Instant, timeout};

use super::in_flight::{Admission, InFlight, Probe, Sent};
use super::run::Run;
use crate::base::time::unix_ms;
use crate::gateway::admission::circuit_breaker::Phase;
use crate::gateway::admission::token_estimate::TokenEstimate;
use crate::gateway::attempt::opened::Opened;
use crate::gateway::attempt::start::start;
use crate::gateway::catalogue::capabilities::adapt;
use crate::gateway::catalogue::endpoint::EndpointModel;
use crate::gateway::catalogue::resolved::Candidate;
use crate::llm::ChatRequest;
use crate::types::Why;

impl<'a> Run<'a> {
    /// Time after which an attempt is hedged; `None` if it is not hedged.
    pub(super) fn hedge_after(&self, remote: &EndpointModel, request: &ChatRequest) -> Option<Duration> {
        let quantile = self.resolved.hedge.filter(|_| !self.hedged)?;
        let after = remote.latency.quantile(request.stream, quantile)?;
        (Instant::now() + after < self.deadline).then_some(after)
    }

    /// Runs an attempt and, after a while, a second one beside it: the one that reaches its commit point first counts,
    /// and the other is aborted. If one fails, the other continues alone.
    pub(super) async fn race(
        &mut self,
        mut first: InFlight<'a, '_>,
        after: Duration,
        request: &ChatRequest,
    ) -> Option<Opened> {
        let (slow, position) = (Arc::clone(&first.remote), first.position);
        let mut second = None;
        let (one, other) = {
            let context = self.context(&first.request);
            let wire = std::mem::take(&mut first.wire);
            let mut opening = pin!(start(context, wire, &first.remote, &mut first.record));
            match timeout(after, opening.as_mut()).await {
                Ok(sent) => (Some(sent), None),
                Err(_) => {
                    second = self.hedge(position, &slow, request);
                    match &mut second {
                        None => (Some(opening.await), None),
                        Some(second) => {
                            let context = self.context(&second.request);
                            let wire = std::mem::take(&mut second.wire);
                            let hedging = pin!(start(context, wire, &second.remote, &mut second.record));
                            first_of(opening, hedging).await
                        }
                    }
                }
            }
        };
        if second.is_some() {
            let outcome = match (&one, &other) {
                (_, Some(Ok(_))) => "won",
                (Some(Ok(_)), _) => "lost",
                _ => "failed",
            };
            self.shared.metrics.hedge(&slow.endpoint.name, outcome);
        }
        let mut opened = None;
        for (in_flight, sent) in [(Some(first), one), (second, other)] {
            match (in_flight, sent) {
                (Some(in_flight), Some(sent)) => opened = self.complete(in_flight, sent).or(opened),
                (Some(in_flight), None) => in_flight.record.lose(),
                (None, _) => {}
            }
        }
        opened
    }

    /// Starts a second attempt, if a candidate can take it now and the slow endpoint's allowance has a hedge left.
    fn hedge<'r>(
        &mut self,
        slow: usize,
        slow_remote: &EndpointModel,
        request: &'r ChatRequest,
    ) -> Option<InFlight<'a, 'r>> {
        let now = Instant::now();
        let others = (0..self.candidates.len()).filter(|position| *position != slow);
        let order: Vec<usize> = others
            .filter(|position| self.may_try(*position) && self.candidates[*position].ready_at <= now)
            .chain([slow])
            .collect();
        for position in order {
            let Candidate::Remote(remote) = &self.candidates[position].candidate else { continue };
            let remote = Arc::clone(remote);
            if remote.breaker.phase() != Phase::Closed {
                continue;
            }
            let Ok(request) = adapt(&remote, request) else { continue };
            let estimate = || TokenEstimate::of(&request, remote.token_ratio());
            let Ok(permit) = remote.endpoint.limiter.try_enter(&remote.vendor_limits, estimate) else {
                continue;
            };
            let reserved = match &self.shared.budget {
                None => Ok(None),
                Some(budget) => budget.reserve_now(self.origin.call.as_ref(), || remote.pricing(unix_ms()), &request),
            };
            let Ok(reservation) = reserved else { continue };
            if !slow_remote.endpoint.hedges.spend() {
                break;
            }
            self.hedged = true;
            let probe = Probe::new(&remote, &self.shared.metrics, false);
            return self.launch(position, remote, Admission { probe, permit, reservation }, Why::Hedge, request);
        }
        self.shared.metrics.hedge(&slow_remote.endpoint.name, "refused");
        None
    }
}

/// Runs both until one succeeds. `None` = not finished by then.
async fn first_of(
    one: Pin<&mut impl Future<Output = Sent>>,
    other: Pin<&mut impl Future<Output = Sent>>,
) -> (Option<Sent>, Option<Sent>) {
    match select(one, other).await {
        Either::Left((Ok(start), _)) => (Some(Ok(start)), None),
        Either::Left((Err(failure), other)) => (Some(Err(failure)), Some(other.await)),
        Either::Right((Ok(start), _)) => (None, Some(Ok(start))),
        Either::Right((Err(failure), one)) => (Some(one.await), Some(Err(failure))),
    }
}
