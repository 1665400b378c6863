//! A subscriber that survives restarts: it resumes at its position, and checks that each event comes once and in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::ws::{Client, Options};
use super::{Json, json};

/// What the subscriber received.
#[derive(Debug, Default)]
pub struct Seen {
    /// Sequenced events by call.
    pub events: BTreeMap<String, Vec<Json>>,
    /// Snapshots by call.
    pub snapshots: BTreeMap<String, Vec<Json>>,
    /// Descriptions of everything that was wrong.
    pub faults: Vec<String>,
    /// Number of connections that were needed.
    pub connections: u64,
    /// The newest cursor of a `*` subscription.
    pub cursor: Option<Json>,
    /// Frames of other types.
    pub others: Vec<Json>,
}

/// The subscriber's task; ends when dropped.
pub struct Watcher {
    /// What the subscriber received so far.
    pub seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Subscribes to `*`, with `more` in the subscribe frame.
    pub fn start(port: u16, more: Json) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(watch(port, more, Arc::clone(&seen)));
        Self { seen, task }
    }

    /// Number of events of a call that have come.
    pub fn count(&self, call: &str) -> usize {
        self.seen.lock().expect("lock").events.get(call).map_or(0, Vec::len)
    }

    /// Returns true if the call's last event has come.
    pub fn has_completed(&self, call: &str) -> bool {
        let seen = self.seen.lock().expect("lock");
        seen.events.get(call).is_some_and(|events| events.iter().any(|event| event["type"] == "call.completed"))
    }

    /// All insights of all calls so far.
    pub fn insights(&self) -> Vec<Json> {
        let seen = self.seen.lock().expect("lock");
        let events = seen.events.values().flatten();
        events.filter(|event| event["type"] == "insight.updated").cloned().collect()
    }

    /// Fails the test if anything was wrong.
    pub fn assert_faultless(&self) {
        let seen = self.seen.lock().expect("lock");
        assert!(seen.faults.is_empty(), "{} faults: {:#?}", seen.faults.len(), seen.faults.iter().take(5));
    }
}

async fn watch(port: u16, more: Json, seen: Arc<Mutex<Seen>>) {
    let url = format!("ws://127.0.0.1:{port}/v1/subscribe");
    loop {
        let options = Options::default();
        let connecting = Client::try_connect(&url, &options);
        let Ok(Ok(mut client)) = tokio::time::timeout(Duration::from_secs(5), connecting).await else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        let mut frame = json!({"id":"1","type":"subscribe","calls":"*"});
        for (key, value) in more.as_object().expect("an object") {
            frame[key] = value.clone();
        }
        {
            let mut seen = seen.lock().expect("lock");
            seen.connections += 1;
            if let Some(cursor) = &seen.cursor {
                frame["resume"] = json!({"cursor": cursor});
            }
        }
        if !client.send(&frame).await {
            continue;
        }
        while let Some(frame) = client.recv_unbounded().await {
            // The frames are kept here, in another order.
            client.seen.clear();
            take(&mut seen.lock().expect("lock"), frame);
        }
    }
}

fn take(seen: &mut Seen, frame: Json) {
    if let Some(cursor) = frame.get("cursor") {
        seen.cursor = Some(cursor.clone());
    }
    let call = frame["call_id"].as_str().unwrap_or_default().to_owned();
    match frame["type"].as_str() {
        Some("snapshot") => {
            if seen.events.contains_key(&call) {
                seen.faults.push(format!("a snapshot of {call}, which was resumed"));
            }
            seen.snapshots.entry(call).or_default().push(frame);
        }
        _ if frame.get("seq").is_some() => {
            let snapshot = seen.snapshots.get(&call).and_then(|all| all.last()?["seq"].as_u64()).unwrap_or(0);
            let events = seen.events.entry(call.clone()).or_default();
            let last = events.last().and_then(|event| event["seq"].as_u64()).unwrap_or(snapshot);
            if frame["seq"].as_u64() != Some(last + 1) {
                seen.faults.push(format!("{call}: {} {} after {last}", frame["type"], frame["seq"]));
            }
            events.push(frame);
        }
        Some("subscribed" | "welcome") => {
            let calls = frame["calls"].as_object().cloned().unwrap_or_default();
            for (call, answer) in calls {
                if answer["recovered"] == false && seen.events.contains_key(&call) {
                    seen.faults.push(format!("{call}: not recovered"));
                }
            }
        }
        _ => seen.others.push(frame),
    }
}
