//! The hostile suite: the real binary on a small disk and with little memory, attacked while a well-behaved call goes on.
//!
//! Each test names one thing that a client, a model or a configuration may do. What is judged is how long the others
//! wait, and how much memory it takes; what the attacker is answered, the test itself looks at.

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

/// Address space of the daemon. It holds the budget of bytes in flight, thread stacks and what malloc reserves; a daemon
/// that wants more ends by an allocation that fails, and the test with it.
const ADDRESS_SPACE_KIB: u64 = 512 * 1024;
/// What `[limits] inflight_bytes` is where the configuration does not say.
const INFLIGHT_BYTES: u64 = 256 << 20;
/// What an attack may take beside the budget of bytes in flight.
const BESIDE_THE_BUDGET: u64 = 64 << 20;
/// A p99 below this passes, whatever it is alone: a debug build on two busy cores waits for the scheduler and for fsync
/// far shorter than this, and a serving thread that an attack holds up, longer.
const NOISE: Duration = Duration::from_secs(2);
/// How much slower the others may get beside an attack.
const SLOWER: u32 = 3;
/// Time between two turns of the well-behaved call, and between two requests for `/healthz`.
const EVERY: Duration = Duration::from_millis(20);
/// Turns and requests of a run, at least.
const SAMPLES: usize = 50;

/// A daemon to be attacked. Held alone: what it measures is time and memory.
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
    /// Starts it with `config` and its journal on a disk of 64 MiB (in a folder where none can be mounted).
    pub async fn start(config: &str) -> Self {
        Self::start_on(config, "64m").await
    }

    /// The same with a disk of this size, as `mount` has it.
    pub async fn start_on(config: &str, disk: &str) -> Self {
        let machine = alone().await;
        let home = tempfile::tempdir().expect("folder");
        let disk = SmallDisk::mount(disk);
        let journal = disk.as_ref().map_or(home.path(), SmallDisk::path).join("journal");
        let limit = format!("ulimit -v {ADDRESS_SPACE_KIB} && exec \"$@\"");
        let mut daemon = Daemon::prepare(&with_journal(config, &journal), home.path())
            .under(&["sh", "-c", &limit, "sh"])
            // Each arena of malloc reserves 64 MiB of addresses, whether they are used or not.
            .with_env("MALLOC_ARENA_MAX", "2");
        daemon.up().await;
        let start_rss = daemon.rss();
        let inflight_bytes = number_of(config, "inflight_bytes").unwrap_or(INFLIGHT_BYTES);
        Self { daemon, inflight_bytes, start_rss, journal, _home: home, _disk: disk, _machine: machine }
    }

    /// Bytes of all files in the journal's folder.
    pub fn journal_bytes(&self) -> u64 {
        bytes_in(&self.journal)
    }

    /// Runs a well-behaved call and a poller of `/healthz` alone, then beside `attack` until that is over.
    ///
    /// Both have to be answered all the time: a turn without an ack, a socket that closes and a `/healthz` that is not
    /// 200 fail the test.
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

/// Puts the journal where it belongs.
fn with_journal(config: &str, journal: &Path) -> String {
    let dir = format!("[journal]\ndir = {:?}\n", journal.display().to_string());
    match config.split_once("[journal]\n") {
        Some((before, after)) => format!("{before}{dir}{after}"),
        None => format!("{config}\n{dir}"),
    }
}

/// The number that a line `key = N` of a configuration has.
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

/// What the others saw while an attack went on, and before.
#[derive(Debug)]
pub struct Report {
    /// Alone.
    pub alone: Times,
    /// Beside the attack.
    pub beside: Times,
    /// The most memory that the daemon had in its life, bytes.
    pub peak_rss: u64,
    /// The most that it may have, bytes.
    pub may_have: u64,
}

impl Report {
    /// Fails the test where the others waited too long, or where the daemon took too much memory.
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
    /// Of a request for `/healthz` on a connection of its own.
    pub health_p99: Duration,
}

/// The well-behaved: they run in tasks of their own, so that an attacker that computes does not hold them up.
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

    /// Ends them once each has its samples.
    async fn stop(self) -> Times {
        self.over.store(true, Ordering::Relaxed);
        let mut acks = self.acks.await.expect("the well-behaved call went on");
        let mut health = self.health.await.expect("/healthz answered");
        Times { ack_p99: percentile(&mut acks, 0.99), health_p99: percentile(&mut health, 0.99) }
    }
}

/// Notes how long something took, and, where that was more than one step, how long those would have taken that should
/// have begun meanwhile: else one long wait counts as one of many.
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
fn a_long_wait_counts_for_those_that_would_have_waited_too() {
    let mut samples = Vec::new();
    note(&mut samples, EVERY / 2);
    note(&mut samples, EVERY * 3);
    assert_eq!(samples, [EVERY / 2, EVERY * 3, EVERY * 2, EVERY]);
}

#[test]
fn a_configuration_with_a_journal_section_keeps_its_keys() {
    let config = with_journal("[limits]\ninflight_bytes = 7\n[journal]\nretention_days = 1\n", Path::new("/j"));
    assert_eq!(config, "[limits]\ninflight_bytes = 7\n[journal]\ndir = \"/j\"\nretention_days = 1\n");
    assert_eq!((number_of(&config, "inflight_bytes"), number_of(&config, "turn_bytes")), (Some(7), None));
}
