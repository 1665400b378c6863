//! Turns that add nothing, and the analyses that do not become due by them.

use serde_json::json;

use crate::call::tests::bench::Bench;

const ANALYSES: &str =
    "[summary]\nevery_n_turns = 2\ndebounce_ms = 100\n[sentiment]\nevery_n_turns = 2\ngate = false\nbundle = \"\"\n";

#[test]
fn turns_that_add_nothing_make_nothing_due_after_a_restart_too() {
    let mut bench = Bench::new("", ANALYSES, "");
    bench.say(0, "A", "The parcel with the lamp is late.");
    bench.say(1, "B", "Uh-huh.");
    bench.say(2, "B", "Okay, thank you.");
    bench.pass(10_000);
    assert_eq!(bench.queued("summary"), None);
    assert!(bench.queued("sentiment").is_some(), "it has no gate");
    assert_eq!(bench.call.log.context.len(), 3, "they are in the context");
    bench.restart(1_000);
    bench.pass(10_000);
    assert_eq!(bench.queued("summary"), None);
    assert!(bench.queued("sentiment").is_some());
    bench.connect("s_1", &json!({}));
    bench.say(3, "A", "It comes on Friday.");
    bench.pass(100);
    assert_eq!(bench.queued("summary").as_deref(), Some("debounce"));
}
