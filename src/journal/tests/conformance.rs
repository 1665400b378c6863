//! The contract of every store, as one function over the trait: each implementation has a test that calls it.

use std::collections::BTreeSet;

use super::super::memory::{Faults, Memory};
use super::*;

/// Checks an empty store, and closes it.
pub(crate) async fn conforms(store: Arc<dyn Store>) {
    let heard = Arc::new(Heard::default());
    store.set_tail(heard.clone());
    let generation = store.generation();
    unknown_calls(&*store).await;
    appends_and_reads(&*store).await;
    headers(&*store).await;
    fences(&store).await;
    entries(&*store).await;
    pages(&*store).await;
    long_logs(&*store).await;
    orders(&*store, &heard).await;
    many_writers(&store).await;
    failed_calls(&*store).await;
    erased_calls(&*store, &heard).await;
    assert_eq!(store.generation(), generation);
    store.health().expect("appends work");
    store.close().await.expect("closes");
    let refused = store.append(&call("c_late"), 0, batch(&["a"]), Some(entry("c_late"))).await;
    assert!(matches!(refused, Err(JournalError::Unavailable(_))), "{refused:?}");
}

async fn unknown_calls(store: &dyn Store) {
    let c = call("c_unknown");
    assert!(matches!(store.read(&c, 0, 100).await, Err(JournalError::UnknownCall)));
    assert!(matches!(store.head(&c).await, Err(JournalError::UnknownCall)));
    assert_eq!(store.entry(&c).await.expect("asked"), None);
    assert!(!store.erase(&c).await.expect("asked"));
    store.mark_failed(&c).await.expect("without effect");
    let without_entry = store.append(&c, 0, batch(&["a"]), None).await;
    assert!(matches!(without_entry, Err(JournalError::UnknownCall)), "{without_entry:?}");
    let without_event = store.append(&c, 0, vec![], Some(entry("c_unknown"))).await;
    assert!(matches!(without_event, Err(JournalError::UnknownCall)), "{without_event:?}");
    let behind = store.append(&c, 3, batch(&["a"]), Some(entry("c_unknown"))).await;
    assert!(matches!(behind, Err(JournalError::Fenced { head: 0, after: 3 })), "{behind:?}");
    assert_eq!(store.entry(&c).await.expect("asked"), None, "a refused append leaves nothing");
}

async fn appends_and_reads(store: &dyn Store) {
    let c = call("c_read");
    let commit = store.append(&c, 0, batch(&["a", "b"]), Some(entry("c_read"))).await.expect("commit");
    assert_eq!((commit.head, commit.records.len()), (2, 2));
    let commit = store.append(&c, 2, batch(&["c"]), None).await.expect("commit");
    assert_eq!((commit.head, commit.records[0].seq), (3, 3));
    assert!(store.order() >= commit.records[0].order, "what is committed was announced");
    assert_eq!(store.head(&c).await.expect("head"), 3);
    let read = store.read(&c, 0, 1 << 20).await.expect("reads");
    let found: Vec<_> = read.iter().map(|r| (r.seq, r.header.clone(), r.frame.clone(), r.private.clone())).collect();
    let new = (1..).zip(batch(&["a", "b", "c"]));
    let expected: Vec<_> = new.map(|(seq, new)| (seq, new.header, new.frame, new.private)).collect();
    assert_eq!(found, expected);
    assert!(read.windows(2).all(|pair| pair[0].order < pair[1].order));
    let rest = store.read(&c, 2, 1 << 20).await.expect("reads");
    assert_eq!(rest.iter().map(|r| (r.seq, r.order)).collect::<Vec<_>>(), [(3, commit.records[0].order)]);
    for after in [3, 9] {
        assert!(store.read(&c, after, 100).await.expect("reads").is_empty(), "after {after}");
    }
}

