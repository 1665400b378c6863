//! What a call is shown by, but for its turns: how many there are, its streams, and where its newest insights stand in
//! its log. A fold over the log's records that looks into few of them; a call that is over has it in the directory.
//!
//! Knows no journal and no task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::protocol::Event;
use crate::types::directory::CallState as State;
use crate::types::view::StreamView;
use crate::types::{JsonMap, OpenAlert, Seq, TurnNo};

/// Of a per-turn analysis, the insights of so many newest turns are shown; `GET …/events` has the others.
pub(crate) const SHOWN_TURNS: usize = 200;

/// Where the newest insights of one analysis stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    /// Of a rolling analysis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) whole: Option<Seq>,
    /// Of a per-turn analysis, by turn.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) turns: BTreeMap<TurnNo, Seq>,
}

impl Newest {
    /// The record at `seq` holds an insight, about `turn` where it is per turn.
    pub(crate) fn note(&mut self, turn: Option<TurnNo>, seq: Seq) {
        match turn {
            None => self.whole = Some(seq),
            Some(turn) => {
                self.turns.insert(turn, seq);
                while self.turns.len() > SHOWN_TURNS {
                    self.turns.pop_first();
                }
            }
        }
    }
}

/// A call up to one event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outline {
    /// The event.
    pub(crate) seq: Seq,
    /// How many turns there are.
    pub(crate) turns: u64,
    /// In order of their beginning.
    pub(crate) streams: Vec<StreamView>,
    /// By analysis.
    pub(crate) insights: BTreeMap<String, Newest>,
    /// Alerts that are open, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) alerts: Vec<OpenAlert>,
    /// `meta` as the newest event has it that carries it; the directory knows it otherwise.
    #[serde(skip)]
    pub(crate) meta: Option<JsonMap>,
    /// How the call ended, where an event says so; the directory knows it otherwise.
    #[serde(skip)]
    pub(crate) ended: Option<State>,
}

impl Outline {
    /// As the directory keeps it.
    pub(crate) fn encode(&self) -> Box<str> {
        // Plain data: cannot fail.
        serde_json::to_string(self).unwrap_or_default().into()
    }

    /// Reads what the directory has kept; `None` where that is nothing of use.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Takes what an event at this time says about streams, alerts and `meta`; other events say nothing here.
    pub(crate) fn call_event(&mut self, event: Event, at: &str) {
        match event {
            Event::CallStarted { meta, .. } | Event::CallUpdated { meta } => self.meta = Some(meta),
            Event::StreamStarted { stream_id, dialect, vendor_session, offset_ms }
                if self.streams.iter().all(|stream| stream.stream_id != stream_id) =>
            {
                self.streams.push(StreamView { stream_id, dialect, vendor_session, offset_ms, ended: false });
            }
            Event::StreamEnded { stream_id, .. } => {
                if let Some(stream) = self.streams.iter_mut().find(|stream| stream.stream_id == stream_id) {
                    stream.ended = true;
                }
            }
            Event::AlertRaised { alert } => self.alerts.push(OpenAlert { alert, at: at.to_owned() }),
            Event::AlertCleared { alert } => self.alerts.retain(|open| open.alert.id != alert.id),
            _ => {}
        }
    }

    /// About what it takes in memory, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let insights: usize = self.insights.values().map(|newest| 64 + newest.turns.len() * 32).sum();
        512 + self.streams.len() * 160
            + self.alerts.len() * 512
            + insights
            + self.meta.as_ref().map_or(0, |meta| meta.len() * 128)
    }
}
