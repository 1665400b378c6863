//! Helpers for benches that run the daemon and its floors (minimal programs for comparison) as separate processes. Each
//! bench includes the module with `#[path = "../common/mod.rs"]` and uses what it needs. Knows no bench.
#![allow(dead_code)]

pub mod process;
pub mod wire;

use std::time::Duration;

/// The value below which `fraction` of the samples are (nearest rank). Sorts in place; zero for none.
pub fn percentile(samples: &mut [Duration], fraction: f64) -> Duration {
    samples.sort_unstable();
    let rank = (samples.len() as f64 * fraction).ceil() as usize;
    samples.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
