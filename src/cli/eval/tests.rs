//! Figures of recordings for which the embedded provider answers.

use serde_json::json;

use super::*;
use crate::cli::trial::tests::{all, played, record};
use crate::evaluation::labels::Labels;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_measured_against_their_labels_at_parts_of_their_time() {
    let folder = tempfile::tempdir().expect("folder");
    let moods =
        ["This is wonderful, I love it!", "This is terrible, I hate it.", "The meeting is on Monday.", "I love it!"];
    record(folder.path(), "moods", 1_000, &moods);
    record(folder.path(), "plain", 2_000, &["The car is late.", "We will send a car.", "Thanks.", "Goodbye."]);
    let labels = [
        json!({"kind": "turn", "call_id": "moods", "turn_order": 0, "sentiment": "positive"}),
        json!({"kind": "turn", "call_id": "moods", "turn_order": 1, "sentiment": "negative"}),
        json!({"kind": "turn", "call_id": "moods", "turn_order": 3, "sentiment": "negative"}),
        json!({"kind": "call", "call_id": "moods", "source": "Moods"}),
        json!({"kind": "call", "call_id": "plain", "source": "Plain", "summary": "The car is late, a car will be sent."}),
    ];
    let labels = labels.map(|label| label.to_string()).join("\n");
    let labels = Labels::read(&labels).expect("labels");
    assert_eq!(measure::judged(labels.of("moods").expect("labels")), [SENTIMENT]);
    assert_eq!(measure::judged(labels.of("plain").expect("labels")), [SUMMARY]);
    let mut sources = all(folder.path());
    for source in &mut sources {
        source.analyses = labels.of(source.call.as_str()).map(measure::judged);
    }
    let (_, calls) = played(&sources, &[SUMMARY, SENTIMENT]).await;
    let groups = Group::all(calls, &labels);
    assert_eq!(
        groups.iter().map(Group::title).collect::<Vec<_>>(),
        [
            "Moods: 1 call, 3 turns with a label, 3 answered",
            "Plain: 1 call",
            "all: 2 calls, 3 turns with a label, 3 answered",
        ]
    );
    let [moods, plain, whole] = [0, 1, 2].map(|index| groups[index].json());
    // Turns end at 1, 2, 3 and 4 s: one label by 25 %, two by 50 %, the third one at the end.
    let accuracy = |share: &str| moods["sentiment"]["at"][share]["accuracy"].as_f64().expect("a share");
    assert_eq!((accuracy("25"), accuracy("50"), accuracy("75")), (1.0, 1.0, 1.0));
    assert!((accuracy("100") - 2.0 / 3.0).abs() < 1e-9, "{moods}");
    assert_eq!((&moods["summary"], &moods["cost_pico"]), (&json!(null), &json!(0)));
    let rouge = &plain["summary"]["at"]["rouge_1"];
    assert!(rouge["100"]["mean"].as_f64().is_some_and(|mean| mean > 0.4), "{plain}");
    assert_eq!((&rouge["25"], &plain["summary"]["at"]["ne"]["25"]), (&json!(null), &json!(null)));
    assert_eq!((&whole["calls"], &whole["summary"]["calls"]), (&json!(2), &json!(1)));
    let table = table::draw(&groups[2].lines(), 1);
    for title in ["accuracy", "macro-F1", "ROUGE-1", "R1-AUC", "EL", "NE", "RF", "quotes in the transcript", "cost"] {
        assert!(table.lines().any(|line| line.starts_with(title)), "{title}: {table}");
    }
}
