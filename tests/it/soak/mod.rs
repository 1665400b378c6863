//! Streams, plain requests, aborts and faults at half of the machine's capacity: no resource leaks, and memory does not
//! grow. `scripts/soak` runs it for half an hour, with `--attack` beside hostile clients; the suite runs it for some
//! seconds.
//!
//! Memory is judged after a warm-up that ends when the caches are full. The measure is anonymous memory: pages of the
//! binary count as resident once they are read, and are no growth. What is in flight is left out by the lowest sample of each
//! minute; the trend of these is robust against outliers.

mod trend;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::hostile::attacker;
use crate::support::daemon::{Daemon, WIDE_LIMITS};
use crate::support::http;
use crate::support::vendor::Dialect;
use crate::support::{Chance, Json, PATIENCE, alone, eventually, flaky, json, knob, seed};

/// Number of concurrent requests.
const WORKERS: usize = 16;
/// Growth of memory that does not count as a leak, bytes per hour: an allocator always varies a little.
const FLAT_BYTES_AN_HOUR: f64 = 4.0 * MIB;
/// Maximum uncertainty of the trend, bytes per hour. A run with more fails, because it shows nothing. The sum with
/// [`FLAT_BYTES_AN_HOUR`] is the smallest leak that every run finds.
const NOISE_BYTES_AN_HOUR: f64 = 16.0 * MIB;
/// Longest warm-up, as a share of the run.
const WARM_UP: f64 = 1.0 / 3.0;
/// The cache of compiled schemas counts as full from this size on, bytes: its limit is 64 MiB, and entries are large.
const FULL_SCHEMAS: f64 = 56.0 * MIB;
/// Time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// Width of a window, seconds; the lowest sample of each window counts.
const WINDOW: f64 = 60.0;
const MIB: f64 = 1024.0 * 1024.0;

/// State that the workers share.
struct Load {
    port: u16,
    stop: AtomicBool,
    /// Time between two requests of a worker, microseconds.
    every_us: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    aborted: AtomicU64,
}

async fn work(load: Arc<Load>, mut chance: Chance) {
    while !load.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let model = ["first", "second", "third"][chance.below(3)];
        let kind = chance.below(100);
        let body = json!({"model":model,"stream":kind < 60,"max_tokens":100,
            "messages":[{"role":"user","content":"Tell me something. ".repeat(1 + chance.below(40))}]})
        .to_string();
        if (50..65).contains(&kind) {
            leave(load.port, &body, Duration::from_micros(chance.below(4_000) as u64)).await;
            load.aborted.fetch_add(1, Ordering::Relaxed);
        } else {
            let headers = [("content-type", "application/json")];
            let reply = http::request(load.port, "POST", "/v1/chat/completions", &headers, Some(body)).await;
            if reply.status != 200 {
                load.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        load.done.fetch_add(1, Ordering::Relaxed);
        let every = Duration::from_micros(load.every_us.load(Ordering::Relaxed));
        tokio::time::sleep(every.saturating_sub(began.elapsed())).await;
    }
}

/// Sends a request and disconnects soon.
async fn leave(port: u16, body: &str, after: Duration) {
    let Ok(mut socket) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return };
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = socket.write_all(head.as_bytes()).await;
    let _ = tokio::time::timeout(after, socket.read(&mut [0; 64])).await;
}

fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).map_or(0, Iterator::count)
}

/// One measurement of the process. All values are bytes, except counts.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Seconds since the start of the load.
    at: f64,
    rss: f64,
    /// Resident memory that belongs to no file.
    anonymous: f64,
    schemas: f64,
    indexes: f64,
    ring: f64,
    inflight: f64,
    /// Open calls in memory, and calls in the directory.
    sessions: f64,
    calls: f64,
    tasks: f64,
    descriptors: usize,
    /// Size of `/metrics`, which grows with every new label.
    metrics: usize,
}

impl Sample {
    async fn take(daemon: &Daemon, began: Instant) -> Self {
        let text = daemon.get("/metrics").await.text();
        Self {
            at: began.elapsed().as_secs_f64(),
            rss: daemon.rss() as f64,
            anonymous: daemon.anonymous_memory() as f64,
            schemas: sum(&text, "sidetone_app_cache_bytes{cache=\"compiled_schemas\"}"),
            indexes: sum(&text, "sidetone_app_cache_bytes{cache=\"call_indexes\"}"),
            ring: sum(&text, "sidetone_hub_ring_bytes"),
            inflight: sum(&text, "sidetone_inflight_bytes"),
            sessions: sum(&text, "sidetone_session_sessions"),
            calls: sum(&text, "sidetone_journal_calls"),
            tasks: sum(&text, "sidetone_app_tasks"),
            descriptors: descriptors(daemon),
            metrics: text.len(),
        }
    }
}

