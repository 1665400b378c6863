//! Bundles through the call, on a virtual clock: which analyses one request asks, and what happens to each part of its
//! answer.

mod bench;

use serde_json::json;

use self::bench::Bench;
use crate::protocol::FailureCode::{InvalidRequest, SchemaMismatch, UpstreamError};

/// Three analyses that are due with every turn.
const EAGER: &str = "[summary]\nevery_n_turns = 1\n[sentiment]\nevery_n_turns = 1\n[questions]\nevery_n_turns = 1\n";
const ALL: [&str; 3] = ["questions", "sentiment", "summary"];

#[test]
fn three_analyses_due_together_are_one_request_in_a_fixed_order() {
    let mut bench = Bench::new(EAGER);
    bench.say(0, 0);
    let task = bench.only_started();
    assert_eq!((&task.asked[..], &task.schema[..]), (&ALL.map(str::to_owned)[..], &ALL.map(str::to_owned)[..]));
    bench.answer(task.no, &[Ok(1), Ok(2), Ok(5)]);
    assert_eq!(bench.insights(), ["questions 1 turns 0.125", "sentiment 1 turns 0.25", "summary 1 turns 0.625"]);
    assert_eq!(bench.failures(), [""; 0]);
}

#[test]
fn analysis_that_is_not_due_joins_if_something_is_new_and_stays_in_the_schema_if_not() {
    let mut bench = Bench::new("[summary]\nevery_n_turns = 4\n[sentiment]\nevery_n_turns = 1\n");
    bench.say(0, 0);
    let first = bench.only_started();
    assert_eq!(first.asked, ["sentiment", "summary"]);
    bench.answer(first.no, &[Ok(1), Ok(1)]);
    assert_eq!(bench.insights(), ["sentiment 1 turns 0.5", "summary 1 bundle 0.5"]);
    bench.run("sentiment");
    let second = bench.only_started();
    assert_eq!((&second.asked[..], second.schema), (&["sentiment".to_owned()][..], first.schema));
    bench.answer(second.no, &[Ok(1)]);
    assert_eq!(bench.insights()[2..], ["sentiment 2 manual 1"]);
}

#[test]
fn part_that_is_invalid_fails_alone_and_twice_in_a_row_is_asked_alone() {
    let mut bench = Bench::new(EAGER);
    bench.say(0, 0);
    let task = bench.only_started();
    bench.answer(task.no, &[Ok(1), Err(SchemaMismatch), Ok(3)]);
    assert_eq!(bench.insights(), ["questions 1 turns 0.25", "summary 1 turns 0.75"], "they have the whole cost");
    assert_eq!(bench.failures(), ["sentiment schema_mismatch"]);
    bench.pass(500);
    let again = bench.only_started();
    assert_eq!(
        (&again.asked[..], again.schema.len()),
        (&["sentiment".to_owned()][..], 3),
        "the others have nothing new"
    );
    bench.answer(again.no, &[Err(SchemaMismatch)]);
    bench.say(1, 500);
    let others = bench.only_started();
    assert_eq!(others.asked, ["questions", "summary"]);
    bench.answer(others.no, &[Ok(1), Ok(1)]);
    bench.pass(1_000);
    let alone = bench.only_started();
    assert_eq!((&alone.asked[..], &alone.schema[..]), (&["sentiment".to_owned()][..], &["sentiment".to_owned()][..]));
    bench.answer(alone.no, &[Ok(1)]);
    assert_eq!(bench.insights().last().map(String::as_str), Some("sentiment 1 turns 1"));
    bench.say(2, 5_000);
    assert_eq!(bench.only_started().asked, ALL, "a success brings it back");
}

#[test]
fn request_that_fails_fails_for_all_and_is_repeated_for_all() {
    let mut bench = Bench::new(EAGER);
    bench.say(0, 0);
    let task = bench.only_started();
    bench.fail(task.no, UpstreamError, true);
    assert_eq!(bench.failures(), ["questions upstream_error", "sentiment upstream_error", "summary upstream_error"]);
    bench.pass(500);
    let again = bench.only_started();
    assert_eq!(again.asked, ALL);
    bench.answer(again.no, &[Ok(1), Ok(1), Ok(2)]);
    assert_eq!(bench.insights(), ["questions 1 retry 0.25", "sentiment 1 retry 0.25", "summary 1 retry 0.5"]);
}

