//! A client that verifies everything: under random publishing, reading, late views, cuts and resumes, every event comes
//! once and in order, and a call that was not followed begins with a snapshot or its first event.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use tokio::sync::Notify;

use super::*;
use crate::api::subscribe::pager::Owed;
use crate::api::subscribe::request::{self, Request};
use crate::api::subscribe::subscription::Subscription;
use crate::base::testing::kept;
use crate::base::ws::Utf8Bytes;
use crate::hub::testing::{call, object, turn};
use crate::journal::{CallState, Entry};

const CALLS: u8 = 5;

#[derive(Debug, Clone)]
enum Op {
    /// Publishes an event in a call; the first one begins the call.
    Publish(u8),
    /// Changes the call's `meta`, so that it matches or no longer matches.
    Flip(u8),
    Complete(u8),
    Poll(u16),
    /// Takes a view that is this many events behind.
    View(u8),
    Cut,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..CALLS).prop_map(Op::Publish),
        1 => (0..CALLS).prop_map(Op::Flip),
        1 => (0..CALLS).prop_map(Op::Complete),
        4 => (1..2000_u16).prop_map(Op::Poll),
        4 => (0..3_u8).prop_map(Op::View),
        1 => Just(Op::Cut),
    ];
    proptest::collection::vec(op, 1..120)
}

struct Model {
    hub: Hub,
    store: Arc<Memory>,
    deps: Deps,
    request: Value,
    /// The client resumes by its position in each call that it follows, even if it has a cursor.
    by_position: bool,
    subscription: Option<Subscription>,
    /// The next `seq` of each call that the client follows.
    next: HashMap<String, Seq>,
    epochs: HashMap<String, String>,
    cursor: Option<String>,
    /// Calls that had ended when the client subscribed again.
    ended: HashSet<String>,
    /// A requested view, the call's newest event if it is wanted, and the position of the view.
    owed: Option<(Owed, Seq, Seq)>,
}

impl Model {
    /// With a `seed`, the store answers late.
    fn new(request: Value, by_position: bool, ring: usize, seed: Option<u64>) -> Self {
        let config = hub::Config { call_bytes: ring / 2, ring_bytes: ring };
        let (hub, store) = seed.map_or_else(|| hub::testing::hub(config), |seed| hub::testing::late_hub(config, seed));
        let mut deps = deps(&hub, &store);
        deps.calls_per_subscription = usize::from(CALLS);
        let (next, epochs) = (HashMap::new(), HashMap::new());
        let ended = HashSet::new();
        let mut model = Self {
            hub,
            store,
            deps,
            request,
            by_position,
            subscription: None,
            next,
            epochs,
            cursor: None,
            ended,
            owed: None,
        };
        model.subscribe();
        model
    }

    fn subscribe(&mut self) {
        let mut request = self.request.clone();
        if !self.by_position
            && let Some(cursor) = &self.cursor
        {
            request["resume"] = json!({"cursor": cursor});
        } else if self.by_position {
            let positions =
                self.next.iter().map(|(id, next)| (id.clone(), json!({"epoch": self.epochs[id], "seq": next - 1})));
            request["resume"] = Value::Object(positions.collect());
        }
        let Ok(Request::Subscribe(request)) = request::parse(&request.to_string(), &self.deps) else {
            panic!("a valid request");
        };
        let notify = Arc::new(Notify::new());
        let opening = Subscription::open(*request, "sub_1".into(), &self.deps, &notify);
        let (subscription, reply) = futures::executor::block_on(opening).expect("opens");
        self.subscription = Some(subscription);
        let reply: Value = serde_json::from_str(&reply).expect("json");
        if let Some(cursor) = reply["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
            if reply["recovered"] == false {
                let calls = reply["calls"].as_object().expect("calls");
                self.next.retain(|id, _| calls.get(id).is_some_and(|standing| standing["recovered"] == true));
                let calls = self.store.page(Some(CallState::Completed), None, usize::MAX);
                self.ended = calls.into_iter().map(|entry| entry.call_id.to_string()).collect();
            }
        } else {
            let calls = reply["calls"].as_object().expect("calls");
            self.next.retain(|id, _| calls.get(id).is_some_and(|standing| standing["recovered"] == true));
        }
    }

    fn take(&mut self, frames: Vec<Utf8Bytes>) {
        for frame in frames {
            let frame: Value = serde_json::from_str(&frame).expect("json");
            let id = frame["call_id"].as_str().expect("call").to_owned();
            let seq = frame["seq"].as_u64().expect("seq");
            let kind = frame["type"].as_str().expect("type");
            if let Some(cursor) = frame["cursor"].as_str() {
                self.cursor = Some(cursor.to_owned());
            }
            if kind == "snapshot" {
                assert!(!self.next.contains_key(&id), "a snapshot of a call that was followed: {frame}");
                self.next.insert(id.clone(), seq + 1);
                self.epochs.insert(id, "e1".into());
                continue;
            }
            let left = kind == "call.updated" && self.request["match"].is_object() && frame["meta"]["team"] != "a";
            match self.next.get(&id) {
                // A client that resumes may be notified again that a call no longer matches.
                None if left => continue,
                Some(expected) => assert_eq!(seq, *expected, "{frame}"),
                // A call that had ended before it was joined had no snapshot, and may still get an event.
                None if seq > 1 => assert!(self.ended.contains(&id) || self.is_over(&id), "{frame}"),
                None => {}
            }
            self.epochs.insert(id.clone(), "e1".into());
            self.next.insert(id.clone(), seq + 1);
            if left {
                self.next.remove(&id);
            }
        }
    }

