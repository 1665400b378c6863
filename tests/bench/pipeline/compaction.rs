//! Turn to durable ack while the oldest turns become digests, beside the same load without any digest.

use std::time::Duration;

use super::common::process::Process;
use super::common::{ms, percentile};
use super::load::Load;
use super::rows::{config, ingest_path, stats};

/// Calls, and turns that each has said before the measurement: by then, all of them have made digests.
const CALLS: usize = 20;
const HISTORY: u64 = 60;
const RATE: f64 = 100.0;

/// Runs the row.
pub async fn compaction(seconds: u64) {
    println!(
        "\nturn to durable ack while digests are made ({CALLS} calls, {RATE} turns/s, an insight after each turn)"
    );
    let mut floor: Option<(Duration, Duration)> = None;
    for (target, most) in [("none", 1_000_000), ("digests", 1_000)] {
        let llm = Process::role(None, &["llm"]);
        let daemon = Process::daemon(None, &format!("{}max_context_tokens = {most}\n", config(llm.port)));
        let turns = HISTORY + (RATE * seconds as f64 / CALLS as f64).ceil() as u64 + 1;
        let mut load = Load::open(daemon.port, ingest_path, CALLS, turns).await;
        load.preload(HISTORY, false).await;
        let before = stats(&llm).await;
        let (load, _) = load.open_loop((RATE * seconds as f64) as u64, RATE, false).await;
        let after = stats(&llm).await;
        let mut samples = load.samples.lock().expect("lock");
        let (p50, p99) = (percentile(&mut samples.ack, 0.5), percentile(&mut samples.ack, 0.99));
        let ratio = floor.map_or(String::new(), |(one, two)| {
            format!("   p50 {:.2}x, p99 {:.2}x", ms(p50) / ms(one), ms(p99) / ms(two))
        });
        println!(
            "{target:<7} p50 {:.2} ms  p99 {:.2} ms  {} requests, {} of them for digests{ratio}",
            ms(p50),
            ms(p99),
            after.0 - before.0,
            after.2 - before.2
        );
        floor = floor.or(Some((p50, p99)));
    }
}