/// Sum of the samples of one metric in the text of `/metrics`.
fn sum(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Fills the cache of compiled schemas with schemas that differ, each with nearly as many patterns as `schema_patterns`
/// allows.
async fn fill_schemas(port: u16, stop: Arc<AtomicBool>) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let fields: serde_json::Map<String, Json> = (0..60)
            .map(|field| (format!("f{number}_{field}"), json!({"type":"string","pattern":"^[ab]*a[ab]{8}$"})))
            .collect();
        let schema = json!({"type":"object","properties":fields});
        let body = json!({"model":"first","max_tokens":10,"messages":[{"role":"user","content":"hello"}],
            "response_format":{"type":"json_schema","json_schema":{"name":"s","schema":schema}}});
        let headers = [("content-type", "application/json")];
        http::request(port, "POST", "/v1/chat/completions", &headers, Some(body.to_string())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_behind() {
    let _machine = alone().await;
    let seed = seed("soak");
    let minutes = knob("SOAK_MINUTES", 0);
    let lasts = if minutes == 0 { Duration::from_secs(6) } else { Duration::from_secs(minutes as u64 * 60) };
    let dialects = [("openai", Dialect::OpenAi), ("anthropic", Dialect::Anthropic), ("google", Dialect::Google)];
    let prices = "prices = [{ model = \"*\", input = 1.0, output = 2.0 }]";
    let (mut vendors, mut config) = (Vec::new(), WIDE_LIMITS.to_owned() + "usd_per_day = 100000.0\n");
    for (number, (name, dialect)) in (0..).zip(dialects) {
        let vendor = flaky::start(dialect, 10, seed + number).await;
        vendor.forget();
        config += &vendor.endpoint(name, prices);
        vendors.push(vendor);
    }
    for (first, model) in ["first", "second", "third"].into_iter().enumerate() {
        let order: Vec<String> = (0..3).map(|step| format!("\"{}/v\"", dialects[(first + step) % 3].0)).collect();
        config += &format!(
            "[models.{model}]\ncandidates = [{}]\nheader_timeout_ms = 1000\nfirst_token_timeout_ms = 1000\n\
             between_tokens_timeout_ms = 1000\ntotal_timeout_ms = 6000\n",
            order.join(", ")
        );
    }
    // Abandoned calls of the attacker complete soon.
    config += "[ingest]\nidle_timeout_ms = 2000\n[gateway]\ndefault_route = \"quiet\"\n[routes.quiet]\nvariants = [{name = \"a\", model = \"local\"}]\n";
    let daemon = Daemon::start(&config).await;
    let idle_tasks = daemon.metric("sidetone_app_tasks", &[]).await;
    let idle_descriptors = descriptors(&daemon);
    let idle_rss = daemon.rss();
    let load = Arc::new(Load {
        port: daemon.port,
        stop: AtomicBool::new(false),
        every_us: AtomicU64::new(0),
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        aborted: AtomicU64::new(0),
    });
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(work(Arc::clone(&load), Chance(seed + 1000 + worker as u64)));
    }
    // At full speed, then at half of it.
    let full = Duration::from_secs(if minutes == 0 { 2 } else { 10 });
    tokio::time::sleep(full).await;
    let rate = load.done.load(Ordering::Relaxed) as f64 / full.as_secs_f64();
    load.every_us.store((WORKERS as f64 * 2.0 / rate.max(1.0) * 1e6) as u64, Ordering::Relaxed);
    println!("soak: {rate:.0} requests/s at full speed, half of it from now on; RSS at start {} KiB", idle_rss >> 10);
    let attacks = Arc::new(AtomicU64::new(0));
    let attacked = knob("SOAK_ATTACK", 0) != 0;
    let attacker = attacked.then(|| tokio::spawn(attacker::attack(daemon.port, seed, Arc::clone(&attacks))));
    let filled = Arc::new(AtomicBool::new(!attacked));
    let filler = attacked.then(|| tokio::spawn(fill_schemas(daemon.port, Arc::clone(&filled))));
    let began = Instant::now();
    let (mut samples, mut warm) = (Vec::new(), None);
    let mut minute = 0;
    println!("soak: MiB where nothing else is said; memory counts once the caches are full");
    while began.elapsed() < lasts {
        tokio::time::sleep(SAMPLE_EVERY).await;
        let now = Sample::take(&daemon, began).await;
        samples.push(now);
        let share = began.elapsed().as_secs_f64() / lasts.as_secs_f64();
        let full = now.schemas >= FULL_SCHEMAS || !attacked;
        filled.fetch_or(full || share >= WARM_UP, Ordering::Relaxed);
        // Even if the caches are full early, the allocator and the pools get a part of the run to reach their size.
        if warm.is_none() && ((full && share >= WARM_UP / 2.0) || share >= WARM_UP) {
            warm = Some(samples.len());
        }
        if began.elapsed().as_secs() / 60 > minute {
            minute = began.elapsed().as_secs() / 60;
            let last = samples.partition_point(|sample| sample.at < (minute - 1) as f64 * WINDOW);
            println!("  {}", row(minute, warm.is_some(), &samples[last..], &load, attacks.load(Ordering::Relaxed)));
        }
    }
    if let Some(attacker) = attacker {
        attacker.abort();
        assert!(attacker.await.is_err_and(|error| error.is_cancelled()), "the attacker went on to the end");
    }
    if let Some(filler) = filler {
        filler.abort();
    }
    load.stop.store(true, Ordering::Relaxed);
    while workers.join_next().await.is_some() {}
    let measured = &samples[warm.unwrap_or(0)..];
    // The whole memory counts, including the caches, because they are full. The size that a cache reports for an entry
    // is an upper estimate. If that were subtracted, memory would seem to grow whenever smaller entries replace larger
    // ones.
    let memory: Vec<(f64, f64)> = measured.iter().map(|sample| (sample.at, sample.anonymous)).collect();
    let trend = trend::trend(&trend::troughs(&memory, WINDOW));
    println!(
        "soak: {} requests, {} failed, {} left early; RSS {} KiB",
        load.done.load(Ordering::Relaxed),
        load.failed.load(Ordering::Relaxed),
        load.aborted.load(Ordering::Relaxed),
        daemon.rss() >> 10,
    );
    // When the vendors stop, the pooled connections and their tasks end too.
    drop(vendors);
    let left = eventually("all that was held is let go", PATIENCE, || async {
        let left = Left::of(&daemon).await;
        (left.inflight == 0.0
            && left.reserved == 0.0
            && left.connections <= 1.0
            && left.tasks <= idle_tasks + 16.0
            && left.descriptors <= idle_descriptors + 16)
            .then_some(left)
    })
    .await;
    println!("soak: left at the end: {left:?}; before it: {idle_tasks} tasks, {idle_descriptors} descriptors");
    let Some(trend) = trend else {
        assert!(minutes < 10, "too few samples for a trend");
        return;
    };
    let an_hour = |bytes_a_second: f64| bytes_a_second * 3600.0;
    println!(
        "soak: anonymous memory, the lowest of each minute after the warm-up: {:+.1} MiB an hour, between {:+.1} and {:+.1} \
         in 95 of 100 cases",
        an_hour(trend.slope) / MIB,
        an_hour(trend.low) / MIB,
        an_hour(trend.high) / MIB
    );
    if minutes >= 10 {
        assert!(an_hour(trend.noise()) <= NOISE_BYTES_AN_HOUR, "the run is too noisy to say anything");
        assert!(an_hour(trend.low) <= FLAT_BYTES_AN_HOUR, "memory grows");
        println!("soak: passed: no growth over {} MiB an hour", FLAT_BYTES_AN_HOUR / MIB);
    }
}

/// One line per minute: the newest and the lowest memory, and its parts.
fn row(minute: u64, warm: bool, samples: &[Sample], load: &Load, attacks: u64) -> String {
    let Some(now) = samples.last() else { return String::new() };
    let lowest = |value: fn(&Sample) -> f64| samples.iter().map(value).fold(f64::INFINITY, f64::min) / MIB;
    format!(
        "minute {minute}{}: RSS {:.1}, anonymous {:.1}, lowest {:.1}; schemas {:.1}, indexes {:.1}, ring {:.1}, in \
         flight {:.1}; {} open calls of {}, {} tasks, {} descriptors, /metrics {} KiB; {} requests ({} failed, {} left \
         early), {attacks} attacks",
        if warm { "" } else { " (warm-up)" },
        now.rss / MIB,
        now.anonymous / MIB,
        lowest(|sample| sample.anonymous),
        now.schemas / MIB,
        now.indexes / MIB,
        now.ring / MIB,
        now.inflight / MIB,
        now.sessions,
        now.calls,
        now.tasks,
        now.descriptors,
        now.metrics >> 10,
        load.done.load(Ordering::Relaxed),
        load.failed.load(Ordering::Relaxed),
        load.aborted.load(Ordering::Relaxed),
    )
}

/// Resources that are still held.
#[derive(Debug)]
struct Left {
    inflight: f64,
    reserved: f64,
    connections: f64,
    tasks: f64,
    descriptors: usize,
}

impl Left {
    async fn of(daemon: &Daemon) -> Self {
        let text = daemon.get("/metrics").await.text();
        Self {
            inflight: sum(&text, "sidetone_gateway_inflight_attempts"),
            reserved: sum(&text, "sidetone_gateway_reserved_usd"),
            connections: sum(&text, "sidetone_app_connections"),
            tasks: sum(&text, "sidetone_app_tasks"),
            descriptors: descriptors(daemon),
        }
    }
}
