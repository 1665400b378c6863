//! The limiter of an endpoint: its concurrency slots (`max_concurrency`), its rates, and the queue before them. The queue
//! is fair between calls, so that one call's burst does not delay the others.
//!
//! Knows no candidate and no request: it is given an estimate of what a request uses, and the limits that the vendor
//! reported for the model. [`FairQueue`] decides which request is next. At an endpoint without limits nothing is locked
//! and nothing is counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::fair_queue::{FairQueue, QueueKey};
use super::rate_window::RateWindow;
use super::refusal::{Cause, Refusal};
use super::token_estimate::TokenEstimate;
use super::vendor_limits::VendorLimits;
use crate::base::queue::QueueGauges;
use crate::base::sync::lock;

/// Minimum sleep before rates are checked again.
const TICK: Duration = Duration::from_millis(2);

/// Limits of an endpoint. If none of the first three is set, nothing is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of requests at once.
    pub concurrency: Option<usize>,
    /// Maximum number of requests in any minute.
    pub requests: Option<u64>,
    /// Maximum number of tokens in any minute, of prompts and answers together.
    pub tokens: Option<u64>,
    /// Maximum number of requests that wait.
    pub max_waiting: usize,
    /// How long a request may wait before the next candidate is tried.
    pub max_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: None, requests: None, tokens: None, max_waiting: 1000, max_wait: Duration::from_secs(2) }
    }
}

/// The limiter of one endpoint.
#[derive(Debug)]
pub(in crate::gateway) struct Limiter {
    limits: Limits,
    state: Mutex<State>,
    waiting: AtomicUsize,
    gauges: OnceLock<QueueGauges>,
}

#[derive(Debug)]
struct State {
    usage: Usage,
    queue: FairQueue<Permit>,
}

/// The slots and rates in use.
#[derive(Debug)]
struct Usage {
    slots: usize,
    requests: Option<RateWindow>,
    tokens: Option<RateWindow>,
}

/// Permission to send one request; dropping it frees the slot.
#[derive(Debug)]
pub(in crate::gateway) struct Permit {
    limiter: Arc<Limiter>,
    vendor_limits: Arc<VendorLimits>,
    estimate: TokenEstimate,
    /// The request's positions in the windows of requests and of tokens; `None` without such a limit.
    counted: [Option<u64>; 2],
    /// Amount to settle; `None` before the request was sent, when nothing was used.
    amount: Option<TokenEstimate>,
    sent: bool,
    /// How long the request waited for the permit.
    pub(in crate::gateway) waited: Duration,
}

impl Permit {
    /// Marks the request as sent: it counts, however it ends.
    pub(in crate::gateway) fn sent(&mut self) {
        self.sent = true;
        self.amount = Some(self.estimate);
    }

    /// Sets what the request used in the end; without this call, the estimate counts.
    pub(in crate::gateway) fn settle(&mut self, amount: TokenEstimate) {
        self.amount = Some(amount);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let amount = self.amount.unwrap_or(TokenEstimate::NOTHING);
        // A vendor's first report includes the requests before it, which were not counted here.
        if self.estimate != TokenEstimate::NOTHING {
            self.vendor_limits.settle(self.estimate, amount);
        }
        {
            let usage = &mut self.limiter.state().usage;
            usage.slots = usage.slots.saturating_sub(1);
            if let (Some(window), Some(slot), false) = (&mut usage.requests, self.counted[0], self.sent) {
                window.settle(slot, 1, 0);
            }
            if let (Some(window), Some(slot)) = (&mut usage.tokens, self.counted[1]) {
                window.settle(slot, self.estimate.tokens(), amount.tokens());
            }
        }
        self.limiter.pump();
    }
}

