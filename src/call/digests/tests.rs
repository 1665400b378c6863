use super::*;
use crate::call::record;
use crate::call::tests::bench::Bench;
use crate::context::Claim;
use crate::types::{Coverage, TurnNo};

/// The high-water mark.
const MARK: u64 = 1_000;

/// A call that runs `summary` alone, after each turn.
fn bench() -> Bench {
    let config = format!(
        "[summary]\nevery_n_turns = 1\ndebounce_ms = 0\ngate = false\non_end = false\nmax_context_tokens = {MARK}\n"
    );
    let mut settings = Bench::settings("", &config, "");
    settings.default_analyses = vec!["summary".to_owned()];
    Bench::start(settings)
}

/// A turn of about 20 tokens, with what is asked about it answered.
fn say(bench: &mut Bench, order: u64) -> Coverage {
    bench.say(order, "A", &format!("Sentence {order} has some words about the parcel and its way."));
    bench.start_tasks();
    bench.answer(&[]);
    // A digest, if one is asked for.
    bench.start_tasks();
    covers(bench)
}

fn covers(bench: &Bench) -> Coverage {
    bench.seen.as_ref().expect("a snapshot").covers()
}

/// Says turns until a digest is asked for; returns the next order.
fn until_asked(bench: &mut Bench, mut order: u64) -> u64 {
    while bench.digesting.is_empty() {
        say(bench, order);
        order += 1;
        assert!(order < 10_000, "no digest is asked for");
    }
    order
}

fn claim(turn: TurnNo) -> Claim {
    Claim { text: format!("Sentence {turn}."), turns: vec![turn] }
}

/// The digest that is being made comes back with a claim about its first turn.
fn answer(bench: &mut Bench) {
    let first = bench.digesting[0].1.source.turns.start;
    bench.digest(Some(vec![claim(first)]));
}

#[test]
fn digest_takes_the_place_of_the_oldest_turns_and_the_newest_stay() {
    let mut bench = bench();
    let order = until_asked(&mut bench, 0);
    assert_eq!(covers(&bench).verbatim_from, Some(0), "the window grows while the digest is made");
    let turns = bench.digesting[0].1.source.turns.clone();
    assert!(turns.start == 0 && turns.end > 10 && turns.end + 20 <= order, "{turns:?} of {order}");
    let later = say(&mut bench, order);
    assert_eq!((later.from, later.digest_to, later.verbatim_from), (Some(0), None, Some(0)));
    assert_eq!(bench.digesting.len(), 1, "one at a time");
    answer(&mut bench);
    let after = say(&mut bench, order + 1);
    let to = turns.end - 1;
    assert_eq!((after.from, after.digest_to, after.verbatim_from), (Some(0), Some(to), Some(to + 1)));
    assert_eq!((after.to, after.turns), (Some(order + 1), order + 2), "nothing is lost");
    assert!(bench.seen.as_ref().expect("a snapshot").tokens() <= MARK);
    let next = until_asked(&mut bench, order + 2);
    assert!(next > order + 8, "the next compaction is not due at once");
}

#[test]
fn digest_survives_a_restart_and_is_not_made_again() {
    let mut bench = bench();
    let order = until_asked(&mut bench, 0);
    answer(&mut bench);
    let before = say(&mut bench, order);
    bench.restart(10);
    bench.connect("s_1", &serde_json::json!({}));
    let after = say(&mut bench, order + 1);
    assert_eq!((after.digest_to, after.verbatim_from), (before.digest_to, before.verbatim_from));
    assert!(bench.digesting.is_empty() && before.digest_to.is_some());
    let stored = (1..).zip(&bench.log).filter_map(|(seq, stored)| {
        record::decode(seq, &stored.frame, &stored.private).expect("a record").private.digest
    });
    let stored: Vec<StoredDigest> = stored.collect();
    assert_eq!((stored.len(), stored[0].mark, stored[0].cost_usd), (1, MARK, Some(0.25)));
}

#[test]
fn three_failures_stop_digests_and_turns_leave_without() {
    let mut bench = bench();
    let mut order = until_asked(&mut bench, 0);
    let mut asked = 0;
    for step in 0..211 {
        if !bench.digesting.is_empty() {
            asked += 1;
            // No claim, no answer, and a claim about other turns.
            match asked % 3 {
                0 => bench.digest(Some(Vec::new())),
                1 => bench.digest(None),
                _ => bench.digest(Some(vec![claim(9_999)])),
            }
        }
        bench.pass(1_000);
        let covers = say(&mut bench, order);
        order += 1;
        let tokens = bench.seen.as_ref().expect("a snapshot").tokens();
        assert!(covers.digest_to.is_none() && tokens <= MARK / 4 * 5, "{step}: {covers:?}");
        let kept = covers.verbatim_from.expect("turns");
        assert!(order - kept >= 20, "{step}: the newest turns stay");
    }
    assert_eq!(asked, 3, "211 turns later");
    assert!(covers(&bench).from > Some(0));
    bench.pass(REST_MS);
    until_asked(&mut bench, order);
    answer(&mut bench);
    assert_eq!(bench.digesting.len(), 0);
}

