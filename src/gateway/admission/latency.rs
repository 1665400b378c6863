//! How fast an endpoint's model answers: quantiles of its newest times to the first token, for hedging, and a peak EWMA
//! of them, for balancing (a slow answer raises it at once, and it decays with time).
//!
//! Knows no model and no endpoint. Updated on the path of every request: no lock, no allocation.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Number of answers remembered.
const REMEMBERED: usize = 128;
/// Minimum number of answers for a quantile.
const ENOUGH: usize = 20;
/// Time constant of the mean's decay, in seconds.
const FORGETS: f64 = 10.0;
/// Value of an unknown or decayed mean, us: low, so that the model is tried.
const UNKNOWN_US: f64 = 1_000.0;
/// Minimum time that a failure counts as.
const FAILURE: Duration = Duration::from_secs(5);

/// Latency of one endpoint's model.
#[derive(Debug, Default)]
pub(in crate::gateway) struct LatencyTracker {
    streamed: Recent,
    /// Plain answers arrive whole, which takes longer.
    whole: Recent,
    mean: Mean,
    pending: AtomicU32,
}

/// The newest times, us; 0 = empty.
#[derive(Debug)]
struct Recent {
    next: AtomicUsize,
    times: [AtomicU32; REMEMBERED],
}

impl Default for Recent {
    fn default() -> Self {
        Self { next: AtomicUsize::new(0), times: std::array::from_fn(|_| AtomicU32::new(0)) }
    }
}

impl Recent {
    fn add(&self, time: Duration) {
        let position = self.next.fetch_add(1, Ordering::Relaxed) % REMEMBERED;
        self.times[position].store(micros(time).max(1), Ordering::Relaxed);
    }

    fn quantile(&self, quantile: f64) -> Option<Duration> {
        let mut known = [0; REMEMBERED];
        let mut count = 0;
        for time in &self.times {
            let time = time.load(Ordering::Relaxed);
            if time > 0 {
                known[count] = time;
                count += 1;
            }
        }
        if count < ENOUGH {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank is below 128"
        )]
        let rank = (quantile * (count - 1) as f64).ceil() as usize;
        let (_, time, _) = known[..count].select_nth_unstable(rank.min(count - 1));
        Some(Duration::from_micros(u64::from(*time)))
    }
}

/// A peak-sensitive mean: us in the high half, ms of its last update (see [`clock`]) in the low half; 0 = none.
#[derive(Debug, Default)]
struct Mean(AtomicU64);

/// Milliseconds since the first call in this process; wraps after 49 days, which costs one wrong estimate.
fn clock(now: Instant) -> u32 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(|| now);
    #[expect(clippy::cast_possible_truncation, reason = "the clock wraps after 49 days")]
    let ms = now.saturating_duration_since(start).as_millis() as u32;
    ms
}

impl Mean {
    fn add(&self, time: Duration, now: Instant) {
        let (time, ms) = (micros(time).max(1), clock(now));
        let step = |packed| {
            let decayed = Self::decayed(packed, ms);
            // A higher value counts at once; a lower one counts the more, the older the mean is.
            let weight = weight(packed, ms);
            let mean = if f64::from(time) > decayed {
                f64::from(time)
            } else {
                f64::from(Self::mean(packed)) * weight + f64::from(time) * (1.0 - weight)
            };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a mean of u32 values fits into u32"
            )]
            let mean = (mean as u32).max(1);
            Some(u64::from(mean) << 32 | u64::from(ms))
        };
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    fn mean(packed: u64) -> u32 {
        u32::try_from(packed >> 32).unwrap_or(u32::MAX)
    }

    fn decayed(packed: u64, ms: u32) -> f64 {
        f64::from(Self::mean(packed)) * weight(packed, ms)
    }

    fn now(&self, now: Instant) -> f64 {
        Self::decayed(self.0.load(Ordering::Relaxed), clock(now))
    }
}

/// Weight that a mean still has at its age.
fn weight(packed: u64, ms: u32) -> f64 {
    #[expect(clippy::cast_possible_truncation, reason = "only the low 32 bits are used")]
    let age = ms.wrapping_sub(packed as u32);
    // A clock read on another thread may be slightly older; the age is then zero.
    let age = if age > u32::MAX / 2 { 0 } else { age };
    (-f64::from(age) / 1e3 / FORGETS).exp()
}

