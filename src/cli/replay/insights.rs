//! Counts the insights of one call, each once, with the time at which the first one for each turn came.
//!
//! Knows no frame that was sent.

use std::collections::HashSet;

use tokio::time::Instant;

use crate::types::Insight;

/// The first insight of an analysis that covers a turn.
pub(super) struct Arrival {
    pub(super) analysis: String,
    /// The newest turn that the insight covers.
    pub(super) newest: u64,
    pub(super) at: Instant,
}

/// The insights that came so far.
#[derive(Default)]
pub(super) struct Insights {
    ids: HashSet<String>,
    covered: HashSet<(String, u64)>,
    pub(super) arrivals: Vec<Arrival>,
}

impl Insights {
    /// Counts an insight, unless it came before.
    pub(super) fn heard(&mut self, insight: &Insight) {
        if !self.ids.insert(insight.id.clone()) {
            return;
        }
        let Some(newest) = insight.turn.or(insight.covers.to) else { return };
        // A later insight over the same turns (such as the final one) did not wait for a turn: its time is not
        // measured.
        if self.covered.insert((insight.analysis.clone(), newest)) {
            self.arrivals.push(Arrival { analysis: insight.analysis.clone(), newest, at: Instant::now() });
        }
    }

    /// Number of different insights that came.
    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }
}