#[test]
fn turns_that_left_without_a_digest_are_made_up_for() {
    let mut bench = bench();
    let mut order = until_asked(&mut bench, 0);
    for _ in 0..60 {
        say(&mut bench, order);
        order += 1;
    }
    let gap = covers(&bench);
    assert!(gap.from > Some(0) && gap.digest_to.is_none(), "the model is slow, and the window is full: {gap:?}");
    for _ in 0..10 {
        if !bench.digesting.is_empty() {
            answer(&mut bench);
        }
        say(&mut bench, order);
        order += 1;
    }
    let whole = covers(&bench);
    assert_eq!((whole.from, whole.turns), (Some(0), order), "{whole:?}");
    assert_eq!(whole.digest_to.map(|to| to + 1), whole.verbatim_from);
}

#[test]
fn revised_turn_of_a_digest_is_corrected_in_the_tail_and_its_digest_is_made_anew() {
    let mut bench = bench();
    let order = until_asked(&mut bench, 0);
    answer(&mut bench);
    say(&mut bench, order);
    bench.revise(2, Some("C"), None);
    say(&mut bench, order + 1);
    let seen = bench.seen.clone().expect("a snapshot");
    assert!(seen.corrections().starts_with("[2] C ") && seen.covers().digest_to > Some(2), "{}", seen.corrections());
    let mut order = until_asked(&mut bench, order + 2);
    let mut made = Vec::new();
    while !bench.digesting.is_empty() {
        made.push(bench.digesting[0].1.source.turns.clone());
        answer(&mut bench);
        say(&mut bench, order);
        order += 1;
    }
    assert_eq!((made.len(), made[1].start), (2, 0), "the new turns, and the revised ones again: {made:?}");
    assert_eq!(bench.seen.as_ref().expect("a snapshot").corrections(), "");
}

#[test]
fn oldest_digests_are_made_anew_as_one_and_cost_stays_linear() {
    let mut bench = bench();
    let (mut read, mut order, mut most) = (0, 0, 0);
    while order < 1_500 {
        say(&mut bench, order);
        order += 1;
        if let Some((_, asked)) = bench.digesting.first() {
            read += asked.source.tokens;
            most = most.max(asked.source.tokens);
            let (turns, tokens) = (asked.source.turns.clone(), asked.tokens);
            // A digest of the desired length.
            let claims = (turns.start..turns.end).take(usize::try_from(tokens / 9).expect("few")).map(claim);
            bench.digest(Some(claims.collect()));
        }
    }
    assert!(most > MARK && most <= 2 * MARK, "two are made as one: {most}");
    assert!(read < 6 * 20 * order, "{read} tokens are read for {order} turns");
    let covers = covers(&bench);
    assert_eq!(covers.digest_to.map(|to| to + 1), covers.verbatim_from);
}

#[test]
fn last_run_waits_for_the_digests_that_it_needs() {
    let config = format!("[summary]\nevery_n_turns = 1000\nmax_context_tokens = {MARK}\n");
    let mut settings = Bench::settings("", &config, "");
    settings.default_analyses = vec!["summary".to_owned()];
    settings.ingest.linger = Duration::ZERO;
    let mut bench = Bench::start(settings);
    for order in 0..150 {
        bench.say(order, "A", &format!("Sentence {order} has some words about the parcel and its way."));
    }
    bench.event_on("s_1", crate::types::SttEvent::End { reason: None, scope: crate::types::EndScope::Call });
    let mut made = 0;
    loop {
        bench.start_tasks();
        if bench.seen.is_some() {
            break;
        }
        assert_eq!(bench.digesting.len(), 1, "it waits for a digest");
        answer(&mut bench);
        made += 1;
    }
    let covers = covers(&bench);
    assert_eq!((covers.from, covers.to, covers.turns), (Some(0), Some(149), 150), "it sees everything");
    assert!(made >= 2 && covers.digest_to.is_some());
}

#[test]
fn last_run_does_not_wait_for_ever() {
    let config = format!("[summary]\nevery_n_turns = 1000\nmax_context_tokens = {MARK}\n");
    let mut settings = Bench::settings("", &config, "");
    settings.default_analyses = vec!["summary".to_owned()];
    settings.ingest.linger = Duration::ZERO;
    let half = millis(settings.ingest.final_timeout) / 2;
    let mut bench = Bench::start(settings);
    for order in 0..150 {
        bench.say(order, "A", &format!("Sentence {order} has some words about the parcel and its way."));
    }
    bench.event_on("s_1", crate::types::SttEvent::End { reason: None, scope: crate::types::EndScope::Call });
    bench.start_tasks();
    bench.pass(half - 1);
    bench.start_tasks();
    assert!(bench.seen.is_none());
    bench.pass(1);
    bench.start_tasks();
    assert!(covers(&bench).digest_to.is_none() && covers(&bench).to == Some(149));
}
