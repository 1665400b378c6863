//! Streams, plain requests, aborts and faults at half of what the machine can: nothing is left behind, and memory does
//! not grow. `scripts/soak` runs it for half an hour, with `--attack` beside hostile clients; the suite runs it for some
//! seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::hostile::attacker;
use crate::support::daemon::{Daemon, WIDE_LIMITS};
use crate::support::http;
use crate::support::vendor::Dialect;
use crate::support::{Chance, PATIENCE, alone, eventually, flaky, json, knob, seed};

/// Requests at once.
const WORKERS: usize = 16;
/// What memory may grow by in an hour and still count as flat, bytes: the allocator's own unrest is more than nothing.
const FLAT_BYTES_AN_HOUR: f64 = 4.0 * 1024.0 * 1024.0;

/// What the workers share.
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

/// Asks, and is gone soon.
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

/// Bytes an hour, by least squares over `(seconds, bytes)`.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let (x, y) = samples.iter().fold((0.0, 0.0), |(x, y), sample| (x + sample.0, y + sample.1));
    let (x, y) = (x / count, y / count);
    let over = samples.iter().map(|sample| (sample.0 - x) * (sample.1 - y)).sum::<f64>();
    let under = samples.iter().map(|sample| (sample.0 - x).powi(2)).sum::<f64>();
    if under > 0.0 { over / under * 3600.0 } else { 0.0 }
}

#[test]
fn a_slope_is_found() {
    let line: Vec<(f64, f64)> = (0..10).map(|second| (f64::from(second), 7.0 + 2.0 * f64::from(second))).collect();
    assert!((slope(&line) - 7200.0).abs() < 1e-6);
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
    // As fast as it goes, then at half of that.
    let full = Duration::from_secs(if minutes == 0 { 2 } else { 10 });
    tokio::time::sleep(full).await;
    let rate = load.done.load(Ordering::Relaxed) as f64 / full.as_secs_f64();
    load.every_us.store((WORKERS as f64 * 2.0 / rate.max(1.0) * 1e6) as u64, Ordering::Relaxed);
    println!("soak: {rate:.0} requests/s at full speed, half of it from now on; RSS at start {} KiB", idle_rss >> 10);
    let attacks = Arc::new(AtomicU64::new(0));
    let attacker =
        (knob("SOAK_ATTACK", 0) != 0).then(|| tokio::spawn(attacker::attack(daemon.port, seed, Arc::clone(&attacks))));
    let began = Instant::now();
    let mut samples = Vec::new();
    let mut minute = 0;
    while began.elapsed() < lasts {
        tokio::time::sleep(Duration::from_secs(1)).await;
        samples.push((began.elapsed().as_secs_f64(), daemon.rss() as f64));
        if began.elapsed().as_secs() / 60 > minute {
            minute = began.elapsed().as_secs() / 60;
            println!(
                "  minute {minute}: RSS {} KiB, {} requests ({} failed, {} left early), {} attacks, {} descriptors, {} tasks",
                daemon.rss() >> 10,
                load.done.load(Ordering::Relaxed),
                load.failed.load(Ordering::Relaxed),
                load.aborted.load(Ordering::Relaxed),
                attacks.load(Ordering::Relaxed),
                descriptors(&daemon),
                daemon.metric("sidetone_app_tasks", &[]).await
            );
        }
    }
    if let Some(attacker) = attacker {
        attacker.abort();
        assert!(attacker.await.is_err_and(|error| error.is_cancelled()), "the attacker went on to the end");
    }
    load.stop.store(true, Ordering::Relaxed);
    while workers.join_next().await.is_some() {}
    // Half the time is for the allocator and the pools to find their size.
    let settled = &samples[samples.len() / 2..];
    let slope = slope(settled);
    println!(
        "soak: {} requests, {} failed, {} left early; RSS {} KiB, slope {:.0} KiB an hour over the second half",
        load.done.load(Ordering::Relaxed),
        load.failed.load(Ordering::Relaxed),
        load.aborted.load(Ordering::Relaxed),
        daemon.rss() >> 10,
        slope / 1024.0
    );
    // With the vendors gone, so are the pooled connections and their tasks.
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
    if minutes >= 10 {
        assert!(slope < FLAT_BYTES_AN_HOUR, "memory grows by {:.0} KiB an hour", slope / 1024.0);
    }
}

/// What is still held.
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
        let sum = |name: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        Self {
            inflight: sum("sidetone_gateway_inflight_attempts"),
            reserved: sum("sidetone_gateway_reserved_usd"),
            connections: sum("sidetone_app_connections"),
            tasks: sum("sidetone_app_tasks"),
            descriptors: descriptors(daemon),
        }
    }
}
