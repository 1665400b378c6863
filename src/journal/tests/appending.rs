//! Appending and reading, without failures.

use super::*;

#[test]
fn what_was_appended_is_read_in_order_after_a_kill_too() {
    let bench = Bench::new();
    let store = bench.open();
    let c = call("c_1");
    assert!(matches!(store.read(&c, 0, 1), Err(JournalError::UnknownCall)));
    assert!(matches!(now(store.append(&c, 0, batch(&["a"]), None)), Err(JournalError::UnknownCall)));
    let commit = now(store.append(&c, 0, batch(&["a", "b"]), Some(entry("c_1")))).expect("commit");
    assert_eq!(commit.head, 2);
    assert_eq!(commit.records.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2]);
    now(store.append(&c, 2, batch(&["c"]), None)).expect("commit");
    assert_eq!(texts(&store, &c), ["a", "b", "c"]);
    let before = all(&store, &c);
    drop(store);
    let store = bench.open();
    assert_eq!(all(&store, &c), before);
    assert_eq!(store.head(&c).expect("head"), 3);
    assert_eq!(store.entry(&c), Some(entry("c_1")));
    let commit = now(store.append(&c, 3, batch(&["d"]), None)).expect("commit");
    assert!(commit.records[0].order > before[2].1, "orders rise over restarts");
    assert_eq!(texts(&store, &c), ["a", "b", "c", "d"]);
}

#[test]
fn a_writer_with_an_old_head_is_fenced() {
    let bench = Bench::new();
    let store = bench.open();
    let c = call("c_1");
    now(store.append(&c, 0, batch(&["a"]), Some(entry("c_1")))).expect("commit");
    for after in [0, 2, 7] {
        let refused = now(store.append(&c, after, batch(&["x"]), Some(entry("c_1"))));
        assert!(matches!(refused, Err(JournalError::Fenced { head: 1, after: named }) if named == after));
    }
    assert!(matches!(
        now(store.append(&call("c_2"), 3, batch(&["x"]), Some(entry("c_2")))),
        Err(JournalError::Fenced { head: 0, after: 3 })
    ));
    assert_eq!(store.entry(&call("c_2")), None);
    assert!(matches!(store.read(&call("c_2"), 0, 1), Err(JournalError::UnknownCall)));
    assert_eq!(texts(&store, &c), ["a"]);
}

#[test]
fn an_entry_changes_with_a_batch_or_alone() {
    let bench = Bench::new();
    let store = bench.open();
    let c = call("c_1");
    assert!(matches!(now(store.append(&c, 0, vec![], Some(entry("c_1")))), Err(JournalError::UnknownCall)));
    now(store.append(&c, 0, batch(&["a"]), Some(entry("c_1")))).expect("commit");
    let two = Entry { turns: 2, ..entry("c_1") };
    let commit = now(store.append(&c, 1, vec![], Some(two.clone()))).expect("commit");
    assert_eq!((commit.head, commit.records.len()), (1, 0));
    assert_eq!(store.entry(&c), Some(two));
    now(store.append(&c, 1, batch(&["b"]), Some(over("c_1", 5)))).expect("commit");
    drop(store);
    let store = bench.open();
    assert_eq!(store.entry(&c), Some(over("c_1", 5)));
    assert_eq!(texts(&store, &c), ["a", "b"]);
    assert_eq!(store.open_calls(), []);
}

#[test]
fn reads_give_about_what_was_asked_for_and_at_least_one() {
    let bench = Bench::new();
    let store = bench.open();
    let c = call("c_1");
    let long = "x".repeat(100_000);
    let mut head = 0;
    for number in 0..40 {
        let text = if number % 10 == 9 { long.clone() } else { format!("{number:0>900}") };
        let entry = (number == 0).then(|| entry("c_1"));
        head = now(store.append(&c, head, batch(&[&text, "s"]), entry)).expect("commit").head;
    }
    for after in 0..head {
        let one = store.read(&c, after, 0).expect("reads");
        assert_eq!(one.iter().map(|record| record.seq).collect::<Vec<_>>(), [after + 1]);
        let some = store.read(&c, after, 5_000).expect("reads");
        assert_eq!(some[0].seq, after + 1);
        let bytes: usize = some[..some.len() - 1].iter().map(|record| record.frame.len()).sum();
        assert!(bytes < 5_000, "stops once there is enough");
        assert!(some.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    }
    assert_eq!(store.read(&c, 0, usize::MAX).expect("reads").len(), 80);
    assert_eq!(store.read(&c, head, 1).expect("reads").len(), 0);
    assert_eq!(store.read(&c, head + 5, 1).expect("reads").len(), 0);
}

#[test]
fn commit_listener_gets_every_commit_in_order_from_many_threads() {
    let bench = Bench { open_files: 7, ..Bench::new() };
    let store = bench.open();
    let heard = Arc::new(Heard::default());
    store.set_tail(heard.clone());
    let (threads, calls, batches) = (4, 25, 40);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let store = &store;
            scope.spawn(move || {
                for round in 0..batches {
                    for number in 0..calls {
                        let name = format!("c_{thread}_{number}");
                        let (first, second) = (format!("{round}a"), format!("{round}b"));
                        let entry = (round == 0).then(|| entry(&name));
                        let append = store.append(&call(&name), round * 2, batch(&[&first, &second]), entry);
                        assert_eq!(wait(append).expect("commit").head, round * 2 + 2);
                    }
                }
            });
        }
    });
    let heard = heard.0.lock().unwrap();
    assert_eq!(heard.len() as u64, threads * calls * batches * 2);
    assert!(heard.windows(2).all(|pair| pair[0].2 < pair[1].2), "announced in the order of their orders");
    assert_eq!(store.order(), heard.last().unwrap().2);
    assert!(bench.metrics.open_files.get() <= 7 + threads as i64, "{}", bench.metrics.open_files.get());
    drop(store);
    let store = bench.open();
    for (call, seq, order) in heard.iter() {
        let record = &store.read(call, seq - 1, 1).expect("reads")[0];
        assert_eq!((record.seq, record.order), (*seq, *order));
    }
}

#[test]
fn pages_are_in_order_of_ids() {
    let bench = Bench::new();
    let store = bench.open();
    for name in ["c_b", "c_d", "c_a", "c_c"] {
        now(store.append(&call(name), 0, batch(&["a"]), Some(entry(name)))).expect("commit");
    }
    now(store.append(&call("c_c"), 1, batch(&["b"]), Some(over("c_c", 9)))).expect("commit");
    let names = |entries: Vec<Entry>| entries.iter().map(|entry| entry.call_id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(store.page(None, None, 3)), ["c_a", "c_b", "c_c"]);
    assert_eq!(names(store.page(None, Some(&call("c_b")), 3)), ["c_c", "c_d"]);
    assert_eq!(names(store.page(Some(CallState::Open), Some(&call("c_a")), 9)), ["c_b", "c_d"]);
    assert_eq!(names(store.page(Some(CallState::Completed), None, 9)), ["c_c"]);
    assert_eq!(names(store.open_calls()), ["c_a", "c_b", "c_d"]);
}
