//! The ledger on real files.

use super::*;
use crate::types::{CallId, Outcome};

mod damage;
mod shares;

fn open(folder: &Path) -> Ledger {
    Ledger::open(folder, Metrics::register(&mut Registry::default())).expect("ledger")
}

/// The first attempt in this second.
fn begun(second: i64) -> AttemptBegun {
    let (id, at_ms) = (first_id(1_000 * second), 1_000 * second);
    AttemptBegun {
        id,
        request: id,
        at_ms,
        key: None,
        call: Some(CallId::parse("c_1").expect("id")),
        analysis: Some("summary".into()),
        route: "r".into(),
        variant: "a".into(),
        model: "m".into(),
        endpoint: if second % 2 == 0 { "even" } else { "odd" }.into(),
        provider: "openai",
        vendor_model: "v".into(),
        number: 1,
        why: crate::types::Why::First,
    }
}

fn done(second: i64, cost: Option<i64>) -> AttemptDone {
    AttemptDone {
        id: first_id(1_000 * second),
        outcome: Outcome::Ok,
        code: None,
        status: Some(200),
        input: cost.map(|_| 10),
        cached: None,
        cache_write: None,
        output: cost.map(|_| 2),
        reasoning: None,
        cost_pico: cost,
        first_token_us: Some(5),
        total_us: 9,
        shares: Vec::new(),
    }
}

fn outcomes(ledger: &Ledger) -> Vec<(String, i64)> {
    let query = UsageQuery { group_by: vec!["outcome".into()], ..UsageQuery::default() };
    let rows = ledger.usage(&query).expect("usage");
    rows.into_iter().map(|row| (row.group[0].1.clone().unwrap_or_default(), row.attempts)).collect()
}

#[test]
fn rows_are_summed_and_unknown_is_not_zero() {
    let folder = tempfile::tempdir().expect("folder");
    let ledger = open(folder.path());
    for id in 1..=4 {
        ledger.begun(&begun(id));
        ledger.done(&done(id, (id != 4).then_some(1_000 * id)));
    }
    let query = UsageQuery { group_by: vec!["endpoint".into(), "call".into()], ..UsageQuery::default() };
    let rows = ledger.usage(&query).expect("usage");
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].group, [("endpoint".into(), Some("even".into())), ("call".into(), Some("c_1".into()))]);
    assert_eq!((rows[0].attempts, rows[0].input, rows[0].cost_pico, rows[0].unpriced), (2, Some(10), Some(2_000), 1));
    assert_eq!((rows[1].attempts, rows[1].cached, rows[1].cost_pico, rows[1].unpriced), (2, None, Some(4_000), 0));
    let query = UsageQuery { from_ms: Some(4_000), ..UsageQuery::default() };
    let rows = ledger.usage(&query).expect("usage");
    assert_eq!((rows[0].attempts, rows[0].input, rows[0].cost_pico), (1, None, None));
    let wrong = UsageQuery { group_by: vec!["id; DROP TABLE attempts".into()], ..UsageQuery::default() };
    assert!(matches!(ledger.usage(&wrong), Err(LedgerError::Query(_))));
    assert_eq!(ledger.spent_since(2_000).expect("sum"), 5_000);
    assert_eq!(ledger.spent_by_call("c_1").expect("sum"), 6_000);
}

