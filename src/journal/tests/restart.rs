//! Tests of what a journal keeps over a restart: orders, epochs, generation, locks, versions, permissions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;

fn epochs(store: &Embedded) -> Vec<String> {
    store.page(None, None, 99).into_iter().map(|entry| entry.epoch).collect()
}

/// A journal with an open call and a completed one.
fn two_calls(bench: &Bench) -> Arc<Embedded> {
    let store = bench.open();
    now(store.append(&call("c_1"), 0, batch(&["a"]), Some(entry("c_1")))).expect("commit");
    now(store.append(&call("c_2"), 0, batch(&["a"]), Some(entry("c_2")))).expect("commit");
    now(store.append(&call("c_2"), 1, batch(&["b"]), Some(over("c_2", 9)))).expect("commit");
    store
}

#[test]
fn epochs_change_when_the_machine_went_down_uncleanly_and_only_then() {
    // How the last run ended; whether the machine was rebooted since; whether open calls must get new epochs.
    for (killed, rebooted, changes) in
        [(true, false, false), (false, true, false), (false, false, false), (true, true, true)]
    {
        let mut bench = Bench::new();
        let store = two_calls(&bench);
        let (generation, before) = (store.generation(), epochs(&store));
        if !killed {
            store.close();
        }
        drop(store);
        if rebooted {
            bench.boot_id = "boot 2".into();
        }
        let store = bench.open();
        let after = epochs(&store);
        let case = format!("killed: {killed}, rebooted: {rebooted}");
        assert_eq!(store.generation() != generation, changes, "{case}");
        assert_eq!(after[0] != before[0], changes, "{case}");
        assert_eq!(after[1], before[1], "{case}: a call that is over and whole keeps its epoch");
        // The new epochs are kept at the next start.
        let generation = store.generation();
        drop(store);
        let store = bench.open();
        assert_eq!((store.generation(), epochs(&store)), (generation, after), "{case}");
    }
}

#[test]
fn a_call_that_is_over_gets_a_new_epoch_if_the_machine_lost_its_end() {
    let mut bench = Bench::new();
    let store = two_calls(&bench);
    let before = epochs(&store);
    drop(store);
    let path = bench.log_path(&call("c_2"));
    let file = fs::OpenOptions::new().write(true).open(&path).expect("log");
    file.set_len(fs::metadata(&path).expect("log").len() - 1).expect("cut");
    bench.boot_id = "boot 2".into();
    let store = bench.open();
    assert_ne!(epochs(&store)[1], before[1]);
    assert_eq!(texts(&store, &call("c_2")), ["a"]);
}

#[test]
fn machine_without_a_boot_id_may_have_lost_events() {
    let bench = Bench { boot_id: String::new(), ..Bench::new() };
    let before = epochs(&two_calls(&bench));
    assert_ne!(epochs(&bench.open())[0], before[0]);
}

#[test]
fn with_machine_durability_no_epoch_changes() {
    let mut bench = Bench::new();
    bench.config.durability = Durability::Machine;
    let store = bench.open();
    wait(store.append(&call("c_1"), 0, batch(&["a"]), Some(entry("c_1")))).expect("commit");
    let (generation, before) = (store.generation(), epochs(&store));
    drop(store);
    // The durability of the last run counts, not that of this one.
    bench.config.durability = Durability::Process;
    bench.boot_id = "boot 2".into();
    let store = bench.open();
    assert_eq!((store.generation(), epochs(&store)), (generation, before.clone()));
    drop(store);
    bench.config.durability = Durability::Machine;
    bench.boot_id = "boot 3".into();
    assert_ne!(epochs(&bench.open()), before);
}

#[test]
fn without_its_state_a_journal_counts_as_restored() {
    let bench = Bench::new();
    let store = two_calls(&bench);
    let (generation, before, order) = (store.generation(), epochs(&store), store.order());
    store.close();
    drop(store);
    fs::remove_file(bench.path("state")).expect("removed");
    let store = bench.open();
    assert_ne!(store.generation(), generation);
    assert_ne!(epochs(&store)[0], before[0]);
    assert_eq!(store.order(), order, "orders go on behind the newest");
    let commit = now(store.append(&call("c_1"), 1, batch(&["b"]), None)).expect("commit");
    assert!(commit.records[0].order > order);
    assert_eq!(texts(&store, &call("c_1")), ["a", "b"]);
}

#[test]
fn orders_increase_over_kills_and_reserved_blocks() {
    let bench = Bench::new();
    let (mut last, mut head) = (0, 0);
    for round in 0..4 {
        let store = bench.open();
        assert!(store.order() >= last);
        for _ in 0..3 {
            let entry = (head == 0).then(|| entry("c_1"));
            let texts: Vec<String> = (0..900).map(|_| String::new()).collect();
            let records = texts.iter().map(|text| record(text)).collect();
            let commit = now(store.append(&call("c_1"), head, records, entry)).expect("commit");
            assert!(commit.records[0].order > last, "round {round}");
            (last, head) = (commit.records[899].order, commit.head);
            assert_eq!(store.order(), last);
        }
        if round % 2 == 0 {
            store.close();
        }
    }
}

