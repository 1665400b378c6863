//! What is shown of a call besides its turns: their number, its streams, and the positions of its newest insights in
//! its log. It is a fold over the log's records that decodes few of them; for an ended call, the directory has it.
//!
//! Knows no journal and no task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::protocol::Event;
use crate::types::directory::CallState as State;
use crate::types::view::StreamView;
use crate::types::{JsonMap, OpenAlert, Seq, TurnNo};

/// Of a per-turn analysis, the insights of this many newest turns are shown; `GET …/events` returns the others.
pub(crate) const SHOWN_TURNS: usize = 200;

/// Positions of the newest insights of one analysis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    /// For a rolling analysis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) whole: Option<Seq>,
    /// For a per-turn analysis, by turn.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) turns: BTreeMap<TurnNo, Seq>,
}

impl Newest {
    /// Records that the record at `seq` contains an insight, about `turn` if it is per turn.
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

/// The outline of a call up to one event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outline {
    /// Position of that event.
    pub(crate) seq: Seq,
    /// Number of turns.
    pub(crate) turns: u64,
    /// Streams in the order in which they began.
    pub(crate) streams: Vec<StreamView>,
    /// Positions of insights, by analysis.
    pub(crate) insights: BTreeMap<String, Newest>,
    /// Alerts that are open, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) alerts: Vec<OpenAlert>,
    /// `meta` in the newest event that carries it; `None` if the directory has it.
    #[serde(skip)]
    pub(crate) meta: Option<JsonMap>,
    /// How the call ended, if an event says so; otherwise the directory knows it.
    #[serde(skip)]
    pub(crate) ended: Option<State>,
}

impl Outline {
    /// The form in which the directory stores it.
    pub(crate) fn encode(&self) -> Box<str> {
        // Serialising plain data cannot fail.
        serde_json::to_string(self).unwrap_or_default().into()
    }

    /// Reads the directory's form; `None` if it is unusable.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Applies an event about streams, alerts or `meta`; other events change nothing here.
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

    /// Approximate size in memory, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let insights: usize = self.insights.values().map(|newest| 64 + newest.turns.len() * 32).sum();
        512 + self.streams.len() * 160
            + self.alerts.len() * 512
            + insights
            + self.meta.as_ref().map_or(0, |meta| meta.len() * 128)
    }
}
