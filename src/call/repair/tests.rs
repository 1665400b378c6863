use crate::call::tests::bench::Bench;

/// A call that runs `summary` alone: due with every second turn, a second after the talk, and at once by a revision.
fn bench() -> Bench {
    let mut settings = Bench::settings("", "[summary]\nevery_n_turns = 2\ndebounce_ms = 1000\non_end = false\n", "");
    settings.default_analyses = vec!["summary".to_owned()];
    let mut bench = Bench::start(settings);
    bench.say(0, "A", "Hello.");
    bench.say(1, "B", "My number is four.");
    bench.pass(1_000);
    bench.start_tasks();
    bench.answer(&[1]);
    assert_eq!(bench.queued("summary"), None);
    bench
}

#[test]
fn other_words_in_a_quoted_turn_make_it_due_by_its_debounce() {
    let mut bench = bench();
    bench.revise(0, None, Some("Hello there."));
    bench.revise(1, None, Some("my number is FOUR"));
    bench.pass(60_000);
    assert_eq!(bench.queued("summary"), None, "not quoted, or the same words");
    bench.say(2, "A", "The parcel left Marlowe on Tuesday.");
    bench.revise(1, None, Some("My number is five."));
    bench.pass(999);
    assert_eq!(bench.queued("summary"), None, "somebody has just spoken");
    bench.pass(1);
    assert_eq!(bench.queued("summary").as_deref(), Some("revision"));
    bench.start_tasks();
    bench.answer(&[1]);
    bench.pass(60_000);
    assert_eq!(bench.queued("summary"), None, "it has seen the correction");
}

#[test]
fn another_speaker_of_a_covered_turn_makes_it_due_at_once() {
    let mut bench = bench();
    bench.say(2, "A", "One moment.");
    bench.revise(2, Some("C"), None);
    assert_eq!(bench.queued("summary"), None, "it does not cover that turn");
    bench.revise(0, Some("C"), None);
    assert_eq!(bench.queued("summary").as_deref(), Some("revision"));
}

#[test]
fn correction_while_it_is_asked_makes_it_due_again_after_its_result() {
    let mut bench = bench();
    bench.revise(0, Some("C"), None);
    bench.start_tasks();
    bench.revise(1, Some("D"), None);
    assert_eq!(bench.queued("summary"), None);
    bench.answer(&[]);
    assert_eq!(bench.queued("summary").as_deref(), Some("revision"));
    bench.start_tasks();
    bench.revise(1, None, Some("My number is six."));
    bench.answer(&[0]);
    bench.pass(60_000);
    assert_eq!(bench.queued("summary"), None, "its result quotes another turn");
}

#[test]
fn repair_that_was_due_is_due_after_a_restart() {
    let mut bench = bench();
    bench.say(2, "A", "The parcel left Marlowe on Tuesday.");
    bench.revise(1, None, Some("My number is five."));
    bench.restart(10);
    assert_eq!(bench.queued("summary"), None);
    bench.pass(1_000);
    assert_eq!(bench.queued("summary").as_deref(), Some("revision"));
}
