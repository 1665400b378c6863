//! Erasing calls: on request, by age, and by size; and the directory's file meanwhile.

use std::fs;
use std::time::Duration;

use super::*;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn ended(store: &Embedded, name: &str, ended_at_ms: i64, bytes: usize) {
    now(store.append(&call(name), 0, vec![record(&"x".repeat(bytes))], Some(entry(name)))).expect("commit");
    now(store.append(&call(name), 1, batch(&["end"]), Some(over(name, ended_at_ms)))).expect("commit");
}

fn names(store: &Embedded) -> Vec<String> {
    store.page(None, None, 99).iter().map(|entry| entry.call_id.to_string()).collect()
}

#[test]
fn erased_call_stays_erased_and_its_id_is_free() {
    let bench = Bench::new();
    let store = bench.open();
    let heard = Arc::new(Heard::default());
    store.set_tail(heard.clone());
    ended(&store, "c_1", 5, 10);
    now(store.append(&call("c_2"), 0, batch(&["a"]), Some(entry("c_2")))).expect("commit");
    assert!(!store.erase(&call("c_2")).expect("asked"), "an open call is not erased");
    assert!(!store.erase(&call("c_3")).expect("asked"));
    assert!(store.erase(&call("c_1")).expect("erased"));
    assert!(!store.erase(&call("c_1")).expect("asked"));
    assert_eq!(*heard.1.lock().unwrap(), [call("c_1")]);
    assert!(!bench.log_path(&call("c_1")).exists());
    assert!(matches!(store.read(&call("c_1"), 0, 1), Err(JournalError::UnknownCall)));
    assert_eq!(store.entry(&call("c_1")), None);
    now(store.append(&call("c_1"), 0, batch(&["anew"]), Some(entry("c_1")))).expect("commit");
    drop(store);
    let store = bench.open();
    assert_eq!(texts(&store, &call("c_1")), ["anew"]);
    assert_eq!(texts(&store, &call("c_2")), ["a"]);
}

#[test]
fn retention_erases_old_calls_and_keeps_open_ones() {
    let mut bench = Bench::new();
    bench.config.retention = Some(Duration::from_secs(2 * 24 * 60 * 60));
    let store = bench.open();
    // The first sweep of the store itself runs at the present, so the ends are in the future.
    let base = crate::base::time::unix_ms() + 100 * DAY_MS;
    ended(&store, "c_old", base, 10);
    ended(&store, "c_new", base + DAY_MS, 10);
    now(store.append(&call("c_open"), 0, batch(&["a"]), Some(Entry { started_at_ms: 1, ..entry("c_open") })))
        .expect("commit");
    ended(&store, "c_failed", base + 5 * DAY_MS, 10);
    let stray = bench.log_path(&call("c_stray"));
    fs::write(&stray, "left over").expect("written");
    store.sweep(base + 2 * DAY_MS - 1);
    assert_eq!(names(&store), ["c_failed", "c_new", "c_old", "c_open"]);
    store.sweep(base + 2 * DAY_MS);
    assert_eq!(names(&store), ["c_failed", "c_new", "c_open"]);
    assert!(!stray.exists(), "a log of no call is swept when nobody wrote to it for as long");
    assert!(bench.log_path(&call("c_open")).exists());
    store.sweep(base + 50 * DAY_MS);
    assert_eq!(names(&store), ["c_open"]);
    assert_eq!(bench.metrics.erased.get(), 3);
    drop(store);
    assert_eq!(names(&bench.open()), ["c_open"]);
}

#[test]
fn oldest_calls_are_erased_while_the_logs_exceed_max_bytes() {
    let mut bench = Bench::new();
    let store = bench.open();
    for (name, ended_at_ms) in [("c_1", 30), ("c_2", 10), ("c_3", 40), ("c_4", 20)] {
        ended(&store, name, ended_at_ms, 10_000);
    }
    now(store.append(&call("c_0"), 0, vec![record(&"x".repeat(4_000))], Some(entry("c_0")))).expect("commit");
    drop(store);
    // Set only now: an open store checks its size by itself, and must not do so before all calls are written.
    bench.config.max_bytes = 50_000;
    let store = bench.open();
    store.sweep(0);
    assert_eq!(names(&store), ["c_0", "c_1", "c_3"]);
    store.sweep(0);
    assert_eq!(names(&store), ["c_0", "c_1", "c_3"]);
}

#[test]
fn the_directory_is_compacted_by_its_bytes_and_says_the_same() {
    let bench = Bench::new();
    let store = bench.open();
    for number in 0..50 {
        let name = format!("c_{number:0>2}");
        now(store.append(&call(&name), 0, batch(&["a"]), Some(entry(&name)))).expect("commit");
        for turns in 1..40 {
            now(store.append(&call(&name), 1, vec![], Some(Entry { turns, ..entry(&name) }))).expect("commit");
        }
    }
    ended(&store, "c_over", 5, 10);
    store.erase(&call("c_over")).expect("erased");
    let page = store.page(None, None, 99);
    std::thread::scope(|scope| {
        let during = scope.spawn(|| {
            for turns in 40..200 {
                now(store.append(&call("c_00"), 1, vec![], Some(Entry { turns, ..entry("c_00") }))).expect("commit");
            }
        });
        store.compact().expect("compacted");
        during.join().expect("appended");
    });
    let short = fs::metadata(bench.path("directory.log")).expect("directory").len();
    assert!(short < 64 << 10, "{short} bytes of 50 calls, after some 2,200 changes");
    now(store.append(&call("c_01"), 1, batch(&["b"]), Some(over("c_01", 7)))).expect("commit");
    drop(store);
    let store = bench.open();
    assert_eq!(store.entry(&call("c_00")).expect("entry").turns, 199);
    assert_eq!(store.entry(&call("c_01")), Some(over("c_01", 7)));
    assert_eq!(store.page(None, Some(&call("c_01")), 99), page[2..]);
    assert_eq!(store.entry(&call("c_over")), None);
}
