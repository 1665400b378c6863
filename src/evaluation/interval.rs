//! Means with intervals of 95 %, by bootstrap: the mean of many samples that are drawn from the values with replacement
//! (Efron, 1979; percentiles). The same values and the same order always give the same interval.

use serde::Serialize;

use crate::base::random::Random;

/// Number of samples that are drawn.
const SAMPLES: usize = 2_000;
/// Seed of the random samples. A fixed value makes the interval reproducible; its value has no meaning.
const SEED: u64 = 20_250_203;

/// A mean with its interval of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    pub mean: f64,
    /// Lower end of the interval; `None` with fewer than two values.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
    /// Number of values.
    pub n: usize,
}

impl Interval {
    /// The mean and interval of one value per call; `None` without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        if n == 1 {
            return Some(Self { mean, low: None, high: None, n });
        }
        let mut random = Random::new(SEED);
        let mut means: Vec<f64> =
            (0..SAMPLES).map(|_| (0..n).map(|_| values[random.below(n)]).sum::<f64>() / n as f64).collect();
        means.sort_by(f64::total_cmp);
        let beyond = SAMPLES / 40;
        Some(Self { mean, low: Some(means[beyond]), high: Some(means[SAMPLES - 1 - beyond]), n })
    }

    /// The mean and interval of the differences between two values per call.
    pub fn of_differences(pairs: &[(f64, f64)]) -> Option<Self> {
        Self::of(&pairs.iter().map(|(first, second)| second - first).collect::<Vec<_>>())
    }

    /// Returns true if 0 is outside of the interval: the difference is unlikely to be due to chance.
    pub fn excludes_zero(&self) -> bool {
        self.low.zip(self.high).is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_contains_the_mean_and_is_deterministic() {
        let values = [1.0, 2.0, 3.0, 4.0, 10.0];
        let interval = Interval::of(&values).expect("values");
        assert!((interval.mean - 4.0).abs() < 1e-12);
        let (low, high) = (interval.low.expect("low"), interval.high.expect("high"));
        assert!((1.0..4.0).contains(&low) && high > 4.0 && high <= 10.0, "{interval:?}");
        assert_eq!(Interval::of(&values), Some(interval));
    }

    #[test]
    fn one_value_has_no_interval_and_equal_ones_have_none_of_any_width() {
        assert_eq!(Interval::of(&[]), None);
        assert_eq!(Interval::of(&[2.0]), Some(Interval { mean: 2.0, low: None, high: None, n: 1 }));
        let equal = Interval::of(&[2.0; 4]).expect("values");
        assert_eq!((equal.low, equal.high), (Some(2.0), Some(2.0)));
    }

    #[test]
    fn difference_of_all_calls_excludes_zero() {
        let better = Interval::of_differences(&[(1.0, 2.0), (5.0, 6.5), (3.0, 3.5)]).expect("pairs");
        assert!((better.mean - 1.0).abs() < 1e-12 && better.excludes_zero());
        let mixed = Interval::of_differences(&[(1.0, 2.0), (2.0, 1.0)]).expect("pairs");
        assert!(!mixed.excludes_zero());
        assert!(!Interval::of(&[7.0]).expect("value").excludes_zero(), "one call proves nothing");
    }
}
