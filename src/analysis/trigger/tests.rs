use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;

fn rules() -> Triggers {
    Triggers { every_n_turns: Some(2), debounce_ms: Some(100), max_wait_ms: Some(300), ..Triggers::OFF }
}

#[test]
fn due_by_turns_it_waits_for_silence() {
    let mut trigger = Trigger::new(&rules());
    trigger.on_turn(0, 10);
    assert_eq!((trigger.next_deadline(), trigger.poll(9_999)), (None, None), "one turn is not two");
    trigger.on_turn(50, 10);
    assert_eq!(trigger.next_deadline(), Some(150));
    trigger.on_turn(140, 10);
    assert_eq!(trigger.poll(150), None);
    assert_eq!((trigger.next_deadline(), trigger.poll(240)), (Some(240), Some(Reason::Debounce)));
    assert_eq!(trigger.poll(241), Some(Reason::Debounce), "until it ran");
    trigger.ran(241);
    assert_eq!((trigger.next_deadline(), trigger.poll(9_999)), (None, None));
}

#[test]
fn analysis_runs_after_max_wait_ms_if_nobody_pauses() {
    let mut trigger = Trigger::new(&rules());
    let fired = (0..100).map(|step| step * 50).find(|now| {
        trigger.on_turn(*now, 1);
        trigger.poll(*now) == Some(Reason::MaxWait)
    });
    assert_eq!(fired, Some(350), "due at 50, and 300 more");
}

#[test]
fn without_a_debounce_it_fires_at_once() {
    let mut trigger = Trigger::new(&Triggers { every_n_turns: Some(1), ..Triggers::OFF });
    trigger.on_turn(7, 1);
    assert_eq!((trigger.next_deadline(), trigger.poll(7)), (Some(7), Some(Reason::Turns)));
}

#[test]
fn interval_counts_from_the_last_run_and_needs_something_new() {
    let mut trigger = Trigger::new(&Triggers { interval_ms: Some(1_000), ..Triggers::OFF });
    assert_eq!((trigger.next_deadline(), trigger.poll(5_000)), (None, None));
    trigger.on_turn(5_000, 1);
    assert_eq!((trigger.next_deadline(), trigger.poll(5_999)), (Some(6_000), None));
    assert_eq!(trigger.poll(6_000), Some(Reason::Interval));
    trigger.ran(6_000);
    assert_eq!(trigger.poll(60_000), None, "nothing new");
    trigger.on_revision(60_000);
    assert_eq!(trigger.poll(60_000), Some(Reason::Interval), "a correction is news, and the interval is long over");
}

#[test]
fn a_late_correction_makes_it_due_when_it_comes() {
    let waits = Triggers { interval_ms: Some(10), debounce_ms: Some(500), max_wait_ms: Some(100), ..Triggers::OFF };
    let mut trigger = Trigger::new(&waits);
    trigger.on_turn(0, 1);
    trigger.ran(110);
    trigger.on_revision(300);
    assert_eq!((trigger.next_deadline(), trigger.poll(399)), (Some(400), None), "due at 300, not at 120");
    assert_eq!(trigger.poll(400), Some(Reason::MaxWait));
}

#[test]
fn min_new_tokens_applies_to_every_trigger() {
    let all = Triggers { interval_ms: Some(10), min_new_tokens: Some(50), every_n_turns: Some(1), ..Triggers::OFF };
    let mut trigger = Trigger::new(&all);
    trigger.on_turn(0, 49);
    assert_eq!((trigger.next_deadline(), trigger.poll(9_999)), (None, None));
    trigger.on_turn(10_000, 1);
    assert_eq!(trigger.poll(10_000), Some(Reason::Turns));
}

#[test]
fn trigger_that_is_off_never_fires() {
    let mut trigger = Trigger::new(&Triggers::OFF);
    trigger.on_turn(0, 1_000_000);
    trigger.on_revision(1);
    assert_eq!((trigger.next_deadline(), trigger.poll(u64::MAX)), (None, None));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Turn(u64),
    Revision,
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..40_u64).prop_map(Step::Turn),
        1 => Just(Step::Revision),
        3 => (1..400_u64).prop_map(Step::Wait),
    ]
}

fn any_rules() -> impl Strategy<Value = Triggers> {
    let maybe = |range: std::ops::Range<u64>| prop::option::of(range);
    (maybe(1..6), maybe(1..600), maybe(1..60), maybe(1..200), maybe(1..500)).prop_map(
        |(turns, interval, tokens, debounce, wait)| Triggers {
            every_n_turns: turns,
            interval_ms: interval,
            min_new_tokens: tokens,
            debounce_ms: debounce,
            max_wait_ms: wait,
            on_end: true,
        },
    )
}

