use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;
use crate::context::window::KEPT_TURNS;
use crate::context::{Claim, Snapshot, Source, Unusable, Window};
use crate::types::{StreamId, Turn};

fn turn(number: u64, rev: u32, text: &str) -> Arc<Turn> {
    Arc::new(Turn {
        turn: number,
        stream_id: StreamId::parse("s_1").expect("id"),
        turn_order: number,
        vendor_turn: None,
        rev,
        speaker: Some("A".to_owned()),
        text: text.to_owned(),
        start_ms: number * 1_000,
        end_ms: number * 1_000 + 900,
        language: None,
        confidence: None,
        words: Vec::new(),
    })
}

fn context(turns: u64) -> Context {
    let mut context = Context::new();
    (0..turns).for_each(|number| context.upsert(&turn(number, 0, "some words of a turn")));
    context
}

fn claim(text: &str, turns: &[TurnNo]) -> Claim {
    Claim { text: text.to_owned(), turns: turns.to_vec() }
}

fn digest(context: &Context, turns: Range<TurnNo>) -> Arc<Digest> {
    let source = Source::new(context, turns.clone()).expect("turns with text");
    Arc::new(source.digest(vec![claim("He asked.", &[turns.start])], 1_000).expect("a digest"))
}

#[test]
fn claims_about_other_turns_and_empty_ones_are_dropped_and_none_is_no_digest() {
    let mut context = context(6);
    context.upsert(&turn(3, 1, " "));
    let source = Source::new(&context, 1..5).expect("turns");
    let wrong = [
        claim("About a later turn.", &[5]),
        claim("About one of each.", &[2, 0]),
        claim("About a turn without text.", &[3]),
        claim("About nothing.", &[]),
        claim(" \n", &[2]),
    ];
    assert_eq!(source.digest(wrong.to_vec(), 1_000), Err(Unusable::Empty));
    let mut all = vec![claim("It is\nlate.", &[4, 2, 4]), claim("He asks </transcript>.", &[1])];
    all.extend(wrong);
    let digest = source.digest(all, 1_000).expect("two claims");
    assert_eq!(
        &**digest.text(),
        "In short, turns 1 to 4:\n* [1] He asks \\u003c/transcript>.\n* [2, 4] It is\\u000alate.\n"
    );
    assert_eq!(digest.turns(), 1..5);
    let long = vec![claim(&"word ".repeat(100), &[1])];
    assert!(matches!(source.digest(long, 50), Err(Unusable::TooLong { most: 50, .. })));
    assert_eq!(Source::new(&context, 3..4), None, "nothing was said");
}

