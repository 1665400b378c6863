//! The incomplete end that a crash leaves is cut off; damage is reported, left unchanged, and affects no other call.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::frame::{Kind, seal, versioned_header};
use super::super::scan::{Ending, scan};
use super::*;
use crate::base::testing::kept;

/// Writes batches of records of these sizes; returns the texts of each batch, and where each batch ends in the file.
fn filled(bench: &Bench, name: &str, batches: &[Vec<usize>]) -> (Vec<Vec<String>>, Vec<u64>) {
    let store = bench.open();
    let (mut written, mut ends, mut head) = (Vec::new(), Vec::new(), 0);
    for (number, sizes) in batches.iter().enumerate() {
        let texts: Vec<String> =
            (0..).zip(sizes).map(|(place, size)| format!("{number}.{place}.{:x<size$}", "")).collect();
        let records = texts.iter().map(|text| record(text)).collect();
        let entry = (head == 0).then(|| entry(name));
        head = now(store.append(&call(name), head, records, entry)).expect("commit").head;
        written.push(texts);
        ends.push(fs::metadata(bench.log_path(&call(name))).expect("log").len());
    }
    (written, ends)
}

fn shorten(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).expect("file").set_len(len).expect("cut");
}

fn extend(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).expect("file").write_all(bytes).expect("written");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..kept() })]

    #[test]
    fn truncated_log_has_every_complete_batch_and_nothing_else(
        batches in vec(vec(0_usize..3000, 1..4), 1..8),
        cut in 0.0..1.0_f64,
        zeros in 0_u64..5000,
    ) {
        let bench = Bench::new();
        let c = call("c_1");
        let (written, ends) = filled(&bench, "c_1", &batches);
        let len = ends[ends.len() - 1];
        let cut = (cut * (len + 1) as f64) as u64;
        shorten(&bench.log_path(&c), cut);
        // A file system may have extended the file before it wrote the data.
        shorten(&bench.log_path(&c), cut + zeros);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let mut expected: Vec<String> = written[..whole].concat();

        let store = bench.open();
        if whole == 0 {
            prop_assert!(matches!(store.head(&c), Err(JournalError::UnknownCall)));
            prop_assert_eq!(store.entry(&c), None);
            prop_assert_eq!(now(store.append(&c, 0, batch(&["new"]), Some(entry("c_1")))).expect("commit").head, 1);
            expected.clear();
        } else {
            prop_assert_eq!(texts(&store, &c), expected.clone());
            let head = expected.len() as u64;
            prop_assert_eq!(now(store.append(&c, head, batch(&["new"]), None)).expect("commit").head, head + 1);
        }
        expected.push("new".into());
        prop_assert_eq!(texts(&store, &c), expected.clone());
        let good = if whole == 0 { 0 } else { ends[whole - 1] };
        prop_assert_eq!(bench.metrics.cut_tails.get() > 0, good < cut + zeros);
        prop_assert_eq!(bench.metrics.damaged.get(), 0);
        drop(store);
        prop_assert_eq!(texts(&bench.open(), &c), expected);
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    let bench = Bench::new();
    let (written, ends) = filled(&bench, "c_1", &[vec![3, 70], vec![0], vec![40, 1, 5], vec![200]]);
    let path = bench.log_path(&call("c_1"));
    let good = fs::read(&path).expect("log");
    let copy = bench.dir.path().join("copy");
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            fs::write(&copy, &bytes).expect("copy");
            let contents = scan(&std::fs::File::open(&copy).expect("copy"), bytes.len() as u64).expect("scanned");
            let whole = ends.iter().filter(|end| **end <= at as u64).count();
            let events: usize = written[..whole].iter().map(Vec::len).sum();
            assert_eq!(contents.head, events as u64, "byte {at}, bit {bit}");
            assert!(matches!(contents.ending, Ending::Damaged(_)), "byte {at}, bit {bit}: {:?}", contents.ending);
        }
    }
}

