//! The state of one call, as a fold over its events: the same code runs live and when a call is rebuilt.
//!
//! Knows no task, no clock and no journal. Turns are the one part that a live call changes before the event exists
//! (the turn table decides what the event is); everything else changes by [`CallState::fold`] alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::outline::{Newest, Outline};
use super::record::{Decoded, Mark, Private};
use crate::base::time;
use crate::context::Context;
use crate::journal::{CallState as State, Entry};
use crate::stt::Dialect;
use crate::turns::Turns;
use crate::types::view::{StreamView, View};
use crate::types::{CallId, Event, Insight, JsonMap, Seq, StreamId, TurnNo};

/// Cause of a gap: a stream was lost, and another came in its place.
pub(super) const STT_DISCONNECT: &str = "stt_disconnect";

/// One STT session of the call.
pub(super) struct Stream {
    /// Its id.
    pub(super) id: StreamId,
    /// The stream that its producer named. Another id where a vendor's session began anew behind that stream.
    pub(super) root: StreamId,
    /// Its wire format; `None` where this build does not know the dialect of an old recording.
    pub(super) dialect: Option<&'static dyn Dialect>,
    /// The dialect's name.
    pub(super) dialect_name: String,
    /// Call time of stream time 0.
    pub(super) offset_ms: u64,
    /// The vendor's session id.
    pub(super) vendor_session: Option<String>,
    /// Whether it has ended.
    pub(super) ended: bool,
    /// It was lost without an end, and another stream came in its place, after a gap: nothing waits for its end.
    pub(super) replaced: bool,
    /// Where its producer was at the newest record that it led to; of a stream that a producer named.
    pub(super) mark: Option<Mark>,
}

/// What is known of one analysis of the call.
#[derive(Debug, Default, Clone)]
pub(super) struct Standing {
    /// Newest insight, where the analysis is rolling.
    pub(super) latest: Option<Arc<Insight>>,
    /// Newest insight by turn, where it is per turn.
    pub(super) by_turn: BTreeMap<TurnNo, Arc<Insight>>,
    /// Turns whose run failed for good.
    pub(super) failed_turns: BTreeSet<TurnNo>,
    /// Newest rev.
    pub(super) rev: u64,
    /// Variant and prompt id of the first job.
    pub(super) pinned: Option<(String, String)>,
}

/// One call.
pub(super) struct CallState {
    /// Its id.
    pub(super) call_id: CallId,
    /// Names its history.
    pub(super) epoch: String,
    /// ms since 1970.
    pub(super) started_at_ms: i64,
    /// Open, completed or failed.
    pub(super) status: State,
    /// The end was decided: no turn comes any more.
    pub(super) ending: bool,
    /// Position of the newest event, durable or about to be.
    pub(super) head: Seq,
    /// All of it.
    pub(super) meta: JsonMap,
    /// Its turns.
    pub(super) turns: Turns,
    /// What jobs see of them.
    pub(super) context: Context,
    /// In order of their beginning.
    pub(super) streams: Vec<Stream>,
    /// Names of the analyses that it runs.
    pub(super) analyses: Vec<String>,
    /// Variants that its producers chose, by route.
    pub(super) variants: BTreeMap<String, String>,
    /// Where the newest insights stand in the log.
    pub(super) newest: BTreeMap<String, Newest>,
    /// By name.
    pub(super) standings: BTreeMap<String, Box<Standing>>,
    /// Newest connection number given.
    pub(super) connections: u64,
    /// Newest connection by stream.
    pub(super) newest_connection: BTreeMap<StreamId, u64>,
    /// Where producers are by now whose turns ended without a record.
    pub(super) positions: BTreeMap<StreamId, Mark>,
    /// Cost of all insights so far; `None` once one of them had an unknown cost.
    pub(super) cost_usd: Option<f64>,
}

impl CallState {
    /// A call without events.
    pub(super) fn new(call_id: CallId) -> Self {
        Self {
            call_id,
            epoch: String::new(),
            started_at_ms: 0,
            status: State::Open,
            ending: false,
            head: 0,
            meta: JsonMap::new(),
            turns: Turns::new(),
            context: Context::new(),
            streams: Vec::new(),
            analyses: Vec::new(),
            variants: BTreeMap::new(),
            newest: BTreeMap::new(),
            standings: BTreeMap::new(),
            connections: 0,
            newest_connection: BTreeMap::new(),
            positions: BTreeMap::new(),
            cost_usd: Some(0.0),
        }
    }

