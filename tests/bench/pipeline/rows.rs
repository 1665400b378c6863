//! The rows of the tables, each against its floor in the same run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::common::process::Process;
use super::common::{ms, percentile, wire};
use super::compaction::compaction;
use super::load::Load;

/// Runs the requested rows, or all.
pub async fn all(long: bool, only: &[&str]) {
    let wanted = |name: &str| only.is_empty() || only.contains(&name);
    println!("turn to insight, every_n_turns = 1, no debounce, journal on; ratios to the floor in brackets");
    println!("floor: a bare relay; padded: the same, its requests as large as the daemon's\n");
    println!(
        "{:<10} {:>6} {:>7} {:<7} {:>9} {:>15} {:>15} {:>9} {:>15} {:>8} {:>8} {:>9}",
        "row",
        "calls",
        "turns/s",
        "target",
        "history",
        "p50 ms",
        "p99 ms",
        "ack p99",
        "CPU us/turn",
        "RSS MiB",
        "ins/turn",
        "prompt B"
    );
    let seconds = |short: u64, more: u64| if long { more } else { short };
    if wanted("one") {
        latency("one", 1, 20.0, seconds(6, 15), if long { 0 } else { 150 }).await;
    }
    if wanted("hundred") {
        latency("hundred", 100, 100.0, seconds(6, 30), 150).await;
    }
    if wanted("thousand") {
        latency("thousand", 1000, 250.0, seconds(6, 30), if long { 150 } else { 20 }).await;
    }
    if wanted("capacity") {
        capacity(Duration::from_secs(seconds(5, 20))).await;
    }
    if wanted("memory") {
        memory(if long { 10_000 } else { 2_000 }).await;
    }
    if wanted("ack") {
        ack(seconds(5, 20)).await;
    }
    if wanted("digests") {
        compaction(seconds(6, 30)).await;
    }
    if wanted("fanout") {
        fanout(seconds(4, 20)).await;
    }
}

pub(super) fn config(llm: u16) -> String {
    format!(
        "[limits]\nconnections = 60000\nper_address = 60000\nopen_calls = 60000\nnew_calls_per_s = 60000\n\
         [endpoints.mock]\nprovider = \"openai_compatible\"\nbase_url = \"http://127.0.0.1:{llm}/v1\"\nmax_concurrency = 1024\n\
         [models.mocked]\ncandidates = [\"mock/m\"]\n\
         [[routes.summary.variants]]\nname = \"a\"\nmodel = \"mocked\"\n\
         [ingest]\nanalyses = [\"summary\"]\n[analyses.summary]\nevery_n_turns = 1\n"
    )
}

pub(super) fn ingest_path(call: usize) -> String {
    format!("/v1/ingest?call_id=c{call}&stream_id=s_1&results=insights")
}

pub(super) async fn stats(llm: &Process) -> (u64, u64, u64) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", llm.port)).await.expect("connect");
    socket.write_all(b"GET /stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("write");
    let mut text = String::new();
    socket.read_to_string(&mut text).await.expect("read");
    let stats: Json = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap_or_default()).expect("stats");
    let count = |name: &str| stats[name].as_u64().unwrap_or(0);
    (count("requests"), count("bytes"), count("digests"))
}

/// The results of one target under one load.
struct Measured {
    p50: Duration,
    p99: Duration,
    ack_p99: Duration,
    cpu_us: f64,
    rss: u64,
    per_turn: f64,
    prompt: f64,
    answered: bool,
}

async fn measure(target: &Process, llm: &Process, mut load: Load, seconds: u64, rate: f64, preload: u64) -> Measured {
    load.preload(preload, true).await;
    let before = load.sent();
    let (cpu, (_, bytes, _)) = (target.cpu(), stats(llm).await);
    let total = (rate * seconds as f64) as u64;
    let (load, _) = load.open_loop(total, rate, true).await;
    let turns = (load.sent() - before) as f64;
    let cpu = target.cpu() - cpu;
    let bytes = stats(llm).await.1 - bytes;
    let mut samples = load.samples.lock().expect("lock");
    Measured {
        answered: samples.insight.len() as u64 == total,
        p50: percentile(&mut samples.insight, 0.5),
        p99: percentile(&mut samples.insight, 0.99),
        ack_p99: percentile(&mut samples.ack, 0.99),
        cpu_us: cpu.as_secs_f64() * 1e6 / turns,
        rss: target.rss(),
        per_turn: samples.insights as f64 / turns,
        prompt: bytes as f64 / turns,
    }
}

