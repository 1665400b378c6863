//! Each kind of rule over time, on a virtual clock, in a call; and after restarts, from the call's log.

mod gate;

use serde_json::{Value, json};

use crate::call::tests::bench::{BEGAN_MS, Bench};
use crate::types::{Evidence, SttEvent};

const CHURN: &str = "[churn]\nkind = \"keyword\"\nany = [\"cancel\", \"/refund(ed)?/\"]\nseverity = \"critical\"\n";
const DISCLOSURE: &str =
    "[disclosure]\nkind = \"absence\"\nany = [\"this call is recorded\"]\nspeaker = \"agent\"\nwithin_ms = 30000\n";

#[test]
fn keyword_is_raised_once_and_by_final_turns_only() {
    let mut bench = Bench::new(CHURN, "", "");
    bench.partial(0, "I want to cancel");
    assert_eq!(bench.alerts(), [""; 0], "a partial is not looked at");
    bench.pass(1_000);
    bench.say(0, "B", "I want to CANCEL, now.");
    bench.say(1, "A", "Cancel? Why?");
    assert_eq!(bench.alerts(), ["+a_1 churn@1000"]);
    assert_eq!(bench.open("churn"), Some((Some(0), Some("I want to CANCEL, now.".to_owned()))));
    // The turn's record and its alert are in one append.
    let kinds: Vec<&str> = bench.log.iter().map(|stored| stored.kind().as_str()).collect();
    assert_eq!(kinds[2..4], ["turn.final", "alert.raised"]);
}

#[test]
fn revision_that_takes_the_words_away_clears_the_alert_and_another_turn_raises_it() {
    let mut bench = Bench::new(CHURN, "", "");
    bench.say(0, "B", "I want to cancel.");
    bench.say(1, "B", "I was refunded.");
    bench.revise(0, None, Some("I want to can sell."));
    assert_eq!(bench.alerts(), ["+a_1 churn@0", "-a_1 churn@0", "+a_2 churn@0"]);
    assert_eq!(bench.open("churn").and_then(|(turn, _)| turn), Some(1));
    bench.revise(1, None, Some("I was re funded."));
    assert_eq!(bench.open("churn"), None);
    bench.revise(1, None, Some("I cancelled, I mean: cancel."));
    assert_eq!(bench.open("churn").and_then(|(turn, _)| turn), Some(1), "a correction can bring the words too");
}

#[test]
fn next_alert_of_a_rule_waits_for_its_pause() {
    let mut bench = Bench::new(CHURN, "", "alert_pause_ms = 5000");
    bench.say(0, "B", "cancel");
    bench.say(1, "B", "refund");
    bench.pass(1_000);
    bench.revise(0, None, Some("council"));
    assert_eq!(bench.alerts(), ["+a_1 churn@0", "-a_1 churn@1000"]);
    // After a restart, the pause and the alert that waits for it are still known.
    bench.restart(1_000);
    bench.pass(10_000);
    assert_eq!(bench.alerts(), ["+a_1 churn@0", "-a_1 churn@1000", "+a_2 churn@5000"]);
}

#[test]
fn call_has_no_more_alerts_than_it_may_have() {
    let mut bench = Bench::new(CHURN, "", "alerts_per_call = 2");
    for order in 0..4 {
        bench.say(order, "B", "cancel");
        bench.revise(order, None, Some("council"));
    }
    bench.pass(60_000);
    assert_eq!(bench.alerts(), ["+a_1 churn@0", "-a_1 churn@0", "+a_2 churn@0", "-a_2 churn@0"]);
}

#[test]
fn absence_is_raised_when_the_time_is_over_and_cleared_when_the_words_come() {
    let mut bench = Bench::new(DISCLOSURE, "", "");
    bench.say(0, "agent", "Hello.");
    bench.say(1, "customer", "Is it so that this call is recorded?");
    bench.pass(29_999);
    assert_eq!(bench.alerts(), [""; 0]);
    bench.pass(10_001);
    assert_eq!(bench.alerts(), ["+a_1 disclosure@30000"], "the customer's words do not count");
    assert_eq!(bench.open("disclosure"), Some((None, None)));
    bench.say(2, "agent", "This call is recorded.");
    bench.pass(60_000);
    assert_eq!(bench.alerts(), ["+a_1 disclosure@30000", "-a_1 disclosure@40000"]);
    bench.revise(2, None, Some("This ball is corded."));
    assert_eq!(bench.alerts()[2..], ["+a_2 disclosure@100000"], "the words are gone, and the time is over");
}

