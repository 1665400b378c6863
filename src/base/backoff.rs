//! Pauses between attempts: doubling, bounded, with jitter.
//!
//! Pure: knows no clock and no source of random numbers; the caller passes one number a pause, so that a simulation can
//! repeat it.

use std::time::Duration;

/// Doublings after which a pause grows no further: a first pause of a microsecond is over a second then.
const MAX_DOUBLINGS: u32 = 20;

/// The pauses of one series of attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    jitter: f64,
    pauses: u32,
}

impl Backoff {
    /// Pauses from `first` to `longest`. Jitter shortens each by up to a half, which prevents many clients from trying at
    /// once.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, jitter: 0.5, pauses: 0 }
    }

    /// The same with jitter that takes up to this part of a pause, from 0 (none) to 1.
    #[must_use]
    pub const fn with_jitter(self, part: f64) -> Self {
        Self { jitter: part, ..self }
    }

    /// The next pause. `random`, from 0 to 1, says how much of the jitter is taken.
    pub fn pause(&mut self, random: f64) -> Duration {
        self.pause_from(Duration::ZERO, random)
    }

    /// As [`Backoff::pause`], of at least `least` before jitter shortens it.
    pub fn pause_from(&mut self, least: Duration, random: f64) -> Duration {
        let whole = self.first.saturating_mul(1 << self.pauses.min(MAX_DOUBLINGS)).min(self.longest).max(least);
        self.pauses = self.pauses.saturating_add(1);
        whole.saturating_sub(whole.mul_f64((self.jitter * random).clamp(0.0, 1.0)))
    }

    /// Number of pauses since the last success.
    pub fn pauses(&self) -> u32 {
        self.pauses
    }

    /// Records a success: the next pause is the first again.
    pub fn reset(&mut self) {
        self.pauses = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new(MS(100), MS(1_000));
        let whole: Vec<u128> = (0..6).map(|_| backoff.pause(0.0).as_millis()).collect();
        assert_eq!((whole, backoff.pauses()), (vec![100, 200, 400, 800, 1_000, 1_000], 6));
        backoff.reset();
        assert_eq!((backoff.pause(1.0), backoff.pause(0.5)), (MS(50), MS(150)));
        assert_eq!(backoff.pause_from(MS(2_000), 1.0), MS(1_000), "the minimum is shortened too");
        let mut exact = Backoff::new(MS(500), MS(4_000)).with_jitter(0.25);
        assert_eq!((exact.pause(1.0), exact.pause(0.0)), (MS(375), MS(1_000)));
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn pause_is_within_its_bounds_after_any_number_of_failures(
            first in 1_u64..10_000, longest in 1_u64..100_000_000, before in 0_usize..80, random in 0.0..=1.0, jitter in 0.0..=1.0,
        ) {
            let (first, longest) = (MS(first), MS(longest));
            let mut backoff = Backoff::new(first, longest).with_jitter(jitter);
            let mut whole = Backoff::new(first, longest).with_jitter(0.0);
            for _ in 0..before {
                prop_assert!(backoff.pause(random) <= longest);
                whole.pause(1.0);
            }
            let (next, again) = (whole.pause(1.0), whole.pause(1.0));
            prop_assert!(next <= again && again <= longest && next >= first.min(longest));
            let pause = backoff.pause(random);
            prop_assert!(pause <= next && pause + MS(1) >= next.mul_f64(1.0 - jitter));
        }
    }
}
