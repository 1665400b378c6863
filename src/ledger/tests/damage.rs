//! A damaged log: entries that are whole are copied into the database, once, and nothing else is.

use std::collections::HashSet;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::base::testing::kept;

/// The first line of a log.
const HEAD_BYTES: usize = 17;

/// How a file is damaged.
#[derive(Debug, Clone)]
enum Harm {
    Flip { at: Index, with: u8 },
    Cut { at: Index, bytes: usize },
    Insert { at: Index, bytes: Vec<u8> },
}

impl Harm {
    fn done_to(&self, file: &[u8]) -> Vec<u8> {
        let mut file = file.to_vec();
        match self {
            Self::Flip { at, with } if !file.is_empty() => {
                let at = at.index(file.len());
                file[at] ^= with;
            }
            Self::Flip { .. } => {}
            Self::Cut { at, bytes } => {
                let at = at.index(file.len() + 1);
                file.drain(at..file.len().min(at + bytes));
            }
            Self::Insert { at, bytes } => {
                let at = at.index(file.len() + 1);
                file.splice(at..at, bytes.iter().copied());
            }
        }
        file
    }
}

fn harm() -> impl Strategy<Value = Harm> {
    let flip = (any::<Index>(), 1..=u8::MAX).prop_map(|(at, with)| Harm::Flip { at, with });
    let cut = (any::<Index>(), 1..300_usize).prop_map(|(at, bytes)| Harm::Cut { at, bytes });
    let junk = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..300),
        // Bytes that could be lengths, and zeros.
        prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(90)], 1..300),
    ];
    let insert = (any::<Index>(), junk).prop_map(|(at, bytes)| Harm::Insert { at, bytes });
    prop_oneof![2 => flip, 1 => cut, 1 => insert]
}

/// Entry `n` of a log: begun and completed rows alternate.
fn entry(n: i64) -> Vec<u8> {
    if n % 2 == 0 { entry::begun(&begun(n)) } else { entry::done(&done(n - 1, Some(n))) }
}

fn second(id: i64) -> i64 {
    id / first_id(1_000)
}

fn number(entry: &entry::Entry<'_>) -> i64 {
    match entry {
        entry::Entry::Begun(row) => second(row.id),
        entry::Entry::Done(row) => second(row.id) + 1,
        entry::Entry::Shares(_) => unreachable!("no bundle is kept here"),
    }
}

/// The entries that an edit left unchanged, with their ranges after the edit: those before the edited range, and those
/// after it.
fn undamaged(before: &[u8], after: &[u8], ranges: &mut Vec<(i64, std::ops::Range<usize>)>) {
    let common = before.iter().zip(after).take_while(|(one, other)| one == other).count();
    let left = before.len().min(after.len()) - common;
    let behind = before.iter().rev().zip(after.iter().rev()).take(left).take_while(|(one, other)| one == other).count();
    ranges.retain_mut(|(_, range)| {
        if range.end <= common {
            return true;
        }
        let is_behind = range.start >= before.len() - behind;
        if is_behind {
            *range = range.start + after.len() - before.len()..range.end + after.len() - before.len();
        }
        is_behind
    });
}

/// Complete logs with damage: the file, and the entries in it that are not damaged.
fn damaged() -> impl Strategy<Value = (Vec<u8>, Vec<i64>, i64)> {
    (0..12_i64, prop::collection::vec(harm(), 1..4)).prop_map(|(count, harms)| {
        let mut file = format!("{:016x}\n", 1).into_bytes();
        let mut ranges = Vec::new();
        for n in 0..count {
            let from = file.len();
            file.extend(entry(n));
            ranges.push((n, from..file.len()));
        }
        for harm in harms {
            let after = harm.done_to(&file);
            undamaged(&file, &after, &mut ranges);
            file = after;
        }
        (file, ranges.into_iter().map(|(n, _)| n).collect(), count)
    })
}

/// The entries that are read from a log, from its start.
fn read(log: &mut log::Log) -> (Vec<i64>, Option<log::Skipped>) {
    let (mut generation, mut position, mut found, mut skipped) = (0, 0, Vec::new(), None);
    loop {
        let part = log.read_from(generation, position).expect("read");
        let mut entries = entry::Entries::new(&part.bytes, part.is_last);
        found.extend(entries.by_ref().map(|(entry, _)| number(&entry)));
        if part.is_last {
            entries.skip_rest();
        }
        skipped = log::Skipped::and(skipped, &entries, part.from);
        (generation, position) = (part.generation, part.from + entries.position() as u64);
        if part.is_last {
            return (found, skipped);
        }
    }
}

