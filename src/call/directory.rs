//! What the directory knows of a call beside what its log says: the epoch, the newest connection of each stream, and where
//! producers are whose turns ended without a record. It also holds when a rule is due next.
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

/// What stands in the directory alone.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Names the history of the call. The store may have replaced the one that the first event names.
    pub(super) epoch: String,
    /// Newest connection number given.
    given: ConnectionNo,
    /// Newest connection by stream.
    newest: BTreeMap<StreamId, ConnectionNo>,
    /// Where producers are by now whose turns ended without a record.
    positions: BTreeMap<StreamId, Mark>,
    /// When a rule is due next, wall time.
    due_at_ms: Option<i64>,
    /// The entry is to be written.
    pub(super) changed: bool,
}

impl Directory {
    /// Takes what `entry` knows. Where the call's entry was lost, the log knows at least the connections that led to a
    /// record. Turns in the making that have ended since the newest record are forgotten in the log's turn table.
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

    /// Gives the number of a new connection of `stream`.
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

    /// How many streams producers have named.
    pub(super) fn streams(&self) -> usize {
        self.newest.len()
    }

    /// Notes where a producer is of whom no record speaks.
    pub(super) fn place(&mut self, mark: Mark) {
        self.positions.insert(mark.stream.clone(), mark);
        self.changed = true;
    }

    /// A record says where the producer of `stream` is.
    pub(super) fn recorded(&mut self, stream: &StreamId) {
        self.positions.remove(stream);
    }

    /// Notes when a rule is due next.
    pub(super) fn note_due(&mut self, due_at_ms: Option<i64>) {
        if self.due_at_ms != due_at_ms {
            self.due_at_ms = due_at_ms;
            self.changed = true;
        }
    }

    /// Where the producer of `stream` was last, as far as records and the directory tell.
    pub(super) fn mark<'a>(&'a self, log: &'a Log, stream: &StreamId) -> Option<&'a Mark> {
        self.positions.get(stream).or_else(|| log.stream(stream)?.mark.as_ref())
    }

    /// The entry as it is to be.
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
            // Plain data: cannot fail.
            positions: self.positions.iter().map(|(stream, mark)| (stream.to_string(), json!(mark))).collect(),
            outline: over.then(|| outline().encode()),
            due_at_ms: self.due_at_ms.filter(|_| !over),
        }
    }
}
