//! The result of playing a recording: its turns, and its insights by analysis, in order of time.
//!
//! Knows no configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::app::offline::Run;
use crate::gateway::exchanges::Tally;
use crate::protocol::Event;
use crate::recording::Recording;
use crate::types::{CallId, Insight, InsightFailure, Turn, TurnNo};

/// A played call.
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) title: Option<String>,
    /// The recording's length, ms.
    pub(crate) length_ms: u64,
    /// When each turn became final, and the turn in its last state.
    pub(crate) turns: BTreeMap<TurnNo, (u64, Turn)>,
    /// The insights by analysis, in order of time.
    pub(crate) insights: BTreeMap<String, Vec<Shown>>,
    pub(crate) failures: Vec<(u64, InsightFailure)>,
    /// Tokens, cost and time of the call's requests.
    pub(crate) tally: Tally,
}

/// An insight that was published.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// Call time, ms.
    pub(crate) at_ms: u64,
    pub(crate) insight: Arc<Insight>,
}

impl Call {
    pub(super) fn new(call: &CallId, recording: &Recording, run: Run) -> Self {
        let mut this = Self {
            id: call.to_string(),
            title: recording.header.title.clone(),
            length_ms: u64::try_from(recording.duration().as_millis()).unwrap_or(u64::MAX),
            turns: BTreeMap::new(),
            insights: BTreeMap::new(),
            failures: Vec::new(),
            tally: run.tally,
        };
        for event in run.events {
            let at_ms = event.at_ms;
            match event.event {
                Event::TurnFinal { turn } | Event::TurnRevised { turn, .. } => {
                    let final_ms = this.turns.get(&turn.turn).map_or(at_ms, |(final_ms, _)| *final_ms);
                    this.turns.insert(turn.turn, (final_ms, turn));
                }
                Event::InsightUpdated { insight } => {
                    this.insights.entry(insight.analysis.clone()).or_default().push(Shown { at_ms, insight });
                }
                Event::InsightFailed { failure } => this.failures.push((at_ms, failure)),
                _ => {}
            }
        }
        this
    }

    /// Turns with text, each with the time at which it became final.
    pub(crate) fn spoken(&self) -> impl Iterator<Item = (u64, &Turn)> {
        self.turns.values().map(|(at_ms, turn)| (*at_ms, turn)).filter(|(_, turn)| !turn.text.trim().is_empty())
    }

    /// The insights of an analysis, in order of time.
    pub(crate) fn of(&self, analysis: &str) -> &[Shown] {
        self.insights.get(analysis).map(Vec::as_slice).unwrap_or_default()
    }
}
