//! The state that the log of a call determines, as a fold over its records: the same code runs live and when a call is
//! rebuilt.
//!
//! Knows no connection, no timer, no task and no journal; those have their own state elsewhere. This state changes only
//! by [`Log::fold`], with one exception: [`Log::turns`]. The turn table decides what the event of a turn contains, so a
//! live call applies speech to the table first, and a rebuilt call restores the table from the record. After each
//! input, both have the same turns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::outline::Newest;
use super::record::{Decoded, Mark, Private};
use crate::base::time;
use crate::context::{Context, Digests};
use crate::protocol::{Event, GapCause};
use crate::rules::Standing as Alerts;
use crate::stt::Dialect;
use crate::turns::Turns;
use crate::types::directory::CallState as State;
use crate::types::view::StreamView;
use crate::types::{CallId, Insight, JsonMap, Seq, StreamId, Turn, TurnNo};

/// One STT session of the call.
pub(super) struct Stream {
    pub(super) id: StreamId,
    /// The stream that the producer named. It differs from `id` if a new session of the vendor began behind that
    /// stream.
    pub(super) root: StreamId,
    /// The stream's wire format; `None` if this build does not know the dialect of an old recording.
    pub(super) dialect: Option<&'static dyn Dialect>,
    /// The dialect's name.
    pub(super) dialect_name: String,
    /// Call time of stream time 0.
    pub(super) offset_ms: u64,
    /// The vendor's session id.
    pub(super) vendor_session: Option<String>,
    /// When the stream began, ms since 1970.
    pub(super) started_at_ms: i64,
    /// Set if the stream has ended.
    pub(super) ended: bool,
    /// When the stream ended, ms since 1970.
    pub(super) ended_at_ms: Option<i64>,
    /// Set if the stream was lost without an end, and another stream replaced it after a gap: its end is not awaited.
    pub(super) replaced: bool,
    /// For a stream that a producer named: the producer's position at the newest record that it led to.
    pub(super) mark: Option<Mark>,
}

/// The state of one analysis of the call.
#[derive(Debug, Default, Clone)]
pub(super) struct Standing {
    /// Newest insight, if the analysis is rolling.
    pub(super) latest: Option<Arc<Insight>>,
    /// Newest insight by turn, if the analysis is per turn.
    pub(super) by_turn: BTreeMap<TurnNo, Arc<Insight>>,
    /// Turns whose run failed permanently.
    pub(super) failed_turns: BTreeSet<TurnNo>,
    /// Newest rev.
    pub(super) rev: u64,
    /// Variant and prompt id of the first job.
    pub(super) pinned: Option<(String, String)>,
}

/// The state that the log of one call determines.
pub(crate) struct Log {
    pub(super) call_id: CallId,
    /// The epoch that the first event names. The directory's epoch replaces it.
    pub(super) epoch: String,
    /// ms since 1970.
    pub(super) started_at_ms: i64,
    /// Open, completed or failed.
    pub(super) status: State,
    /// Set by a record that the call is to be completed: no turn follows.
    pub(super) ending: bool,
    /// Position of the newest event, durable or about to be.
    pub(super) head: Seq,
    /// The complete metadata.
    pub(super) meta: JsonMap,
    /// The call's turns.
    pub(super) turns: Turns,
    /// The context of the call's turns, for tasks.
    pub(super) context: Context,
    /// The digests of its oldest turns, by the high-water mark for which they were made.
    pub(super) digests: BTreeMap<u64, Digests>,
    /// The streams in the order in which they began.
    pub(super) streams: Vec<Stream>,
    /// Names of the analyses that it runs.
    pub(super) analyses: Vec<String>,
    /// Variants that its producers chose, by route.
    pub(super) variants: BTreeMap<String, String>,
    /// Positions of the newest insights in the log.
    pub(super) newest: BTreeMap<String, Newest>,
    /// The state of each analysis, by name.
    pub(super) standings: BTreeMap<String, Box<Standing>>,
    /// Alerts that rules raised.
    pub(super) alerts: Alerts,
    /// Cost of all insights and digests so far; `None` once one of them had an unknown cost.
    pub(super) cost_usd: Option<f64>,
}

