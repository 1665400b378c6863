mod schedules;

use super::testing::{call, hub, insight, object, turn};
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
fn frames_that_left_memory_come_from_the_journal() {
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
fn commit_order_is_a_cursor_over_all_calls() {
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
fn position_of_an_erased_call_is_gone_and_others_continue() {
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
fn damage_ends_one_call_and_an_outage_ends_none() {
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
fn memory_is_bounded_and_dropped_readers_free_theirs() {
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
    // Wanted kinds are returned.
    let old = store.add(&id, &insight("summary", 9, None));
    for number in 0..100 {
        store.add(&id, &final_turn(number));
    }
    assert!(drain(&mut reader, 1000).contains(&("c_1".to_owned(), old)));
    assert!(hub.0.metrics.from_journal.get() > 0);
}