proptest! {
    #![proptest_config(kept())]

    /// Runs a trigger by its own deadlines alone: it never fires below a threshold, never waits longer than the longest
    /// wait, and never passes a deadline without a decision.
    #[test]
    fn trigger_fires_between_its_earliest_and_latest_time(rules in any_rules(), steps in prop::collection::vec(any_step(), 1..120)) {
        let mut trigger = Trigger::new(&rules);
        let (mut now, mut last_run) = (0_u64, None::<u64>);
        let (mut turns, mut tokens, mut news) = (0_u64, 0_u64, false);
        let (mut due_since, mut last_turn, mut first_news) = (None::<u64>, 0_u64, None::<u64>);
        for step in steps {
            let until = match step {
                Step::Turn(cost) => {
                    (turns, tokens, news, last_turn) = (turns + 1, tokens + cost, true, now);
                    first_news.get_or_insert(now);
                    trigger.on_turn(now, cost);
                    now
                }
                Step::Revision => {
                    news = true;
                    first_news.get_or_insert(now);
                    trigger.on_revision(now);
                    now
                }
                Step::Wait(ms) => now + ms,
            };
            // The rules in their simplest form.
            let enough = rules.min_new_tokens.is_none_or(|floor| tokens >= floor);
            let by_turns = rules.every_n_turns.is_some_and(|every| turns >= every);
            let interval_at = rules.interval_ms.filter(|_| news).and_then(|ms| Some(last_run.or(first_news)? + ms));
            loop {
                let by_interval = interval_at.is_some_and(|at| at <= now);
                if enough && (by_turns || by_interval) {
                    due_since.get_or_insert(now);
                }
                let quiet = rules.debounce_ms.is_none_or(|ms| now >= last_turn + ms);
                let waited = due_since.is_some_and(|since| rules.max_wait_ms.is_some_and(|ms| now >= since + ms));
                let must = due_since.is_some() && (quiet || waited);
                let fired = trigger.poll(now);
                prop_assert_eq!(fired.is_some(), must, "at {} {:?} {:?}", now, rules, trigger);
                if fired.is_some() {
                    trigger.ran(now);
                    last_run = Some(now);
                    (turns, tokens, news, due_since) = (0, 0, false, None);
                    break;
                }
                match trigger.next_deadline() {
                    Some(at) if at <= until => {
                        prop_assert!(at > now, "a deadline that passed without an answer");
                        now = at;
                    }
                    _ => break,
                }
            }
            now = now.max(until);
        }
    }
}

#[test]
fn alert_makes_an_analysis_due_after_its_debounce() {
    let mut trigger = Trigger::new(&Triggers { min_new_tokens: Some(1_000), ..rules() });
    trigger.on_turn(1_000, 1);
    trigger.on_event(1_050, Reason::Alert(3));
    assert_eq!((trigger.next_deadline(), trigger.poll(1_099)), (Some(1_100), None));
    assert_eq!(trigger.poll(1_100), Some(Reason::Alert(3)), "that is why, not the debounce");
    trigger.ran(1_100);
    assert_eq!(trigger.poll(9_999), None);
    let mut alone = Trigger::new(&Triggers::OFF);
    alone.on_event(5, Reason::Silence);
    assert_eq!((alone.next_deadline(), alone.poll(5)), (Some(5), Some(Reason::Silence)));
}

#[test]
fn correction_of_a_covered_turn_makes_an_analysis_due() {
    let mut trigger = Trigger::new(&Triggers { min_new_tokens: Some(1_000), ..rules() });
    trigger.on_turn(1_000, 1);
    trigger.ran(1_000);
    trigger.on_turn(1_050, 1);
    trigger.on_repair(1_060, false);
    assert_eq!((trigger.next_deadline(), trigger.poll(1_149)), (Some(1_150), None), "somebody still talks");
    assert_eq!(trigger.poll(1_150), Some(Reason::Revision));
    trigger.on_repair(1_100, true);
    assert_eq!(trigger.poll(1_100), Some(Reason::Revision), "another speaker: nothing is waited for");
    trigger.ran(1_100);
    assert_eq!((trigger.next_deadline(), trigger.poll(9_999)), (None, None));
    trigger.on_event(10_000, Reason::Alert(1));
    trigger.on_repair(10_000, true);
    assert_eq!(trigger.poll(10_000), Some(Reason::Alert(1)), "an alert is the better reason");
    trigger.ran(10_000);
    trigger.on_turn(10_010, 1);
    trigger.on_event(10_020, Reason::Silence);
    assert_eq!(trigger.poll(10_020), None, "the next run waits again");
}

#[test]
fn silence_makes_an_analysis_due_once_something_is_new() {
    let mut trigger = Trigger::new(&Triggers::OFF);
    trigger.on_silence(0);
    trigger.on_silence(1_000);
    assert_eq!(trigger.poll(1_000), None, "nothing is new");
    trigger.on_turn(1_500, 1);
    assert_eq!(trigger.poll(1_500), Some(Reason::Silence), "the text of what was said before");
    trigger.ran(1_500);
    trigger.on_silence(2_000);
    trigger.on_speech(3_000, false);
    trigger.on_turn(4_000, 1);
    assert_eq!(trigger.poll(4_000), None, "somebody spoke meanwhile");
    trigger.on_silence(5_000);
    assert_eq!(trigger.poll(5_000), Some(Reason::Silence));
}

#[test]
fn speech_makes_an_analysis_due_only_if_something_is_new() {
    let mut trigger = Trigger::new(&Triggers::OFF);
    trigger.on_speech(0, true);
    trigger.on_turn(1_000, 1);
    assert_eq!(trigger.poll(1_000), None, "the turn of that speech");
    trigger.on_speech(2_000, true);
    assert_eq!(trigger.poll(2_000), Some(Reason::SpeechStarted));
}
