use std::time::Duration;

use proptest::prelude::*;

use super::testing::{Memory, call, hub, insight, late_hub, object, turn};
use super::*;
use crate::journal::Store as _;
use crate::protocol::Event;

const SMALL: Config = Config { call_bytes: 1500, ring_bytes: 4000 };

fn final_turn(number: u64) -> Event {
    Event::TurnFinal { turn: turn(number, "hello") }
}

fn events(batch: &Batch) -> Vec<(String, Seq)> {
    let event = |item: &Item| match item {
        Item::Event(frame) => Some((frame.call().to_string(), frame.seq())),
        Item::Live(_) => None,
    };
    batch.items.iter().filter_map(event).collect()
}

fn drain(reader: &mut Reader, max_bytes: usize) -> Vec<(String, Seq)> {
    let mut seen = Vec::new();
    loop {
        match reader.try_next(max_bytes).expect("readable") {
            Some(batch) => seen.extend(events(&batch)),
            None if reader.is_working() => {}
            None => return seen,
        }
    }
}

fn opened(hub: &Hub, interest: Interest) -> Reader {
    hub.reader(interest, Wants::EVENTS)
}

fn partial(text: &str) -> LiveFrame {
    let frame = format!(r#"{{"type":"turn.partial","call_id":"c_1","text":"{text}"}}"#);
    LiveFrame { kind: LiveKind::Partial, frame: frame.into() }
}

#[tokio::test]
async fn a_reader_sees_the_past_and_what_comes() {
    let (hub, store) = hub(Config::default());
    let id = call("c_1");
    store.start(&id, "{}");
    store.add(&id, &final_turn(0));
    let mut reader = opened(&hub, Interest::Calls(vec![(id.clone(), 1)]));
    assert_eq!(events(&reader.next(1000).await.expect("batch")), [("c_1".to_owned(), 2)]);
    let (waiting, _) = tokio::join!(reader.next(1000), async {
        tokio::task::yield_now().await;
        store.add(&id, &final_turn(1));
    });
    assert_eq!(events(&waiting.expect("batch")), [("c_1".to_owned(), 3)]);
    assert_eq!(reader.position(&id), Some(3));
}

#[tokio::test]
async fn a_call_that_does_not_exist_yet_is_waited_for() {
    let (hub, store) = hub(Config::default());
    let mut reader = opened(&hub, Interest::Calls(vec![(call("c_1"), 0)]));
    assert!(reader.try_next(1000).expect("nothing wrong").is_none());
    store.start(&call("c_1"), "{}");
    assert_eq!(events(&reader.next(1000).await.expect("batch")), [("c_1".to_owned(), 1)]);
}

#[test]
fn what_memory_has_lost_comes_from_the_journal() {
    let (hub, store) = hub(SMALL);
    let id = call("c_1");
    store.start(&id, "{}");
    for number in 0..100 {
        store.add(&id, &final_turn(number));
    }
    let mut some = opened(&hub, Interest::Calls(vec![(id.clone(), 0)]));
    let mut all = opened(&hub, Interest::All { after: 0 });
    let expected: Vec<_> = (1..=101).map(|seq| ("c_1".to_owned(), seq)).collect();
    assert_eq!(drain(&mut some, 700), expected);
    assert_eq!(drain(&mut all, 700), expected);
    assert!(hub.0.metrics.from_journal.get() > 150, "most of it was too old for memory");
    assert!(hub.0.metrics.from_memory.get() > 0, "the newest was not");
}

#[test]
fn one_order_is_a_cursor_over_all_calls() {
    let (hub, store) = hub(SMALL);
    for number in 0..40 {
        for name in ["c_1", "c_2", "c_3"] {
            if number == 0 {
                store.start(&call(name), "{}");
            } else if number % (name.len() as u64) != 1 || name == "c_2" {
                store.add(&call(name), &final_turn(number));
            }
        }
    }
    let whole = drain(&mut opened(&hub, Interest::All { after: 0 }), 500);
    let mut cut = Vec::new();
    let mut after = 0;
    loop {
        let mut reader = opened(&hub, Interest::All { after });
        let Some(batch) = reader.try_next(500).expect("readable") else { break };
        cut.extend(events(&batch));
        after = reader.order().expect("all");
    }
    assert_eq!(cut, whole);
    assert_eq!(after, store.order());
}

#[test]
fn a_position_that_left_retention_is_gone_and_others_go_on() {
    let (hub, store) = hub(SMALL);
    for name in ["c_1", "c_2"] {
        store.start(&call(name), "{}");
        for number in 0..50 {
            store.add(&call(name), &final_turn(number));
        }
    }
    store.forget(&call("c_1"), 10);
    let mut reader = opened(&hub, Interest::Calls(vec![(call("c_1"), 5), (call("c_2"), 49)]));
    let mut seen = Vec::new();
    let mut gone = Vec::new();
    loop {
        match reader.try_next(1000) {
            Ok(Some(batch)) => seen.extend(events(&batch)),
            Ok(None) => break,
            Err(HubError::Gone { call, after }) => gone.push((call.to_string(), after)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(gone, [("c_1".to_owned(), 5)]);
    assert_eq!(seen, [("c_2".to_owned(), 50), ("c_2".to_owned(), 51)]);
}

#[test]
fn an_erased_call_is_gone_only_for_those_who_missed_some_of_it() {
    let (hub, store) = hub(Config { call_bytes: 0, ring_bytes: 0 });
    let id = call("c_1");
    store.start(&id, "{}");
    store.complete(&id);
    let mut done = opened(&hub, Interest::Calls(vec![(id.clone(), 0)]));
    assert_eq!(drain(&mut done, 1000).len(), 2);
    let mut behind = opened(&hub, Interest::Calls(vec![(id.clone(), 1)]));
    assert!(store.erase(&id));
    assert!(done.try_next(1000).expect("quiet").is_none());
    assert!(matches!(behind.try_next(1000), Err(HubError::Gone { after: 1, .. })));
}

#[test]
fn damage_ends_one_call_and_an_outage_ends_nothing() {
    let (hub, store) = hub(Config { call_bytes: 0, ring_bytes: 0 });
    for name in ["c_1", "c_2"] {
        store.start(&call(name), "{}");
    }
    store.damage(&call("c_1"), 0);
    store.set_unreadable(true);
    let mut reader = opened(&hub, Interest::Calls(vec![(call("c_1"), 0), (call("c_2"), 0)]));
    let mut all = opened(&hub, Interest::All { after: 0 });
    assert!(matches!(reader.try_next(1000), Err(HubError::Unavailable(_))));
    assert!(matches!(all.try_next(1000), Err(HubError::Unavailable(_))));
    store.set_unreadable(false);
    for reader in [&mut reader, &mut all] {
        let mut seen = Vec::new();
        let mut damaged = 0;
        loop {
            match reader.try_next(1000) {
                Ok(Some(batch)) => seen.extend(events(&batch)),
                Ok(None) => break,
                Err(HubError::Damaged { .. }) => damaged += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((seen, damaged), (vec![("c_2".to_owned(), 1)], 1));
    }
}

#[test]
fn live_frames_keep_their_place_among_events_and_are_counted_when_lost() {
    let (hub, store) = hub(Config::default());
    let id = call("c_1");
    store.start(&id, "{}");
    for interest in [Interest::Calls(vec![(id.clone(), 0)]), Interest::All { after: 0 }] {
        hub.live(&id, partial("nobody wants it yet"));
        let mut reader = hub.reader(interest, Wants::INSIGHTS.and_live(true, false));
        drain(&mut reader, 1000);
        let first = store.add(&id, &final_turn(0));
        hub.live(&id, partial("between"));
        hub.live(&id, LiveFrame { kind: LiveKind::Delta { analysis: "summary".into() }, frame: "{}".into() });
        store.add(&id, &final_turn(1));
        let mut order = Vec::new();
        // One event per batch: a live frame must not come before the events that were published before it.
        while let Some(batch) = reader.try_next(1).expect("readable") {
            order.extend(batch.items.into_iter().map(|item| match item {
                Item::Event(frame) => frame.seq() - first,
                Item::Live(_) => 100,
            }));
        }
        assert_eq!(order, [0, 100, 1]);
        for number in 0..200 {
            hub.live(&id, partial(&number.to_string()));
        }
        let batch = reader.try_next(1000).expect("readable").expect("some");
        assert_eq!(batch.dropped, Some(Dropped { partials: 136, deltas: 0 }));
        assert_eq!(batch.items.len(), 64);
        let Item::Live(newest) = &batch.items[63] else { panic!("an event") };
        assert!(newest.text.contains("199"), "the oldest are dropped");
    }
}

#[test]
fn memory_is_bounded_and_readers_leave_nothing_behind() {
    let (hub, store) = hub(SMALL);
    for number in 0..200 {
        store.start(&call(&format!("c_{number}")), "{}");
    }
    assert!(hub.0.metrics.ring_bytes.get() <= 4000);
    assert!(hub.0.rings.calls() < 20, "calls without frames and readers are forgotten: {}", hub.0.rings.calls());
    let before = hub.0.rings.calls();
    let mut reader = opened(&hub, Interest::Calls((0..100).map(|n| (call(&format!("w_{n}")), 0)).collect()));
    assert_eq!(hub.0.rings.calls(), before + 100);
    reader.remove(&call("w_1"));
    assert_eq!(hub.0.rings.calls(), before + 99);
    drop(reader);
    assert_eq!(hub.0.rings.calls(), before);
    assert_eq!(hub.0.metrics.readers.get(), 0);
}

#[test]
fn latest_leaves_out_what_is_superseded_and_nothing_else() {
    let (hub, store) = hub(Config::default());
    let id = call("c_1");
    store.start(&id, "{}");
    for rev in 1..=3 {
        store.add(&id, &insight("summary", rev, None));
        store.add(&id, &insight("tone", rev, None));
        store.add(&id, &insight("per_turn", 1, Some(rev)));
    }
    let filter = Filter { latest: vec!["summary".into(), "per_turn".into()], ..Filter::default() };
    let mut reader = opened(&hub, Interest::Calls(vec![(id, 0)]));
    let mut picked = Vec::new();
    while let Some(batch) = reader.try_next(1).expect("readable") {
        picked.extend(filter.pick(&batch.items, &hub).into_iter().map(|item| match item {
            Item::Event(frame) => frame.seq(),
            Item::Live(_) => 0,
        }));
    }
    assert_eq!(picked, [1, 3, 4, 6, 7, 8, 9, 10], "summary 2 and 5 are superseded, even over batches");
}

#[test]
fn match_is_equality_on_a_subset() {
    let meta = object(r#"{"team":"billing","n":1,"deep":{"a":1,"b":2}}"#);
    assert!(contains(&meta, &object("{}")));
    assert!(contains(&meta, &object(r#"{"team":"billing","n":1}"#)));
    assert!(!contains(&meta, &object(r#"{"team":"sales"}"#)));
    assert!(!contains(&meta, &object(r#"{"absent":null}"#)));
}

#[test]
fn event_wakes_each_reader_that_wants_it_once() {
    const READERS: u64 = 100;
    let (hub, store) = hub(Config::default());
    let id = call("c_1");
    store.start(&id, "{}");
    let wants = Wants::INSIGHTS.and(Wants::END);
    let mut readers: Vec<Reader> =
        (0..READERS).map(|_| hub.reader(Interest::Calls(vec![(id.clone(), 1)]), wants)).collect();
    for number in 0..50 {
        store.add(&id, &final_turn(number));
        hub.live(&id, partial("nobody wants it"));
    }
    assert_eq!(hub.0.metrics.wakeups.get(), 0);
    let first = store.add(&id, &insight("summary", 1, None));
    let second = store.add(&id, &insight("summary", 2, None));
    assert_eq!(hub.0.metrics.wakeups.get(), READERS, "the second finds them awake");
    for reader in &mut readers {
        assert_eq!(drain(reader, 1000), [("c_1".to_owned(), first), ("c_1".to_owned(), second)]);
        assert_eq!(reader.position(&id), Some(second));
    }
    store.complete(&id);
    assert_eq!(hub.0.metrics.wakeups.get(), 2 * READERS);
}

#[test]
fn unwanted_frames_that_left_memory_are_not_read_from_the_journal() {
    let (hub, store) = hub(SMALL);
    let id = call("c_1");
    store.start(&id, "{}");
    let mut reader = hub.reader(Interest::Calls(vec![(id.clone(), 1)]), Wants::INSIGHTS);
    for round in 0..3 {
        for number in 0..100 {
            store.add(&id, &final_turn(number));
        }
        let seq = store.add(&id, &insight("summary", round, None));
        assert_eq!(drain(&mut reader, 1000), [("c_1".to_owned(), seq)]);
        assert_eq!(hub.0.metrics.from_journal.get(), 0);
    }
    // But what is wanted is.
    let old = store.add(&id, &insight("summary", 9, None));
    for number in 0..100 {
        store.add(&id, &final_turn(number));
    }
    assert!(drain(&mut reader, 1000).contains(&("c_1".to_owned(), old)));
    assert!(hub.0.metrics.from_journal.get() > 0);
}

#[derive(Debug, Clone)]
enum Op {
    Publish(u8),
    Read { reader: u8, bytes: u16 },
    Cut(u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0..4_u8).prop_map(Op::Publish),
        3 => (0..4_u8, 0..3000_u16).prop_map(|(reader, bytes)| Op::Read { reader, bytes }),
        1 => (0..4_u8).prop_map(Op::Cut),
    ];
    proptest::collection::vec(op, 1..200)
}

/// A hub with this little memory, over a store that answers late if there is a seed.
fn seeded(ring: usize, seed: Option<u64>) -> (Hub, Arc<Memory>) {
    let config = Config { call_bytes: ring / 2, ring_bytes: ring };
    seed.map_or_else(|| hub(config), |seed| late_hub(config, seed))
}

fn publish(store: &Memory, index: u8) {
    let id = call(&format!("c_{index}"));
    if store.entry(&id).is_none() {
        store.start(&id, "{}");
    } else {
        store.add(&id, &final_turn(0));
    }
}

/// As [`publish`], with an insight now and then.
fn publish_mixed(store: &Memory, index: u8, number: usize) {
    let id = call(&format!("c_{index}"));
    match store.entry(&id) {
        Some(_) if number.is_multiple_of(3) => drop(store.add(&id, &insight("summary", number as u64, None))),
        _ => publish(store, index),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The same for a reader that wants some kinds alone: it sees all of those.
    #[test]
    fn reader_of_some_kinds_sees_all_of_them_once_in_order(
        ops in ops(),
        ring in 0..6000_usize,
        seed in any::<Option<u64>>(),
    ) {
        let (hub, store) = seeded(ring, seed);
        let ids: Vec<CallId> = (0..4).map(|index| call(&format!("c_{index}"))).collect();
        let fresh = |after: &dyn Fn(&CallId) -> Seq| {
            let positions = ids.iter().map(|id| (id.clone(), after(id))).collect();
            hub.reader(Interest::Calls(positions), Wants::INSIGHTS)
        };
        let mut reader = fresh(&|_| 0);
        let mut seen = Vec::new();
        let mut take = |batch: Option<Batch>| {
            for item in batch.into_iter().flat_map(|batch| batch.items) {
                if let Item::Event(frame) = item && frame.kind().is_insight() {
                    seen.push((frame.call().clone(), frame.seq()));
                }
            }
        };
        for (number, op) in ops.into_iter().enumerate() {
            match op {
                Op::Publish(index) => publish_mixed(&store, index, number),
                Op::Read { bytes, .. } => take(reader.try_next(usize::from(bytes)).expect("readable")),
                Op::Cut(_) => reader = fresh(&|id| reader.position(id).unwrap_or(0)),
            }
        }
        loop {
            match reader.try_next(700).expect("readable") {
                None if !reader.is_working() => break,
                batch => take(batch),
            }
        }
        for id in &ids {
            let Ok(log) = store.read(id, 0, usize::MAX) else { continue };
            let frames = log.into_iter().filter_map(|record| Frame::new(id, record));
            let wanted: Vec<Seq> = frames.filter(|frame| frame.kind().is_insight()).map(|frame| frame.seq()).collect();
            let got: Vec<Seq> = seen.iter().filter(|(call, _)| call == id).map(|(_, seq)| *seq).collect();
            prop_assert_eq!(got, wanted);
        }
    }

    /// Whatever the schedule of publishing, reading and reconnecting, and however little memory keeps: each reader sees
    /// each event once, in order.
    #[test]
    fn every_reader_sees_each_event_once_in_order(
        ops in ops(),
        ring in 0..6000_usize,
        seed in any::<Option<u64>>(),
    ) {
        let (hub, store) = seeded(ring, seed);
        let calls: Vec<CallId> = (0..4).map(|index| call(&format!("c_{index}"))).collect();
        // Two readers of all calls, two of named calls, each with what it saw.
        let fresh = |index: u8, after_order: u64, after: &dyn Fn(&CallId) -> Seq| {
            if index < 2 {
                opened(&hub, Interest::All { after: after_order })
            } else {
                opened(&hub, Interest::Calls(calls.iter().map(|id| (id.clone(), after(id))).collect()))
            }
        };
        let mut readers: Vec<Reader> = (0..4).map(|index| fresh(index, 0, &|_| 0)).collect();
        let mut seen: Vec<Vec<(String, Seq)>> = vec![Vec::new(); 4];
        for op in ops {
            match op {
                Op::Publish(index) => publish(&store, index),
                Op::Read { reader, bytes } => {
                    let index = usize::from(reader);
                    if let Some(batch) = readers[index].try_next(usize::from(bytes)).expect("readable") {
                        seen[index].extend(events(&batch));
                    }
                }
                Op::Cut(index) => {
                    let reader = &readers[usize::from(index)];
                    let resumed = fresh(index, reader.order().unwrap_or(0), &|id| reader.position(id).unwrap_or(0));
                    readers[usize::from(index)] = resumed;
                }
            }
        }
        for (reader, seen) in readers.iter_mut().zip(&mut seen) {
            seen.extend(drain(reader, 700));
            for id in &calls {
                let got: Vec<Seq> = seen.iter().filter(|(name, _)| name == id.as_str()).map(|(_, seq)| *seq).collect();
                let head = store.head(id).unwrap_or(0);
                prop_assert_eq!(got, (1..=head).collect::<Vec<_>>());
            }
        }
    }
}

/// Publishers and readers on their own threads: no wake-up is lost.
#[test]
fn no_wake_up_is_lost_between_threads() {
    const EVENTS: u64 = 3000;
    let (hub, store) = hub(SMALL);
    let ids: Vec<CallId> = (0..3).map(|index| call(&format!("c_{index}"))).collect();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..6)
            .map(|index| {
                let (hub, ids) = (hub.clone(), ids.clone());
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
                    runtime.block_on(async move {
                        let interest = if index % 2 == 0 {
                            Interest::All { after: 0 }
                        } else {
                            Interest::Calls(ids.iter().map(|id| (id.clone(), 0)).collect())
                        };
                        let mut reader = opened(&hub, interest);
                        let mut last: std::collections::HashMap<String, Seq> = std::collections::HashMap::new();
                        while last.values().sum::<u64>() < EVENTS {
                            let batch = tokio::time::timeout(Duration::from_secs(30), reader.next(2000));
                            for (name, seq) in events(&batch.await.expect("woken").expect("readable")) {
                                assert_eq!(last.insert(name, seq).unwrap_or(0) + 1, seq);
                            }
                        }
                    });
                })
            })
            .collect();
        for id in &ids {
            let store = &store;
            scope.spawn(move || {
                store.start(id, "{}");
                for number in 1..EVENTS / 3 {
                    store.add(id, &final_turn(number));
                }
            });
        }
        for reader in readers {
            reader.join().expect("reader");
        }
    });
}
