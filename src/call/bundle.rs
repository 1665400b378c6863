//! Bundles: which analyses of a call one request can ask, and which of them it asks.
//!
//! Knows no route and no prompt: the driver leaves out analyses that go to another variant.

use super::Call;
use super::schedule::{Phase, Rolling};
use super::task::{Other, TaskKey};
use crate::analysis::Scope;

impl Call {
    /// The variant that answered the call's first task of an analysis.
    pub(super) fn pinned(&self, analysis: &str) -> Option<&str> {
        let pinned = self.log.standings.get(analysis)?.pinned.as_ref();
        pinned.map(|(variant, _)| variant.as_str())
    }

    /// The analyses that are in one schema with `due`, whether they are due or not. They are the same ones until the
    /// last run, because a vendor's prompt cache also depends on the schema.
    pub(super) fn others(&self, due: &TaskKey) -> Vec<Other<'_>> {
        let Some(slot) = self.slot(&due.analysis).filter(|slot| self.is_open() && !slot.is_apart()) else {
            return Vec::new();
        };
        let is_final = matches!(slot.phase, Phase::Queued { cause, .. } if self.is_final(cause));
        // Before the call ends, a requested analysis with scope "end" is asked alone. While the call ends, every run
        // that is not a last run is asked alone.
        if !is_final && (self.ending() || slot.analysis.scope == Scope::End) {
            return Vec::new();
        }
        let stands = |other: &&Rolling| {
            let has_run =
                if is_final { other.analysis.settings.triggers.on_end } else { other.analysis.scope == Scope::Rolling };
            has_run && other.analysis.name != due.analysis
        };
        let others = self.schedule.rolling.iter().filter(stands);
        others.map(|other| Other { analysis: &other.analysis, pinned: self.pinned(&other.analysis.name) }).collect()
    }

    /// Returns true if the request of another analysis of its bundle asks this one too: it waits for a task of its own, or
    /// something has changed since its newest result.
    pub(super) fn joins(&self, key: &TaskKey, is_final: bool) -> bool {
        let now = self.now.ms;
        self.slot(&key.analysis).filter(|slot| !slot.is_apart()).is_some_and(|slot| match slot.phase {
            Phase::Running => false,
            _ if is_final => slot.has_last_run() && slot.retry_at_ms.is_none_or(|at| at <= now) && !self.stands(slot),
            Phase::Queued { .. } => true,
            Phase::Idle => slot.dirty && now >= slot.hold_ms,
        })
    }

    fn slot(&self, analysis: &str) -> Option<&Rolling> {
        self.schedule.rolling.iter().find(|slot| *slot.analysis.name == *analysis)
    }
}

#[cfg(test)]
mod tests;
