//! Spending limits, per call and per day: money is reserved before each attempt, settled after it, and released if the
//! attempt cost nothing. So concurrent requests together cannot exceed a limit.
//!
//! Knows no ledger and no model: the caller provides what was spent before, and a model's price. A day is a UTC day. If
//! no price is known, nothing is counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::token_estimate::TokenEstimate;
use crate::base::sync::lock;
use crate::base::time::unix_ms;
use crate::base::tokens::Ratio;
use crate::gateway::code::Code;
use crate::gateway::error::GatewayError;
use crate::gateway::price::{self, Price};
use crate::llm::ChatRequest;
use crate::types::CallId;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Maximum number of calls whose sum is kept in memory; the sums of others are read again with [`SpentByCall`].
const MAX_CALLS: usize = 65_536;

/// Stands for an amount that is not known yet: larger than any limit, so that no limit is exceeded.
pub const UNKNOWN_SPENT: i64 = i64::MAX / 4;

/// Returns what a call has spent before, in pico-dollars.
pub type SpentByCall = Box<dyn Fn(&CallId) -> i64 + Send + Sync>;

/// Returns the time, Unix ms.
type Clock = Box<dyn Fn() -> i64 + Send + Sync>;

/// The spending limits, and the amounts spent and reserved.
pub struct Budget {
    clock: Clock,
    /// Set if any limit is configured; without one, a request does not take the lock.
    capped: AtomicBool,
    spent_by_call: SpentByCall,
    state: Mutex<State>,
    changed: Notify,
    /// Total amount reserved, US dollars.
    reserved: Gauge<f64, AtomicU64>,
}

#[derive(Default)]
struct State {
    per_call: Option<i64>,
    per_day: Option<i64>,
    day: i64,
    today: Purse,
    calls: HashMap<CallId, Purse>,
    reserved: i64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Purse {
    spent: i64,
    reserved: i64,
}

/// Money reserved for one attempt; the reservation ends on drop.
pub(in crate::gateway) struct Reservation {
    budget: Arc<Budget>,
    call: Option<CallId>,
    day: i64,
    amount: i64,
    estimate: i64,
}

/// Converts US dollars to pico-dollars: a million times the result of `per_million`.
fn pico(usd: f64) -> i64 {
    price::per_million(usd).saturating_mul(1_000_000)
}

/// What is known of the price of an attempt.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct Pricing {
    /// The price in effect.
    pub(in crate::gateway) price: Price,
    /// How the model counts tokens.
    pub(in crate::gateway) ratio: Ratio,
    /// Highest cost of an attempt at this model so far, pico-dollars; `None` before the first whose cost is known.
    pub(in crate::gateway) highest: Option<i64>,
}

/// Outcome of a request for money.
pub(in crate::gateway) enum Reserved {
    /// Nothing is limited, or no price is known.
    Unneeded,
    /// The money is reserved.
    Money(Reservation),
    /// Other requests have reserved the rest and may release some of it.
    Later,
}

/// Bounds of an attempt's cost, in pico-dollars.
#[derive(Debug, Clone, Copy)]
struct Likely {
    /// Amount that must be left if `most` is unknown.
    least: i64,
    /// Amount to reserve: the highest known cost of an attempt at this model. `None` before its first answer: one
    /// attempt then reserves everything that is left, and others wait for it.
    most: Option<i64>,
    /// Amount that counts if the vendor does not report tokens.
    estimate: i64,
}

enum Verdict {
    Reserved(Reservation),
    /// Other requests have reserved the rest and may release some of it.
    Wait,
    Refused(&'static str, i64),
}

impl Budget {
    /// Creates the limits, in US dollars. `spent_today` and `spent_by_call` are the ledger's sums of earlier spending,
    /// in pico-dollars.
    pub fn new(
        usd_per_call: Option<f64>,
        usd_per_day: Option<f64>,
        spent_today: i64,
        spent_by_call: SpentByCall,
    ) -> Self {
        Self::with_clock(usd_per_call, usd_per_day, spent_today, spent_by_call, Box::new(unix_ms))
    }