/// Headers are returned unchanged, with the commit and to readers.
async fn headers(store: &dyn Store) {
    let c = call("c_headers");
    let mut wanted = Vec::new();
    for analysis in [None, Some("summary"), Some("überblick")] {
        for turn in [None, Some(0), Some(u64::MAX)] {
            for kind in [0, 1, u8::MAX] {
                wanted.push(Header { kind: KindCode(kind), analysis: analysis.map(Into::into), turn });
            }
        }
    }
    let new = |header: &Header| NewRecord { header: header.clone(), ..record("same") };
    let batch = wanted.iter().map(new).collect();
    let commit = store.append(&c, 0, batch, Some(entry("c_headers"))).await.expect("commit");
    let read = store.read(&c, 0, usize::MAX).await.expect("reads");
    for found in [commit.records, read] {
        assert_eq!(found.iter().map(|r| r.header.clone()).collect::<Vec<_>>(), wanted);
        assert!(found.iter().all(|r| (&r.frame, &r.private) == (&record("same").frame, &record("same").private)));
    }
}

async fn fences(store: &Arc<dyn Store>) {
    let c = call("c_fence");
    store.append(&c, 0, batch(&["a", "b"]), Some(entry("c_fence"))).await.expect("commit");
    for after in [0, 1, 3] {
        let refused = store.append(&c, after, batch(&["x"]), Some(over("c_fence", 9))).await;
        assert!(matches!(refused, Err(JournalError::Fenced { head: 2, .. })), "after {after}: {refused:?}");
    }
    assert_eq!(store.entry(&c).await.expect("asked"), Some(entry("c_fence")), "nor is the entry changed");
    // Two writers with the same position: one succeeds, and the log contains its record.
    let (one, two) = (store.append(&c, 2, batch(&["one"]), None), store.append(&c, 2, batch(&["two"]), None));
    let (one, two) = futures::join!(one, two);
    assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1, "{one:?}, {two:?}");
    let winner = one.or(two).expect("one");
    let read = store.read(&c, 2, 1 << 20).await.expect("reads");
    assert_eq!(read.iter().map(|r| &r.frame).collect::<Vec<_>>(), [&winner.records[0].frame]);
}

async fn entries(store: &dyn Store) {
    let c = call("c_entry");
    store.append(&c, 0, batch(&["a"]), Some(entry("c_entry"))).await.expect("commit");
    assert_eq!(store.entry(&c).await.expect("asked"), Some(entry("c_entry")));
    let later = Entry { turns: 7, open_streams: 0, ..entry("c_entry") };
    let commit = store.append(&c, 1, vec![], Some(later.clone())).await.expect("commit");
    assert_eq!((commit.head, commit.records.len()), (1, 0));
    assert_eq!(store.entry(&c).await.expect("asked"), Some(later));
    store.append(&c, 1, batch(&["b"]), Some(over("c_entry", 5))).await.expect("commit");
    assert_eq!(store.entry(&c).await.expect("asked"), Some(over("c_entry", 5)));
    let commit = store.append(&c, 2, batch(&["c"]), None).await.expect("a call that is over takes events");
    assert_eq!(commit.head, 3);
    assert_eq!(store.entry(&c).await.expect("asked"), Some(over("c_entry", 5)));
}

