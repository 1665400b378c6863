//! The directory's file: what the change of an entry writes, and what is read back.

use std::collections::BTreeMap;
use std::fs;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::super::frame::{Kind, file_header, seal};
use super::failing::Flaky;
use super::*;
use crate::base::testing::kept;

fn directory_bytes(bench: &Bench) -> u64 {
    fs::metadata(bench.path("directory.log")).expect("directory").len()
}

#[test]
fn a_call_with_many_streams_writes_what_changed_alone() {
    const STREAMS: u64 = 1_000;
    let bench = Bench::new();
    let store = bench.open();
    let mut entry = entry("c_1");
    now(store.append(&call("c_1"), 0, batch(&["a"]), Some(entry.clone()))).expect("commit");
    for number in 1..=STREAMS {
        entry.connections.insert(format!("s_{number}"), number);
        now(store.append(&call("c_1"), 1, vec![], Some(entry.clone()))).expect("commit");
    }
    let bytes = directory_bytes(&bench);
    assert!(bytes < STREAMS * 128, "{bytes} bytes for {STREAMS} streams");
    drop(store);
    assert_eq!(bench.open().entry(&call("c_1")), Some(entry));
}

/// A file of an earlier version: every line contains a whole entry.
#[test]
fn a_directory_in_the_old_form_is_read_and_goes_on_in_the_new_one() {
    let bench = Bench::new();
    let store = bench.open();
    for name in ["c_1", "c_2", "c_3"] {
        now(store.append(&call(name), 0, batch(&["a"]), Some(entry(name)))).expect("commit");
    }
    store.close();
    drop(store);
    let old = |call: &str, state: &str, ended: &str, turns: u64| {
        format!(
            r#"{{"put":{{"entry":{{"call_id":"{call}","epoch":"e","state":"{state}","meta":{{"a":1}},"started_at_ms":1000,"ended_at_ms":{ended},"open_streams":1,"turns":{turns},"connections":{{"s_1":3}},"positions":{{"s_1":{{"s":"s_1"}}}}}},"newest_order":0,"head":0}}}}"#
        )
    };
    let lines = [
        old("c_1", "open", "null", 1),
        old("c_2", "open", "null", 1),
        old("c_1", "open", "null", 7),
        r#"{"erased":"c_2"}"#.to_owned(),
        // Written before connections and positions existed.
        r#"{"put":{"entry":{"call_id":"c_3","epoch":"e","state":"completed","meta":{},"started_at_ms":1,"ended_at_ms":2,"open_streams":0,"turns":0}}}"#.to_owned(),
    ];
    let mut file = file_header(Kind::Directory).to_vec();
    for line in &lines {
        seal(&mut file, |out| out.extend_from_slice(line.as_bytes()));
    }
    fs::write(bench.path("directory.log"), file).expect("written");

    let store = bench.open();
    let known = store.entry(&call("c_1")).expect("entry");
    assert_eq!((known.turns, known.epoch.as_str(), known.connections["s_1"]), (7, "e", 3));
    assert_eq!(known.positions["s_1"], serde_json::json!({"s": "s_1"}));
    assert_eq!(store.entry(&call("c_2")), None);
    assert_eq!(store.entry(&call("c_3")).expect("entry").state, CallState::Completed);
    let changed = Entry { turns: 8, positions: BTreeMap::new(), ..known };
    now(store.append(&call("c_1"), 1, batch(&["b"]), Some(changed.clone()))).expect("commit");
    drop(store);
    let store = bench.open();
    assert_eq!(store.entry(&call("c_1")), Some(changed));
    assert_eq!(texts(&store, &call("c_1")), ["a", "b"]);
}

#[test]
fn pending_entries_are_written_with_the_next_change() {
    let flaky = Flaky::with_room(u64::MAX / 2);
    let bench = Bench { medium: flaky.clone(), ..Bench::new() };
    let store = bench.open();
    now(store.append(&call("c_1"), 0, batch(&["a"]), Some(entry("c_1")))).expect("commit");
    flaky.set_room(0);
    store.mark_failed(&call("c_1"));
    flaky.set_room(u64::MAX / 2);
    let failed = store.entry(&call("c_1")).expect("entry");
    assert_eq!(failed.state, CallState::Failed);
    let changed = Entry { turns: 3, ..failed };
    now(store.append(&call("c_1"), 1, vec![], Some(changed.clone()))).expect("commit");
    drop(store);
    assert_eq!(bench.open().entry(&call("c_1")), Some(changed));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let numbers = (0_i64..3, prop::option::of(0_i64..3), 0_u32..3, 0_u64..3, prop::option::of(1_i64..3));
    let maps = (btree_map("s_[0-3]", 0_u64..3, 0..4), btree_map("s_[0-3]", 0_u64..3, 0..4));
    let state = prop_oneof![Just(CallState::Open), Just(CallState::Completed), Just(CallState::Failed)];
    (state, "[ab]", prop::option::of(0_u8..2), numbers, maps).prop_map(
        |(
            state,
            epoch,
            meta,
            (started_at_ms, ended_at_ms, open_streams, turns, due_at_ms),
            (connections, positions),
        )| Entry {
            epoch,
            state,
            // A value may be null, which differs from a missing value.
            meta: meta
                .into_iter()
                .map(|n| ("k".to_owned(), if n == 0 { serde_json::Value::Null } else { n.into() }))
                .collect(),
            started_at_ms,
            ended_at_ms,
            open_streams,
            turns,
            due_at_ms,
            connections,
            positions: positions.into_iter().map(|(stream, at)| (stream, at.into())).collect(),
            ..entry("c_1")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..kept() })]

    #[test]
    fn any_sequence_of_changes_reads_back_as_the_last_entry(entries in vec(any_entry(), 1..12)) {
        let bench = Bench::new();
        let store = bench.open();
        now(store.append(&call("c_1"), 0, batch(&["a"]), Some(entry("c_1")))).expect("commit");
        for entry in &entries {
            now(store.append(&call("c_1"), 1, vec![], Some(entry.clone()))).expect("commit");
            prop_assert_eq!(store.entry(&call("c_1")), Some(entry.clone()));
        }
        drop(store);
        prop_assert_eq!(bench.open().entry(&call("c_1")), entries.last().cloned());
    }
}
