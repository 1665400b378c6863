//! Readers under random schedules, and readers and publishers on different threads.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::testing::kept;
use crate::hub::testing::{Memory, late_hub};

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

/// A hub with a small memory, over a store that answers late if there is a seed.
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

/// Like [`publish`], with an insight now and then.
fn publish_mixed(store: &Memory, index: u8, number: usize) {
    let id = call(&format!("c_{index}"));
    match store.entry(&id) {
        Some(_) if number.is_multiple_of(3) => drop(store.add(&id, &insight("summary", number as u64, None))),
        _ => publish(store, index),
    }
}

proptest! {
    #![proptest_config(kept())]

    /// The same for a reader that wants only some kinds: it gets all events of those kinds.
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

    /// For any schedule of publishing, reading and reconnecting, and any amount of memory, each reader gets each event
    /// once, in order.
    #[test]
    fn every_reader_sees_each_event_once_in_order(
        ops in ops(),
        ring in 0..6000_usize,
        seed in any::<Option<u64>>(),
    ) {
        let (hub, store) = seeded(ring, seed);
        let calls: Vec<CallId> = (0..4).map(|index| call(&format!("c_{index}"))).collect();
        // Two readers of all calls and two of named calls, each with the events that it has read.
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
