//! Measures the cost of the drop-in proxy, beside a bare tungstenite relay in the same run: real-time sessions (16 kHz
//! PCM16 in 50 ms messages one way, a conversation's partials and finals the other way), both through a process of
//! their own. The load is open-loop: messages have due times, and latency counts from them, so that a stall is never
//! hidden. Client and vendor are this process; the process between them is measured.
//!
//! `cargo bench --bench proxy [-- --long] [-- SESSIONS…]`, by default with 1, 100 and 1000 sessions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod load;
mod relay;
mod vendor;

use std::time::Duration;

use common::process::Process;
use common::{ms, percentile};
use load::Run;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(position) = args.iter().position(|arg| arg == "--role") {
        return relay::run(&args[position + 2]);
    }
    let seconds = if args.iter().any(|arg| arg == "--long") { 30 } else { 8 };
    let only: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let sessions = if only.is_empty() { vec![1, 100, 1000] } else { only };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    println!(
        "{:>8} {:<8} {:>16} {:>16} {:>16} {:>16} {:>20} {:>12} {:>7} {:>5}",
        "sessions",
        "target",
        "audio p50 us",
        "audio p99 us",
        "turn p50 us",
        "turn p99 us",
        "CPU us/audio-second",
        "KiB/session",
        "lost",
        "gaps"
    );
    for count in sessions {
        let mut floor: Option<Row> = None;
        for target in ["relay", "daemon"] {
            let row = runtime.block_on(measure(target, count, seconds));
            row.print(target, count, floor.as_ref());
            floor = floor.or(Some(row));
        }
    }
}

struct Row {
    audio: (f64, f64),
    turn: (f64, f64),
    cpu: f64,
    memory: f64,
    lost: u64,
    gaps: u64,
}

impl Row {
    fn print(&self, target: &str, sessions: usize, floor: Option<&Row>) {
        let beside = |own: f64, of: fn(&Row) -> f64| match floor {
            Some(floor) => format!("{own:.0} ({:.2}x)", own / of(floor)),
            None => format!("{own:.0}"),
        };
        println!(
            "{sessions:>8} {target:<8} {:>16} {:>16} {:>16} {:>16} {:>20} {:>12.1} {:>7} {:>5}",
            beside(self.audio.0, |row| row.audio.0),
            beside(self.audio.1, |row| row.audio.1),
            beside(self.turn.0, |row| row.turn.0),
            beside(self.turn.1, |row| row.turn.1),
            beside(self.cpu, |row| row.cpu),
            self.memory,
            self.lost,
            self.gaps
        );
    }
}

async fn measure(target: &str, sessions: usize, seconds: u64) -> Row {
    let vendor = vendor::Vendor::listen().await;
    let process = if target == "relay" {
        Process::role(None, &["relay", &vendor.port.to_string()])
    } else {
        Process::daemon(
            None,
            &format!(
                "[stt]\nupstream = \"ws://127.0.0.1:{}\"\n[ingest]\nanalyses = []\n[limits]\nconnections = 60000\n\
                 per_address = 60000\nopen_calls = 60000\nnew_calls_per_s = 60000\n",
                vendor.port
            ),
        )
    };
    // A first session brings the process to its working size.
    let warm = Run::open(&process, &vendor, 1, 0).await.speak(Duration::from_secs(1)).await;
    let before = process.rss();
    let run = Run::open(&process, &vendor, sessions, 1).await;
    // Starting is not measured, only relaying.
    let run = run.speak(Duration::from_secs(1)).await;
    run.forget();
    let cpu = process.cpu();
    let run = run.speak(Duration::from_secs(seconds)).await;
    let cpu = process.cpu() - cpu;
    let memory = process.rss().saturating_sub(before) as f64 / sessions as f64 / 1024.0;
    let gaps = if target == "daemon" { load::gaps(process.port).await } else { 0 };
    let mut samples = run.samples();
    let us = |samples: &mut Vec<Duration>, fraction| ms(percentile(samples, fraction)) * 1000.0;
    drop(warm);
    Row {
        audio: (us(&mut samples.audio, 0.5), us(&mut samples.audio, 0.99)),
        turn: (us(&mut samples.turns, 0.5), us(&mut samples.turns, 0.99)),
        cpu: cpu.as_secs_f64() * 1e6 / (sessions as f64 * seconds as f64),
        memory,
        lost: run.sent() - (samples.audio.len() + samples.turns.len()) as u64,
        gaps,
    }
}