/// Entries that are stored in several parts, so that damage also affects the boundaries of parts; and the offset of
/// each entry, and of the end.
static MANY: LazyLock<(Vec<u8>, Vec<usize>)> = LazyLock::new(|| {
    let (mut entries, mut ends) = (Vec::new(), vec![HEAD_BYTES]);
    for n in 0..10_000 {
        entries.extend(entry(n));
        ends.push(HEAD_BYTES + entries.len());
    }
    assert!(entries.len() > 256 * 1024);
    (entries, ends)
});

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn every_undamaged_entry_is_found_once_and_none_is_invented((file, undamaged, count) in damaged(), taken in 0..400_u64) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("attempts.log");
        std::fs::write(&path, &file).expect("written");
        let (mut log, _) = log::Log::open(&path, (1, taken)).expect("open");
        let (found, skipped) = read(&mut log);
        prop_assert_eq!(skipped, None, "it is mended");
        prop_assert!(undamaged.iter().all(|n| found.contains(n)), "{:?} of {:?}", found, undamaged);
        prop_assert!(found.is_sorted_by(|one, other| one < other) && found.iter().all(|n| (0..count).contains(n)));
        // Appended after the damage, and read again at the next start.
        log.append(&entry(100));
        let all: Vec<i64> = found.into_iter().chain([100]).collect();
        prop_assert_eq!(read(&mut log).0, all.clone());
        let (mut log, skipped) = log::Log::open(&path, (0, 0)).expect("open again");
        prop_assert_eq!((read(&mut log).0, skipped), (all, None));
    }

    #[test]
    fn open_log_is_read_after_its_damaged_part((at, with) in (any::<Index>(), 1..=u8::MAX), zeros in 0..2000_usize) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("attempts.log");
        let (mut log, _) = log::Log::open(&path, (0, 0)).expect("open");
        let (entries, ends) = &*MANY;
        log.append(entries);
        let mut bytes = std::fs::read(&path).expect("read");
        let at = HEAD_BYTES + at.index(bytes.len() - HEAD_BYTES);
        let until = bytes.len().min(at + 1 + zeros);
        bytes[at] ^= with;
        bytes[at + 1..until].fill(0);
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("log");
        file.write_all_at(&bytes[at..until], at as u64).expect("damaged");
        let (found, skipped) = read(&mut log);
        prop_assert!(found.is_sorted_by(|one, other| one < other));
        let found: HashSet<i64> = found.into_iter().collect();
        let missing: Vec<usize> = (0..ends.len() - 1).filter(|n| !found.contains(&(*n as i64))).collect();
        prop_assert!(missing.iter().all(|n| ends[*n] < until && ends[n + 1] > at), "{:?}", missing);
        let bytes = missing.iter().map(|n| (ends[n + 1] - ends[*n]) as u64).sum::<u64>();
        let first = missing.first().map(|n| ends[*n] as u64);
        prop_assert_eq!(skipped, first.map(|offset| log::Skipped { offset, bytes }));
    }
}

/// Every row, with its outcome and cost.
fn rows(ledger: &Ledger) -> Vec<(i64, String, Option<i64>)> {
    ledger.usage(&UsageQuery::default()).expect("taken over");
    let store = lock(&ledger.0.store);
    let store = store.as_ref().expect("open");
    let mut select = store.prepare("SELECT id, outcome, cost_pico FROM attempts ORDER BY id").expect("query");
    let rows = select.query_map([], |row| Ok((second(row.get(0)?), row.get(1)?, row.get(2)?))).expect("rows");
    rows.collect::<Result<_, _>>().expect("rows")
}

fn log_of(folder: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let path = folder.join("attempts.log");
    let bytes = std::fs::read(&path).expect("log");
    (path, bytes)
}

fn ok(id: i64) -> (i64, String, Option<i64>) {
    (id, "ok".into(), Some(id))
}

fn write(ledger: &Ledger, ids: std::ops::RangeInclusive<i64>) {
    for id in ids {
        ledger.begun(&begun(id));
        ledger.done(&done(id, Some(id)));
    }
}

#[test]
fn damaged_length_loses_one_entry_at_a_start_and_while_running() {
    let folder = tempfile::tempdir().expect("folder");
    let ledger = open(folder.path());
    write(&ledger, 1..=2);
    assert_eq!(rows(&ledger), [ok(1), ok(2)]);
    let (path, before) = log_of(folder.path());
    write(&ledger, 3..=6);
    // Overwrites the length of the first entry that was appended since.
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("log");
    file.write_all_at(&[0xff; 4], before.len() as u64).expect("damaged");
    let (_, bytes) = log_of(folder.path());
    let first = entry::begun(&begun(3)).len() as u64;
    let left = [ok(1), ok(2), ok(4), ok(5), ok(6)];
    assert_eq!(rows(&ledger), left, "taken over while running");
    assert_eq!(ledger.0.metrics.skipped_bytes.get(), first);
    write(&ledger, 7..=7);
    assert_eq!(rows(&ledger).last(), Some(&ok(7)), "and it goes on");
    drop(ledger);

    // The same damage found at a start, when nothing of the log was copied yet.
    std::fs::remove_file(folder.path().join("ledger.sqlite")).expect("removed");
    std::fs::write(&path, bytes).expect("as it was");
    let ledger = open(folder.path());
    assert_eq!(rows(&ledger), left);
    assert_eq!(ledger.0.metrics.skipped_bytes.get(), first);
    drop(ledger);
    let ledger = open(folder.path());
    assert_eq!(rows(&ledger), left, "each once");
    assert_eq!(ledger.0.metrics.skipped_bytes.get(), 0, "it is mended");
}

#[test]
fn replaced_log_is_read_from_its_start() {
    let folder = tempfile::tempdir().expect("folder");
    let ledger = open(folder.path());
    write(&ledger, 1..=4);
    assert_eq!(rows(&ledger).len(), 4);
    drop(ledger);
    let (path, mut bytes) = log_of(folder.path());
    // The first line is gone, and so is an entry that was copied already; the other entries moved to its offset.
    let second = entry::begun(&begun(5)).len();
    bytes.splice(..HEAD_BYTES + second, []);
    bytes.extend(entry::begun(&begun(5)));
    bytes.extend(entry::done(&done(5, Some(5))));
    std::fs::write(&path, &bytes).expect("written");
    let ledger = open(folder.path());
    assert_eq!(rows(&ledger), [ok(1), ok(2), ok(3), ok(4), ok(5)]);
    drop(ledger);
    // The log is removed: rows of the next log must not be mistaken for those of the last one.
    std::fs::remove_file(&path).expect("removed");
    let ledger = open(folder.path());
    write(&ledger, 6..=12);
    assert_eq!(rows(&ledger).len(), 12);
}