    fn is_over(&self, id: &str) -> bool {
        self.store.entry(&call(id)).is_some_and(|entry| entry.state == CallState::Completed)
    }

    fn open(&self, call: &CallId) -> Option<Entry> {
        self.store.entry(call).filter(|entry| entry.state == CallState::Open)
    }

    fn poll(&mut self, bytes: usize) -> bool {
        let mut out = Vec::new();
        let subscription = self.subscription.as_mut().expect("open");
        let more = subscription.poll(&self.deps, bytes, &mut out).expect("readable");
        self.take(out);
        more
    }

    fn view(&mut self, lag: Seq) -> bool {
        let subscription = self.subscription.as_mut().expect("open");
        let Some((owed, newest, at)) = self.owed.take() else {
            self.owed = subscription.next_view(&self.deps).expect("readable").map(|owed| {
                let head = self.store.head(&owed.call).unwrap_or(0);
                let newest = if owed.with_newest { head } else { 0 };
                (owed, newest, head.saturating_sub(lag).max(1))
            });
            return self.owed.is_some();
        };
        let view = fold(&self.store, &owed.call, at);
        let out = subscription.viewed(&owed.call, newest, view.as_ref(), &self.deps);
        self.take(out.into_iter().collect());
        true
    }

    fn apply(&mut self, op: &Op) {
        let id = |index: &u8| call(&format!("c_{index}"));
        match op {
            Op::Publish(index) => {
                let call = id(index);
                if self.store.entry(&call).is_none() {
                    self.store.start(&call, if index % 2 == 0 { r#"{"team":"a"}"# } else { r#"{"team":"b"}"# });
                } else {
                    self.store.add(&call, &Event::TurnFinal { turn: turn(0, "hello") });
                }
            }
            // A completed call accepts no `meta`, and completes only once; it may still get a manual insight.
            Op::Flip(index) => {
                if let Some(entry) = self.open(&id(index)) {
                    let meta = if entry.meta["team"] == "a" { r#"{"team":"b"}"# } else { r#"{"team":"a"}"# };
                    self.store.add(&id(index), &Event::CallUpdated { meta: object(meta) });
                }
            }
            Op::Complete(index) => {
                if self.open(&id(index)).is_some() {
                    self.store.complete(&id(index));
                }
            }
            Op::Poll(bytes) => {
                self.poll(usize::from(*bytes));
            }
            Op::View(lag) => {
                self.view(Seq::from(*lag));
            }
            Op::Cut => {
                self.subscription = None;
                self.owed = None;
                self.subscribe();
            }
        }
    }

    /// Delivers everything that waits; then the client must have every call.
    fn finish(&mut self) {
        // An answer of the store may take several polls.
        let mut idle = 0;
        for _ in 0..10_000 {
            idle = if self.poll(500) || self.view(0) { 0 } else { idle + 1 };
            if idle > 50 {
                break;
            }
        }
        let subscription = self.subscription.as_mut().expect("open");
        assert_eq!(subscription.next_view(&self.deps).expect("readable"), None, "nothing is owed");
        for index in 0..CALLS {
            let id = call(&format!("c_{index}"));
            let head = self.store.head(&id).unwrap_or(0);
            let entry = self.store.entry(&id);
            let matches =
                entry.as_ref().is_some_and(|entry| !self.request["match"].is_object() || entry.meta["team"] == "a");
            match self.next.get(id.as_str()) {
                Some(next) => assert_eq!(*next, head + 1, "{id} is behind"),
                None => {
                    let open = entry.is_some_and(|entry| entry.state == CallState::Open);
                    assert!(!(open && matches), "{id} is open, matches, and is not followed");
                }
            }
        }
        assert!(self.hub.newest() >= 1 || self.next.is_empty());
    }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn all_calls(
        ops in ops(),
        by_position in any::<bool>(),
        ring in 0..6000_usize,
        seed in any::<Option<u64>>(),
    ) {
        let mut model = Model::new(json!({"type": "subscribe", "calls": "*"}), by_position, ring, seed);
        ops.iter().for_each(|op| model.apply(op));
        model.finish();
    }

    #[test]
    fn named_calls(ops in ops(), ring in 0..6000_usize, seed in any::<Option<u64>>()) {
        let request = json!({"type": "subscribe", "calls": ["c_0", "c_1", "c_2", "c_3"], "wait": true});
        let mut model = Model::new(request, true, ring, seed);
        // Nobody follows the fifth call.
        ops.iter().for_each(|op| model.apply(op));
        let fifth = model.store.head(&call("c_4")).unwrap_or(0);
        if fifth > 0 {
            prop_assert!(!model.next.contains_key("c_4"));
            model.next.insert("c_4".into(), fifth + 1);
        }
        model.finish();
    }

    #[test]
    fn matching_calls(
        ops in ops(),
        by_position in any::<bool>(),
        ring in 0..6000_usize,
        seed in any::<Option<u64>>(),
    ) {
        let request = json!({"type": "subscribe", "calls": "*", "match": {"team": "a"}});
        let mut model = Model::new(request, by_position, ring, seed);
        ops.iter().for_each(|op| model.apply(op));
        model.finish();
    }
}
