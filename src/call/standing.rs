//! The last run of an analysis if nothing has changed since its newest result: the result is published once more as the
//! final one, and no model is asked.
//!
//! Knows no task and no driver.

use std::time::Duration;

use super::Call;
use super::bill::Bill;
use super::outcomes::Made;
use super::schedule::{Cause, Last, Rolling};
use super::task::{Begun, BegunMember, TaskKey};
use crate::analysis::Reading;
use crate::types::{Status, TokenUsage};

impl Call {
    /// Returns true if the newest result of an analysis is still valid for its last run: it is based on all turns in
    /// their present state, and the last run would show them in the same order.
    pub(super) fn stands(&self, slot: &Rolling) -> bool {
        let newest = self.log.standings.get(&*slot.analysis.name).and_then(|standing| standing.latest.as_ref());
        let saw_all = newest.is_some_and(|insight| insight.covers.revision == self.log.context.revision());
        let spoken = self.log.turns.iter().filter(|turn| !turn.text.is_empty());
        !slot.dirty && !slot.analysis.is_computed() && saw_all && spoken.is_sorted_by_key(|turn| turn.start_ms)
    }

    /// Publishes the newest result of an analysis as its final one, unless it is final already.
    pub(super) fn publish_final(&mut self, key: &TaskKey) {
        let newest = self.log.standings.get(&*key.analysis).and_then(|standing| standing.latest.clone());
        let Some(newest) = newest else { return };
        if newest.status == Status::Final {
            if let Some(slot) = self.schedule.rolling(&key.analysis) {
                slot.last = Last::Done;
            }
            return;
        }
        let Some((analysis, ..)) = self.slot_facts(key) else { return };
        let (now, cause) = (self.now.ms, Cause::End);
        let news_ms = self.started(key, now, cause);
        let provenance = &newest.provenance;
        let begun = Begun {
            route: provenance.route.as_str().into(),
            variant: provenance.variant.as_str().into(),
            covers: newest.covers,
            turns: self.log.turns.len() as u64,
            is_final: true,
            bundled: false,
            started_ms: now,
            members: Vec::new(),
        };
        let prompt = provenance.prompt.as_str().into();
        let member = BegunMember { key: key.clone(), prompt, cause, news_ms, fired_ms: now };
        let reading = Reading {
            value: newest.value.clone(),
            evidence: newest.evidence.clone(),
            changes: analysis.unchanged(),
            ..Reading::default()
        };
        let usage = TokenUsage { input: Some(0), cached: Some(0), output: Some(0) };
        let made = Made {
            model: provenance.model.clone(),
            endpoint: provenance.endpoint.clone(),
            attempts: 0,
            degraded: newest.degraded,
            pins: false,
            first_token: None,
            took: Duration::ZERO,
        };
        self.publish(&begun, &member, reading, Bill { usage, cost_usd: Some(0.0) }, &made);
    }
}
