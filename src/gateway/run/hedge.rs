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

use super::board::{Flight, Pass, Probe};
use super::{Landed, Run};
use crate::gateway::attempt::{self, Opened};
use crate::gateway::breaker::Phase;
use crate::gateway::catalogue::Target;
use crate::gateway::endpoint::Remote;
use crate::gateway::fit::fit;
use crate::gateway::rate::Need;
use crate::llm::ChatRequest;

impl<'a> Run<'a> {
    /// Time after which an attempt is hedged; `None` if it is not hedged.
    pub(super) fn hedge_after(&self, remote: &Remote, request: &ChatRequest) -> Option<Duration> {
        let quantile = self.arm.hedge.filter(|_| !self.hedged)?;
        let after = remote.pace.quantile(request.stream, quantile)?;
        (Instant::now() + after < self.deadline).then_some(after)
    }

    /// Runs an attempt and, after a while, a second one beside it: the one that reaches its commit point first counts,
    /// and the other is aborted. If one fails, the other continues alone.
    pub(super) async fn race(
        &mut self,
        mut first: Flight<'a, '_>,
        after: Duration,
        request: &ChatRequest,
    ) -> Option<Opened> {
        let (slow, position) = (Arc::clone(&first.remote), first.position);
        let mut second = None;
        let (one, other) = {
            let context = self.context(&first.request);
            let wire = std::mem::take(&mut first.wire);
            let mut opening = pin!(attempt::open(context, wire, &first.remote, &mut first.row));
            match timeout(after, opening.as_mut()).await {
                Ok(landed) => (Some(landed), None),
                Err(_) => {
                    second = self.hedge(position, &slow, request);
                    match &mut second {
                        None => (Some(opening.await), None),
                        Some(second) => {
                            let context = self.context(&second.request);
                            let wire = std::mem::take(&mut second.wire);
                            let hedging = pin!(attempt::open(context, wire, &second.remote, &mut second.row));
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
            self.inner.metrics.hedge(&slow.endpoint.name, outcome);
        }
        let mut opened = None;
        for (flight, landed) in [(Some(first), one), (second, other)] {
            match (flight, landed) {
                (Some(flight), Some(landed)) => opened = self.land(flight, landed).or(opened),
                (Some(flight), None) => flight.row.lose(),
                (None, _) => {}
            }
        }
        opened
    }

    /// Starts a second attempt, if a candidate can take it now and the slow endpoint's allowance has a hedge left.
    fn hedge<'r>(&mut self, slow: usize, slow_remote: &Remote, request: &'r ChatRequest) -> Option<Flight<'a, 'r>> {
        let now = Instant::now();
        let others = (0..self.candidates.len()).filter(|position| *position != slow);
        let order: Vec<usize> = others
            .filter(|position| self.may_try(*position) && self.candidates[*position].ready_at <= now)
            .chain([slow])
            .collect();
        for position in order {
            let Target::Remote(remote) = &self.candidates[position].target else { continue };
            let remote = Arc::clone(remote);
            if remote.breaker.phase() != Phase::Closed {
                continue;
            }
            let Ok(request) = fit(&remote, request) else { continue };
            let Ok(permit) = remote.endpoint.gate.try_enter(&remote.told, || Need::of(&request)) else { continue };
            let reserved = match &self.inner.budget {
                None => Ok(None),
                Some(budget) => budget.reserve_now(self.asker.call.as_ref(), &remote, &request),
            };
            let Ok(reservation) = reserved else { continue };
            if !slow_remote.endpoint.hedges.spend() {
                break;
            }
            self.hedged = true;
            let probe = Probe::new(&remote, &self.inner.metrics, false);
            return self.launch(position, remote, Pass { probe, permit, reservation }, "hedge", request);
        }
        self.inner.metrics.hedge(&slow_remote.endpoint.name, "refused");
        None
    }
}

/// Runs both until one succeeds. `None` = not finished by then.
async fn first_of(
    one: Pin<&mut impl Future<Output = Landed>>,
    other: Pin<&mut impl Future<Output = Landed>>,
) -> (Option<Landed>, Option<Landed>) {
    match select(one, other).await {
        Either::Left((Ok(start), _)) => (Some(Ok(start)), None),
        Either::Left((Err(failure), other)) => (Some(Err(failure)), Some(other.await)),
        Either::Right((Ok(start), _)) => (None, Some(Ok(start))),
        Either::Right((Err(failure), one)) => (Some(one.await), Some(Err(failure))),
    }
}