async fn pages(store: &dyn Store) {
    let before = store.open_count();
    for name in ["p_d", "p_b", "p_a", "p_c"] {
        store.append(&call(name), 0, batch(&["a"]), Some(entry(name))).await.expect("commit");
    }
    assert_eq!(store.open_count(), before + 4);
    store.append(&call("p_c"), 1, batch(&["b"]), Some(over("p_c", 9))).await.expect("commit");
    assert_eq!(store.open_count(), before + 3);
    let names = |entries: Vec<Entry>| {
        let names = entries.into_iter().map(|entry| entry.call_id.to_string());
        names.filter(|name| name.starts_with("p_")).collect::<Vec<_>>()
    };
    let first = call("p_");
    assert_eq!(names(store.page(None, Some(&first), 3).await.expect("page")), ["p_a", "p_b", "p_c"]);
    assert_eq!(names(store.page(None, Some(&call("p_c")), 3).await.expect("page")), ["p_d"]);
    let open = Some(CallState::Open);
    assert_eq!(names(store.page(open, Some(&call("p_a")), 9).await.expect("page")), ["p_b", "p_d"]);
    assert_eq!(names(store.page(Some(CallState::Completed), Some(&first), 9).await.expect("page")), ["p_c"]);
    assert_eq!(names(store.open_calls().await.expect("open calls")), ["p_a", "p_b", "p_d"]);
    assert_eq!(store.page(None, None, 1).await.expect("page").len(), 1);
}

async fn long_logs(store: &dyn Store) {
    let c = call("c_long");
    let mut head = 0;
    for number in 0..60 {
        let new = (head == 0).then(|| entry("c_long"));
        let texts = [format!("{number:0>1000}"), format!("{number:0>5}")];
        head = store.append(&c, head, batch(&[&texts[0], &texts[1]]), new).await.expect("commit").head;
    }
    for max_bytes in [0, 1, 2_500, 100_000, usize::MAX] {
        let mut after = 0;
        while after < head {
            let records = store.read(&c, after, max_bytes).await.expect("reads");
            assert_eq!(records.first().expect("at least one").seq, after + 1, "{max_bytes}");
            assert!(records.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "{max_bytes}");
            let all_but_last: usize = records[..records.len() - 1].iter().map(|r| r.frame.len()).sum();
            assert!(all_but_last <= max_bytes, "{} records for {max_bytes}", records.len());
            after = records.last().expect("at least one").seq;
        }
    }
}

async fn orders(store: &dyn Store, heard: &Heard) {
    let before = store.order();
    let (a, b) = (call("o_a"), call("o_b"));
    store.append(&a, 0, batch(&["1", "2"]), Some(entry("o_a"))).await.expect("commit");
    store.append(&b, 0, batch(&["1"]), Some(entry("o_b"))).await.expect("commit");
    let middle = store.order();
    store.append(&a, 2, batch(&["3"]), None).await.expect("commit");
    let calls = |since: Vec<(CallId, Seq)>| since.into_iter().collect::<BTreeSet<_>>();
    let expected = BTreeSet::from([(a.clone(), 1), (b.clone(), 1)]);
    assert_eq!(calls(store.since(before).await.expect("since")), expected);
    assert_eq!(calls(store.since(middle).await.expect("since")), BTreeSet::from([(a.clone(), 3)]));
    assert!(store.since(store.order()).await.expect("since").is_empty());
    let heard = heard.0.lock().unwrap();
    let ours: Vec<_> = heard.iter().filter(|(call, ..)| *call == a || *call == b).collect();
    assert_eq!(
        ours.iter().map(|(call, seq, _)| (call, *seq)).collect::<Vec<_>>(),
        [(&a, 1), (&a, 2), (&b, 1), (&a, 3)],
        "the tail has heard of it before the answer came"
    );
    assert!(heard.windows(2).all(|pair| pair[0].2 < pair[1].2), "orders rise over all calls");
}

/// Writers of several calls at once: each call's log contains the records of its own writer.
async fn many_writers(store: &Arc<dyn Store>) {
    let writers = (0..8).map(|number| {
        let store = Arc::clone(store);
        async move {
            let name = format!("w_{number}");
            let mut head = 0;
            for round in 0..20 {
                let new = (head == 0).then(|| entry(&name));
                let commit = store.append(&call(&name), head, batch(&[&format!("{name} {round}")]), new).await;
                head = commit.expect("its only writer").head;
            }
            let read = store.read(&call(&name), 0, usize::MAX).await.expect("reads");
            let expected: Vec<_> = (0..20).map(|round| record(&format!("{name} {round}")).frame).collect();
            assert_eq!(read.iter().map(|r| r.frame.clone()).collect::<Vec<_>>(), expected);
        }
    });
    futures::future::join_all(writers).await;
}

