//! Hostile suite: attacks on the real binary, with a small disk and limited memory, while a well-behaved call goes on.
//!
//! Each test does one thing that a client, a model or a configuration may do. The harness checks latency for the other
//! clients and the memory of the daemon; the test checks the answers to the attacker.

pub mod attacker;
mod budget;
mod disk;
mod frames;
mod sockets;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::RwLockWriteGuard;

use crate::support::daemon::{Daemon, peak_rss_of};
use crate::support::disk::SmallDisk;
use crate::support::stats::{ms, percentile};
use crate::support::ws::{Client, turn};
use crate::support::{alone, http};

/// Limit on the daemon's address space (`RLIMIT_AS`). Covers the budget of bytes in flight, thread stacks and what malloc
/// reserves. An allocation beyond it aborts the daemon and fails the test.
const ADDRESS_SPACE_KIB: u64 = 512 * 1024;
/// Default of `[limits] inflight_bytes`.
const INFLIGHT_BYTES: u64 = 256 << 20;
/// Memory that an attack may use besides the budget of bytes in flight.
const BESIDE_THE_BUDGET: u64 = 64 << 20;
/// A p99 below this always passes. A debug build on two busy cores stays far below it; a serving thread that is blocked by
/// an attack exceeds it.
const NOISE: Duration = Duration::from_secs(2);
/// Maximum ratio of the p99 during the attack to the p99 without it.
const SLOWER: u32 = 3;
/// Time between two turns of the well-behaved call, and between two requests for `/healthz`.
const EVERY: Duration = Duration::from_millis(20);
/// Minimum number of turns and of requests in a run.
const SAMPLES: usize = 50;

/// A daemon to be attacked. Holds the machine alone, because it measures time and memory.
pub struct Target {
    /// The daemon; its journal is on the small disk.
    pub daemon: Daemon,
    inflight_bytes: u64,
    start_rss: u64,
    journal: PathBuf,
    _home: TempDir,
    _disk: Option<SmallDisk>,
    _machine: RwLockWriteGuard<'static, ()>,
}

impl Target {
    /// Starts it with `config` and its journal on a disk of 64 MiB (in a folder if no disk can be mounted).
    pub async fn start(config: &str) -> Self {
        Self::start_on(config, "64m").await
    }

    /// The same with a disk of this size, in the syntax of `mount`.
    pub async fn start_on(config: &str, disk: &str) -> Self {
        let machine = alone().await;
        let home = tempfile::tempdir().expect("folder");
        let disk = SmallDisk::mount(disk);
        let journal = disk.as_ref().map_or(home.path(), SmallDisk::path).join("journal");
        let limit = format!("ulimit -v {ADDRESS_SPACE_KIB} && exec \"$@\"");
        let mut daemon = Daemon::prepare(&with_storage(config, &journal), home.path())
            .under(&["sh", "-c", &limit, "sh"])
            // Each malloc arena reserves 64 MiB of address space.
            .with_env("MALLOC_ARENA_MAX", "2");
        daemon.up().await;
        let start_rss = daemon.rss();
        let inflight_bytes = number_of(config, "inflight_bytes").unwrap_or(INFLIGHT_BYTES);
        Self { daemon, inflight_bytes, start_rss, journal, _home: home, _disk: disk, _machine: machine }
    }

    /// Size of all files in the journal's folder, bytes.
    pub fn journal_bytes(&self) -> u64 {
        bytes_in(&self.journal)
    }

    /// Runs a well-behaved call and a `/healthz` poller, first alone, then during `attack` until it ends.
    ///
    /// The test fails if a turn is not acknowledged, the call's socket closes, or `/healthz` is not 200.
    pub async fn during(&self, attack: impl Future<Output = ()>) -> Report {
        let alone = Others::start(self.daemon.port).stop().await;
        let others = Others::start(self.daemon.port);
        attack.await;
        let beside = others.stop().await;
        let report = Report {
            alone,
            beside,
            peak_rss: peak_rss_of(self.daemon.pid()),
            may_have: self.start_rss + self.inflight_bytes + BESIDE_THE_BUDGET,
        };
        println!("{report}");
        report
    }
}

/// Adds `[storage]` to a configuration.
fn with_storage(config: &str, dir: &Path) -> String {
    format!("{config}\n[storage]\ndir = {:?}\n", dir.display().to_string())
}

/// Reads the number in a line `key = N` of a configuration.
fn number_of(config: &str, key: &str) -> Option<u64> {
    config.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('=')?.trim().parse().ok())
}

fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Latency of the other clients, and memory.
#[derive(Debug)]
pub struct Report {
    /// Before the attack.
    pub alone: Times,
    /// During the attack.
    pub beside: Times,
    /// Peak resident memory of the daemon since its start, bytes.
    pub peak_rss: u64,
    /// Allowed peak, bytes.
    pub may_have: u64,
}

impl Report {
    /// Fails the test if the other clients were slowed down or the daemon used too much memory.
    #[track_caller]
    pub fn assert_bounded(&self) {
        for (what, alone, beside) in [
            ("turn to ack", self.alone.ack_p99, self.beside.ack_p99),
            ("/healthz", self.alone.health_p99, self.beside.health_p99),
        ] {
            assert!(beside <= NOISE.max(alone * SLOWER), "{what}: p99 {alone:?} alone, {beside:?} beside the attack");
        }
        assert!(self.peak_rss <= self.may_have, "{} MiB of at most {}", self.peak_rss >> 20, self.may_have >> 20);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |times: &Times| format!("ack {} ms, /healthz {} ms", ms(times.ack_p99), ms(times.health_p99));
        write!(out, "p99 alone: {}; beside: {}; ", times(&self.alone), times(&self.beside))?;
        write!(out, "peak RSS {} MiB of at most {}", self.peak_rss >> 20, self.may_have >> 20)
    }
}

/// The 99th percentiles of one run.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From a turn to its ack.
    pub ack_p99: Duration,
    /// Of a `/healthz` request on a new connection.
    pub health_p99: Duration,
}

/// The well-behaved clients. They run in their own tasks, so that CPU work of the attacker does not delay them.
struct Others {
    over: Arc<AtomicBool>,
    acks: tokio::task::JoinHandle<Vec<Duration>>,
    health: tokio::task::JoinHandle<Vec<Duration>>,
}

impl Others {
    fn start(port: u16) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        Self {
            acks: tokio::spawn(speak(port, Arc::clone(&over))),
            health: tokio::spawn(ask(port, Arc::clone(&over))),
            over,
        }
    }

    /// Stops them once each has enough samples.
    async fn stop(self) -> Times {
        self.over.store(true, Ordering::Relaxed);
        let mut acks = self.acks.await.expect("the well-behaved call went on");
        let mut health = self.health.await.expect("/healthz answered");
        Times { ack_p99: percentile(&mut acks, 0.99), health_p99: percentile(&mut health, 0.99) }
    }
}

/// Records a sample. If it exceeds the interval, also records the samples that would have started meanwhile (correction
/// for coordinated omission): otherwise one long stall is a single sample of many.
fn note(samples: &mut Vec<Duration>, took: Duration) {
    let mut left = Some(took);
    while let Some(took) = left {
        samples.push(took);
        left = took.checked_sub(EVERY).filter(|left| !left.is_zero());
    }
}

async fn speak(port: u16, over: Arc<AtomicBool>) -> Vec<Duration> {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let url = format!("ws://127.0.0.1:{port}/v1/ingest?call_id=well-behaved-{call}&stream_id=s_1&results=none");
    let mut client = Client::connect(&url).await;
    client.of_type("welcome").await;
    let mut samples = Vec::new();
    let mut order = 0;
    while !over.load(Ordering::Relaxed) || samples.len() < SAMPLES {
        let began = Instant::now();
        assert!(client.send(&turn(order, "agent", &format!("Sentence number {order}."))).await, "the socket is closed");
        client.acked(order).await;
        note(&mut samples, began.elapsed());
        client.seen.clear();
        order += 1;
        tokio::time::sleep(EVERY.saturating_sub(began.elapsed())).await;
    }
    samples
}

async fn ask(port: u16, over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut samples = Vec::new();
    while !over.load(Ordering::Relaxed) || samples.len() < SAMPLES {
        let began = Instant::now();
        let reply = http::request(port, "GET", "/healthz", &[], None).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        note(&mut samples, began.elapsed());
        tokio::time::sleep(EVERY.saturating_sub(began.elapsed())).await;
    }
    samples
}

#[test]
fn long_wait_counts_for_every_sample_that_it_delayed() {
    let mut samples = Vec::new();
    note(&mut samples, EVERY / 2);
    note(&mut samples, EVERY * 3);
    assert_eq!(samples, [EVERY / 2, EVERY * 3, EVERY * 2, EVERY]);
}

#[test]
fn number_of_a_key_is_read_and_none_without_it() {
    let config = "[limits]\ninflight_bytes = 7\n";
    assert_eq!((number_of(config, "inflight_bytes"), number_of(config, "turn_bytes")), (Some(7), None));
}
