//! Pauses between attempts: doubling, capped, with jitter.

use std::time::Duration;

/// The pauses of one series of attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// Pauses from about `first` to about `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, tries: 0 }
    }

    /// The next pause: between half and all of `first * 2^n`, at most `cap`. The jitter prevents many clients from
    /// trying at once.
    pub fn pause(&mut self) -> Duration {
        let whole = self.first.saturating_mul(1_u32.checked_shl(self.tries.min(20)).unwrap_or(u32::MAX)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        whole.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// Number of pauses since the last success.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Records a success: the next pause is the first again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for whole in [100, 200, 400, 800, 1000, 1000] {
            let pause = backoff.pause().as_millis();
            assert!((whole / 2..=whole).contains(&pause), "{pause} of {whole}");
        }
        for _ in 0..100 {
            assert!(backoff.pause() <= Duration::from_secs(1));
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(100));
    }
}
