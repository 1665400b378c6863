//! Rates: how many requests and tokens per minute an endpoint may be sent, by the configuration and by the limits that
//! the vendor reports.
//!
//! A request is counted before it is sent, its tokens by an estimate; the real amount is settled afterwards. Knows no
//! clock and no queue: the caller passes the time and does the waiting.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::llm::limits::{Limit, Unit};
use crate::llm::{ChatRequest, Content, RetryAfter};

/// Period of a configured limit.
const MINUTE: Duration = Duration::from_secs(60);
/// Resolution of the period; a use may count for this much longer than a minute.
const SLOT: Duration = Duration::from_millis(100);
/// Probe an exhausted limit after at most this long, even if the vendor reports a later reset.
const TRUST: Duration = Duration::from_secs(60);
/// Upper bound on a time that a vendor reports, in seconds or as a date, so that a bad value can neither block requests
/// forever nor overflow `Instant`.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest wait that is honoured when a vendor asks for one.
const COOLING: Duration = Duration::from_secs(60 * 60);
/// Resets that are closer together than this belong to the same window.
const SAME: Duration = Duration::from_secs(1);
/// Assumed maximum length of an answer in tokens, if the request does not limit it.
const OUTPUT_TOKENS: u64 = 1024;

/// The tokens that a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) input: u64,
    pub(super) output: u64,
}

impl Need {
    /// An upper estimate: one token per three bytes of prompt, and all tokens that the answer may have.
    pub(super) fn of(request: &ChatRequest) -> Self {
        let bytes: usize = request
            .messages
            .iter()
            .map(|message| match &message.content {
                Content::Text(text) => text.len(),
                Content::None => 0,
                Content::Parts(parts) => parts.iter().map(|part| part.to_string().len()).sum(),
            })
            .sum();
        let output = request.max_tokens.unwrap_or(OUTPUT_TOKENS).saturating_mul(u64::from(request.n.unwrap_or(1)));
        Self { input: bytes as u64 / 3 + 16, output }
    }

    pub(super) const NOTHING: Self = Self { input: 0, output: 0 };

    pub(super) fn tokens(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// A configured limit: never more than that in any minute, however the vendor counts.
#[derive(Debug)]
pub(super) struct Window {
    limit: u64,
    start: Instant,
    used: u64,
    /// Uses by time slot, oldest first.
    slots: VecDeque<(u64, u64)>,
}

impl Window {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, start: Instant::now(), used: 0, slots: VecDeque::new() }
    }

    fn slot(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis() / SLOT.as_millis()).unwrap_or(u64::MAX)
    }

    /// When the uses of a slot no longer count.
    fn over(&self, slot: u64) -> Instant {
        self.start + SLOT.saturating_mul(u32::try_from(slot.saturating_add(1)).unwrap_or(u32::MAX)) + MINUTE
    }

    /// How long until `amount` fits; zero = now. An amount above the limit itself fits when nothing else is counted.
    pub(super) fn wait(&mut self, amount: u64, now: Instant) -> Duration {
        while let Some((slot, used)) = self.slots.front().copied()
            && now >= self.over(slot)
        {
            self.used = self.used.saturating_sub(used);
            self.slots.pop_front();
        }
        let room = self.limit - amount.min(self.limit);
        let mut used = self.used;
        let mut until = now;
        for &(slot, freed) in &self.slots {
            if used <= room {
                break;
            }
            used = used.saturating_sub(freed);
            until = self.over(slot);
        }
        until - now
    }

    /// Counts `amount`. Returns the slot, which [`Self::settle`] needs.
    pub(super) fn add(&mut self, amount: u64, now: Instant) -> u64 {
        let slot = self.slot(now);
        self.used = self.used.saturating_add(amount);
        if let Some((last, used)) = self.slots.back_mut()
            && *last >= slot
        {
            *used = used.saturating_add(amount);
            return *last;
        }
        self.slots.push_back((slot, amount));
        slot
    }

    /// Replaces the estimate in a slot with the real amount.
    pub(super) fn settle(&mut self, slot: u64, estimate: u64, amount: u64) {
        // A slot that no longer counts needs no settling.
        let Some((_, used)) = self.slots.iter_mut().find(|(known, _)| *known == slot) else { return };
        let settled = used.saturating_add(amount).saturating_sub(estimate);
        self.used = self.used.saturating_add(settled).saturating_sub(*used);
        *used = settled;
    }
}

/// A limit that the vendor reports with its answers.
#[derive(Debug)]
struct Bucket {
    unit: Unit,
    limit: f64,
    level: f64,
    /// Amount that comes back per second until the limit is whole; 0 = all at once.
    refill: f64,
    at: Instant,
    whole_at: Instant,
}