async fn latency(name: &str, calls: usize, rate: f64, seconds: u64, history: u64) {
    let turns = history + (rate * seconds as f64 / calls as f64).ceil() as u64 + 1;
    let relay = async |pad: &str| {
        let llm = Process::role(None, &["llm"]);
        let floor = Process::role(None, &["floor", &llm.port.to_string(), pad]);
        let load = Load::open(floor.port, |_| "/".to_owned(), calls, turns).await;
        // The floor has no history; a few turns warm up its connections.
        measure(&floor, &llm, load, seconds, rate, 3.min(turns)).await
    };
    let floor = relay("0").await;
    let llm = Process::role(None, &["llm"]);
    let daemon = Process::daemon(None, &config(llm.port));
    let load = Load::open(daemon.port, ingest_path, calls, turns).await;
    let ours = measure(&daemon, &llm, load, seconds, rate, history).await;
    line(name, calls, rate, "floor", 0, &floor, None);
    line(name, calls, rate, "daemon", history, &ours, Some(&floor));
    let padded = relay(&format!("{:.0}", ours.prompt)).await;
    line(name, calls, rate, "padded", 0, &padded, None);
    line(name, calls, rate, "daemon", history, &ours, Some(&padded));
}

fn line(name: &str, calls: usize, rate: f64, target: &str, history: u64, run: &Measured, floor: Option<&Measured>) {
    let ratio = |own: f64, of: fn(&Measured) -> f64| match floor {
        Some(floor) => format!("{own:.2} ({:.2}x)", own / of(floor)),
        None => format!("{own:.2}"),
    };
    println!(
        "{name:<10} {calls:>6} {rate:>7} {target:<7} {history:>9} {:>15} {:>15} {:>9.2} {:>15} {:>8.1} {:>8.2} {:>9.0}{}",
        ratio(ms(run.p50), |run| ms(run.p50)),
        ratio(ms(run.p99), |run| ms(run.p99)),
        ms(run.ack_p99),
        ratio(run.cpu_us, |run| run.cpu_us),
        run.rss as f64 / 1048576.0,
        run.per_turn,
        run.prompt,
        if run.answered { "" } else { "  NOT ALL ANSWERED" }
    );
}

/// One core for the target, the other one for generator and LLM; calls of up to 300 turns, one in flight each.
async fn capacity(time: Duration) {
    println!("\ncapacity of one core (target alone on core 0; 64 calls, one turn in flight each, calls of 300 turns)");
    println!(
        "{:<7} {:>9} {:>9} {:>12} {:>10} {:>14} {:>9}",
        "target", "turns/s", "core use", "CPU us/turn", "LLM/turn", "turns/s at 100%", "prompt B"
    );
    let (mut daemon, mut prompt) = (0.0, 0.0);
    let mut floors = Vec::new();
    for target in ["floor", "daemon", "padded"] {
        let llm = Process::role(Some(1), &["llm"]);
        let process = match target {
            "daemon" => Process::daemon(Some(0), &config(llm.port)),
            "padded" => Process::role(Some(0), &["floor", &llm.port.to_string(), &format!("{prompt:.0}")]),
            _ => Process::role(Some(0), &["floor", &llm.port.to_string()]),
        };
        let (mut turns, mut took, mut cpu, mut requests, mut bytes) = (0, Duration::ZERO, Duration::ZERO, 0, 0);
        let mut round = 0;
        // Calls end at 300 turns, and new ones begin, as in practice.
        while took < time {
            let path = |call: usize| {
                if target == "daemon" { ingest_path(call + round * 64) } else { "/".to_owned() }
            };
            let load = Load::open(process.port, path, 64, 300).await;
            let (before_cpu, before) = (process.cpu(), stats(&llm).await);
            let (_, sent, lasted) = load.closed_loop(one_round(time - took)).await;
            cpu += process.cpu() - before_cpu;
            let after = stats(&llm).await;
            turns += sent;
            took += lasted;
            requests += after.0 - before.0;
            bytes += after.1 - before.1;
            round += 1;
        }
        let per_turn = cpu.as_secs_f64() * 1e6 / turns as f64;
        println!(
            "{target:<7} {:>9.0} {:>8.0}% {:>12.1} {:>10.2} {:>14.0} {:>9.0}",
            turns as f64 / took.as_secs_f64(),
            100.0 * cpu.as_secs_f64() / took.as_secs_f64(),
            per_turn,
            requests as f64 / turns as f64,
            1e6 / per_turn,
            bytes as f64 / turns as f64,
        );
        if target == "daemon" {
            (daemon, prompt) = (per_turn, bytes as f64 / turns as f64);
        } else {
            floors.push((target, per_turn));
        }
    }
    let ratios: Vec<String> =
        floors.iter().map(|(target, per_turn)| format!("{:.2}x of {target}", daemon / per_turn)).collect();
    println!("CPU {}", ratios.join(", "));
}

