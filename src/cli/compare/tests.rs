//! Reports about recordings for which the embedded provider answers.

use serde_json::Value;

use super::*;
use crate::cli::trial::Source;
use crate::cli::trial::tests::{all, played, record};
use crate::types::Trigger;

const TURNS: [&str; 4] = [
    "Hello, I am calling about my order, it is two days late.",
    "I am sorry to hear that. I will send you a new one by Friday.",
    "Great, thank you. Can you also refund the 12 euros for shipping?",
    "Yes, I will refund the 12 euros today.",
];

async fn report(sources: &[Source], analyses: &[&str]) -> Report {
    let (first, calls) = played(sources, analyses).await;
    let (second, again) = played(sources, analyses).await;
    Report::new(&[first, second], vec![calls, again], None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_minutes_pass_only_on_the_virtual_clock() {
    let folder = tempfile::tempdir().expect("folder");
    let turns: Vec<&str> = TURNS.into_iter().cycle().take(60).collect();
    record(folder.path(), "long", 20_000, &turns);
    let report = report(&all(folder.path()), &["summary", "action_items", "stats"]).await;
    let call = &report.calls[0];
    assert_eq!((call.turns, call.length_ms), (60, 20 * 60 * 1_000));
    let summaries = call.runs[0].call.of("summary");
    // Every fourth turn makes it due; it runs 1.5 s after that turn, and once more at the end.
    let first = &summaries[0];
    assert_eq!((first.at_ms, first.insight.covers.to), (4 * 20_000 + 1_500, Some(3)));
    assert_eq!((first.insight.latency_ms.debounce, first.insight.latency_ms.model), (1_500, 0));
    let last = summaries.last().expect("a summary");
    assert_eq!((last.at_ms, &last.insight.trigger), (call.length_ms, &Trigger::End));
    assert_eq!(summaries.len(), 15, "the end comes with the last turn, before its debounce is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_recording_gives_the_same_report_and_no_difference() {
    let folder = tempfile::tempdir().expect("folder");
    record(folder.path(), "one", 3_000, &TURNS);
    record(folder.path(), "two", 5_000, &TURNS);
    let sources = all(folder.path());
    let first = report(&sources, &["summary", "action_items"]).await.json();
    let second = report(&sources, &["summary", "action_items"]).await.json();
    assert_eq!(first.to_string(), second.to_string());
    let run = &first["calls"][0]["runs"]["a"];
    assert_eq!((&run["figures"]["requests"], &run["figures"]["cost_pico"]), (&Value::from(0), &Value::from(0)));
    assert!(run["figures"]["items"]["added"].as_u64().is_some_and(|added| added > 0), "{run}");
    assert!(run["timeline"].as_array().is_some_and(|timeline| timeline.len() >= 2), "{run}");
    let difference = &first["totals"]["el_ms"]["a"];
    assert_eq!(difference["better"], Value::Null, "{difference}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differences_are_judged_by_their_direction() {
    let folder = tempfile::tempdir().expect("folder");
    for name in ["one", "two", "three"] {
        record(folder.path(), name, 3_000, &TURNS);
    }
    let mut report = report(&all(folder.path()), &["summary"]).await;
    for (index, call) in report.calls.iter_mut().enumerate() {
        call.runs[1].figures.cost_pico = Some(1_000 + index as i64);
        call.runs[1].figures.summary.r1_auc = Some(0.5);
        call.runs[0].figures.summary.r1_auc = Some(0.25);
        call.runs[0].figures.input = None;
    }
    let total = |name: &str| {
        let metric = trial::METRICS.iter().find(|metric| metric.name == name).expect(name);
        report::Total::of(metric, 2, &report.calls).columns
    };
    let cost = total("cost_pico");
    assert_eq!((cost[0].sum, cost[1].sum, cost[1].better), (Some(0.0), Some(3_003.0), Some(false)));
    assert_eq!(total("r1_auc")[1].better, Some(true));
    let input = total("input");
    assert_eq!((input[0].sum, input[0].mean, input[1].difference), (None, None, None), "unknown is no zero");
}