#[test]
fn words_in_time_raise_nothing_and_their_revision_counts() {
    let mut bench = Bench::new(DISCLOSURE, "", "");
    bench.say(0, "agent", "This call is recorded.");
    bench.say(1, "agent", "As I said: this call is recorded.");
    bench.revise(0, None, Some("This ball."));
    bench.pass(40_000);
    assert_eq!(bench.alerts(), [""; 0], "they were said twice");
    bench.revise(1, Some("customer"), None);
    assert_eq!(bench.alerts(), ["+a_1 disclosure@40000"]);
}

#[test]
fn absence_of_a_stream_counts_from_each_streams_start() {
    let rules = "[greeting]\nkind = \"absence\"\nany = [\"hello\"]\nwithin_ms = 5000\nof = \"stream\"\n";
    let mut bench = Bench::new(rules, "", "");
    bench.pass(1_000);
    bench.say(0, "A", "Hello.");
    bench.pass(9_000);
    assert_eq!(bench.alerts(), [""; 0]);
    bench.connect("s_2", &json!({}));
    bench.say_on("s_2", 0, "B", "Good day.", None);
    bench.say(1, "A", "Hello again.");
    bench.pass(10_000);
    assert_eq!(bench.alerts(), ["+a_1 greeting@15000"], "the words must come in that stream");
    bench.say_on("s_2", 1, "B", "Hello.", None);
    assert_eq!(bench.open("greeting"), None);
}

#[test]
fn absence_after_another_rule_counts_from_its_alert() {
    let rules =
        format!("{CHURN}[offer]\nkind = \"absence\"\nany = [\"discount\"]\nwithin_ms = 20000\nafter = \"churn\"\n");
    let mut bench = Bench::new(&rules, "", "");
    bench.say(0, "A", "There is a discount.");
    bench.pass(60_000);
    bench.say(1, "B", "I want to cancel.");
    bench.pass(30_000);
    assert_eq!(bench.alerts(), ["+a_1 churn@60000", "+a_2 offer@80000"], "what was said before does not count");
    bench.say(2, "A", "Have a discount.");
    assert_eq!(bench.alerts()[2..], ["-a_2 offer@90000"]);
    // If the words from which it counts are gone, nothing is expected any more.
    bench.revise(2, None, Some("Have a coffee."));
    assert_eq!(bench.alerts()[3..], ["+a_3 offer@90000"]);
    bench.revise(1, None, Some("I want to can sell."));
    assert_eq!(bench.alerts()[4..], ["-a_1 churn@90000", "-a_3 offer@90000"]);
}

#[test]
fn silence_is_counted_from_the_last_speech_while_a_stream_is_connected() {
    let mut bench = Bench::new("[long_silence]\nkind = \"silence\"\nover_ms = 8000\n", "", "");
    bench.pass(7_000);
    bench.partial(0, "Wait");
    bench.pass(7_999);
    assert_eq!(bench.alerts(), [""; 0]);
    bench.pass(1);
    assert_eq!(bench.alerts(), ["+a_1 long_silence@15000"]);
    bench.pass(5_000);
    bench.partial(0, "");
    assert!(bench.open("long_silence").is_some(), "that is no speech");
    bench.partial(0, "Wait for it");
    assert_eq!(bench.alerts()[1..], ["-a_1 long_silence@20000"]);
    bench.disconnect("s_1");
    bench.pass(60_000);
    bench.connect("s_1", &json!({}));
    bench.pass(7_999);
    assert_eq!(bench.alerts().len(), 2, "nobody listened, so nobody was silent");
    bench.pass(1);
    assert_eq!(bench.alerts()[2..], ["+a_2 long_silence@88000"]);
    // An open alert survives a restart, and speech clears it.
    bench.restart(1_000);
    bench.connect("s_1", &json!({}));
    bench.say(0, "A", "Hello?");
    assert_eq!(bench.alerts()[3..], ["-a_2 long_silence@89000"]);
}

#[test]
fn silence_counts_as_far_back_as_the_vendor_detected_it() {
    let silence = |from: u64, to: u64| SttEvent::Silence { span: Some((from, to)) };
    let mut bench = Bench::new("[long_silence]\nkind = \"silence\"\nover_ms = 8000\n", "", "");
    bench.pass(10_000);
    bench.say(0, "A", "Wait.");
    assert_eq!(bench.alerts(), ["+a_1 long_silence@8000", "-a_1 long_silence@10000"]);
    // The words came two seconds after they were said. The vendor reports each second, and once what it has reported.
    bench.event_on("s_1", silence(8_000, 10_000));
    bench.pass(1_000);
    bench.event_on("s_1", silence(9_500, 11_000));
    bench.pass(4_999);
    assert_eq!(bench.alerts().len(), 2);
    bench.pass(1);
    assert_eq!(bench.alerts()[2..], ["+a_2 long_silence@16000"]);
    bench.event_on("s_1", SttEvent::SpeechStarted);
    assert_eq!(bench.alerts()[3..], ["-a_2 long_silence@16000"], "detected speech is speech");
    // A recording that is played faster than it was said: its own times count.
    bench.event_on("s_1", silence(20_000, 24_000));
    bench.event_on("s_1", silence(24_000, 28_000));
    bench.pass(0);
    assert_eq!(bench.alerts()[4..], ["+a_3 long_silence@16000"]);
    bench.event_on("s_1", SttEvent::SpeechStarted);
    // Two silences with speech in between are not one, and the silence of one stream does not count for another stream.
    bench.event_on("s_1", silence(30_000, 34_000));
    bench.event_on("s_1", silence(36_000, 40_000));
    bench.pass(0);
    assert_eq!(bench.alerts().len(), 6);
    bench.connect("s_2", &json!({}));
    bench.event_on("s_2", SttEvent::SpeechStarted);
    bench.event_on("s_1", silence(40_000, 60_000));
    bench.pass(0);
    assert_eq!(bench.alerts().len(), 6);
}