impl Limiter {
    pub(in crate::gateway) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                usage: Usage {
                    slots: 0,
                    requests: limits.requests.map(RateWindow::new),
                    tokens: limits.tokens.map(RateWindow::new),
                },
                queue: FairQueue::default(),
            }),
            waiting: AtomicUsize::new(0),
            gauges: OnceLock::new(),
        }
    }

    /// Sets the gauges that show the queue; only the first call has an effect.
    pub(in crate::gateway) fn show(&self, gauges: &QueueGauges) {
        let _ = self.gauges.set(gauges.clone());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns true if nothing is limited here.
    fn unlimited(&self, vendor_limits: &VendorLimits) -> bool {
        let Limits { concurrency, requests, tokens, .. } = self.limits;
        concurrency.is_none() && requests.is_none() && tokens.is_none() && !vendor_limits.any()
    }

    /// What a request uses. An estimate takes a pass over the whole prompt, so none is made where no tokens are limited.
    fn tokens_of(&self, vendor_limits: &VendorLimits, estimate: impl FnOnce() -> TokenEstimate) -> TokenEstimate {
        if self.limits.tokens.is_some() || vendor_limits.any() { estimate() } else { TokenEstimate::NOTHING }
    }

    /// Admits a request if it need not wait and no other request waits. `None`: nothing is limited, and no permit is
    /// needed.
    pub(in crate::gateway) fn try_enter(
        self: &Arc<Self>,
        vendor_limits: &Arc<VendorLimits>,
        estimate: impl FnOnce() -> TokenEstimate,
    ) -> Result<Option<Permit>, Refusal> {
        if self.unlimited(vendor_limits) {
            return Ok(None);
        }
        if self.waiting.load(Ordering::Relaxed) > 0 {
            return Err(Refusal { cause: Cause::Waiting, wait: None });
        }
        let estimate = self.tokens_of(vendor_limits, estimate);
        self.take(&mut self.state().usage, vendor_limits, estimate, Instant::now()).map(Some)
    }

    /// Admits a request, or makes it wait for its turn: at most [`Limits::max_wait`] and no longer than `deadline`, and
    /// not at all if that is known to be too short. `None`: nothing is limited, and no permit is needed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue; nothing was used.
    pub(in crate::gateway) async fn enter(
        self: &Arc<Self>,
        vendor_limits: &Arc<VendorLimits>,
        key: impl FnOnce() -> QueueKey,
        estimate: impl FnOnce() -> TokenEstimate,
        deadline: Instant,
    ) -> Result<Option<Permit>, Refusal> {
        if self.unlimited(vendor_limits) {
            return Ok(None);
        }
        let (estimate, since) = (self.tokens_of(vendor_limits, estimate), Instant::now());
        let until = deadline.min(since + self.limits.max_wait);
        let (queued, mut granted) = {
            let mut state = self.state();
            if state.queue.is_empty() {
                match self.take(&mut state.usage, vendor_limits, estimate, since) {
                    Ok(permit) => return Ok(Some(permit)),
                    Err(refusal) if self.hopeless(refusal, until - since) => return Err(refusal),
                    Err(_) => {}
                }
            }
            self.join(&mut state.queue, key(), vendor_limits, estimate)?
        };
        // The requests ahead may be waiting for another model's limits; then this one is admitted at once.
        self.pump();
        let granted = loop {
            if let Ok(permit) = granted.try_recv() {
                break Ok(permit);
            }
            let now = Instant::now();
            let refusal = match self.refusal(&mut self.state().usage, vendor_limits, estimate, now) {
                Some(refusal) if now >= until || self.hopeless(refusal, until - now) => break Err(refusal),
                None if now >= until => break Err(Refusal { cause: Cause::Concurrency, wait: None }),
                refusal => refusal,
            };
            let wake = refusal.and_then(|refusal| refusal.wait).map_or(until, |wait| until.min(now + wait.max(TICK)));
            tokio::select! {
                biased;
                granted = &mut granted => break granted.map_err(|_| Refusal { cause: Cause::Waiting, wait: None }),
                () = sleep_until(wake) => self.pump(),
            }
        };
        drop(queued);
        let waited = since.elapsed();
        if let Some(gauges) = self.gauges.get() {
            gauges.wait.observe(waited.as_secs_f64());
        }
        granted.map(|mut permit| {
            permit.waited = waited;
            Some(permit)
        })
    }

    fn hopeless(&self, refusal: Refusal, left: Duration) -> bool {
        left.is_zero() || refusal.wait.is_some_and(|wait| wait > left)
    }

    /// Reason to keep a request out now; `None` = no reason. Rates come first, because their waiting time is known.
    fn refusal(
        &self,
        usage: &mut Usage,
        vendor_limits: &VendorLimits,
        estimate: TokenEstimate,
        now: Instant,
    ) -> Option<Refusal> {
        let waits = [
            (Cause::Vendor, vendor_limits.wait(estimate, now)),
            (Cause::Requests, usage.requests.as_mut().map_or(Duration::ZERO, |window| window.wait(1, now))),
            (Cause::Tokens, usage.tokens.as_mut().map_or(Duration::ZERO, |window| window.wait(estimate.tokens(), now))),
        ];
        if let Some((cause, wait)) = waits.into_iter().filter(|(_, wait)| !wait.is_zero()).max_by_key(|(_, wait)| *wait)
        {
            return Some(Refusal { cause, wait: Some(wait) });
        }
        let full = self.limits.concurrency.is_some_and(|most| usage.slots >= most);
        full.then_some(Refusal { cause: Cause::Concurrency, wait: None })
    }

    fn take(
        self: &Arc<Self>,
        usage: &mut Usage,
        vendor_limits: &Arc<VendorLimits>,
        estimate: TokenEstimate,
        now: Instant,
    ) -> Result<Permit, Refusal> {
        if let Some(refusal) = self.refusal(usage, vendor_limits, estimate, now) {
            return Err(refusal);
        }
        usage.slots += 1;
        vendor_limits.take(estimate, now);
        let counted = [
            usage.requests.as_mut().map(|window| window.add(1, now)),
            usage.tokens.as_mut().map(|window| window.add(estimate.tokens(), now)),
        ];
        let (limiter, vendor_limits) = (Arc::clone(self), Arc::clone(vendor_limits));
        Ok(Permit { limiter, vendor_limits, estimate, counted, amount: None, sent: false, waited: Duration::ZERO })
    }

    /// Queues a request. A full queue makes room by refusing the newest request of the key that has most in it.
    fn join(
        self: &Arc<Self>,
        queue: &mut FairQueue<Permit>,
        key: QueueKey,
        vendor_limits: &Arc<VendorLimits>,
        estimate: TokenEstimate,
    ) -> Result<(Queued, oneshot::Receiver<Permit>), Refusal> {
        if self.waiting.load(Ordering::Relaxed) >= self.limits.max_waiting {
            if let Some(gauges) = self.gauges.get() {
                gauges.dropped.inc();
            }
            if !queue.make_room(&key) {
                return Err(Refusal { cause: Cause::Waiting, wait: None });
            }
        }
        let (ticket, granted) = queue.join(&key, vendor_limits, estimate);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(gauges) = self.gauges.get() {
            gauges.depth.inc();
        }
        Ok((Queued { limiter: Arc::clone(self), key, ticket }, granted))
    }

    /// Admits the requests that may go now.
    pub(in crate::gateway) fn pump(self: &Arc<Self>) {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let granted = {
            let now = Instant::now();
            let State { usage, queue } = &mut *self.state();
            queue.serve(|vendor_limits, estimate| self.take(usage, vendor_limits, estimate, now))
        };
        for (grant, permit) in granted {
            // If the receiver is gone, the permit is dropped and thereby given back.
            let _ = grant.send(permit);
        }
    }
}

/// A request's place in the queue; given up on drop.
struct Queued {
    limiter: Arc<Limiter>,
    key: QueueKey,
    ticket: u64,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.limiter.state().queue.leave(&self.key, self.ticket);
        self.limiter.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(gauges) = self.limiter.gauges.get() {
            gauges.depth.dec();
        }
        // The others may have been waiting behind this request.
        self.limiter.pump();
    }
}

#[cfg(test)]
mod tests;