    /// Takes what the directory knows better than the log: the epoch and the connections. Where the call's entry was lost,
    /// the log knows at least the connections that led to a record.
    pub(super) fn adopt(&mut self, entry: &Entry) {
        self.epoch.clone_from(&entry.epoch);
        for mark in self.streams.iter().filter_map(|stream| stream.mark.as_ref()) {
            self.connections = self.connections.max(mark.connection);
            let newest = self.newest_connection.entry(mark.stream.clone()).or_default();
            *newest = mark.connection.max(*newest);
        }
        for (stream, connection) in &entry.connections {
            if let Ok(stream) = StreamId::parse(stream) {
                self.connections = self.connections.max(*connection);
                let newest = self.newest_connection.entry(stream).or_default();
                *newest = (*newest).max(*connection);
            }
        }
        for position in entry.positions.values() {
            let Ok(mark) = serde_json::from_value::<Mark>(position.clone()) else { continue };
            let Some(stream) = self.stream_mut(&mark.stream) else { continue };
            let place = |mark: &Mark| (mark.connection, mark.covered);
            if stream.mark.as_ref().is_none_or(|known| place(known) < place(&mark)) {
                stream.mark = Some(mark.clone());
                self.positions.insert(mark.stream.clone(), mark);
            }
        }
        for index in 0..self.streams.len() {
            let Stream { id, root, .. } = &self.streams[index];
            let held = self.stream(root).and_then(|stream| stream.mark.as_ref()).map(|mark| Arc::clone(&mark.carry));
            self.turns.end_all_but(id, &held.unwrap_or_default().held);
        }
    }

    /// Whether `entry` says what the log says, as far as it is to.
    pub(super) fn agrees(&self, entry: &Entry) -> bool {
        (self.status, &self.meta, self.started_at_ms) == (entry.state, &entry.meta, entry.started_at_ms)
    }

    /// What the directory is to know.
    pub(super) fn entry(&self, now_ms: i64) -> Entry {
        Entry {
            call_id: self.call_id.clone(),
            epoch: self.epoch.clone(),
            state: self.status,
            meta: self.meta.clone(),
            started_at_ms: self.started_at_ms,
            ended_at_ms: (self.status != State::Open).then_some(now_ms),
            open_streams: u32::try_from(self.streams.iter().filter(|stream| !stream.ended && !stream.replaced).count())
                .unwrap_or(u32::MAX),
            turns: self.turns.len() as u64,
            connections: self
                .newest_connection
                .iter()
                .map(|(stream, connection)| (stream.to_string(), *connection))
                .collect(),
            // Plain data: cannot fail.
            positions: self.positions.iter().map(|(stream, mark)| (stream.to_string(), json!(mark))).collect(),
            outline: (self.status != State::Open).then(|| self.outline().encode()),
        }
    }

    fn outline(&self) -> Outline {
        Outline {
            seq: self.head,
            turns: self.turns.len() as u64,
            streams: self.stream_views(),
            insights: self.newest.clone(),
            ..Outline::default()
        }
    }

    fn stream_views(&self) -> Vec<StreamView> {
        let view = |stream: &Stream| StreamView {
            stream_id: stream.id.clone(),
            dialect: stream.dialect_name.clone(),
            vendor_session: stream.vendor_session.clone(),
            offset_ms: stream.offset_ms,
            ended: stream.ended,
        };
        self.streams.iter().map(view).collect()
    }