impl Bucket {
    fn learned(limit: &Limit, now: Instant) -> Self {
        let whole_at = now + from_now(limit.reset);
        let whole = limit.limit.unwrap_or(f64::INFINITY);
        let seconds = (whole_at - now).as_secs_f64();
        let refill = match limit.limit {
            Some(whole) if limit.refills && seconds > 0.0 => (whole - limit.remaining).max(0.0) / seconds,
            _ => 0.0,
        };
        Self { unit: limit.unit, limit: whole, level: limit.remaining, refill, at: now, whole_at }
    }

    /// Takes the vendor's newer report, which does not include the requests in progress: within one window, the lower
    /// level is right.
    fn update(&mut self, newer: Self) {
        let between = if newer.whole_at > self.whole_at {
            newer.whole_at - self.whole_at
        } else {
            self.whole_at - newer.whole_at
        };
        let same = newer.refill > 0.0 || between < SAME;
        let level = if same { newer.level.min(self.level(newer.at)) } else { newer.level };
        *self = Self { level, ..newer };
    }

    fn level(&self, now: Instant) -> f64 {
        if now >= self.whole_at {
            return self.limit;
        }
        (self.level + self.refill * now.saturating_duration_since(self.at).as_secs_f64()).min(self.limit)
    }

    fn amount(&self, need: Need) -> f64 {
        let amount = match self.unit {
            Unit::Requests => 1,
            Unit::Tokens => need.tokens(),
            Unit::InputTokens => need.input,
            Unit::OutputTokens => need.output,
        };
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let amount = amount as f64;
        amount
    }

    fn wait(&self, need: Need, now: Instant) -> Duration {
        let missing = self.amount(need).min(self.limit) - self.level(now);
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        let whole = self.whole_at.saturating_duration_since(now).min(TRUST.saturating_sub(now - self.at));
        if self.refill > 0.0 {
            Duration::try_from_secs_f64(missing / self.refill).unwrap_or(whole).min(whole)
        } else {
            whole
        }
    }

    fn take(&mut self, amount: f64, now: Instant) {
        let more = if self.refill > 0.0 {
            Duration::try_from_secs_f64(amount / self.refill).unwrap_or(TRUST).min(LONGEST)
        } else {
            Duration::ZERO
        };
        if now >= self.whole_at {
            // Nothing is known yet of the new window: it is assumed to be like the last one.
            self.level = self.limit;
            self.whole_at = now + if self.refill > 0.0 { more } else { TRUST };
        } else {
            self.level = self.level(now);
            self.whole_at += more;
        }
        self.level -= amount;
        self.at = self.at.max(now);
    }

    fn give_back(&mut self, amount: f64) {
        self.level += amount;
    }
}

/// The limits that a vendor has reported for an endpoint's model.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Set once anything was reported.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    buckets: Vec<Bucket>,
    /// No request is sent before this time, because the vendor asked for the wait.
    cooling_until: Option<Instant>,
}

impl Told {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if the vendor has reported anything.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes the limits that came with an answer.
    pub(super) fn learn(&self, limits: &[Limit], now: Instant) {
        if limits.is_empty() {
            return;
        }
        let mut state = self.state();
        for limit in limits {
            let newer = Bucket::learned(limit, now);
            match state.buckets.iter_mut().find(|known| known.unit == limit.unit) {
                Some(known) => known.update(newer),
                None => state.buckets.push(newer),
            }
        }
        self.any.store(true, Ordering::Release);
    }

    /// Takes a wait that the vendor asked for. A shorter wait never replaces a longer one.
    pub(super) fn cool(&self, after: Duration, now: Instant) {
        let until = now + after.min(COOLING);
        let mut state = self.state();
        state.cooling_until = Some(state.cooling_until.map_or(until, |known| known.max(until)));
        self.any.store(true, Ordering::Release);
    }

    /// How long until a request may be sent under the vendor's limits; zero = now.
    pub(super) fn wait(&self, need: Need, now: Instant) -> Duration {
        let state = self.state();
        let cooling = state.cooling_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        state.buckets.iter().map(|bucket| bucket.wait(need, now)).max().unwrap_or_default().max(cooling)
    }

    /// Counts a request that is sent.
    pub(super) fn take(&self, need: Need, now: Instant) {
        for bucket in &mut self.state().buckets {
            let amount = bucket.amount(need);
            bucket.take(amount, now);
        }
    }