#[test]
fn implausible_rows_do_not_break_the_sums() {
    let folder = tempfile::tempdir().expect("folder");
    let ledger = open(folder.path());
    // As stored by an earlier version: a vendor reported 2^64 - 1 tokens.
    for second in [1, 3, 5] {
        ledger.begun(&begun(second));
        let counts = AttemptDone { input: Some(u64::MAX), output: Some(3), ..done(second, Some(i64::MAX)) };
        ledger.done(&counts);
    }
    // Plausible counts at an absurd price: the sum exceeds 64 bits.
    for second in [2, 4] {
        ledger.begun(&begun(second));
        ledger.done(&done(second, Some(i64::MAX - 7)));
    }
    let query = UsageQuery { group_by: vec!["endpoint".into()], ..UsageQuery::default() };
    let rows = ledger.usage(&query).expect("usage");
    let shown: Vec<_> =
        rows.iter().map(|row| (row.attempts, row.input, row.output, row.cost_pico, row.unpriced)).collect();
    assert_eq!(shown, [(2, Some(20), Some(4), None, 0), (3, None, Some(9), None, 3)]);
    let one = UsageQuery { group_by: vec!["number".into()], to_ms: Some(2_001), ..UsageQuery::default() };
    assert_eq!(ledger.usage(&one).expect("usage")[0].cost_pico, Some(i64::MAX - 7), "exact");
    assert_eq!(ledger.spent_since(0).expect("sum"), i64::MAX, "saturates");
    assert_eq!(ledger.spent_by_call("c_1").expect("sum"), i64::MAX);
    assert_eq!(ledger.spent_since(4_001).expect("sum"), 0);
}

#[test]
fn a_time_is_found_by_the_ids() {
    let folder = tempfile::tempdir().expect("folder");
    let ledger = open(folder.path());
    for second in 1..=9 {
        // The clock was set back: the id is not.
        let at_ms = if second == 6 { 2_500 } else { 1_000 * second };
        ledger.begun(&AttemptBegun { at_ms, ..begun(second) });
        ledger.done(&done(second, Some(10)));
    }
    let attempts = |from_ms, to_ms| {
        let query = UsageQuery { from_ms, to_ms, ..UsageQuery::default() };
        ledger.usage(&query).expect("usage").iter().map(|row| row.attempts).sum::<i64>()
    };
    for (from, to, expected) in [
        (None, None, 9),
        (Some(i64::MIN), Some(i64::MAX), 9),
        (Some(2_000), Some(3_000), 2),
        (Some(2_001), Some(6_001), 4),
        (Some(6_000), None, 3),
        (None, Some(2_501), 3),
        (Some(9_001), None, 0),
    ] {
        assert_eq!(attempts(from, to), expected, "{from:?} to {to:?}");
    }
    assert_eq!(ledger.spent_since(7_000).expect("sum"), 30);
    let plan = "EXPLAIN QUERY PLAN SELECT SUM(cost_pico) FROM attempts WHERE id >= 1 AND at_ms >= 2";
    let plan: String = ledger.with_store(|store| Ok(store.query_row(plan, [], |row| row.get(3))?)).expect("plan");
    assert!(plan.contains("PRIMARY KEY"), "{plan}");
}

#[test]
fn kill_loses_and_duplicates_no_row() {
    let folder = tempfile::tempdir().expect("folder");
    let ledger = open(folder.path());
    ledger.begun(&begun(1));
    ledger.done(&done(1, None));
    assert_eq!(outcomes(&ledger), [("ok".into(), 1)]);
    ledger.begun(&begun(2));
    ledger.done(&done(2, None));
    ledger.begun(&begun(3));
    // The process ends here: nothing is closed, and no entry is copied into the database.
    std::mem::forget(ledger.clone());
    {
        use std::io::Write as _;
        let mut log = std::fs::OpenOptions::new().append(true).open(folder.path().join("attempts.log")).expect("log");
        let whole = entry::begun(&begun(4));
        log.write_all(&whole[..whole.len() - 3]).expect("torn");
    }
    let ledger = open(folder.path());
    assert_eq!(outcomes(&ledger), [("ok".into(), 2), ("unknown".into(), 1)]);
    ledger.begun(&begun(5));
    ledger.done(&done(5, None));
    assert_eq!(outcomes(&ledger), [("ok".into(), 3), ("unknown".into(), 1)]);
}