#[test]
fn overlap_is_raised_by_times_and_cleared_by_the_talk_after_it() {
    let mut bench = Bench::new("[crosstalk]\nkind = \"overlap\"\nover_ms = 1500\n", "", "");
    bench.say_on("s_1", 0, "A", "Let me explain this.", Some((0, 5_000)));
    bench.say_on("s_1", 1, "B", "No, no.", Some((4_000, 5_400)));
    assert_eq!(bench.alerts(), [""; 0], "one second is short");
    bench.say_on("s_1", 2, "A", "Please, let me finish.", Some((6_000, 9_000)));
    bench.say_on("s_1", 3, "B", "I will not.", Some((7_000, 9_500)));
    assert_eq!(bench.open("crosstalk"), Some((Some(3), Some("I will not.".to_owned()))));
    bench.say_on("s_1", 4, "A", "Fine.", Some((8_000, 8_200)));
    assert!(bench.open("crosstalk").is_some(), "it began while they still spoke");
    bench.say_on("s_1", 5, "A", "Well then.", Some((10_000, 11_000)));
    assert_eq!(bench.alerts(), ["+a_1 crosstalk@0", "-a_1 crosstalk@0"]);
    bench.say_on("s_1", 6, "B", "One more thing.", Some((10_000, 12_000)));
    assert_eq!(bench.alerts().len(), 2, "one second");
    bench.say_on("s_1", 7, "A", "And another thing.", Some((10_200, 12_000)));
    assert_eq!(bench.open("crosstalk").and_then(|(turn, _)| turn), Some(7));
    bench.revise(7, Some("B"), None);
    assert_eq!(bench.open("crosstalk"), None, "it was one speaker after all");
}

const MOOD: &str =
    "[mood]\nkind = \"insight\"\nanalysis = \"sentiment\"\nat = \"/overall/score\"\nbelow = -0.4\nfor_ms = 20000\n";

fn score(score: f64) -> Value {
    json!({"overall": {"score": score}})
}

#[test]
fn value_must_stay_for_its_time_without_a_break() {
    let mut bench = Bench::new(MOOD, "", "");
    bench.say(0, "B", "This is bad.");
    bench.insight("sentiment", score(-0.6), Vec::new());
    bench.pass(15_000);
    bench.insight("sentiment", score(0.1), Vec::new());
    bench.pass(60_000);
    assert_eq!(bench.alerts(), [""; 0]);
    bench.insight("sentiment", score(-0.5), Vec::new());
    bench.pass(10_000);
    let quote = |unverified| Evidence { turn: 0, quote: "This is bad.".into(), unverified };
    bench.insight("sentiment", score(-0.9), vec![quote(true), quote(false)]);
    bench.pass(15_000);
    assert_eq!(bench.alerts(), ["+a_1 mood@95000"], "20 s after the first of the two");
    assert_eq!(bench.open("mood"), Some((Some(0), Some("This is bad.".to_owned()))));
    bench.insight("sentiment", score(0.0), Vec::new());
    assert_eq!(bench.alerts()[1..], ["-a_1 mood@100000"]);
}

#[test]
fn value_without_a_time_is_raised_at_once_and_its_restart_changes_nothing() {
    let mut bench = Bench::new(&MOOD.replace("for_ms = 20000\n", ""), "", "");
    bench.say(0, "B", "This is bad.");
    bench.insight("sentiment", score(-0.6), Vec::new());
    assert_eq!(bench.alerts(), ["+a_1 mood@0"]);
    bench.restart(1_000);
    bench.pass(60_000);
    bench.insight("sentiment", score(0.6), Vec::new());
    assert_eq!(bench.alerts(), ["+a_1 mood@0", "-a_1 mood@61000"]);
}

