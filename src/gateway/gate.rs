//! Admission to an endpoint: its concurrency slots (`max_concurrency`), its rates, and the queue before them. The queue
//! is fair between calls: waiting requests are admitted in turns of calls, so that one call's burst does not delay the
//! others.
//!
//! Knows no candidate and no request: it is given what a request needs and what limits the vendor reported for the
//! model. [`turns`] decides whose turn is next. An endpoint without limits has no gate: nothing is locked and nothing
//! is counted.

mod turns;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use self::turns::Turns;
use super::config::Limits;
use super::rate::{Need, Told, Window};
use crate::base::queue::QueueGauges;
use crate::types::CallId;

/// Minimum sleep before rates are checked again.
const TICK: Duration = Duration::from_millis(2);

/// The key that shares one turn: the requests of one call, otherwise those of one client's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Party {
    Call(CallId),
    Key(Option<Arc<str>>),
}

/// Reason why a request is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Places,
    Waiting,
    Requests,
    Tokens,
    Vendor,
}

impl Cause {
    /// Its label in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Places => "max_concurrency",
            Self::Waiting => "max_waiting",
            Self::Requests => "requests_per_minute",
            Self::Tokens => "tokens_per_minute",
            Self::Vendor => "vendor",
        }
    }
}

/// A request that was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) cause: Cause,
    /// Time after which it may be admitted, where that is known.
    pub(super) wait: Option<Duration>,
}

/// The gate of one endpoint.
#[derive(Debug)]
pub(super) struct Gate {
    limits: Limits,
    state: Mutex<State>,
    waiting: AtomicUsize,
    gauges: OnceLock<QueueGauges>,
}

#[derive(Debug)]
struct State {
    room: Room,
    turns: Turns,
}

/// The slots and rates in use.
#[derive(Debug)]
struct Room {
    taken: usize,
    requests: Option<Window>,
    tokens: Option<Window>,
}

/// Permission to send one request; dropping it frees the slot.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Arc<Gate>,
    told: Arc<Told>,
    estimate: Need,
    slots: [Option<u64>; 2],
    /// Amount to settle; `None` before the request was sent, when nothing was used.
    amount: Option<Need>,
    sent: bool,
    /// How long the request waited for the permit.
    pub(super) waited: Duration,
}

impl Permit {
    /// Marks the request as sent: it counts, however it ends.
    pub(super) fn sent(&mut self) {
        self.sent = true;
        self.amount = Some(self.estimate);
    }

    /// Sets what the request used in the end; without this call, the estimate counts.
    pub(super) fn settle(&mut self, amount: Need) {
        self.amount = Some(amount);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let amount = self.amount.unwrap_or(Need::NOTHING);
        self.told.settle(self.estimate, amount);
        {
            let room = &mut self.gate.state().room;
            room.taken = room.taken.saturating_sub(1);
            if let (Some(window), Some(slot), false) = (&mut room.requests, self.slots[0], self.sent) {
                window.settle(slot, 1, 0);
            }
            if let (Some(window), Some(slot)) = (&mut room.tokens, self.slots[1]) {
                window.settle(slot, self.estimate.tokens(), amount.tokens());
            }
        }
        self.gate.pump();
    }
}

