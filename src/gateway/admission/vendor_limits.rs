//! The limits that a vendor reports with its answers, and the waits that it asks for.
//!
//! A request is counted before it is sent, its tokens by an estimate; the real amount is settled afterwards. Knows no
//! clock and no queue: the caller passes the time and does the waiting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::token_estimate::TokenEstimate;
use crate::base::sync::lock;
use crate::llm::limits::{Limit, Unit};

/// Probe an exhausted limit after at most this long, even if the vendor reports a later reset.
const TRUST: Duration = Duration::from_secs(60);
/// Upper bound on the time after which a limit is fully available again.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest wait that is honoured when a vendor asks for one.
const COOLING: Duration = Duration::from_secs(60 * 60);
/// Resets that are closer together than this belong to the same window.
const SAME: Duration = Duration::from_secs(1);

/// A limit that the vendor reports with its answers.
#[derive(Debug)]
struct Bucket {
    unit: Unit,
    limit: f64,
    level: f64,
    /// Amount that becomes available per second until the full limit is reached; 0 = all at once.
    refill: f64,
    at: Instant,
    whole_at: Instant,
}

impl Bucket {
    fn learned(limit: &Limit, now: Instant) -> Self {
        let whole_at = now + limit.reset.wait(SystemTime::now());
        let whole = limit.limit.unwrap_or(f64::INFINITY);
        let seconds = (whole_at - now).as_secs_f64();
        let refill = match limit.limit {
            Some(whole) if limit.refills && seconds > 0.0 => (whole - limit.remaining).max(0.0) / seconds,
            _ => 0.0,
        };
        Self { unit: limit.unit, limit: whole, level: limit.remaining, refill, at: now, whole_at }
    }

    /// Takes the vendor's newer report. It does not include the requests in progress, so within one window the lower
    /// amount is used.
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

    fn amount(&self, need: TokenEstimate) -> f64 {
        let amount = match self.unit {
            Unit::Requests => 1,
            Unit::Tokens => need.tokens(),
            Unit::InputTokens => need.input,
            Unit::OutputTokens => need.output,
        };
        #[expect(clippy::cast_precision_loss, reason = "the amount is an estimate")]
        let amount = amount as f64;
        amount
    }

    fn wait(&self, need: TokenEstimate, now: Instant) -> Duration {
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
            // Nothing is known about the new window: its limit is assumed to be that of the last one.
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
pub(in crate::gateway) struct VendorLimits {
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

impl VendorLimits {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns true if the vendor has reported anything.
    pub(in crate::gateway) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Records the limits that a response reported.
    pub(in crate::gateway) fn learn(&self, limits: &[Limit], now: Instant) {
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

    /// Records a wait that the vendor asked for. A shorter wait never replaces a longer one.
    pub(in crate::gateway) fn cool(&self, after: Duration, now: Instant) {
        let until = now + after.min(COOLING);
        let mut state = self.state();
        state.cooling_until = Some(state.cooling_until.map_or(until, |known| known.max(until)));
        self.any.store(true, Ordering::Release);
    }

    /// How long until a request may be sent under the vendor's limits; zero = now.
    pub(in crate::gateway) fn wait(&self, need: TokenEstimate, now: Instant) -> Duration {
        let state = self.state();
        let cooling = state.cooling_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        state.buckets.iter().map(|bucket| bucket.wait(need, now)).max().unwrap_or_default().max(cooling)
    }

    /// Counts a request that is sent.
    pub(in crate::gateway) fn take(&self, need: TokenEstimate, now: Instant) {
        for bucket in &mut self.state().buckets {
            let amount = bucket.amount(need);
            bucket.take(amount, now);
        }
    }

    /// Replaces the estimate with the real number of tokens.
    pub(in crate::gateway) fn settle(&self, estimate: TokenEstimate, amount: TokenEstimate) {
        for bucket in &mut self.state().buckets {
            bucket.give_back(bucket.amount(estimate) - bucket.amount(amount));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::RetryAfter;

    const NEED: TokenEstimate = TokenEstimate { input: 60, output: 40 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn limit(unit: Unit, limit: f64, remaining: f64, reset: u64, refills: bool) -> Limit {
        Limit { unit, limit: Some(limit), remaining, reset: RetryAfter::In(seconds(reset)), refills }
    }

    #[test]
    fn reported_limit_holds_until_its_reset() {
        let vendor_limits = VendorLimits::default();
        let now = Instant::now();
        assert!(!vendor_limits.any());
        vendor_limits.learn(&[limit(Unit::Requests, 30.0, 2.0, 40, false)], now);
        assert!(vendor_limits.any());
        for _ in 0..2 {
            assert_eq!(vendor_limits.wait(NEED, now), Duration::ZERO);
            vendor_limits.take(NEED, now);
        }
        assert_eq!(vendor_limits.wait(NEED, now), seconds(40));
        // An older report does not include our newest requests; a new window starts a new count.
        vendor_limits.learn(&[limit(Unit::Requests, 30.0, 1.0, 40, false)], now);
        assert_eq!(vendor_limits.wait(NEED, now), seconds(40));
        assert_eq!(vendor_limits.wait(NEED, now + seconds(40)), Duration::ZERO);
        vendor_limits.learn(&[limit(Unit::Requests, 30.0, 29.0, 60, false)], now + seconds(41));
        assert_eq!(vendor_limits.wait(NEED, now + seconds(41)), Duration::ZERO);
    }

    #[test]
    fn refilling_limit_waits_for_the_missing_amount() {
        let vendor_limits = VendorLimits::default();
        let now = Instant::now();
        // 600 per minute, all used: ten become free each second.
        vendor_limits.learn(&[limit(Unit::Tokens, 600.0, 0.0, 60, true)], now);
        assert_eq!(vendor_limits.wait(NEED, now), seconds(10));
        assert_eq!(vendor_limits.wait(NEED, now + seconds(10)), Duration::ZERO);
        vendor_limits.take(NEED, now + seconds(10));
        assert_eq!(vendor_limits.wait(NEED, now + seconds(10)), seconds(10));
        vendor_limits.settle(NEED, TokenEstimate { input: 10, output: 40 });
        assert_eq!(vendor_limits.wait(NEED, now + seconds(10)), seconds(5));
        // A daily quota is probed again after a minute.
        vendor_limits.learn(&[limit(Unit::Requests, 10.0, 0.0, 86_400, false)], now + seconds(20));
        assert_eq!(vendor_limits.wait(NEED, now + seconds(20)), TRUST);
    }

    #[test]
    fn longer_cooling_is_not_cut_short() {
        let vendor_limits = VendorLimits::default();
        let now = Instant::now();
        vendor_limits.cool(seconds(9), now);
        vendor_limits.cool(seconds(1), now);
        assert_eq!(vendor_limits.wait(NEED, now), seconds(9));
        assert_eq!(vendor_limits.wait(NEED, now + seconds(9)), Duration::ZERO);
    }
}