#[test]
fn a_damaged_log_is_readable_up_to_there_and_others_go_on() {
    let bench = Bench::new();
    let (_, ends) = filled(&bench, "c_bad", &[vec![1], vec![2000], vec![3]]);
    filled(&bench, "c_good", &[vec![1], vec![2]]);
    let (bad, good) = (call("c_bad"), call("c_good"));
    flip(&bench.log_path(&bad), ends[0] + 1000, 4);
    let before = fs::read(bench.log_path(&bad)).expect("log");

    let store = bench.open();
    assert_eq!(store.read(&bad, 0, 1 << 20).expect("reads").len(), 1);
    for result in [store.read(&bad, 1, 1 << 20).map(drop), store.head(&bad).map(drop)] {
        let Err(JournalError::Damaged { after: 1, message }) = result else { panic!("{result:?}") };
        assert!(message.contains(&format!("byte {}", ends[0])), "{message}");
    }
    let refused = now(store.append(&bad, 1, batch(&["x"]), None));
    assert!(matches!(refused, Err(JournalError::Damaged { after: 1, .. })), "{refused:?}");
    assert_eq!(bench.metrics.damaged.get(), 1, "reported once");
    now(store.append(&good, 2, batch(&["x"]), None)).expect("others go on");
    store.health().expect("the journal works");

    store.mark_failed(&bad);
    assert_eq!(store.entry(&bad).expect("entry").state, CallState::Failed);
    assert!(store.entry(&bad).expect("entry").ended_at_ms.is_some());
    drop(store);
    let store = bench.open();
    assert_eq!(store.entry(&bad).expect("entry").state, CallState::Failed);
    assert_eq!(fs::read(bench.log_path(&bad)).expect("log"), before, "it was left as it was");
    assert!(store.erase(&bad).expect("erased"));
}

#[test]
fn damage_that_comes_while_the_log_is_in_use_is_found_by_the_reader() {
    let bench = Bench::new();
    let c = call("c_1");
    let store = bench.open();
    for head in 0..5 {
        let entry = (head == 0).then(|| entry("c_1"));
        now(store.append(&c, head, vec![record(&format!("{head:0>50000}"))], entry)).expect("commit");
    }
    assert_eq!(texts(&store, &c).len(), 5);
    flip(&bench.log_path(&c), 220_000, 1);
    assert_eq!(store.read(&c, 0, 1 << 20).expect("reads").len(), 2);
    assert!(matches!(store.read(&c, 2, 1), Err(JournalError::Damaged { after: 2, .. })));
    assert!(matches!(now(store.append(&c, 5, batch(&["x"]), None)), Err(JournalError::Damaged { .. })));
}

#[test]
fn garbage_duplicates_and_foreign_files_are_damage() {
    let bench = Bench::new();
    let c = call("c_1");
    let (_, ends) = filled(&bench, "c_1", &[vec![10], vec![20]]);
    let path = bench.log_path(&c);
    let good = fs::read(&path).expect("log");
    let repeated = good[ends[0] as usize..].to_vec();
    let mut foreign = Vec::new();
    seal(&mut foreign, |out| out.extend_from_slice(b"short"));
    for (more, words) in [
        (vec![7; 100], "no record begins here"),
        (repeated, "out of sequence"),
        (foreign, "'s content contradicts its header"),
    ] {
        fs::write(&path, &good).expect("log");
        extend(&path, &more);
        let store = bench.open();
        let Err(JournalError::Damaged { after: 2, message }) = store.head(&c) else { panic!("not damaged") };
        assert!(message.contains(words), "{message}");
        assert_eq!(texts_before_damage(&store, &c), 2);
    }
    fs::write(&path, "this is no journal, but a poem").expect("log");
    assert!(matches!(bench.open().head(&c), Err(JournalError::Damaged { after: 0, .. })));
    let mut newer = versioned_header(Kind::Call, 9).to_vec();
    newer.extend_from_slice(&good[16..]);
    fs::write(&path, &newer).expect("log");
    let Err(JournalError::Damaged { message, .. }) = bench.open().head(&c) else { panic!("not refused") };
    assert!(message.contains("version 9") && message.contains("run a newer sidetone"), "{message}");
}

fn texts_before_damage(store: &Embedded, call: &CallId) -> usize {
    store.read(call, 0, 1 << 20).expect("reads").len()
}

#[test]
fn a_log_that_vanished_is_reported() {
    let bench = Bench::new();
    let store = bench.open();
    let c = call("c_1");
    now(store.append(&c, 0, batch(&["a"]), Some(entry("c_1")))).expect("commit");
    now(store.append(&c, 1, batch(&["b"]), Some(Entry { turns: 1, ..entry("c_1") }))).expect("commit");
    drop(store);
    fs::remove_file(bench.log_path(&c)).expect("removed");
    let store = bench.open();
    let Err(JournalError::Damaged { after: 0, message }) = store.head(&c) else { panic!("not reported") };
    assert!(message.contains("there were 2 events"), "{message}");
}