    /// The stream `id`, if it has begun.
    pub(super) fn stream(&self, id: &StreamId) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.id == *id)
    }

    /// The stream `id`, if it has begun.
    pub(super) fn stream_mut(&mut self, id: &StreamId) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == *id)
    }

    /// Where the newest connection of the stream was, as far as records tell.
    pub(super) fn marked(&self, stream: &StreamId, connection: u64) -> Option<&Mark> {
        self.stream(stream)?.mark.as_ref().filter(|mark| mark.connection == connection)
    }

    /// The stream that a producer feeds which named `root`: the newest one that its vendor's sessions made of it.
    pub(super) fn newest_of(&self, root: &StreamId) -> StreamId {
        self.streams
            .iter()
            .rfind(|stream| stream.root == *root)
            .map_or_else(|| root.clone(), |stream| stream.id.clone())
    }

    /// The stream that a producer named from which `id` goes on; `id` itself where it is none such.
    pub(super) fn root(&self, id: &StreamId) -> StreamId {
        self.stream(id).map_or_else(|| id.clone(), |stream| stream.root.clone())
    }

    /// Where the speech that is known ends, call time.
    pub(super) fn heard_ms(&self) -> Option<u64> {
        self.turns.iter().map(|turn| turn.end_ms).max()
    }

    /// Rebuilds from a record: turns as well as all the rest.
    ///
    /// # Errors
    /// The record does not follow from those before it; for the log.
    pub(super) fn restore(&mut self, decoded: Decoded) -> Result<(), String> {
        let Decoded { seq, at, mut event, mut private } = decoded;
        self.head = seq;
        if let Event::TurnFinal { turn } | Event::TurnRevised { turn, .. } = &mut event {
            let number = turn.turn;
            let known = private.turn.take().unwrap_or_default();
            self.turns.restore(turn.clone(), known).map_err(|error| format!("event {seq}: {error}"))?;
            if let Some(turn) = self.turns.get(number) {
                self.context.upsert(turn);
            }
        }
        self.fold(&event, &private, &at);
        Ok(())
    }

    /// Applies all of `event` but its turn.
    pub(super) fn fold(&mut self, event: &Event, private: &Private, at: &str) {
        for name in &private.analyses {
            if !self.analyses.contains(name) {
                self.analyses.push(name.clone());
            }
        }
        for (route, variant) in &private.variants {
            self.variants.entry(route.clone()).or_insert_with(|| variant.clone());
        }
        match event {
            Event::CallStarted { epoch, meta } => {
                self.epoch.clone_from(epoch);
                self.meta.clone_from(meta);
                self.started_at_ms = time::parse_rfc3339(at).unwrap_or(0);
            }
            Event::CallUpdated { meta } => self.meta.clone_from(meta),
            Event::StreamStarted { stream_id, dialect, vendor_session, offset_ms } => {
                if self.stream(stream_id).is_none() {
                    // Most calls have one or two.
                    self.streams.reserve_exact(1);
                    let root = private.mark.as_ref().map_or(stream_id, |mark| &mark.stream);
                    self.streams.push(Stream {
                        id: stream_id.clone(),
                        root: root.clone(),
                        dialect: crate::stt::dialect(dialect),
                        dialect_name: dialect.clone(),
                        offset_ms: *offset_ms,
                        vendor_session: vendor_session.clone(),
                        ended: false,
                        replaced: false,
                        mark: None,
                    });
                }
            }
            Event::StreamEnded { stream_id, .. } => {
                if let Some(stream) = self.stream_mut(stream_id) {
                    stream.ended = true;
                }
            }
            Event::InsightUpdated { insight } => self.fold_insight(insight, private),
            Event::InsightFailed { failure } => {
                if let Some(turn) = failure.turn {
                    self.standings.entry(failure.analysis.clone()).or_default().failed_turns.insert(turn);
                }
            }
            Event::CallCompleted { .. } => self.status = State::Completed,
            Event::CallFailed { .. } => self.status = State::Failed,
            Event::Gap { stream_id, cause, .. } if cause == STT_DISCONNECT => {
                for stream in &mut self.streams {
                    stream.replaced |= !stream.ended && stream.id != *stream_id;
                }
            }
            Event::TurnFinal { .. } | Event::TurnRevised { .. } | Event::Gap { .. } => {}
        }
        if let Some(mark) = &private.mark
            && let Some(stream) = self.stream_mut(&mark.stream)
        {
            stream.mark = Some(mark.clone());
            self.positions.remove(&mark.stream);
        }
        self.ending |= private.ending;
    }

    fn fold_insight(&mut self, insight: &Arc<Insight>, private: &Private) {
        self.cost_usd = self.cost_usd.zip(insight.provenance.cost_usd).map(|(sum, cost)| sum + cost);
        match self.newest.get_mut(&insight.analysis) {
            Some(newest) => newest.note(insight.turn, self.head),
            None => self.newest.entry(insight.analysis.clone()).or_default().note(insight.turn, self.head),
        }
        let standing = self.standings.entry(insight.analysis.clone()).or_default();
        if let Some((_, variant, prompt)) = &private.pinned {
            standing.pinned.get_or_insert_with(|| (variant.clone(), prompt.clone()));
        }
        let shared = Arc::clone(insight);
        match insight.turn {
            Some(turn) => {
                standing.by_turn.insert(turn, shared);
            }
            None => {
                standing.rev = insight.rev;
                standing.latest = Some(shared);
            }
        }
    }

    /// The newest insights by name, as snapshots and `welcome` show them.
    pub(super) fn insights(&self) -> BTreeMap<String, Value> {
        let mut shown = BTreeMap::new();
        for (name, standing) in &self.standings {
            if let Some(latest) = &standing.latest {
                shown.insert(name.clone(), json!(latest));
            } else if !standing.by_turn.is_empty() {
                let turns: serde_json::Map<String, Value> =
                    standing.by_turn.iter().map(|(turn, insight)| (turn.to_string(), json!(insight))).collect();
                shown.insert(name.clone(), json!({ "turns": turns }));
            }
        }
        shown
    }

    /// The call as it stands.
    pub(super) fn view(&self) -> View {
        View {
            call_id: self.call_id.clone(),
            epoch: self.epoch.clone(),
            seq: self.head,
            status: self.status.as_str(),
            started_at: time::rfc3339_ms(self.started_at_ms),
            meta: self.meta.clone(),
            turn_count: self.turns.len() as u64,
            turns: self.turns.iter().cloned().collect(),
            streams: self.stream_views(),
            insights: self.insights(),
        }
    }
}
