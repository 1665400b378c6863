//! Makes attempts until one reaches its commit point: one request at its candidates, with retries, failover and at most
//! one hedge, inside one deadline. Streams and plain requests are treated alike.
//!
//! Decides which candidate is asked next. Knows nothing of an answer beyond its commit point.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::in_flight::InFlight;
use super::run::Run;
use crate::base::stopwatch::waiting;
use crate::gateway::attempt::opened::Opened;
use crate::gateway::attempt::start::start;
use crate::gateway::catalogue::resolved::Candidate;
use crate::gateway::error::{Failure, GatewayError};
use crate::llm::ChatRequest;

/// Result of [`Run::next`].
pub(super) enum Reached {
    /// An attempt at its commit point.
    Opened(Opened),
    /// The embedded provider is the next candidate.
    Local,
}

impl<'a> Run<'a> {
    /// Makes attempts until one reaches its commit point.
    ///
    /// # Errors
    /// No candidate is left, or the deadline has passed.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the attempt in progress and completes its record.
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
                self.last.get_or_insert_with(|| Failure::timeout("no answer", self.resolved.timeouts.total));
                return Err(self.error());
            }
            let remote = match &self.candidates[position].candidate {
                Candidate::Local => {
                    self.current = position;
                    return Ok(Reached::Local);
                }
                Candidate::Remote(remote) => Arc::clone(remote),
            };
            if let Some(in_flight) = self.start(position, remote, request).await?
                && let Some(opened) = self.send(in_flight, request).await
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

    /// Runs an attempt, and its hedge if there is one, up to the commit point.
    async fn send(&mut self, mut in_flight: InFlight<'a, '_>, request: &ChatRequest) -> Option<Opened> {
        // `waiting` counts only time without progress: encoding the request and decoding the answer are the daemon's
        // own work.
        let after = self.hedge_after(&in_flight.remote, &in_flight.request);
        if let Some(after) = after {
            // Two attempts take twice the memory: on the heap, so that only hedged requests pay for it.
            let mut racing = Box::pin(self.race(in_flight, after, request));
            let (opened, waited) = waiting(racing.as_mut()).await;
            drop(racing);
            self.waited += waited;
            return opened;
        }
        let (sent, waited) = {
            let context = self.context(&in_flight.request);
            let wire = std::mem::take(&mut in_flight.wire);
            waiting(pin!(start(context, wire, &in_flight.remote, &mut in_flight.record))).await
        };
        self.waited += waited;
        self.complete(in_flight, sent)
    }
}