impl Gate {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                room: Room {
                    taken: 0,
                    requests: limits.requests.map(Window::new),
                    tokens: limits.tokens.map(Window::new),
                },
                turns: Turns::default(),
            }),
            waiting: AtomicUsize::new(0),
            gauges: OnceLock::new(),
        }
    }

    /// Sets the gauges that show the queue; only the first call has an effect.
    pub(super) fn show(&self, gauges: &QueueGauges) {
        let _ = self.gauges.set(gauges.clone());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if nothing is limited here.
    fn open(&self, told: &Told) -> bool {
        let Limits { places, requests, tokens, .. } = self.limits;
        places.is_none() && requests.is_none() && tokens.is_none() && !told.any()
    }

    /// Admits a request if it need not wait and no other request waits. `None`: nothing is limited, and no permit is
    /// needed.
    pub(super) fn try_enter(
        self: &Arc<Self>,
        told: &Arc<Told>,
        need: impl FnOnce() -> Need,
    ) -> Result<Option<Permit>, Refusal> {
        if self.open(told) {
            return Ok(None);
        }
        if self.waiting.load(Ordering::Relaxed) > 0 {
            return Err(Refusal { cause: Cause::Waiting, wait: None });
        }
        self.take(&mut self.state().room, told, need(), Instant::now()).map(Some)
    }

    /// Admits a request, or makes it wait for its turn: at most [`Limits::max_wait`] and no longer than `deadline`, and
    /// not at all if that is known to be too short. `None`: nothing is limited, and no permit is needed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue; nothing was used.
    pub(super) async fn enter(
        self: &Arc<Self>,
        told: &Arc<Told>,
        party: impl FnOnce() -> Party,
        need: impl FnOnce() -> Need,
        deadline: Instant,
    ) -> Result<Option<Permit>, Refusal> {
        if self.open(told) {
            return Ok(None);
        }
        let (need, since) = (need(), Instant::now());
        let until = deadline.min(since + self.limits.max_wait);
        let (queued, mut granted) = {
            let mut state = self.state();
            if state.turns.is_empty() {
                match self.take(&mut state.room, told, need, since) {
                    Ok(permit) => return Ok(Some(permit)),
                    Err(refusal) if self.hopeless(refusal, until - since) => return Err(refusal),
                    Err(_) => {}
                }
            }
            self.queue(&mut state.turns, party(), told, need)?
        };
        // The requests ahead may be waiting for another model's limits; then this one is admitted at once.
        self.pump();
        let granted = loop {
            if let Ok(permit) = granted.try_recv() {
                break Ok(permit);
            }
            let now = Instant::now();
            let refusal = match self.refusal(&mut self.state().room, told, need, now) {
                Some(refusal) if now >= until || self.hopeless(refusal, until - now) => break Err(refusal),
                None if now >= until => break Err(Refusal { cause: Cause::Places, wait: None }),
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
    fn refusal(&self, room: &mut Room, told: &Told, need: Need, now: Instant) -> Option<Refusal> {
        let waits = [
            (Cause::Vendor, told.wait(need, now)),
            (Cause::Requests, room.requests.as_mut().map_or(Duration::ZERO, |window| window.wait(1, now))),
            (Cause::Tokens, room.tokens.as_mut().map_or(Duration::ZERO, |window| window.wait(need.tokens(), now))),
        ];
        if let Some((cause, wait)) = waits.into_iter().filter(|(_, wait)| !wait.is_zero()).max_by_key(|(_, wait)| *wait)
        {
            return Some(Refusal { cause, wait: Some(wait) });
        }
        let full = self.limits.places.is_some_and(|places| room.taken >= places);
        full.then_some(Refusal { cause: Cause::Places, wait: None })
    }

    fn take(self: &Arc<Self>, room: &mut Room, told: &Arc<Told>, need: Need, now: Instant) -> Result<Permit, Refusal> {
        if let Some(refusal) = self.refusal(room, told, need, now) {
            return Err(refusal);
        }
        room.taken += 1;
        told.take(need, now);
        let slots = [
            room.requests.as_mut().map(|window| window.add(1, now)),
            room.tokens.as_mut().map(|window| window.add(need.tokens(), now)),
        ];
        let (gate, told) = (Arc::clone(self), Arc::clone(told));
        Ok(Permit { gate, told, estimate: need, slots, amount: None, sent: false, waited: Duration::ZERO })
    }

    /// Queues a request. A full queue makes room by refusing the newest request of the party that has most in it.
    fn queue(
        self: &Arc<Self>,
        turns: &mut Turns,
        party: Party,
        told: &Arc<Told>,
        need: Need,
    ) -> Result<(Queued, oneshot::Receiver<Permit>), Refusal> {
        if self.waiting.load(Ordering::Relaxed) >= self.limits.max_waiting {
            if let Some(gauges) = self.gauges.get() {
                gauges.dropped.inc();
            }
            if !turns.make_room(&party) {
                return Err(Refusal { cause: Cause::Waiting, wait: None });
            }
        }
        let (ticket, granted) = turns.join(&party, told, need);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(gauges) = self.gauges.get() {
            gauges.depth.inc();
        }
        Ok((Queued { gate: Arc::clone(self), party, ticket }, granted))
    }

    /// Admits the requests that may go, in turns of calls.
    pub(super) fn pump(self: &Arc<Self>) {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let granted = {
            let now = Instant::now();
            let State { room, turns } = &mut *self.state();
            turns.serve(|told, need| self.take(room, told, need, now))
        };
        for (grant, permit) in granted {
            // If the receiver is gone, the permit is dropped and thereby given back.
            let _ = grant.send(permit);
        }
    }
}

/// A request's place in the queue; given up on drop.
struct Queued {
    gate: Arc<Gate>,
    party: Party,
    ticket: u64,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.gate.state().turns.leave(&self.party, self.ticket);
        self.gate.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(gauges) = self.gate.gauges.get() {
            gauges.depth.dec();
        }
        // The others may have been waiting behind this request.
        self.gate.pump();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: Need = Need { input: 60, output: 40 };

    fn gate(limits: Limits) -> Arc<Gate> {
        Arc::new(Gate::new(limits))
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn places(places: usize) -> Limits {
        Limits { places: Some(places), max_wait: Duration::from_secs(60), ..Limits::default() }
    }

    /// Enters the gate; returns its name with the result.
    fn come(
        gate: &Arc<Gate>,
        name: &'static str,
    ) -> tokio::task::JoinHandle<(&'static str, Result<Option<Permit>, Refusal>)> {
        let gate = Arc::clone(gate);
        tokio::spawn(async move {
            let party = || Party::Key(Some(Arc::from(name)));
            (name, gate.enter(&Arc::default(), party, || NEED, far()).await)
        })
    }

    async fn waiting(gate: &Gate, count: usize) {
        while gate.waiting.load(Ordering::Relaxed) != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_burst_of_one_call_holds_up_no_other() {
        let gate = gate(places(1));
        let told = Arc::default();
        let mut held = gate.try_enter(&told, || NEED).expect("free");
        assert!(held.is_some());
        assert_eq!(gate.try_enter(&told, || NEED).expect_err("taken"), Refusal { cause: Cause::Places, wait: None });
        let mut come_in = Vec::new();
        for (count, name) in ["a", "a", "a", "a", "b", "c", "b"].into_iter().enumerate() {
            come_in.push(come(&gate, name));
            waiting(&gate, count + 1).await;
        }
        let mut order = String::new();
        for left in (0..7).rev() {
            drop(held.take());
            waiting(&gate, left).await;
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
        assert_eq!(gate.state().room.taken, 0);
    }

    #[tokio::test]
    async fn a_full_queue_makes_room_for_a_call_that_has_less_in_it() {
        let gate = gate(Limits { max_waiting: 3, ..places(1) });
        let held = gate.try_enter(&Arc::default(), || NEED).expect("free");
        let mut of_a = Vec::new();
        for count in 1..=3 {
            of_a.push(come(&gate, "a"));
            waiting(&gate, count).await;
        }
        let refused = Refusal { cause: Cause::Waiting, wait: None };
        assert_eq!(come(&gate, "a").await.expect("task").1.expect_err("its own burst"), refused);
        let of_b = come(&gate, "b");
        assert_eq!(of_a.remove(2).await.expect("task").1.expect_err("the newest of a"), refused);
        // A request that goes away leaves no trace.
        for waiter in of_a {
            waiter.abort();
            let _ = waiter.await;
        }
        waiting(&gate, 1).await;
        drop(held);
        assert!(of_b.await.expect("task").1.is_ok());
        let state = gate.state();
        assert_eq!((state.room.taken, state.turns.sizes()), (0, (0, 0)));
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_it_may() {
        let gate = gate(Limits { max_wait: Duration::from_millis(20), ..places(1) });
        let _held = gate.try_enter(&Arc::default(), || NEED).expect("free");
        let refused = come(&gate, "a").await.expect("task").1.expect_err("full");
        assert_eq!(refused, Refusal { cause: Cause::Places, wait: None });
        waiting(&gate, 0).await;
    }

    #[tokio::test]
    async fn rates_that_come_too_late_are_told_at_once_and_what_was_not_sent_is_given_back() {
        let gate = gate(Limits { requests: Some(2), tokens: Some(350), ..Limits::default() });
        let told = Arc::default();
        let enter = async || gate.enter(&told, || Party::Key(None), || NEED, far()).await.map(Option::unwrap);
        let mut first = enter().await.expect("room");
        let unsent = enter().await.expect("room");
        let refusal = enter().await.expect_err("two a minute");
        assert_eq!(refusal.cause, Cause::Requests);
        assert!(refusal.wait.is_some_and(|wait| wait > Duration::from_secs(58)));
        drop(unsent);
        first.sent();
        first.settle(Need { input: 100, output: 200 });
        drop(first);
        assert_eq!(enter().await.expect_err("300 of 350 are used").cause, Cause::Tokens);
    }

    #[tokio::test]
    async fn models_that_wait_for_their_vendor_hold_up_no_other_model() {
        let gate = gate(places(1));
        let held = gate.try_enter(&Arc::default(), || NEED).expect("free");
        let slow = Arc::new(Told::default());
        slow.cool(Duration::from_secs(30), Instant::now());
        let waits = {
            let (gate, slow) = (Arc::clone(&gate), Arc::clone(&slow));
            tokio::spawn(async move { gate.enter(&slow, || Party::Key(None), || NEED, far()).await.is_ok() })
        };
        waiting(&gate, 1).await;
        let other = come(&gate, "b");
        waiting(&gate, 2).await;
        drop(held);
        assert!(other.await.expect("task").1.is_ok());
        assert!(!waits.is_finished());
        waits.abort();
    }
}
