//! Percentiles.

use std::time::Duration;

/// The value below which `fraction` of the samples are (nearest rank). Sorts in place; zero for none.
pub fn percentile(samples: &mut [Duration], fraction: f64) -> Duration {
    samples.sort_unstable();
    let rank = (samples.len() as f64 * fraction).ceil() as usize;
    samples.get(rank.saturating_sub(1).min(samples.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Milliseconds with two digits.
pub fn ms(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1000.0)
}