    /// Replaces the estimate with the real number of tokens.
    pub(super) fn settle(&self, estimate: Need, amount: Need) {
        for bucket in &mut self.state().buckets {
            bucket.give_back(bucket.amount(estimate) - bucket.amount(amount));
        }
    }
}

/// Converts a time reported by a vendor to a wait from now, of at most [`LONGEST`].
pub(super) fn from_now(after: RetryAfter) -> Duration {
    let wait = match after {
        RetryAfter::In(duration) => duration,
        RetryAfter::At(time) => time.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    wait.min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: Need = Need { input: 60, output: 40 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn limit(unit: Unit, limit: f64, remaining: f64, reset: u64, refills: bool) -> Limit {
        Limit { unit, limit: Some(limit), remaining, reset: RetryAfter::In(seconds(reset)), refills }
    }

    #[test]
    fn no_minute_holds_more_than_the_limit() {
        let mut window = Window::new(10);
        let start = window.start;
        let mut sent = Vec::new();
        let mut now = start;
        // Sends as fast as the window allows, for five minutes.
        while now < start + seconds(300) {
            match window.wait(3, now) {
                Duration::ZERO => {
                    window.add(3, now);
                    sent.push(now);
                    now += Duration::from_millis(700);
                }
                wait => now += wait,
            }
        }
        for (index, first) in sent.iter().enumerate() {
            let within = sent[index..].iter().filter(|at| **at < *first + MINUTE).count();
            assert!(within <= 3, "{within} in one minute");
        }
        assert!(sent.len() >= 14, "and hardly less than it: {}", sent.len());
    }

    #[test]
    fn estimates_are_settled_and_giants_go_alone() {
        let mut window = Window::new(1000);
        let start = window.start;
        let slot = window.add(900, start);
        assert!(window.wait(200, start) > seconds(59));
        window.settle(slot, 900, 100);
        assert_eq!(window.wait(900, start), Duration::ZERO);
        assert!(window.wait(5000, start) > seconds(59), "not beside another");
        assert_eq!(window.wait(5000, start + seconds(61)), Duration::ZERO);
        // A settlement after the end of the minute changes nothing.
        window.settle(slot, 100, 5000);
        assert_eq!(window.wait(1000, start + seconds(61)), Duration::ZERO);
    }

    #[test]
    fn what_the_vendor_tells_is_kept() {
        let told = Told::default();
        let now = Instant::now();
        assert!(!told.any());
        told.learn(&[limit(Unit::Requests, 30.0, 2.0, 40, false)], now);
        assert!(told.any());
        for _ in 0..2 {
            assert_eq!(told.wait(NEED, now), Duration::ZERO);
            told.take(NEED, now);
        }
        assert_eq!(told.wait(NEED, now), seconds(40));
        // An older report does not include our newest requests; a new window starts a new count.
        told.learn(&[limit(Unit::Requests, 30.0, 1.0, 40, false)], now);
        assert_eq!(told.wait(NEED, now), seconds(40));
        assert_eq!(told.wait(NEED, now + seconds(40)), Duration::ZERO);
        told.learn(&[limit(Unit::Requests, 30.0, 29.0, 60, false)], now + seconds(41));
        assert_eq!(told.wait(NEED, now + seconds(41)), Duration::ZERO);
    }

    #[test]
    fn a_limit_that_refills_is_waited_for_as_long_as_it_takes() {
        let told = Told::default();
        let now = Instant::now();
        // 600 a minute, empty: ten come back each second.
        told.learn(&[limit(Unit::Tokens, 600.0, 0.0, 60, true)], now);
        assert_eq!(told.wait(NEED, now), seconds(10));
        assert_eq!(told.wait(NEED, now + seconds(10)), Duration::ZERO);
        told.take(NEED, now + seconds(10));
        assert_eq!(told.wait(NEED, now + seconds(10)), seconds(10));
        told.settle(NEED, Need { input: 10, output: 40 });
        assert_eq!(told.wait(NEED, now + seconds(10)), seconds(5));
        // A daily quota is probed again after a minute.
        told.learn(&[limit(Unit::Requests, 10.0, 0.0, 86_400, false)], now + seconds(20));
        assert_eq!(told.wait(NEED, now + seconds(20)), TRUST);
    }

    #[test]
    fn a_longer_cooling_is_never_cut_short() {
        let told = Told::default();
        let now = Instant::now();
        told.cool(seconds(9), now);
        told.cool(seconds(1), now);
        assert_eq!(told.wait(NEED, now), seconds(9));
        assert_eq!(told.wait(NEED, now + seconds(9)), Duration::ZERO);
    }
}
