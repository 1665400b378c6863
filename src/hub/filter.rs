//! Selects the frames that a reader wants: by analysis, by kind (turns, alerts), and whether only the newest insight is
//! needed.
//!
//! Works on a batch that was read; knows no position. Of a call's `meta` it knows only [`contains`].

use std::collections::HashSet;
use std::sync::Arc;

use super::{Frame, Hub, Item, Live, LiveKind};
use crate::protocol::event::Kind;
use crate::types::{JsonMap, TurnNo};

/// Kinds of frames that are sent only on request. Insights and call events are always sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent switches of the wire contract")]
pub struct Include {
    /// `turn.final`, `turn.revised`, and turns in snapshots.
    pub turns: bool,
    /// Words in turns.
    pub words: bool,
    /// `turn.partial`.
    pub partials: bool,
    /// `insight.delta`.
    pub deltas: bool,
}

impl Default for Include {
    fn default() -> Self {
        Self { turns: true, words: false, partials: false, deltas: false }
    }
}

impl Include {
    /// The names on the wire and in the configuration.
    pub const NAMES: [&'static str; 4] = ["turns", "words", "partials", "deltas"];

    /// Exactly the kinds that are named.
    ///
    /// # Errors
    /// The first unknown name.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let mut include = Self { turns: false, words: false, partials: false, deltas: false };
        for name in names {
            match name {
                "turns" => include.turns = true,
                "words" => include.words = true,
                "partials" => include.partials = true,
                "deltas" => include.deltas = true,
                other => return Err(other),
            }
        }
        Ok(include)
    }
}

/// The frames that a reader wants.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only insights of these analyses; `None` = of all.
    pub analyses: Option<Vec<String>>,
    pub no_alerts: bool,
    /// Further kinds of frames.
    pub include: Include,
    /// Analyses whose superseded insights may be left out.
    pub latest: Vec<String>,
}

impl Filter {
    /// Returns true if insights of this analysis are wanted.
    pub fn wants_analysis(&self, name: &str) -> bool {
        self.analyses.as_ref().is_none_or(|names| names.iter().any(|wanted| wanted == name))
    }

    /// Returns true if the frame is wanted.
    pub fn wants(&self, frame: &Frame) -> bool {
        if frame.kind().is_turn() {
            return self.include.turns;
        }
        if frame.kind().is_alert() {
            return !self.no_alerts;
        }
        frame.analysis().is_none_or(|analysis| self.wants_analysis(analysis))
    }

    /// Returns true if the live frame is wanted.
    pub fn wants_live(&self, live: &Live) -> bool {
        match &live.kind {
            LiveKind::Partial => self.include.partials,
            LiveKind::Delta { analysis } => self.include.deltas && self.wants_analysis(analysis),
        }
    }

    /// The items of `batch` that are wanted, in order. With `latest`, an insight event is left out if a newer insight
    /// of the same analysis (and turn) is in the batch or known to `hub`.
    pub fn pick<'a>(&self, batch: &'a [Item], hub: &Hub) -> Vec<&'a Item> {
        let mut newer: HashSet<(&str, &str, Option<TurnNo>)> = HashSet::new();
        let mut picked: Vec<&Item> = batch
            .iter()
            .rev()
            .filter(|item| match item {
                Item::Live(live) => self.wants_live(live),
                Item::Event(frame) => self.wants(frame) && !self.is_superseded(frame, &mut newer, hub),
            })
            .collect();
        picked.reverse();
        picked
    }

    /// Must be called with the frames of a batch from the newest to the oldest.
    fn is_superseded<'a>(
        &self,
        frame: &'a Arc<Frame>,
        newer: &mut HashSet<(&'a str, &'a str, Option<TurnNo>)>,
        hub: &Hub,
    ) -> bool {
        let Some(analysis) = frame.analysis().map(AsRef::as_ref) else { return false };
        if !self.latest.iter().any(|name| name == analysis) {
            return false;
        }
        let key = (frame.call().as_str(), analysis, frame.turn());
        if newer.contains(&key) {
            return true;
        }
        if frame.kind() == Kind::InsightUpdated {
            newer.insert(key);
        }
        frame.turn().is_none() && hub.newest_insight(frame.call(), analysis).is_some_and(|newest| newest > frame.seq())
    }
}

/// Returns true if `meta` has every member of `wanted`, with an equal value.
pub fn contains(meta: &JsonMap, wanted: &JsonMap) -> bool {
    wanted.iter().all(|(key, value)| meta.get(key) == Some(value))
}
