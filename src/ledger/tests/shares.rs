//! Attempts that asked several analyses: one row each, divided among the analyses, and the sums stay the same.

use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;

/// Names and weights of the analyses of an attempt, and what it used.
type Attempt = (Vec<u64>, Option<(u64, u64, u64)>, Option<i64>);

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let usage = (0..100_000_u64, 0..100_000_u64, 0..5_000_u64);
    let cost = prop::option::of(0..2_000_000_000_000_i64);
    (prop::collection::vec(0..500_u64, 0..5), prop::option::of(usage), cost)
}

fn keep(ledger: &Ledger, second: i64, (weights, usage, cost_pico): &Attempt) {
    let names = ["action_items", "questions", "sentiment", "summary"];
    let shares: Vec<(std::sync::Arc<str>, u64)> =
        names.iter().zip(weights).map(|(name, weight)| ((*name).into(), weight + 1)).collect();
    let analysis = if shares.is_empty() { "summary".to_owned() } else { names[..shares.len()].join("+") };
    ledger.begun(&AttemptBegun { analysis: Some(analysis.into()), ..begun(second) });
    ledger.done(&AttemptDone {
        input: usage.map(|(input, cached, _)| input + cached),
        cached: usage.map(|(_, cached, _)| cached),
        output: usage.map(|(.., output)| output),
        shares,
        ..done(second, *cost_pico)
    });
}

fn sums(ledger: &Ledger, group_by: &[&str]) -> Vec<UsageRow> {
    let group_by = group_by.iter().map(|group| (*group).to_owned()).collect();
    ledger.usage(&UsageQuery { group_by, ..UsageQuery::default() }).expect("usage")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..kept() })]

    #[test]
    fn sums_by_analysis_add_up_to_the_whole(attempts in prop::collection::vec(any_attempt(), 1..40)) {
        let folder = tempfile::tempdir().expect("folder");
        let ledger = open(folder.path());
        for (second, attempt) in (1..).zip(&attempts) {
            keep(&ledger, second, attempt);
        }
        let whole = sums(&ledger, &[]).remove(0);
        prop_assert_eq!(usize::try_from(whole.attempts), Ok(attempts.len()));
        for groups in [&["analysis"][..], &["endpoint", "analysis"][..]] {
            let rows = sums(&ledger, groups);
            let sum = |of: fn(&UsageRow) -> Option<i64>| {
                let known: Vec<i64> = rows.iter().filter_map(of).collect();
                (!known.is_empty()).then(|| known.iter().sum::<i64>())
            };
            prop_assert_eq!(sum(|row| Some(row.attempts)), Some(whole.attempts));
            prop_assert_eq!(sum(|row| Some(row.unpriced)), Some(whole.unpriced));
            prop_assert_eq!(sum(|row| row.input), whole.input);
            prop_assert_eq!(sum(|row| row.cached), whole.cached);
            prop_assert_eq!(sum(|row| row.output), whole.output);
            prop_assert_eq!(sum(|row| row.cost_pico), whole.cost_pico);
        }
    }
}

#[test]
fn attempt_of_a_bundle_is_one_row_and_its_analyses_have_their_shares() {
    let folder = tempfile::tempdir().expect("folder");
    let ledger = open(folder.path());
    keep(&ledger, 1, &(vec![0, 2], Some((90, 11, 7)), Some(1_000)));
    // The attempt has only begun: its row names all analyses.
    ledger.begun(&AttemptBegun { analysis: Some("action_items+questions".into()), ..begun(2) });
    let shown = |rows: Vec<UsageRow>| -> Vec<_> {
        let name = |row: &UsageRow| row.group.first().and_then(|(_, name)| name.clone()).unwrap_or_default();
        let shown = |row: &UsageRow| (name(row), row.attempts, row.input, row.cached, row.cost_pico);
        rows.iter().map(shown).collect()
    };
    let row = |name: &str, attempts, input, cached, cost| (name.to_owned(), attempts, input, cached, cost);
    let expected = [
        row("action_items", 0, Some(26), Some(3), Some(250)),
        row("action_items+questions", 1, None, None, None),
        row("questions", 1, Some(75), Some(8), Some(750)),
    ];
    assert_eq!(shown(sums(&ledger, &["analysis"])), expected);
    assert_eq!(shown(sums(&ledger, &["why"])), [row("first", 2, Some(101), Some(11), Some(1_000))]);
    assert_eq!(ledger.spent_by_call("c_1").expect("sum"), 1_000);
    // All shares are still there, even if the log is read a second time.
    drop(ledger);
    let ledger = open(folder.path());
    assert_eq!(shown(sums(&ledger, &["analysis"])), expected);
}