#[test]
fn damaged_entry_loses_only_itself_and_a_long_log_is_replaced() {
    let folder = tempfile::tempdir().expect("folder");
    let ledger = open(folder.path());
    let mut damaged = entry::begun(&begun(7));
    *damaged.last_mut().expect("a byte") ^= 1;
    lock(&ledger.0.log).append(&damaged);
    ledger.begun(&begun(1));
    assert_eq!(outcomes(&ledger), [("begun".into(), 1)]);
    let end = lock(&ledger.0.log).read_from(0, 0).expect("part").bytes.len() as u64 + 17;
    lock(&ledger.0.log).rotate(end, 1).expect("rotated");
    ledger.done(&done(1, None));
    ledger.begun(&begun(2));
    assert_eq!(outcomes(&ledger), [("begun".into(), 1), ("ok".into(), 1)]);
}

#[test]
fn zeros_at_the_end_are_no_entries() {
    let folder = tempfile::tempdir().expect("folder");
    let ledger = open(folder.path());
    ledger.begun(&begun(1));
    std::mem::forget(ledger);
    let path = folder.path().join("attempts.log");
    let length = std::fs::metadata(&path).expect("log").len();
    // Zeros that some file systems leave if the machine crashed before the data was written.
    std::fs::OpenOptions::new().write(true).open(&path).expect("log").set_len(length + 4096).expect("longer");
    let ledger = open(folder.path());
    assert_eq!(std::fs::metadata(&path).expect("log").len(), length);
    ledger.begun(&begun(2));
    assert_eq!(outcomes(&ledger), [("begun".into(), 1), ("unknown".into(), 1)]);
}

#[test]
fn changes_are_stored_once_and_removals_are_recorded() {
    let folder = tempfile::tempdir().expect("folder");
    let ledger = open(folder.path());
    let price = |detail| [("price", "a/m", detail), ("route", "r", "x")];
    for (items, at) in [(price("1"), 1), (price("1"), 2), (price("2"), 3)] {
        ledger.configured(&["price", "route"], &items, at).expect("kept");
    }
    ledger.configured(&["price"], &[], 4).expect("kept");
    ledger.configured(&["price"], &[], 5).expect("kept");
    ledger.configured(&["price"], &price("2")[..1], 6).expect("kept");
    let shown = |from, to| -> Vec<(i64, String, String)> {
        let changes = ledger.changes(from, to).expect("changes");
        changes.into_iter().map(|change| (change.at_ms, change.name, change.detail)).collect()
    };
    let change = |at, name: &str, detail: &str| (at, name.to_owned(), detail.to_owned());
    assert_eq!(
        shown(None, None),
        [
            change(1, "a/m", "1"),
            change(1, "r", "x"),
            change(3, "a/m", "2"),
            change(4, "a/m", GONE),
            change(6, "a/m", "2")
        ]
    );
    assert_eq!(shown(Some(3), Some(4)), [change(3, "a/m", "2")]);
}

#[test]
fn a_database_that_is_locked_at_the_start_is_waited_for_and_loses_no_row() {
    let folder = tempfile::tempdir().expect("folder");
    drop(open(folder.path()));
    let other = Connection::open(folder.path().join("ledger.sqlite")).expect("the same database");
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").expect("locked");

    let ledger = open(folder.path());
    assert!(matches!(ledger.health(), Err(LedgerError::Waiting(_))), "{:?}", ledger.health());
    assert!(matches!(ledger.usage(&UsageQuery::default()), Err(LedgerError::Waiting(_))));
    ledger.begun(&begun(1));
    ledger.done(&done(1, Some(3)));
    ledger.begun(&begun(2));
    other.execute_batch("ROLLBACK").expect("unlocked");
    drop(other);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while ledger.health().is_err() {
        assert!(std::time::Instant::now() < deadline, "{:?}", ledger.health());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    // A row that waited and is not complete yet may count as a row of the last run, until its end comes.
    ledger.done(&done(2, Some(4)));
    assert_eq!(outcomes(&ledger), [("ok".into(), 2)]);
    assert_eq!(ledger.spent_since(0).expect("sum"), 7);
}
