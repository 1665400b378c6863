//! The limiter of an endpoint: its concurrency slots (`max_concurrency`), its rates, and the queue before them. The queue
//! is fair between calls, so that one call's burst does not delay the others.
//!
//! Knows no candidate and no request: it is given an estimate of what a request uses, and the limits that the vendor
//! reported for the model. [`FairQueue`] decides which request is next. At an endpoint without limits nothing is locked
//! and nothing is counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::fair_queue::{FairQueue, QueueKey};
use super::rate_window::RateWindow;
use super::refusal::{Cause, Refusal};
use super::token_estimate::TokenEstimate;
use super::vendor_limits::VendorLimits;
use crate::base::queue::QueueGauges;

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
    /// Where the windows count it: requests, tokens.
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
        self.vendor_limits.settle(self.estimate, amount);
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if nothing is limited here.
    fn unlimited(&self, vendor_limits: &VendorLimits) -> bool {
        let Limits { concurrency, requests, tokens, .. } = self.limits;
        concurrency.is_none() && requests.is_none() && tokens.is_none() && !vendor_limits.any()
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
        self.take(&mut self.state().usage, vendor_limits, estimate(), Instant::now()).map(Some)
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
        let (estimate, since) = (estimate(), Instant::now());
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
mod tests {
    use super::*;

    const NEED: TokenEstimate = TokenEstimate { input: 60, output: 40 };

    fn limiter(limits: Limits) -> Arc<Limiter> {
        Arc::new(Limiter::new(limits))
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn slots(concurrency: usize) -> Limits {
        Limits { concurrency: Some(concurrency), max_wait: Duration::from_secs(60), ..Limits::default() }
    }

    /// Asks for a permit; returns the name with the result.
    fn come(
        limiter: &Arc<Limiter>,
        name: &'static str,
    ) -> tokio::task::JoinHandle<(&'static str, Result<Option<Permit>, Refusal>)> {
        let limiter = Arc::clone(limiter);
        tokio::spawn(async move {
            let key = || QueueKey::Client(Some(Arc::from(name)));
            (name, limiter.enter(&Arc::default(), key, || NEED, far()).await)
        })
    }

    async fn waiting(limiter: &Limiter, count: usize) {
        while limiter.waiting.load(Ordering::Relaxed) != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn burst_of_one_call_delays_no_other_call() {
        let limiter = limiter(slots(1));
        let vendor_limits = Arc::default();
        let mut held = limiter.try_enter(&vendor_limits, || NEED).expect("free");
        assert!(held.is_some());
        assert_eq!(
            limiter.try_enter(&vendor_limits, || NEED).expect_err("taken"),
            Refusal { cause: Cause::Concurrency, wait: None }
        );
        let mut come_in = Vec::new();
        for (count, name) in ["a", "a", "a", "a", "b", "c", "b"].into_iter().enumerate() {
            come_in.push(come(&limiter, name));
            waiting(&limiter, count + 1).await;
        }
        let mut order = String::new();
        for left in (0..7).rev() {
            drop(held.take());
            waiting(&limiter, left).await;
            let served = come_in.iter().position(tokio::task::JoinHandle::is_finished);
            let served = match served {
                Some(served) => served,
                None => {
                    tokio::task::yield_now().await;
                    come_in.iter().position(tokio::task::JoinHandle::is_finished).expect("one is let in")
                }
            };
            let (name, permit) = come_in.remove(served).await.expect("task");
            order.push_str(name);
            held = permit.expect("let in");
        }
        assert_eq!(order, "abcabaa");
        drop(held);
        assert_eq!(limiter.state().usage.slots, 0);
    }

    #[tokio::test]
    async fn full_queue_refuses_the_newest_of_the_longest_call() {
        let limiter = limiter(Limits { max_waiting: 3, ..slots(1) });
        let held = limiter.try_enter(&Arc::default(), || NEED).expect("free");
        let mut of_a = Vec::new();
        for count in 1..=3 {
            of_a.push(come(&limiter, "a"));
            waiting(&limiter, count).await;
        }
        let refused = Refusal { cause: Cause::Waiting, wait: None };
        assert_eq!(come(&limiter, "a").await.expect("task").1.expect_err("its own burst"), refused);
        let of_b = come(&limiter, "b");
        assert_eq!(of_a.remove(2).await.expect("task").1.expect_err("the newest of a"), refused);
        // A request that goes away leaves no trace.
        for waiter in of_a {
            waiter.abort();
            let _ = waiter.await;
        }
        waiting(&limiter, 1).await;
        drop(held);
        assert!(of_b.await.expect("task").1.is_ok());
        let state = limiter.state();
        assert_eq!((state.usage.slots, state.queue.sizes()), (0, (0, 0)));
    }

    #[tokio::test]
    async fn request_waits_no_longer_than_max_wait() {
        let limiter = limiter(Limits { max_wait: Duration::from_millis(20), ..slots(1) });
        let _held = limiter.try_enter(&Arc::default(), || NEED).expect("free");
        let refused = come(&limiter, "a").await.expect("task").1.expect_err("full");
        assert_eq!(refused, Refusal { cause: Cause::Concurrency, wait: None });
        waiting(&limiter, 0).await;
    }

    #[tokio::test]
    async fn hopeless_rate_is_refused_at_once_and_unsent_requests_are_given_back() {
        let limiter = limiter(Limits { requests: Some(2), tokens: Some(350), ..Limits::default() });
        let vendor_limits = Arc::default();
        let enter =
            async || limiter.enter(&vendor_limits, || QueueKey::Client(None), || NEED, far()).await.map(Option::unwrap);
        let mut first = enter().await.expect("room");
        let unsent = enter().await.expect("room");
        let refusal = enter().await.expect_err("two a minute");
        assert_eq!(refusal.cause, Cause::Requests);
        assert!(refusal.wait.is_some_and(|wait| wait > Duration::from_secs(58)));
        drop(unsent);
        first.sent();
        first.settle(TokenEstimate { input: 100, output: 200 });
        drop(first);
        assert_eq!(enter().await.expect_err("300 of 350 are used").cause, Cause::Tokens);
    }

    #[tokio::test]
    async fn model_waiting_for_its_vendor_delays_no_other_model() {
        let limiter = limiter(slots(1));
        let held = limiter.try_enter(&Arc::default(), || NEED).expect("free");
        let slow = Arc::new(VendorLimits::default());
        slow.cool(Duration::from_secs(30), Instant::now());
        let waits = {
            let (limiter, slow) = (Arc::clone(&limiter), Arc::clone(&slow));
            tokio::spawn(async move { limiter.enter(&slow, || QueueKey::Client(None), || NEED, far()).await.is_ok() })
        };
        waiting(&limiter, 1).await;
        let other = come(&limiter, "b");
        waiting(&limiter, 2).await;
        drop(held);
        assert!(other.await.expect("task").1.is_ok());
        assert!(!waits.is_finished());
        waits.abort();
    }
}
