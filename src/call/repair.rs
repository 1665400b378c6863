//! Makes an analysis due again if a turn on which its newest insight rests was corrected: at once if the speaker of a
//! covered turn changed, after the debounce if the words of a quoted turn changed.
//!
//! Knows no task. Everything that decides this is in the log, so a rebuilt call decides the same.

use std::sync::Arc;

use super::Call;
use super::schedule::Phase;
use crate::analysis::{Scope, quotes_turn};
use crate::context::Corrected;
use crate::types::Insight;

impl Call {
    /// Checks the newest insights after a correction. Analyses with a task in flight are checked by [`Call::repair`] when
    /// its result is published.
    pub(super) fn repair_after_correction(&mut self) {
        let before = self.log.context.revision().saturating_sub(1);
        let Some(corrected) = self.log.context.corrected_since(before).and_then(|mut newest| newest.next()) else {
            return;
        };
        let now = self.now.ms;
        for slot in &mut self.schedule.rolling {
            let idle = slot.phase != Phase::Running && slot.analysis.scope == Scope::Rolling;
            let standing = self.log.standings.get(&*slot.analysis.name).filter(|_| idle);
            let newest = standing.and_then(|standing| standing.latest.as_ref());
            if newest.is_some_and(|insight| concerns(corrected, insight)) {
                slot.trigger.on_repair(now, corrected.speaker);
            }
        }
    }

    /// Checks the newest insight of an analysis against the corrections since its snapshot.
    pub(super) fn repair(&mut self, name: &str) {
        let Some(newest) = self.log.standings.get(name).and_then(|standing| standing.latest.clone()) else { return };
        let at_once = match self.log.context.corrected_since(newest.covers.revision) {
            Some(corrected) => corrected
                .filter(|corrected| concerns(*corrected, &newest))
                .map(|corrected| corrected.speaker)
                .reduce(|one, other| one || other),
            // The context no longer remembers the oldest corrections.
            None => Some(false),
        };
        let now = self.now.ms;
        let slot = self.schedule.rolling(name).filter(|slot| slot.analysis.scope == Scope::Rolling);
        if let (Some(slot), Some(at_once)) = (slot, at_once) {
            slot.trigger.on_repair(now, at_once);
        }
    }

    /// Checks all analyses, after a rebuild.
    pub(super) fn repair_all(&mut self) {
        let names: Vec<Arc<str>> = self.schedule.rolling.iter().map(|slot| Arc::clone(&slot.analysis.name)).collect();
        for name in names {
            self.repair(&name);
        }
    }
}

/// Returns true if an insight that was made before a correction rests on the corrected turn.
fn concerns(corrected: Corrected, insight: &Insight) -> bool {
    let Corrected { turn, speaker, words } = corrected;
    let quoted = || insight.evidence.iter().any(|evidence| evidence.turn == turn) || quotes_turn(&insight.value, turn);
    insight.covers.holds(turn) && (speaker || (words && quoted()))
}

#[cfg(test)]
mod tests;
