//! Analyses whose values are computed from the call's turns. They are published when they are due, without a task.
//!
//! Knows no permit and no driver: no model is asked, so nothing is awaited and no variant is pinned.

use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::answer::Failed;
use super::bill::Bill;
use super::outcomes::Made;
use super::task::{Begun, BegunMember, TaskKey};
use crate::analysis::Reading;
use crate::base::measure;
use crate::protocol::FailureCode;
use crate::types::provider::COMPUTED;
use crate::types::{Coverage, TokenUsage, Turn};

impl Call {
    /// Publishes the value of a computed analysis that is due.
    pub(super) fn compute(&mut self, key: &TaskKey) {
        let Some((analysis, cause, fired_ms)) = self.slot_facts(key) else { return };
        let is_final = self.is_final(cause);
        let news_ms = self.started(key, fired_ms, cause);
        let Some(covers) = self.covers_all() else { return self.nothing_to_ask(key) };
        let turns = self.log.turns.iter().map(AsRef::as_ref);
        let Some(value) = analysis.compute(turns) else { return };
        let (bytes, most) = (measure::value(&value), self.settings.limits.insight_bytes);
        if bytes > most {
            let message =
                format!("the value has {bytes} bytes as JSON, over the limit of {most} (limits.insight_bytes)");
            let failed = Failed { code: FailureCode::InsightTooLarge, message, temporary: false };
            return self.task_failed(key, is_final, failed);
        }
        let begun = Begun {
            route: COMPUTED.into(),
            variant: "default".into(),
            covers,
            turns: self.log.turns.len() as u64,
            is_final,
            bundled: false,
            started_ms: self.now.ms,
            members: Vec::new(),
        };
        let prompt = format!("{}/{COMPUTED}", analysis.name).into();
        let member = BegunMember { key: key.clone(), prompt, cause, news_ms, fired_ms };
        let reading = Reading { value, ..Reading::default() };
        let usage = TokenUsage { input: Some(0), cached: Some(0), output: Some(0) };
        let made = Made {
            model: COMPUTED.to_owned(),
            endpoint: COMPUTED.to_owned(),
            attempts: 0,
            degraded: false,
            pins: false,
            first_token: None,
            took: Duration::ZERO,
        };
        self.publish(&begun, &member, reading, Bill { usage, cost_usd: Some(0.0) }, &made);
    }

    /// All turns with text; `None` if there are none.
    fn covers_all(&self) -> Option<Coverage> {
        let mut spoken = self.log.turns.iter().filter(|turn| has_text(turn)).map(|turn| turn.turn);
        let first = spoken.next()?;
        let (mut to, mut turns) = (first, 1);
        for turn in spoken {
            (to, turns) = (turn, turns + 1);
        }
        let from = Some(first);
        let revision = self.log.context.revision();
        Some(Coverage { from, to: Some(to), turns, digest_to: None, verbatim_from: from, revision })
    }
}

fn has_text(turn: &Arc<Turn>) -> bool {
    turn.text.chars().any(|character| !character.is_whitespace())
}