#[test]
fn since_names_each_call_with_something_newer_and_where_it_begins() {
    let bench = Bench::new();
    let store = bench.open();
    let names = ["c_a", "c_b", "c_c"];
    let mut heads = [0_u64; 3];
    let mut commits: Vec<(u64, usize, u64)> = Vec::new();
    // Batches of different sizes; c_b completes in the middle, and gets one more event later.
    for round in 0..90_usize {
        let which = (round * 7 + round / 5) % 3;
        let name = names[which];
        let entry = match (heads[which], which, round) {
            (0, _, _) => Some(entry(name)),
            (_, 1, 40..) => Some(over(name, 9)),
            _ => None,
        };
        let wanted: Vec<NewRecord> = (0..=round % 3).map(|_| record(&"x".repeat(round * 20))).collect();
        let commit = now(store.append(&call(name), heads[which], wanted, entry)).expect("commit");
        heads[which] = commit.head;
        commits.extend(commit.records.iter().map(|record| (record.order, which, record.seq)));
    }
    let expected = |after: u64| -> Vec<(CallId, Seq)> {
        let first = |which: usize| {
            let mut newer = commits.iter().filter(|(order, of, _)| *of == which && *order > after);
            newer.next().map(|(_, _, seq)| (call(names[which]), *seq))
        };
        (0..3).filter_map(first).collect()
    };
    let last = store.order();
    for after in (0..=last + 2).step_by(3) {
        assert_eq!(store.since(after).expect("since"), expected(after), "after {after}");
    }
    drop(store);
    // Each answer from a store that has read nothing yet, then from one that has.
    for after in [0, 1, last / 2, last - 4, last - 1, last, last + 9] {
        let store = bench.open();
        for _ in 0..2 {
            assert_eq!(store.since(after).expect("since"), expected(after), "after {after}");
        }
        for name in names {
            store.head(&call(name)).expect("head");
        }
        assert_eq!(store.since(after).expect("since"), expected(after), "after {after}, loaded");
    }
    // An event after the end, then a kill.
    let store = bench.open();
    let order = store.order();
    now(store.append(&call("c_b"), heads[1], batch(&["late"]), None)).expect("commit");
    drop(store);
    assert_eq!(bench.open().since(order).expect("since"), [(call("c_b"), heads[1] + 1)]);
}

#[test]
fn one_daemon_at_a_time() {
    let bench = Bench::new();
    let store = bench.open();
    let Err(error) = bench.try_open() else { panic!("opened twice") };
    let message = error.to_string();
    assert!(message.contains(bench.folder.to_str().expect("path")), "{message}");
    assert!(message.contains(&format!("(process {})", std::process::id())), "{message}");
    drop(store);
    bench.open();
}

#[test]
fn other_versions_are_refused_with_a_message() {
    let bench = Bench::new();
    bench.open().close();
    let path = bench.path("state");
    let text = fs::read_to_string(&path).expect("state");
    for (version, words) in [(3, "run a newer sidetone"), (0, "cannot migrate")] {
        fs::write(&path, text.replace("\"version\":2", &format!("\"version\":{version},\"new\":[]"))).expect("state");
        let Err(error) = bench.try_open() else { panic!("opened") };
        assert!(matches!(error, OpenError::Version { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let endless = text.replace("\"order\":", "\"order\":9999999999999");
    for garbage in [b"{".as_slice(), b"", b"\xff\xfe\0", endless.as_bytes()] {
        fs::write(&path, garbage).expect("state");
        let Err(error) = bench.try_open() else { panic!("opened") };
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("delete this file"), "it says what to do: {error}");
    }
    fs::write(&path, text).expect("state");
    bench.open();
}

#[test]
fn files_and_folders_are_private() {
    let bench = Bench::new();
    fs::create_dir(&bench.folder).expect("made");
    fs::set_permissions(&bench.folder, fs::Permissions::from_mode(0o755)).expect("opened up");
    let store = two_calls(&bench);
    store.close();
    let mut folders = vec![bench.folder.clone()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).expect("folder").permissions().mode() & 0o777, 0o700, "{folder:?}");
        for item in fs::read_dir(&folder).expect("folder").flatten() {
            if item.path().is_dir() {
                folders.push(item.path());
            } else {
                files += 1;
                assert_eq!(item.metadata().expect("file").permissions().mode() & 0o777, 0o600, "{:?}", item.path());
            }
        }
    }
    assert_eq!(files, 5, "lock, state, directory and two logs");
}

#[test]
fn nothing_is_appended_after_the_end() {
    let bench = Bench::new();
    let store = two_calls(&bench);
    store.close();
    let refused = now(store.append(&call("c_1"), 1, batch(&["b"]), None));
    assert!(matches!(refused, Err(JournalError::Unavailable(_))), "{refused:?}");
}

#[test]
fn ten_thousand_open_calls() {
    let bench = Bench::new();
    let store = bench.open();
    for number in 0..10_000 {
        let name = format!("c_{number:0>20}");
        now(store.append(&call(&name), 0, batch(&["a"]), Some(entry(&name)))).expect("commit");
    }
    drop(store);
    let bench = Bench { metrics: Metrics::default(), ..bench };
    let started = Instant::now();
    let store = bench.open();
    let opened = started.elapsed();
    assert_eq!(store.open_calls().len(), 10_000);
    assert_eq!(bench.metrics.open_files.get(), 0, "no log was touched");
    let started = Instant::now();
    assert_eq!(store.since(store.order() - 5).expect("since").len(), 0);
    println!("10,000 open calls: opened in {opened:?}, since() in {:?}", started.elapsed());
}