#[test]
fn request_that_is_refused_as_a_whole_is_not_made_again() {
    let mut bench = Bench::new(EAGER);
    bench.say(0, 0);
    let task = bench.only_started();
    bench.fail(task.no, InvalidRequest, false);
    bench.say(1, 5_000);
    let mut alone: Vec<Vec<String>> = bench.started.drain(..).map(|task| task.schema).collect();
    alone.sort_unstable();
    assert_eq!(alone, ALL.map(|name| vec![name.to_owned()]));
}

#[test]
fn result_is_refused_for_the_analysis_that_wants_it_so() {
    let mut bench = Bench::new(&EAGER.replace("[summary]\n", "[summary]\non_revision = \"refuse\"\n"));
    bench.say(0, 0);
    let task = bench.only_started();
    bench.revise(0);
    bench.answer(task.no, &[Ok(1), Ok(1), Ok(8)]);
    assert_eq!(bench.insights(), ["questions 1 turns 0.5", "sentiment 1 turns 0.5"]);
    bench.pass(500);
    let again = bench.only_started();
    assert_eq!(again.asked, ALL, "the others saw an older version of the turn too");
    bench.answer(again.no, &[Ok(1), Ok(1), Ok(2)]);
    assert_eq!(bench.insights()[2..], ["questions 2 bundle 0.25", "sentiment 2 bundle 0.25", "summary 1 retry 0.5"]);
}

#[test]
fn analyses_with_other_settings_are_asked_in_other_requests() {
    let config = format!(
        "{EAGER}[entities]\nevery_n_turns = 1\nbundle = \"\"\n[topics]\nevery_n_turns = 1\nmax_context_tokens = 900\n"
    );
    let mut bench = Bench::new(&config);
    bench.say(0, 0);
    let mut asked: Vec<Vec<String>> = bench.started.drain(..).map(|task| task.asked).collect();
    asked.sort_unstable();
    let alone = |name: &str| vec![name.to_owned()];
    assert_eq!(asked, [alone("entities"), ALL.map(str::to_owned).to_vec(), alone("topics")]);
}

#[test]
fn unchanged_results_become_final_without_a_request() {
    let mut bench = Bench::new(&EAGER.replace("[questions]\n", "[questions]\non_end = false\n"));
    bench.say(0, 0);
    let task = bench.only_started();
    bench.answer(task.no, &[Ok(1), Ok(1), Ok(2)]);
    bench.end();
    assert_eq!(bench.started.len(), 0, "nothing has changed");
    let mut finals = bench.insights().split_off(3);
    finals.sort_unstable();
    assert_eq!(finals, ["sentiment 2 end 0", "summary 2 end 0"]);
    let last = bench.newest("summary");
    assert_eq!((last.status, last.provenance.attempts), (crate::types::Status::Final, 0));
    assert_eq!((last.provenance.model.as_str(), last.value, last.changes), ("m", json!({"part": 2}), Some(Vec::new())));
    assert_eq!(bench.completed(), json!({"questions": 1, "sentiment": 2, "summary": 2}));
}

#[test]
fn last_run_asks_if_a_turn_is_new_or_the_order_of_turns_is_another() {
    let mut bench = Bench::new("[summary]\nevery_n_turns = 2\n[sentiment]\nevery_n_turns = 2\n");
    bench.say_at(0, 0, 9_000);
    bench.say_at(1, 0, 2_000);
    let task = bench.only_started();
    bench.answer(task.no, &[Ok(1), Ok(1)]);
    bench.end();
    let last = bench.only_started();
    assert_eq!((&last.asked[..], last.last), (&["sentiment".to_owned(), "summary".to_owned()][..], true));
    bench.answer(last.no, &[Ok(1), Err(SchemaMismatch)]);
    bench.pass(500);
    let again = bench.only_started();
    assert_eq!((&again.asked[..], again.last), (&["summary".to_owned()][..], true));
    bench.answer(again.no, &[Ok(1)]);
    assert_eq!(bench.completed(), json!({"sentiment": 2, "summary": 2}));

    let mut bench = Bench::new("[summary]\nevery_n_turns = 2\n");
    bench.say(0, 0);
    bench.end();
    let last = bench.only_started();
    assert!(last.last && last.asked == ["sentiment", "summary"], "nobody was asked before");
}