impl LatencyTracker {
    /// Records the time to a first token or to a whole plain answer; or the time after which a slower attempt was
    /// abandoned, as a lower bound.
    pub(in crate::gateway) fn answered(&self, streamed: bool, time: Duration, now: Instant) {
        if streamed { &self.streamed } else { &self.whole }.add(time);
        self.mean.add(time, now);
    }

    /// Records a failure; a fast failure does not make the model fast.
    pub(in crate::gateway) fn failed(&self, time: Duration, now: Instant) {
        self.mean.add(time.max(FAILURE), now);
    }

    /// The time within which this share of the newest answers arrived; `None` while too few are known.
    pub(in crate::gateway) fn quantile(&self, streamed: bool, quantile: f64) -> Option<Duration> {
        if streamed { &self.streamed } else { &self.whole }.quantile(quantile)
    }

    /// Expected time of a request here, us, scaled by the requests in progress.
    pub(in crate::gateway) fn load(&self, now: Instant) -> f64 {
        self.mean.now(now).max(UNKNOWN_US) * f64::from(self.pending.load(Ordering::Relaxed).saturating_add(1))
    }

    /// Counts a request as in progress.
    pub(in crate::gateway) fn begin(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request as ended.
    pub(in crate::gateway) fn end(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Limits how many of an endpoint's requests may be hedged: one in twenty, and at most ten in a row.
#[derive(Debug, Default)]
pub(in crate::gateway) struct HedgeAllowance(AtomicI32);

impl HedgeAllowance {
    /// Requests per hedge: 5 %.
    const EACH: i32 = 20;
    /// Maximum that is saved up, in requests: a slow minute after a day without hedges must not double every request.
    const SAVED: i32 = 10 * Self::EACH;

    /// Counts a request that goes out.
    pub(in crate::gateway) fn earn(&self) {
        let step = |saved| (saved < Self::SAVED).then_some(saved + 1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    /// Takes a hedge; returns false if none is left.
    pub(in crate::gateway) fn spend(&self) -> bool {
        let step = |saved| (saved >= Self::EACH).then_some(saved - Self::EACH);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok()
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_needs_enough_answers_and_counts_the_newest() {
        let latency = LatencyTracker::default();
        let now = Instant::now();
        for ms in 1..=19 {
            latency.answered(true, Duration::from_millis(ms), now);
        }
        assert_eq!(latency.quantile(true, 0.5), None);
        for ms in 20..=100 {
            latency.answered(true, Duration::from_millis(ms), now);
        }
        assert_eq!(latency.quantile(true, 0.5), Some(Duration::from_millis(51)));
        assert_eq!(latency.quantile(true, 0.95), Some(Duration::from_millis(96)));
        assert_eq!(latency.quantile(false, 0.5), None, "plain answers have a time of their own");
        for _ in 0..REMEMBERED {
            latency.answered(true, Duration::from_millis(7), now);
        }
        assert_eq!(latency.quantile(true, 0.99), Some(Duration::from_millis(7)));
    }

    #[test]
    fn peak_raises_the_mean_at_once_and_decays_slowly() {
        let latency = LatencyTracker::default();
        let now = Instant::now();
        let is = |after: u64, us: f64| {
            let load = latency.load(now + Duration::from_secs(after));
            assert!((load - us).abs() <= us * 0.01 + 1.0, "{load} after {after} s, not {us}");
        };
        is(0, UNKNOWN_US);
        latency.answered(true, Duration::from_millis(100), now);
        is(0, 100_000.0);
        latency.answered(true, Duration::from_secs(3), now);
        is(0, 3_000_000.0);
        is(10, 3_000_000.0 / std::f64::consts::E);
        latency.begin();
        is(0, 6_000_000.0);
        latency.end();
        latency.answered(true, Duration::from_millis(100), now + Duration::from_secs(60));
        // By then the peak of 3 s has almost decayed.
        assert!(latency.load(now + Duration::from_secs(60)) < 120_000.0);
        latency.failed(Duration::from_millis(1), now + Duration::from_secs(60));
        is(60, 5_000_000.0);
    }

    #[test]
    fn hedges_are_one_in_twenty_and_ten_in_a_row_at_most() {
        let allowance = HedgeAllowance::default();
        let mut hedged = 0;
        for request in 1..=1000 {
            allowance.earn();
            hedged += i32::from(allowance.spend());
            assert!(hedged * 20 <= request);
        }
        assert_eq!(hedged, 50);
        for _ in 0..100_000 {
            allowance.earn();
        }
        assert_eq!((0..100).filter(|_| allowance.spend()).count(), 10);
    }
}