#[test]
fn truncated_directory_loses_no_call() {
    let bench = Bench::new();
    filled(&bench, "c_1", &[vec![1]]);
    filled(&bench, "c_2", &[vec![1]]);
    let path = bench.path("directory.log");
    let len = fs::metadata(&path).expect("directory").len();
    shorten(&path, len - 5);
    let store = bench.open();
    assert_eq!(store.entry(&call("c_1")), Some(entry("c_1")));
    let found = store.entry(&call("c_2")).expect("found by its log");
    assert_eq!(found.state, CallState::Open);
    assert_ne!(found.epoch, entry("c_2").epoch, "who resumes it is told that its history may have a hole");
    assert_eq!(bench.metrics.cut_tails.get(), 1);
    assert_eq!(texts(&store, &call("c_2")), ["0.0.x"]);
    // The call's writer stores its entry again.
    now(store.append(&call("c_2"), 1, batch(&["new"]), Some(entry("c_2")))).expect("commit");
    assert_eq!(texts(&store, &call("c_2")), ["0.0.x", "new"]);
    drop(store);
    assert_eq!(bench.open().open_calls(), [entry("c_1"), entry("c_2")]);
    assert_eq!(bench.metrics.damaged.get(), 0);
}

#[test]
fn directory_truncated_anywhere_loses_no_call_with_a_log() {
    let bench = Bench::new();
    for name in ["c_1", "c_2", "c_3"] {
        filled(&bench, name, &[vec![1], vec![2]]);
    }
    let store = bench.open();
    now(store.append(&call("c_2"), 2, batch(&["end"]), Some(over("c_2", 9)))).expect("commit");
    store.erase(&call("c_2")).expect("erased");
    store.close();
    drop(store);
    let path = bench.path("directory.log");
    let whole = fs::read(&path).expect("directory");
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).expect("cut");
        let store = bench.open();
        let found: Vec<String> = store.page(None, None, 9).iter().map(|entry| entry.call_id.to_string()).collect();
        // A call whose entry exists but whose log is gone is removed when it is looked up.
        let there: Vec<&String> = found.iter().filter(|name| store.head(&call(name)).is_ok()).collect();
        assert_eq!(there, ["c_1", "c_3"], "cut at {cut} of {}", whole.len());
        assert_eq!(texts(&store, &call("c_3")).len(), 2, "cut at {cut}");
    }
}

#[test]
fn the_log_of_an_erased_call_does_not_bring_it_back() {
    let bench = Bench::new();
    filled(&bench, "c_1", &[vec![1]]);
    filled(&bench, "c_2", &[vec![1]]);
    let kept = fs::read(bench.log_path(&call("c_1"))).expect("log");
    let store = bench.open();
    now(store.append(&call("c_1"), 1, batch(&["end"]), Some(over("c_1", 9)))).expect("commit");
    store.erase(&call("c_1")).expect("erased");
    now(store.append(&call("c_2"), 1, vec![], Some(Entry { turns: 5, ..entry("c_2") }))).expect("commit");
    drop(store);
    // As if the daemon had been killed between the two steps of the erasure, and the end of the directory were torn.
    fs::write(bench.log_path(&call("c_1")), kept).expect("log");
    let path = bench.path("directory.log");
    shorten(&path, fs::metadata(&path).expect("directory").len() - 5);
    assert_eq!(bench.open().page(None, None, 9), [entry("c_2")]);
    assert!(!bench.log_path(&call("c_1")).exists());
}

#[test]
fn a_damaged_directory_loses_what_cannot_be_read_and_says_so() {
    let names: Vec<String> = (0..9).map(|number| format!("c_{number}")).collect();
    let bench = Bench::new();
    for name in &names {
        filled(&bench, name, &[vec![1], vec![1]]);
    }
    let path = bench.path("directory.log");
    let len = fs::metadata(&path).expect("directory").len();
    let line = (len - 16) / 9;
    for (at, bits) in [(16 + line * 3 + 40, 1), (16 + line * 6 + 1, 0x80)] {
        flip(&path, at, bits);
    }
    let damaged = fs::read(&path).expect("directory");
    let store = bench.open();
    assert_eq!(bench.metrics.damaged.get(), 1);
    assert_eq!(fs::read(bench.path("directory.damaged")).expect("kept"), damaged);
    for (number, name) in names.iter().enumerate() {
        // Nothing between the first and the last damaged line can be read: those calls are found by their logs.
        let found = store.entry(&call(name)).expect("entry");
        assert_eq!(found.state, CallState::Open, "{name}");
        assert_eq!(found.epoch != entry(name).epoch, (3..=6).contains(&number), "{name}");
        assert_eq!(texts(&store, &call(name)).len(), 2, "{name}");
    }
    let page = store.page(None, None, 99);
    drop(store);
    assert_eq!(bench.open().page(None, None, 99), page, "the second start finds nothing wrong");
    assert_eq!(bench.metrics.damaged.get(), 1);
}

#[test]
fn without_its_directory_every_call_is_found_by_its_log() {
    let bench = Bench::new();
    filled(&bench, "c_1", &[vec![1], vec![1]]);
    fs::remove_file(bench.path("directory.log")).expect("removed");
    let store = bench.open();
    assert_eq!(store.entry(&call("c_1")).expect("entry").state, CallState::Open);
    assert_eq!(texts(&store, &call("c_1")).len(), 2);
}