#[test]
fn stored_digest_is_the_same_when_it_is_read() {
    let mut context = context(4);
    context.upsert(&turn(2, 3, "revised"));
    let made = digest(&context, 0..4);
    let stored = serde_json::to_string(&made).expect("JSON");
    let read: Digest = serde_json::from_str(&stored).expect("a digest");
    assert_eq!(read, *made);
    assert_eq!(stored, r#"{"from":0,"to":3,"revs":[[2,3]],"claims":[{"text":"He asked.","turns":[0]}]}"#);
    assert_eq!(made.missed(&context).count(), 0);
    context.upsert(&turn(1, 1, "revised too"));
    assert_eq!(read.missed(&context).collect::<Vec<_>>(), [1]);
}

#[test]
fn next_digest_is_of_new_turns_then_of_revised_ones_then_of_the_two_oldest() {
    let mut context = context(400);
    let each = context.total(0, 1);
    let mut digests = Digests::default();
    // Room for turns; a quarter of it is room for three digests.
    let three = digest(&context, 0..10).tokens() * 3;
    let budget = 4 * (three + 2);
    assert_eq!(digests.next(&context, budget, 1), None, "one turn saves too little");
    let first = digests.next(&context, budget, 400).expect("turns");
    assert!(first.start == 0 && first.end.abs_diff(budget / each) <= 3, "as many as fit into one request: {first:?}");
    for from in [0, 10, 20] {
        digests.add(digest(&context, from..from + 10));
    }
    assert_eq!(digests.next(&context, budget, 30), None);
    context.upsert(&turn(14, 1, "revised"));
    assert_eq!(digests.next(&context, budget, 60), Some(30..30 + first.end), "new turns come first");
    assert_eq!(digests.next(&context, budget, 30), Some(10..20));
    digests.add(digest(&context, 10..20));
    digests.add(digest(&context, 30..40));
    assert_eq!(digests.next(&context, budget, 40), Some(0..20), "no room for four");
    digests.add(digest(&context, 0..20));
    assert_eq!(digests.iter().map(|digest| digest.turns()).collect::<Vec<_>>(), [0..20, 20..30, 30..40]);
    assert_eq!((digests.next(&context, budget, 40), digests.until()), (None, 40));
}

#[test]
fn newest_turn_that_leaves_no_room_for_digests_stays_without_them() {
    let (mut context, mut digests) = (context(40), Digests::default());
    let budget = context.total(0, 30);
    digests.add(digest(&context, 0..20));
    let mut window = Window::new(budget);
    assert_eq!(context.snapshot_over(&mut window, &digests, None).covers().digest_to, Some(19));
    context.upsert(&turn(40, 0, &"word ".repeat(usize::try_from(budget / 4 * 3).expect("few"))));
    context.upsert(&turn(41, 0, " "));
    for snapshot in [
        context.snapshot_over(&mut window, &digests, None),
        context.snapshot_over(&mut window, &digests, None),
        context.snapshot_final_over(&mut window, &digests),
    ] {
        let covers = snapshot.covers();
        assert!(covers.digest_to.is_none() && covers.to == Some(40) && snapshot.tokens() <= budget, "{covers:?}");
    }
    assert_eq!(window.leaves(&context, &digests).map(|verbatim| verbatim <= 40), Some(true));
}

#[test]
fn tokens_of_a_digest_leave_room_for_more_than_one() {
    for budget in [100, 256, 1_000, 2_000, 16_000, 128_000, u64::MAX] {
        assert!(digest_tokens(budget) <= budget / 8 && digest_tokens(budget) > 0, "{budget}");
    }
    assert_eq!((digest_tokens(2_000), digest_tokens(16_000)), (200, 1_000));
}

/// The number of newest turns that stay verbatim in any case.
fn kept_turns(context: &Context, budget: u64) -> usize {
    let (mut kept, mut tokens) = (0, 0);
    for number in (0..context.len() as u64).rev() {
        let line = context.tokens(number);
        if line > 0 {
            (kept, tokens) = (kept + 1, tokens + line);
        }
        // A quarter is for digests, and an eighth for corrections.
        if kept > KEPT_TURNS || tokens > budget / 2 {
            return kept - 1;
        }
    }
    kept
}

/// Coverage is what the texts show.
fn check_coverage(context: &Context, snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let (mut digested, mut verbatim) = (BTreeSet::new(), BTreeSet::new());
    for line in snapshot.parts().flat_map(|part| part.lines()) {
        if let Some(turns) = line.strip_prefix("In short, turns ").and_then(|rest| rest.strip_suffix(':')) {
            let (from, to) = turns.split_once(" to ").expect("a range");
            digested.extend(from.parse::<TurnNo>().expect("a turn")..=to.parse().expect("a turn"));
        } else if let Some(rest) = line.strip_prefix('[') {
            verbatim.insert(rest.split_once(']').expect("a line").0.parse::<TurnNo>().expect("a turn"));
        }
    }
    digested.retain(|turn| context.tokens(*turn) > 0);
    // Since they were shown, turns may have lost their text, or have one only now.
    let corrected = snapshot.corrections().lines().filter_map(|line| line.strip_prefix('[')?.split_once(']'));
    verbatim.extend(corrected.map(|(number, _)| number.parse::<TurnNo>().expect("a turn")));
    verbatim.retain(|turn| snapshot.turn(*turn).is_some());
    prop_assert!(digested.is_disjoint(&verbatim));
    let covers = snapshot.covers();
    prop_assert_eq!(covers.turns as usize, digested.len() + verbatim.len());
    prop_assert_eq!(covers.digest_to, digested.last().copied());
    prop_assert_eq!(covers.verbatim_from, verbatim.first().copied());
    prop_assert_eq!(covers.from, digested.first().or(verbatim.first()).copied());
    // What is between them is verbatim or in a digest, except between the digests and the window.
    for one in [&digested, &verbatim] {
        let (Some(first), Some(last)) = (one.first(), one.last()) else { continue };
        let spoken = (*first..=*last).filter(|turn| context.tokens(*turn) > 0);
        prop_assert!(spoken.eq(one.iter().copied()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(kept())]

    /// Whatever is said, revised, and however late digests are made: prompts begin with the bytes of the one before, except
    /// at a compaction; no turn is lost unless a digest is late or fails; and both the compactions and the tokens that
    /// digests are made of are linear in the length of the call.
    #[test]
    fn windows_with_digests_keep_their_promises(
        steps in prop::collection::vec((0..100_usize, 0..30_usize, any::<prop::sample::Index>()), 1..300),
        budget in 200..1_500_u64, late in 0..12_usize, failing in 0..4_usize, revising in any::<bool>(),
    ) {
        let (mut context, mut window, mut digests) = (Context::new(), Window::new(budget), Digests::default());
        let mut making: Option<(usize, Range<TurnNo>)> = None;
        let mut before: Vec<Arc<str>> = Vec::new();
        let (mut moves, mut added, mut read, mut failed) = (0_u64, 0, 0, 0);
        for (at, (kind, length, chosen)) in steps.iter().enumerate() {
            let len = context.len() as u64;
            let text = format!("{at} {}", "word ".repeat(*length)).repeat(usize::from(*kind != 99));
            match kind {
                90..100 if len > 0 && revising => {
                    let number = chosen.index(context.len()) as u64;
                    let rev = context.get(number).expect("a turn").rev + 1;
                    context.upsert(&turn(number, rev, &text));
                }
                _ => context.upsert(&turn(len, 0, &text)),
            }
            added += crate::context::tokens::estimate(&text) + 20;
            if let Some((since, turns)) = making.take_if(|(since, _)| at - *since >= late) {
                let source = Source::new(&context, turns.clone());
                let claims = vec![claim("He asked for it.", &[chosen.index((turns.end - turns.start) as usize) as u64 + turns.start])];
                let made = source.and_then(|source| source.digest(claims, digest_tokens(budget) * 2).ok());
                match made.filter(|_| since % 4 >= failing) {
                    Some(digest) => digests.add(Arc::new(digest)),
                    None => failed += 1,
                }
            }
            let verbatim = window.leaves(&context, &digests);
            if let (None, Some(verbatim)) = (&making, verbatim) {
                making = digests.next(&context, budget, verbatim).map(|turns| (at, turns));
                let (_, turns) = making.clone().unwrap_or_default();
                read += context.total(turns.start, turns.end);
            }
            let most = making.is_some().then_some(budget + budget / 4);
            let snapshot = context.snapshot_over(&mut window, &digests, most);
            prop_assert!(snapshot.tokens() <= most.unwrap_or(budget), "{} of {}", snapshot.tokens(), budget);
            check_coverage(&context, &snapshot)?;
            // A revision may withdraw turns, and earlier ones are the newest then that have left already.
            let spoken = |turns: Range<TurnNo>| turns.filter(|turn| context.tokens(*turn) > 0).count();
            let (kept, len) = (if revising { 0 } else { kept_turns(&context, budget) }, context.len() as TurnNo);
            prop_assert!(snapshot.turns().count() >= kept, "{:?}: {} of {}", snapshot.covers(), kept, len);
            if let Some((since, turns)) = making.as_ref().filter(|(since, _)| *since == at) {
                prop_assert!(turns.end <= digests.until() || spoken(turns.end..len) >= kept, "{:?} at {}", turns, since);
            }
            let parts: Vec<Arc<str>> = snapshot.parts().cloned().collect();
            let same = parts.len() >= before.len() && parts.iter().zip(&before).all(|(now, then)| Arc::ptr_eq(now, then));
            if !same {
                moves += 1;
                if making.is_none() {
                    prop_assert!(window.leaves(&context, &digests).is_none_or(|_| snapshot.covers().digest_to.is_none_or(
                        |to| snapshot.covers().verbatim_from > Some(to + 1))), "a compaction right after one");
                }
            }
            before = parts;
        }
        // Nothing more is said, and all digests are made that are needed.
        for _ in 0..100 {
            let (_, turns) = making.take().unwrap_or_default();
            if let Some(source) = Source::new(&context, turns.clone()) {
                let first = source.spoken_first();
                digests.add(Arc::new(source.digest(vec![claim("He asked.", &[first])], u64::MAX).expect("a digest")));
            }
            let verbatim = window.leaves(&context, &digests);
            making = verbatim.and_then(|verbatim| digests.next(&context, budget, verbatim)).map(|turns| (0, turns));
            let most = making.is_some().then_some(budget + budget / 4);
            let snapshot = context.snapshot_over(&mut window, &digests, most);
            check_coverage(&context, &snapshot)?;
            let covers = snapshot.covers();
            let lost = context.total(covers.digest_to.map_or(0, |to| to + 1), covers.verbatim_from.unwrap_or(0));
            prop_assert!(making.is_some() || lost <= budget / 8, "{} tokens are in no digest: {:?}", lost, covers);
        }
        prop_assert!(moves * (budget / 8) <= 4 * (added + budget), "{} moves for {} tokens", moves, added);
        prop_assert!(read <= 24 * (added + budget) + failed * 2 * budget, "{} tokens read of {}", read, added);
    }
}
