//! Helpers for the black-box tests and the benches: the real binary as a process, a scripted LLM, WebSocket and HTTP
//! clients, recordings, and a reference model of a call's final turns.
//!
//! Knows only the wire contract, and no internals of the daemon.
#![allow(dead_code)]

pub mod daemon;
pub mod disk;
pub mod flaky;
pub mod http;
pub mod ledger;
pub mod llm;
pub mod model;
pub mod process;
pub mod producer;
pub mod recording;
pub mod relay;
pub mod sink;
pub mod socket;
pub mod stats;
pub mod stt;
pub mod vendor;
pub mod watcher;
pub mod ws;

use std::future::Future;
use std::time::{Duration, Instant};

pub use serde_json::{Value as Json, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Tests that measure run alone; the others run in parallel.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// Held by a test that may run in parallel with others.
pub async fn shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

/// Held by a test that measures time or memory.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}

/// How long a test waits for an expected event before it fails; no event takes that long, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `probe` until it returns a value; fails the test with `what` after `within`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// A size that the environment may change by `SIDETONE_TEST_<name>`.
pub fn knob(name: &str, default: usize) -> usize {
    match std::env::var(format!("SIDETONE_TEST_{name}")) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("SIDETONE_TEST_{name}: expected a number, found {text:?}")),
        Err(_) => default,
    }
}

/// A seed, from `SIDETONE_TEST_SEED` or the clock, printed so that a failure can be run again.
pub fn seed(test: &str) -> u64 {
    let fresh = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let seed = std::env::var("SIDETONE_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(fresh);
    println!("{test}: SIDETONE_TEST_SEED={seed}");
    seed
}

/// A small, seeded generator (SplitMix64): the only source of randomness in the tests.
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound` (which is above 0).
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Shuffles `items`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index + 1));
        }
    }
}
