//! How fast an endpoint's model answers: its own time to the first token, newest first in mind. For hedging (a quantile
//! of it) and for balancing (a mean that a slow answer raises at once and time lowers).
//!
//! Written on the way of every request: no lock, no allocation.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Answers that are remembered.
const REMEMBERED: usize = 128;
/// Fewer answers than this have no quantile.
const ENOUGH: usize = 20;
/// How fast the mean forgets.
const FORGETS: f64 = 10.0;
/// What is not known, or has been forgotten, counts as: it will be tried.
const UNKNOWN_US: f64 = 1_000.0;
/// What a failure counts as, at least.
const FAILURE: Duration = Duration::from_secs(5);

/// The pace of one endpoint's model.
#[derive(Debug, Default)]
pub(super) struct Pace {
    streamed: Recent,
    /// Plain answers come whole: theirs is another time.
    whole: Recent,
    mean: Mean,
    pending: AtomicU32,
}

/// The newest times, us; 0 = none yet.
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
            reason = "a rank among 128"
        )]
        let rank = (quantile * (count - 1) as f64).ceil() as usize;
        let (_, time, _) = known[..count].select_nth_unstable(rank.min(count - 1));
        Some(Duration::from_micros(u64::from(*time)))
    }
}

/// A peak-sensitive mean: us in the high half, ms since the start of the process in the low one; 0 = none.
#[derive(Debug, Default)]
struct Mean(AtomicU64);

/// Milliseconds since something in this process asked first; they wrap after 49 days, which costs one wrong guess.
fn clock(now: Instant) -> u32 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(|| now);
    #[expect(clippy::cast_possible_truncation, reason = "it wraps")]
    let ms = now.saturating_duration_since(start).as_millis() as u32;
    ms
}

impl Mean {
    fn add(&self, time: Duration, now: Instant) {
        let (time, ms) = (micros(time).max(1), clock(now));
        let step = |packed| {
            let decayed = Self::decayed(packed, ms);
            // A peak counts at once; what is better counts the more, the older the mean is.
            let weight = weight(packed, ms);
            let mean = if f64::from(time) > decayed {
                f64::from(time)
            } else {
                f64::from(Self::mean(packed)) * weight + f64::from(time) * (1.0 - weight)
            };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of such is such")]
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

/// What is left of a mean's weight.
fn weight(packed: u64, ms: u32) -> f64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    let age = ms.wrapping_sub(packed as u32);
    // A clock read on another thread may be a little older.
    let age = if age > u32::MAX / 2 { 0 } else { age };
    (-f64::from(age) / 1e3 / FORGETS).exp()
}

impl Pace {
    /// A first token came, or a whole answer to a plain request; or it was given up after this long, which is no less.
    pub(super) fn answered(&self, streamed: bool, time: Duration, now: Instant) {
        if streamed { &self.streamed } else { &self.whole }.add(time);
        self.mean.add(time, now);
    }

    /// It failed: whoever fails fast is not fast.
    pub(super) fn failed(&self, time: Duration, now: Instant) {
        self.mean.add(time.max(FAILURE), now);
    }

    /// The time that so much of the newest answers took at most; `None` while too few are known.
    pub(super) fn quantile(&self, streamed: bool, quantile: f64) -> Option<Duration> {
        if streamed { &self.streamed } else { &self.whole }.quantile(quantile)
    }

    /// What a request here may be expected to take, us, the ones on their way considered.
    pub(super) fn load(&self, now: Instant) -> f64 {
        self.mean.now(now).max(UNKNOWN_US) * f64::from(self.pending.load(Ordering::Relaxed).saturating_add(1))
    }

    /// A request goes out.
    pub(super) fn begin(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// It is over.
    pub(super) fn end(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many of an endpoint's requests may be hedged: one in twenty, and a few at once at most.
#[derive(Debug, Default)]
pub(super) struct Allowance(AtomicI32);

impl Allowance {
    /// Requests for each hedge: 5 %.
    const EACH: i32 = 20;
    /// What is saved at most: a bad minute after a quiet day is no reason to double everything.
    const SAVED: i32 = 10 * Self::EACH;

    /// A request goes out.
    pub(super) fn earn(&self) {
        let step = |saved| (saved < Self::SAVED).then_some(saved + 1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    /// Takes a hedge, if there is one.
    pub(super) fn spend(&self) -> bool {
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
    fn quantiles_want_enough_answers_and_forget_the_old() {
        let pace = Pace::default();
        let now = Instant::now();
        for ms in 1..=19 {
            pace.answered(true, Duration::from_millis(ms), now);
        }
        assert_eq!(pace.quantile(true, 0.5), None);
        for ms in 20..=100 {
            pace.answered(true, Duration::from_millis(ms), now);
        }
        assert_eq!(pace.quantile(true, 0.5), Some(Duration::from_millis(51)));
        assert_eq!(pace.quantile(true, 0.95), Some(Duration::from_millis(96)));
        assert_eq!(pace.quantile(false, 0.5), None, "plain answers have a time of their own");
        for _ in 0..REMEMBERED {
            pace.answered(true, Duration::from_millis(7), now);
        }
        assert_eq!(pace.quantile(true, 0.99), Some(Duration::from_millis(7)));
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let pace = Pace::default();
        let now = Instant::now();
        let is = |after: u64, us: f64| {
            let load = pace.load(now + Duration::from_secs(after));
            assert!((load - us).abs() <= us * 0.01 + 1.0, "{load} after {after} s, not {us}");
        };
        is(0, UNKNOWN_US);
        pace.answered(true, Duration::from_millis(100), now);
        is(0, 100_000.0);
        pace.answered(true, Duration::from_secs(3), now);
        is(0, 3_000_000.0);
        is(10, 3_000_000.0 / std::f64::consts::E);
        pace.begin();
        is(0, 6_000_000.0);
        pace.end();
        pace.answered(true, Duration::from_millis(100), now + Duration::from_secs(60));
        // 3 s is all but forgotten by then.
        assert!(pace.load(now + Duration::from_secs(60)) < 120_000.0);
        pace.failed(Duration::from_millis(1), now + Duration::from_secs(60));
        is(60, 5_000_000.0);
    }

    #[test]
    fn one_in_twenty_and_never_many_at_once() {
        let allowance = Allowance::default();
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
