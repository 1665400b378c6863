//! The part of a call's state that is in the directory and not in its log: the epoch, the newest connection of each
//! stream, and the positions of producers whose turns ended without a record. It also has the time at which a rule is
//! due next.
//!
//! Knows no store and no timer. The entry is written with the next append after a change.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::log::{Log, Stream};
use super::numbers::ConnectionNo;
use super::outline::Outline;
use super::record::Mark;
use crate::types::StreamId;
use crate::types::directory::{CallState as State, Entry};

/// The state that is only in the directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Identifies the call's history. The store may have replaced the epoch in the first event.
    pub(super) epoch: String,
    /// Newest connection number that was given.
    given: ConnectionNo,
    /// Number of the newest connection, by stream.
    newest: BTreeMap<StreamId, ConnectionNo>,
    /// Positions of producers whose turns ended without a record.
    positions: BTreeMap<StreamId, Mark>,
    /// When a rule is due next, wall-clock time.
    due_at_ms: Option<i64>,
    /// Set if the entry must be written.
    pub(super) changed: bool,
}

impl Directory {
    /// Takes the state from `entry`. If the call's entry was lost, the log knows at least the connections that led to a
    /// record. Unfinished turns that have ended since the newest record are removed from the log's turn table.
    pub(super) fn adopt(log: &mut Log, entry: &Entry) -> Self {
        let agrees = (log.status, &log.meta, log.started_at_ms) == (entry.state, &entry.meta, entry.started_at_ms);
        let changed = log.head > 0 && !agrees;
        let mut this = Self { epoch: entry.epoch.clone(), due_at_ms: entry.due_at_ms, changed, ..Self::default() };
        for mark in log.streams.iter().filter_map(|stream| stream.mark.as_ref()) {
            this.note(mark.stream.clone(), mark.connection);
        }
        for (stream, connection) in &entry.connections {
            if let Ok(stream) = StreamId::parse(stream) {
                this.note(stream, *connection);
            }
        }
        for position in entry.positions.values() {
            let Ok(mark) = serde_json::from_value::<Mark>(position.clone()) else { continue };
            let Some(stream) = log.stream(&mark.stream) else { continue };
            let place = |mark: &Mark| (mark.connection, mark.covered);
            if stream.mark.as_ref().is_none_or(|known| place(known) < place(&mark)) {
                this.positions.insert(mark.stream.clone(), mark);
            }
        }
        for index in 0..log.streams.len() {
            let Stream { id, root, .. } = &log.streams[index];
            let carry = this.mark(log, root).map(|mark| Arc::clone(&mark.carry)).unwrap_or_default();
            log.turns.end_all_but(id, &carry.held);
        }
        this
    }

    fn note(&mut self, stream: StreamId, connection: ConnectionNo) {
        self.given = self.given.max(connection);
        let newest = self.newest.entry(stream).or_default();
        *newest = connection.max(*newest);
    }

    /// Assigns the number of a new connection of `stream`.
    pub(super) fn connect(&mut self, stream: &StreamId) -> ConnectionNo {
        self.given += 1;
        self.newest.insert(stream.clone(), self.given);
        self.changed = true;
        self.given
    }

    /// The newest connection of `stream`.
    pub(super) fn newest(&self, stream: &StreamId) -> Option<ConnectionNo> {
        self.newest.get(stream).copied()
    }

    /// Number of streams that producers have named.
    pub(super) fn streams(&self) -> usize {
        self.newest.len()
    }

    /// Records the position of a producer that no record contains.
    pub(super) fn place(&mut self, mark: Mark) {
        self.positions.insert(mark.stream.clone(), mark);
        self.changed = true;
    }

    /// Records that a record contains the position of the producer of `stream`.
    pub(super) fn recorded(&mut self, stream: &StreamId) {
        self.positions.remove(stream);
    }

    /// Records when a rule is due next.
    pub(super) fn note_due(&mut self, due_at_ms: Option<i64>) {
        if self.due_at_ms != due_at_ms {
            self.due_at_ms = due_at_ms;
            self.changed = true;
        }
    }

    /// The last known position of the producer of `stream`, from records and the directory.
    pub(super) fn mark<'a>(&'a self, log: &'a Log, stream: &StreamId) -> Option<&'a Mark> {
        self.positions.get(stream).or_else(|| log.stream(stream)?.mark.as_ref())
    }

    /// The entry with the present state.
    pub(super) fn entry(&self, log: &Log, now_ms: i64) -> Entry {
        let over = log.status != State::Open;
        let open = log.streams.iter().filter(|stream| !stream.ended && !stream.replaced).count();
        let outline = || Outline {
            seq: log.head,
            turns: log.turns.len() as u64,
            streams: log.stream_views(),
            insights: log.newest.clone(),
            alerts: log.alerts.shown(),
            ..Outline::default()
        };
        Entry {
            call_id: log.call_id.clone(),
            epoch: self.epoch.clone(),
            state: log.status,
            meta: log.meta.clone(),
            started_at_ms: log.started_at_ms,
            ended_at_ms: over.then_some(now_ms),
            open_streams: u32::try_from(open).unwrap_or(u32::MAX),
            turns: log.turns.len() as u64,
            connections: self.newest.iter().map(|(stream, number)| (stream.to_string(), *number)).collect(),
            // Serialising plain data cannot fail.
            positions: self.positions.iter().map(|(stream, mark)| (stream.to_string(), json!(mark))).collect(),
            outline: over.then(|| outline().encode()),
            due_at_ms: self.due_at_ms.filter(|_| !over),
        }
    }
}