    /// Like [`Budget::new`], with a clock other than the machine's.
    pub(in crate::gateway) fn with_clock(
        usd_per_call: Option<f64>,
        usd_per_day: Option<f64>,
        spent_today: i64,
        spent_by_call: SpentByCall,
        clock: Clock,
    ) -> Self {
        let today = Purse { spent: spent_today, reserved: 0 };
        let state = State {
            per_call: usd_per_call.map(pico),
            per_day: usd_per_day.map(pico),
            day: clock() / DAY_MS,
            today,
            calls: HashMap::new(),
            reserved: 0,
        };
        Self {
            clock,
            capped: AtomicBool::new(usd_per_call.is_some() || usd_per_day.is_some()),
            spent_by_call,
            state: Mutex::new(state),
            changed: Notify::new(),
            reserved: Gauge::default(),
        }
    }

    /// Replaces the limits, in US dollars. Without a limit, spending was not counted here: `spent_today` is the
    /// ledger's sum of it, in pico-dollars.
    pub(in crate::gateway) fn cap(&self, usd_per_call: Option<f64>, usd_per_day: Option<f64>, spent_today: i64) {
        let mut state = self.state();
        if state.per_call.is_none() && state.per_day.is_none() {
            state.day = (self.clock)() / DAY_MS;
            state.today.spent = spent_today;
        }
        if state.per_call.is_none() {
            state.calls.retain(|_, purse| purse.reserved > 0);
        }
        state.per_call = usd_per_call.map(pico);
        state.per_day = usd_per_day.map(pico);
        self.capped.store(usd_per_call.is_some() || usd_per_day.is_some(), Ordering::Relaxed);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Replaces [`UNKNOWN_SPENT`] once the earlier spending is known: `today` is the day's sum, and the sums of calls
    /// are read again.
    pub(in crate::gateway) fn learn(&self, today: i64) {
        let mut state = self.state();
        state.day = (self.clock)() / DAY_MS;
        state.today.spent = today;
        state.calls.retain(|_, purse| purse.reserved > 0);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Reports the reserved amount in `gauge`.
    pub(in crate::gateway) fn metered(self, gauge: Gauge<f64, AtomicU64>) -> Self {
        Self { reserved: gauge, ..self }
    }

    fn hold(&self, state: &mut State, amount: i64) {
        state.reserved = state.reserved.saturating_add(amount);
        self.reserved.set(price::usd(state.reserved));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Resolves once a reservation or a limit has changed since this call; `None` if nothing is limited.
    pub(in crate::gateway) fn watch(&self) -> Option<Notified<'_>> {
        self.capped.load(Ordering::Relaxed).then(|| self.changed.notified())
    }

    /// Reserves money for an attempt.
    ///
    /// # Errors
    /// `budget_exhausted`; the message names the limit.
    pub(in crate::gateway) fn reserve(
        self: &Arc<Self>,
        call: Option<&CallId>,
        pricing: impl FnOnce() -> Option<Pricing>,
        request: &ChatRequest,
    ) -> Result<Reserved, GatewayError> {
        let Some(likely) = self.likely(pricing, request) else { return Ok(Reserved::Unneeded) };
        match self.try_reserve(call, likely) {
            Verdict::Reserved(reservation) => Ok(Reserved::Money(reservation)),
            Verdict::Wait => Ok(Reserved::Later),
            Verdict::Refused(limit, cap) => {
                let cap = price::usd(cap);
                let message = format!("{limit} is {cap} USD, and the rest of it is not enough for this request");
                Err(GatewayError::new(Code::BudgetExhausted, message).temporarily())
            }
        }
    }

    /// The error if other requests did not release their reserved money in time.
    pub(in crate::gateway) fn held_by_others() -> GatewayError {
        let message = "other requests have reserved the rest of limits.usd_per_call or limits.usd_per_day";
        GatewayError::new(Code::BudgetExhausted, message).temporarily()
    }

    /// Reserves money if it is available now; `Err` if it is not.
    pub(in crate::gateway) fn reserve_now(
        self: &Arc<Self>,
        call: Option<&CallId>,
        pricing: impl FnOnce() -> Option<Pricing>,
        request: &ChatRequest,
    ) -> Result<Option<Reservation>, ()> {
        let Some(likely) = self.likely(pricing, request) else { return Ok(None) };
        match self.try_reserve(call, likely) {
            Verdict::Reserved(reservation) => Ok(Some(reservation)),
            Verdict::Wait | Verdict::Refused(..) => Err(()),
        }
    }

    /// Estimates the cost of an attempt; `None` if nothing is limited or no price is known.
    fn likely(&self, pricing: impl FnOnce() -> Option<Pricing>, request: &ChatRequest) -> Option<Likely> {
        if !self.capped.load(Ordering::Relaxed) {
            return None;
        }
        let Pricing { price, ratio, highest } = pricing()?;
        let tokens = TokenEstimate::of(request, ratio);
        let estimate = estimate(price, tokens);
        // If the request does not limit the length of its answer, that length is a guess, and a guess is no reason for
        // a refusal: one token is assumed.
        let least = match request.max_tokens {
            Some(_) => estimate,
            None => self::estimate(price, TokenEstimate { output: 1, ..tokens }),
        };
        Some(Likely { least, most: highest.map(|highest| highest.max(least)), estimate })
    }

    fn try_reserve(self: &Arc<Self>, call: Option<&CallId>, likely: Likely) -> Verdict {
        let Likely { least, most: amount, estimate } = likely;
        let mut state = self.state();
        let day = (self.clock)() / DAY_MS;
        if state.day != day {
            state.day = day;
            state.today = Purse::default();
        }
        if let Some(call) = call.filter(|_| state.per_call.is_some())
            && !state.calls.contains_key(call)
        {
            if state.calls.len() >= MAX_CALLS {
                state.calls.retain(|_, purse| purse.reserved > 0);
            }
            let spent = (self.spent_by_call)(call);
            state.calls.insert(call.clone(), Purse { spent, reserved: 0 });
        }
        let of_call = call.and_then(|call| state.calls.get(call)).copied().zip(state.per_call);
        let purses =
            [("limits.usd_per_call", of_call), ("limits.usd_per_day", state.per_day.map(|cap| (state.today, cap)))];
        let mut left = i64::MAX;
        for (limit, purse) in purses {
            let Some((purse, cap)) = purse else { continue };
            let unspent = cap.saturating_sub(purse.spent);
            if unspent < amount.unwrap_or(least).max(1) {
                return Verdict::Refused(limit, cap);
            }
            let free = unspent.saturating_sub(purse.reserved);
            if free < amount.unwrap_or(unspent).max(1) {
                return Verdict::Wait;
            }
            left = left.min(free);
        }
        let amount = amount.unwrap_or(left);
        self.hold(&mut state, amount);
        state.today.reserved = state.today.reserved.saturating_add(amount);
        if let Some(purse) = call.and_then(|call| state.calls.get_mut(call)) {
            purse.reserved = purse.reserved.saturating_add(amount);
        }
        Verdict::Reserved(Reservation { budget: Arc::clone(self), call: call.cloned(), day, amount, estimate })
    }
}

impl Reservation {
    /// Ends the reservation and counts `cost`, in pico-dollars. If the cost is unknown, an attempt that gave tokens
    /// counts as estimated, any other as zero.
    pub(in crate::gateway) fn settle(self, cost: Option<i64>, gave_tokens: bool) {
        let cost = cost.unwrap_or(if gave_tokens { self.estimate } else { 0 });
        let mut state = self.budget.state();
        if state.day == self.day {
            state.today.spent = state.today.spent.saturating_add(cost);
        }
        if let Some(purse) = self.call.as_ref().and_then(|call| state.calls.get_mut(call)) {
            purse.spent = purse.spent.saturating_add(cost);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        self.budget.hold(&mut state, -self.amount);
        if state.day == self.day {
            state.today.reserved = state.today.reserved.saturating_sub(self.amount);
        }
        if let Some(purse) = self.call.as_ref().and_then(|call| state.calls.get_mut(call)) {
            purse.reserved = purse.reserved.saturating_sub(self.amount);
        }
        drop(state);
        self.budget.changed.notify_waiters();
    }
}

/// An upper estimate of a request's cost, in pico-dollars.
pub(in crate::gateway) fn estimate(price: Price, tokens: TokenEstimate) -> i64 {
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    let input = price.input.max(price.cache_write);
    count(tokens.input).saturating_mul(input).saturating_add(count(tokens.output).saturating_mul(price.output))
}