async fn failed_calls(store: &dyn Store) {
    let c = call("c_failed");
    store.append(&c, 0, batch(&["a"]), Some(entry("c_failed"))).await.expect("commit");
    store.mark_failed(&c).await.expect("marked");
    let failed = store.entry(&c).await.expect("asked").expect("there");
    assert_eq!((failed.state, failed.open_streams), (CallState::Failed, 0));
    assert!(failed.ended_at_ms.is_some());
    store.mark_failed(&c).await.expect("without effect");
    assert_eq!(store.entry(&c).await.expect("asked"), Some(failed));
    assert_eq!(store.read(&c, 0, 100).await.expect("stays readable").len(), 1);
}

async fn erased_calls(store: &dyn Store, heard: &Heard) {
    let c = call("c_erased");
    store.append(&c, 0, batch(&["a"]), Some(entry("c_erased"))).await.expect("commit");
    assert!(!store.erase(&c).await.expect("asked"), "an open call is not erased");
    store.append(&c, 1, batch(&["b"]), Some(over("c_erased", 5))).await.expect("commit");
    let order = store.order();
    assert!(store.erase(&c).await.expect("erased"));
    assert_eq!(heard.1.lock().unwrap().as_slice(), std::slice::from_ref(&c));
    assert!(!store.erase(&c).await.expect("asked"));
    assert!(matches!(store.read(&c, 0, 100).await, Err(JournalError::UnknownCall)));
    assert_eq!(store.entry(&c).await.expect("asked"), None);
    let commit = store.append(&c, 0, batch(&["new"]), Some(entry("c_erased"))).await.expect("a new call");
    assert_eq!(commit.head, 1);
    assert!(commit.records[0].order > order);
}

#[tokio::test]
async fn embedded_store_conforms() {
    for durability in [Durability::Process, Durability::Machine] {
        let mut bench = Bench::new();
        bench.config.durability = durability;
        conforms(bench.open()).await;
    }
}

#[tokio::test]
async fn memory_store_conforms() {
    conforms(Arc::new(Memory::default())).await;
}

#[tokio::test]
async fn memory_store_that_is_late_conforms() {
    for seed in 0..50 {
        conforms(Arc::new(Memory::with(Faults { seed, delay: 7, fenced: 0 }))).await;
    }
}

#[tokio::test]
async fn memory_store_finishes_appends_of_different_calls_out_of_order() {
    let mut reordered = 0;
    for seed in 0..20 {
        let store = Memory::with(Faults { seed, delay: 7, fenced: 0 });
        let heard = Arc::new(Heard::default());
        store.set_tail(heard.clone());
        let appends = (0..8).map(|number| {
            let name = format!("c_{number}");
            store.append(&call(&name), 0, batch(&["a"]), Some(entry(&name)))
        });
        for commit in futures::future::join_all(appends).await {
            commit.expect("commit");
        }
        let heard = heard.0.lock().unwrap();
        reordered += usize::from(!heard.is_sorted_by_key(|(call, ..)| call.clone()));
    }
    assert!(reordered > 0, "no seed reorders");
}

#[tokio::test]
async fn memory_store_fences_every_nth_append() {
    let store = Memory::with(Faults { seed: 3, delay: 0, fenced: 4 });
    let (mut head, mut fenced) = (0, 0);
    for _ in 0..400 {
        match store.append(&call("c_1"), head, batch(&["a"]), Some(entry("c_1"))).await {
            Ok(commit) => head = commit.head,
            Err(JournalError::Fenced { .. }) => fenced += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((50..200).contains(&fenced), "{fenced} of 400");
    assert_eq!(head + fenced, 400, "what is refused is not written");
}