/// 64 calls of 300 turns are 19,200 turns: a round ends before they run out, whatever the speed.
fn one_round(left: Duration) -> Duration {
    left.min(Duration::from_millis(1500))
}

async fn memory(calls: usize) {
    println!("\nmemory per idle call ({calls} calls, each with one turn, its socket open)");
    let llm = Process::role(None, &["llm"]);
    for target in ["floor", "daemon"] {
        let process = if target == "floor" {
            Process::role(None, &["floor", &llm.port.to_string()])
        } else {
            Process::daemon(None, &config(llm.port))
        };
        let path = |offset: usize| {
            move |call: usize| if target == "floor" { "/".to_owned() } else { ingest_path(call + offset) }
        };
        // The first hundred calls bring the process to its working size.
        let mut warm = Load::open(process.port, path(0), 100, 1).await;
        warm.preload(1, true).await;
        let before = process.rss();
        let mut load = Load::open(process.port, path(1000), calls, 1).await;
        load.preload(1, true).await;
        let grown = process.rss().saturating_sub(before);
        println!(
            "{target:<7} {:>8.1} KiB a call   (RSS {:.1} -> {:.1} MiB)",
            grown as f64 / calls as f64 / 1024.0,
            before as f64 / 1048576.0,
            process.rss() as f64 / 1048576.0
        );
    }
}

async fn ack(seconds: u64) {
    println!("\nturn to durable ack (100 calls, 500 turns/s, no LLM)");
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("log").display().to_string();
    let mut floor = None;
    for target in ["writer", "daemon"] {
        let process = if target == "writer" {
            Process::role(None, &["writer", &file])
        } else {
            let wide = "[limits]\nopen_calls = 60000\nnew_calls_per_s = 60000\n[ingest]\nanalyses = [\"sentiment\"]\n\
                        [analyses.sentiment]\nmin_new_tokens = 1000000\n";
            Process::daemon(None, wide)
        };
        let path = |call: usize| {
            if target == "writer" {
                "/".to_owned()
            } else {
                format!("/v1/ingest?call_id=c{call}&stream_id=s_1&results=none")
            }
        };
        let turns = 10 + 5 * seconds + 1;
        let mut load = Load::open(process.port, path, 100, turns).await;
        load.preload(5, false).await;
        let cpu = process.cpu();
        let (load, _) = load.open_loop(500 * seconds, 500.0, false).await;
        let cpu = (process.cpu() - cpu).as_secs_f64() * 1e6 / (500 * seconds) as f64;
        let mut samples = load.samples.lock().expect("lock");
        let (p50, p99) = (percentile(&mut samples.ack, 0.5), percentile(&mut samples.ack, 0.99));
        let ratio = floor.map_or(String::new(), |(one, two): (Duration, Duration)| {
            format!("   p50 {:.2}x, p99 {:.2}x", ms(p50) / ms(one), ms(p99) / ms(two))
        });
        println!("{target:<7} p50 {:.2} ms  p99 {:.2} ms  CPU {cpu:.1} us/turn{ratio}", ms(p50), ms(p99));
        floor = floor.or(Some((p50, p99)));
    }
}