#[test]
fn timers_run_on_over_a_restart_and_the_directory_knows_when_they_are_due() {
    let mut bench = Bench::new(&format!("{DISCLOSURE}{MOOD}"), "", "");
    let due = |bench: &Bench| bench.entry.as_ref().and_then(|entry| entry.due_at_ms).map(|at| at - BEGAN_MS);
    assert_eq!(due(&bench), Some(30_000));
    bench.say(0, "customer", "Hello.");
    bench.pass(1_000);
    bench.insight("sentiment", score(-0.6), Vec::new());
    assert_eq!(due(&bench), Some(21_000), "the first of the two");
    bench.restart(10_000);
    bench.pass(9_999);
    assert_eq!(bench.alerts(), [""; 0]);
    bench.pass(1);
    assert_eq!(bench.alerts(), ["+a_1 mood@21000"], "on time, although it was away meanwhile");
    assert_eq!(due(&bench), Some(30_000));
    bench.restart(60_000);
    bench.pass(0);
    assert_eq!(bench.alerts()[1..], ["+a_2 disclosure@81000"], "at once, because it is overdue");
    assert_eq!(due(&bench), None);
    bench.restart(1_000);
    bench.pass(60_000);
    assert_eq!(bench.alerts().len(), 2, "each once");
}

#[test]
fn words_that_came_before_a_restart_are_known_after_it() {
    let mut bench = Bench::new(DISCLOSURE, "", "");
    bench.say(0, "agent", "This call is recorded.");
    bench.restart(60_000);
    bench.pass(60_000);
    assert_eq!(bench.alerts(), [""; 0]);
    bench.connect("s_1", &json!({}));
    bench.revise(0, None, Some("This ball."));
    assert_eq!(bench.alerts(), ["+a_1 disclosure@120000"]);
}

#[test]
fn roles_come_from_meta_and_from_the_speakers_insight() {
    let rules = "[churn]\nkind = \"keyword\"\nany = [\"cancel\"]\nspeaker = \"customer\"\n";
    let mut bench = Bench::new(rules, "", "");
    bench.say(0, "B", "I want to cancel.");
    assert_eq!(bench.alerts(), [""; 0], "nobody knows who B is");
    bench.insight("speakers", json!({"speakers": [{"speaker": "B", "role": "customer"}]}), Vec::new());
    assert_eq!(bench.alerts(), ["+a_1 churn@0"]);
    bench.meta(&json!({"roles": {"B": "agent"}}));
    assert_eq!(bench.alerts()[1..], ["-a_1 churn@0"], "what meta says wins");
    bench.meta(&json!({"roles": {"B": "Customer"}}));
    assert_eq!(bench.alerts()[2..], ["+a_2 churn@0"]);
}

#[test]
fn alert_makes_analyses_due_and_says_so() {
    let analyses =
        "[summary]\nevery_n_turns = 1000\ndebounce_ms = 300\n[sentiment]\non = [\"silence\", \"alert:churn\"]\n";
    let rules = format!("{CHURN}runs = [\"summary\"]\n[quiet]\nkind = \"silence\"\nover_ms = 5000\n");
    let mut bench = Bench::new(&rules, analyses, "");
    bench.say(0, "A", "Hello.");
    bench.pass(4_000);
    assert_eq!((bench.queued("summary"), bench.queued("sentiment")), (None, None));
    bench.say(1, "B", "I want to cancel.");
    assert_eq!((bench.queued("summary"), bench.queued("sentiment")), (None, Some("alert:churn".to_owned())));
    bench.pass(300);
    assert_eq!(bench.queued("summary"), Some("alert:churn".to_owned()), "due, it still waits for its debounce");
    // Neither analysis had its result when the daemon was killed.
    bench.restart(1_000);
    bench.pass(300);
    for analysis in ["summary", "sentiment"] {
        assert_eq!(bench.queued(analysis), Some("alert:churn".to_owned()), "{analysis}");
    }
    let mut bench = Bench::new(&rules, analyses, "");
    bench.say(0, "A", "Hello.");
    bench.pass(5_000);
    assert_eq!((bench.queued("summary"), bench.queued("sentiment")), (None, Some("silence".to_owned())));
}

#[test]
fn analysis_that_the_call_does_not_run_is_added_by_the_alert() {
    let mut settings = Bench::settings(&format!("{CHURN}runs = [\"summary\"]\n"), "", "");
    settings.default_analyses = vec!["sentiment".to_owned()];
    let mut bench = Bench::start(settings);
    bench.say(0, "B", "I want to cancel.");
    bench.pass(10_000);
    assert_eq!(bench.call.log.analyses, ["sentiment", "summary"]);
    assert_eq!(bench.queued("summary"), Some("alert:churn".to_owned()));
    bench.restart(1_000);
    assert_eq!(bench.call.log.analyses, ["sentiment", "summary"]);
}