impl Log {
    /// A log without records.
    pub(crate) fn new(call_id: CallId) -> Self {
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
            digests: BTreeMap::new(),
            streams: Vec::new(),
            analyses: Vec::new(),
            variants: BTreeMap::new(),
            newest: BTreeMap::new(),
            standings: BTreeMap::new(),
            alerts: Alerts::default(),
            cost_usd: Some(0.0),
        }
    }

    pub(crate) fn call_id(&self) -> &CallId {
        &self.call_id
    }

    /// Position of the newest record.
    pub(crate) fn head(&self) -> Seq {
        self.head
    }

    /// The streams, as snapshots show them.
    pub(super) fn stream_views(&self) -> Vec<StreamView> {
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

    fn stream_mut(&mut self, id: &StreamId) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == *id)
    }

    /// The newest stream of the producer that named `root`: a new session of the vendor begins a new one.
    pub(super) fn newest_of(&self, root: &StreamId) -> StreamId {
        self.streams
            .iter()
            .rfind(|stream| stream.root == *root)
            .map_or_else(|| root.clone(), |stream| stream.id.clone())
    }

    /// The stream that a producer named and that `id` continues; `id` itself if it continues none.
    pub(super) fn root(&self, id: &StreamId) -> StreamId {
        self.stream(id).map_or_else(|| id.clone(), |stream| stream.root.clone())
    }

    /// The end of the known speech, call time.
    pub(super) fn heard_ms(&self) -> Option<u64> {
        self.turns.iter().map(|turn| turn.end_ms).max()
    }

    /// Applies a record that was read from the log.
    ///
    /// # Errors
    /// The record contradicts those before it; the message is for the log.
    pub(crate) fn restore(&mut self, decoded: Decoded) -> Result<(), String> {
        let Decoded { seq, at, mut event, mut private } = decoded;
        let mut restored = None;
        if let Event::TurnFinal { turn } | Event::TurnRevised { turn, .. } = &mut event {
            let number = turn.turn;
            let known = private.turn.take().unwrap_or_default();
            self.turns.restore(turn.clone(), known).map_err(|error| format!("event {seq}: {error}"))?;
            restored = self.turns.get(number).cloned();
        }
        self.fold(seq, &at, &event, &private, restored.as_ref());
        Ok(())
    }

    /// Applies the event at `seq`. `turn`: the turn that it is about, from the turn table.
    pub(super) fn fold(&mut self, seq: Seq, at: &str, event: &Event, private: &Private, turn: Option<&Arc<Turn>>) {
        self.head = seq;
        let at_ms = || time::parse_rfc3339(at).unwrap_or(0);
        if let Some(turn) = turn {
            self.context.upsert(turn);
        }
        if let Some(made) = &private.digest {
            self.digests.entry(made.mark).or_default().add(Arc::clone(&made.digest));
            self.cost_usd = self.cost_usd.zip(made.cost_usd).map(|(sum, cost)| sum + cost);
        }
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
                self.started_at_ms = at_ms();
            }
            Event::CallUpdated { meta } => self.meta.clone_from(meta),
            Event::StreamStarted { stream_id, dialect, vendor_session, offset_ms } => {
                if self.stream(stream_id).is_none() {
                    // Most calls have one or two streams.
                    self.streams.reserve_exact(1);
                    let root = private.mark.as_ref().map_or(stream_id, |mark| &mark.stream);
                    self.streams.push(Stream {
                        id: stream_id.clone(),
                        root: root.clone(),
                        dialect: crate::stt::dialect(dialect),
                        dialect_name: dialect.clone(),
                        offset_ms: *offset_ms,
                        vendor_session: vendor_session.clone(),
                        started_at_ms: at_ms(),
                        ended: false,
                        ended_at_ms: None,
                        replaced: false,
                        mark: None,
                    });
                }
            }
            Event::StreamEnded { stream_id, .. } => {
                if let Some(stream) = self.stream_mut(stream_id) {
                    stream.ended = true;
                    stream.ended_at_ms.get_or_insert_with(at_ms);
                }
            }
            Event::InsightUpdated { insight } => {
                self.fold_insight(insight, private);
                if let Some(marks) = &private.rules {
                    self.alerts.mark(marks, at_ms());
                }
            }
            Event::InsightFailed { failure } => {
                if let Some(turn) = failure.turn {
                    self.standings.entry(failure.analysis.clone()).or_default().failed_turns.insert(turn);
                }
            }
            Event::AlertRaised { alert } => {
                let next_turn = alert.turn.map_or(self.context.len() as u64, |turn| turn + 1);
                self.alerts.raise(alert, at, at_ms(), seq, next_turn);
            }
            Event::AlertCleared { alert } => self.alerts.clear(alert),
            Event::CallCompleted { .. } => self.status = State::Completed,
            Event::CallFailed { .. } => self.status = State::Failed,
            Event::Gap { stream_id, cause: GapCause::SttDisconnect, .. } => {
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
}
