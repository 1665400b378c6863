//! A trend in noisy samples: the median of the slopes between all pairs of them (Theil and Sen), with the interval that
//! contains the true slope in 95 of 100 cases. A few outliers change neither.

/// A slope, in units of y per unit of x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    pub slope: f64,
    /// Ends of the interval.
    pub low: f64,
    pub high: f64,
}

impl Trend {
    /// Half the width of the interval.
    pub fn noise(&self) -> f64 {
        (self.high - self.low) / 2.0
    }
}

/// The trend of `(x, y)`; `None` with fewer than three points.
pub fn trend(points: &[(f64, f64)]) -> Option<Trend> {
    let count = points.len() as f64;
    let pairs = points.iter().enumerate().flat_map(|(at, one)| points[at + 1..].iter().map(move |other| (one, other)));
    let mut slopes: Vec<f64> = pairs
        .filter(|(one, other)| other.0 > one.0)
        .map(|(one, other)| (other.1 - one.1) / (other.0 - one.0))
        .collect();
    if points.len() < 3 || slopes.is_empty() {
        return None;
    }
    slopes.sort_by(f64::total_cmp);
    // Standard deviation of Kendall's statistic without a trend; see Sen (1968).
    let spread = 1.96 * (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt();
    let last = slopes.len() - 1;
    let ranked = |rank: f64| slopes[(rank.max(0.0) as usize).min(last)];
    let middle = slopes.len() as f64 / 2.0;
    Some(Trend {
        slope: f64::midpoint(slopes[last / 2], slopes[last.div_ceil(2)]),
        low: ranked((middle - spread / 2.0).floor() - 1.0),
        high: ranked((middle + spread / 2.0).ceil()),
    })
}

/// The lowest point of each window of this width.
pub fn troughs(points: &[(f64, f64)], window: f64) -> Vec<(f64, f64)> {
    let windows = points.chunk_by(|one, other| (one.0 / window).floor() == (other.0 / window).floor());
    windows.filter_map(|window| window.iter().copied().min_by(|one, other| one.1.total_cmp(&other.1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::Chance;

    fn line(slope: f64, noise: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
        (0..30).map(|at| (at as f64, 7.0 + slope * at as f64 + noise(at))).collect()
    }

    #[test]
    fn trend_of_a_line_is_its_slope_whatever_the_outliers() {
        let exact = trend(&line(2.0, |_| 0.0)).expect("a trend");
        assert_eq!((exact.slope, exact.low, exact.high), (2.0, 2.0, 2.0));
        let spikes = trend(&line(2.0, |at| if at % 7 == 3 { 500.0 } else { 0.0 })).expect("a trend");
        assert_eq!(spikes.slope, 2.0);
        assert_eq!(trend(&[(0.0, 1.0), (1.0, 2.0)]), None);
    }

    #[test]
    fn interval_of_noise_holds_the_true_slope_mostly() {
        let held = |slope: f64| {
            let seeds = (0..200).filter(|seed| {
                let mut chance = Chance(*seed);
                let noise: Vec<f64> = (0..30).map(|_| chance.below(1000) as f64 / 10.0).collect();
                let found = trend(&line(slope, |at| noise[at])).expect("a trend");
                assert!(found.low <= found.slope && found.slope <= found.high, "{found:?}");
                (found.low..=found.high).contains(&slope)
            });
            seeds.count()
        };
        assert!(held(0.0) >= 180 && held(3.0) >= 180, "{} {}", held(0.0), held(3.0));
    }

    #[test]
    fn troughs_are_the_lowest_points_of_their_windows() {
        let points = [(0.0, 5.0), (1.0, 3.0), (2.0, 4.0), (10.0, 9.0), (12.0, 8.0), (31.0, 1.0)];
        assert_eq!(troughs(&points, 10.0), [(1.0, 3.0), (12.0, 8.0), (31.0, 1.0)]);
    }
}
