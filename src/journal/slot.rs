//! The directory's data about a call, and its changes. A line about a known call contains only what changed, so that a
//! call with many streams does not write all of them each time.
//!
//! A change contains new values, not differences, so applying it twice gives the same result. Does not know files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CallState, Entry, Seq};
use crate::types::{CallId, JsonMap};

/// An entry, and further data about an ended call that only the journal uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Slot {
    /// The entry that callers get.
    pub(super) entry: Entry,
    /// No record of the call has a higher order; 0 = unknown, read the log.
    #[serde(default)]
    pub(super) newest_order: u64,
    /// The log's head when the call ended.
    #[serde(default)]
    pub(super) head: Seq,
}

impl Slot {
    pub(super) fn open(&self) -> bool {
        self.entry.state == CallState::Open
    }
}

/// The changed members of an entry; absent ones are unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) call: CallId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<CallState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    meta: Option<JsonMap>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open_streams: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turns: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    connections: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    positions: BTreeMap<String, Value>,
    /// Streams whose position is removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    settled: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outline: Option<Box<str>>,
    /// 0 removes the timer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_at_ms: Option<i64>,
    newest_order: u64,
    head: Seq,
}

impl Change {
    /// The change that turns `old` into `new`, an entry of the same call. `None` if a change cannot express it.
    pub(super) fn between(old: &Slot, new: &Slot) -> Option<Self> {
        let (before, after) = (&old.entry, &new.entry);
        let reopened = before.ended_at_ms.is_some() && after.ended_at_ms.is_none();
        let unlined = before.outline.is_some() && after.outline.is_none();
        let lost = before.connections.keys().any(|stream| !after.connections.contains_key(stream));
        if reopened || unlined || lost {
            return None;
        }
        let gone = before.positions.keys().filter(|stream| !after.positions.contains_key(*stream));
        Some(Self {
            call: after.call_id.clone(),
            epoch: (before.epoch != after.epoch).then(|| after.epoch.clone()),
            state: (before.state != after.state).then_some(after.state),
            meta: (before.meta != after.meta).then(|| after.meta.clone()),
            started_at_ms: (before.started_at_ms != after.started_at_ms).then_some(after.started_at_ms),
            ended_at_ms: after.ended_at_ms.filter(|_| before.ended_at_ms != after.ended_at_ms),
            open_streams: (before.open_streams != after.open_streams).then_some(after.open_streams),
            turns: (before.turns != after.turns).then_some(after.turns),
            connections: changed(&before.connections, &after.connections),
            positions: changed(&before.positions, &after.positions),
            settled: gone.cloned().collect(),
            outline: after.outline.clone().filter(|_| before.outline != after.outline),
            due_at_ms: (before.due_at_ms != after.due_at_ms).then(|| after.due_at_ms.unwrap_or(0)),
            newest_order: new.newest_order,
            head: new.head,
        })
    }

    /// Applies the change.
    pub(super) fn apply(self, slot: &mut Slot) {
        let entry = &mut slot.entry;
        entry.epoch = self.epoch.unwrap_or_else(|| std::mem::take(&mut entry.epoch));
        entry.state = self.state.unwrap_or(entry.state);
        entry.meta = self.meta.unwrap_or_else(|| std::mem::take(&mut entry.meta));
        entry.started_at_ms = self.started_at_ms.unwrap_or(entry.started_at_ms);
        entry.ended_at_ms = self.ended_at_ms.or(entry.ended_at_ms);
        entry.open_streams = self.open_streams.unwrap_or(entry.open_streams);
        entry.turns = self.turns.unwrap_or(entry.turns);
        entry.outline = self.outline.or_else(|| entry.outline.take());
        if let Some(due) = self.due_at_ms {
            entry.due_at_ms = Some(due).filter(|due| *due != 0);
        }
        entry.connections.extend(self.connections);
        entry.positions.extend(self.positions);
        for stream in &self.settled {
            entry.positions.remove(stream);
        }
        (slot.newest_order, slot.head) = (self.newest_order, self.head);
    }
}

/// The pairs of `new` that `old` does not have.
fn changed<T: Clone + PartialEq>(old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) -> BTreeMap<String, T> {
    let differs = |(key, value): &(&String, &T)| old.get(*key) != Some(*value);
    new.iter().filter(differs).map(|(key, value)| (key.clone(), value.clone())).collect()
}