async fn fanout(seconds: u64) {
    const READERS: usize = 1000;
    println!("\none event to {READERS} subscribers (10 events/s)");
    let mut floor: Option<(Duration, Duration, f64)> = None;
    for target in ["fanout", "daemon"] {
        let process = if target == "fanout" {
            Process::role(None, &["fanout"])
        } else {
            Process::daemon(
                None,
                "[limits]\nconnections = 60000\nper_address = 60000\n[ingest]\nanalyses = [\"summary\"]\n",
            )
        };
        let clock = Instant::now();
        let events = 10 * seconds;
        let due: Arc<Vec<AtomicU64>> = Arc::new((0..events).map(|_| AtomicU64::new(0)).collect());
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..READERS {
            let path = if target == "fanout" { "/out" } else { "/v1/subscribe" };
            let (mut writer, mut reader) = wire::connect(process.port, path).await;
            if target == "daemon" {
                writer.send(&wire::frame(r#"{"id":"1","type":"subscribe","calls":["c0"],"wait":true}"#));
                loop {
                    let text = reader.text().await.expect("a frame");
                    if text.windows(12).any(|window| window == b"\"subscribed\"") {
                        break;
                    }
                }
            }
            let due = Arc::clone(&due);
            readers.spawn(async move {
                let _keep = writer;
                let mut times = Vec::new();
                while times.len() < due.len() {
                    let text = reader.text().await.expect("an event");
                    let turn = text.starts_with(b"{\"type\":\"turn\"") || text.starts_with(b"{\"type\":\"turn.final\"");
                    if turn || text.windows(13).take(200).any(|window| window == b"\"turn.final\",") {
                        let since = Duration::from_nanos(due[times.len()].load(Ordering::Relaxed));
                        times.push(clock.elapsed().saturating_sub(since));
                    }
                }
                times
            });
        }
        let path = if target == "fanout" {
            "/in".to_owned()
        } else {
            "/v1/ingest?call_id=c0&stream_id=s_1&results=none".to_owned()
        };
        let (mut writer, mut reader) = wire::connect(process.port, &path).await;
        let drain = tokio::spawn(async move { while reader.text().await.is_some() {} });
        let cpu = process.cpu();
        let sent = Arc::clone(&due);
        let sender = tokio::task::spawn_blocking(move || {
            for order in 0..sent.len() {
                std::thread::sleep(Duration::from_millis(100));
                sent[order].store(clock.elapsed().as_nanos() as u64, Ordering::Relaxed);
                let text = "a sentence of the usual length, as people say it on the phone";
                writer.send(&wire::frame(&format!(
                    "{{\"type\":\"turn\",\"turn_order\":{order},\"speaker\":\"agent\",\"text\":\"{text}\",\"start_ms\":{order},\"end_ms\":{}}}",
                    order + 1
                )));
            }
            writer
        });
        let mut all = Vec::new();
        let mut last = vec![Duration::ZERO; events as usize];
        while let Some(times) = readers.join_next().await {
            for (event, time) in times.expect("join").into_iter().enumerate() {
                last[event] = last[event].max(time);
                all.push(time);
            }
        }
        let cpu = (process.cpu() - cpu).as_secs_f64() * 1e6 / (events as f64 * READERS as f64);
        drop(sender.await.expect("join"));
        drain.abort();
        let (p50, p99) = (percentile(&mut all, 0.5), percentile(&mut all, 0.99));
        let to_last = percentile(&mut last, 0.5);
        let ratio = floor.map_or(String::new(), |(one, two, three)| {
            format!(
                "   p50 {:.2}x, to the last {:.2}x, CPU {:.2}x",
                ms(p50) / ms(one),
                ms(to_last) / ms(two),
                cpu / three
            )
        });
        println!(
            "{target:<7} p50 {:.2} ms  p99 {:.2} ms  to the last reader {:.2} ms  CPU {cpu:.2} us/frame{ratio}",
            ms(p50),
            ms(p99),
            ms(to_last)
        );
        floor = floor.or(Some((p50, to_last, cpu)));
    }
}
