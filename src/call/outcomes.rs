//! Processes finished tasks of a call: publishes insights, sends answers, takes digests, and limits the rate of failures.
//!
//! Knows no gateway: a task's result is an input.

use std::sync::Arc;
use std::time::Duration;

use super::Call;
use super::answer::Failed;
use super::bill::Bill;
use super::record::Private;
use super::schedule::{Cause, Last};
use super::task::{Answered, Begun, BegunMember, Out, Output, Run, Target, TaskKey, TaskNo};
use crate::analysis::Reading;
use crate::base::measure;
use crate::base::time::millis;
use crate::protocol::{Event, FailureCode, MAX_MESSAGE_BYTES};
use crate::types::directory::CallState as State;
use crate::types::{Insight, InsightFailure, LatencyMs, Provenance, Status};

/// Values that the insights of one request share.
pub(super) struct Made {
    pub(super) model: String,
    pub(super) endpoint: String,
    pub(super) attempts: u32,
    pub(super) degraded: bool,
    /// Set if the call stays with the variant that answered.
    pub(super) pins: bool,
    pub(super) first_token: Option<Duration>,
    pub(super) took: Duration,
}

impl Call {
    /// Processes a finished task. A task that was aborted meanwhile is unknown and ignored.
    pub(super) fn task_done(&mut self, no: TaskNo, result: Result<Output, Failed>) {
        let Some(Out { target, run: Some(run) }) = self.tasks.out.remove(&no) else { return };
        match (target, run, result) {
            (Target::Reply(key), _, Err(failed)) => self.reply(key, Err(failed)),
            (Target::Reply(key), _, Ok(Output::Reply(replied))) => self.reply(key, Ok(replied)),
            (_, Run::Insights(begun), Ok(Output::Insights(answered))) => self.insights_done(&begun, answered),
            (_, Run::Insights(begun), Err(failed)) => self.insights_failed(&begun, &failed),
            (Target::Digest(key), Run::Digest { tokens }, result) => self.digest_done(&key, tokens, result),
            // The kind of a task's result always matches the kind of the task.
            (_, _, Ok(_)) | (_, Run::Reply | Run::Digest { .. }, Err(_)) => {}
        }
    }

    /// Processes a request without an answer: all its analyses fail, and wait equally long before they are repeated.
    fn insights_failed(&mut self, begun: &Begun, failed: &Failed) {
        use FailureCode::{InvalidRequest, SchemaMismatch, TooComplex, Unsupported};
        let random = self.random();
        for member in &begun.members {
            self.failed(&member.key, begun.is_final, failed.clone(), random);
            let Some(slot) = self.schedule.rolling(&member.key.analysis).filter(|_| begun.bundled) else { continue };
            match failed.code {
                SchemaMismatch => slot.broke_its_part(),
                // The vendor refuses the request as a whole; it may accept requests for the single analyses.
                InvalidRequest | TooComplex | Unsupported => slot.leave_bundle(),
                _ => {}
            }
        }
    }

    /// Processes an answer to analyses. An analysis whose part is invalid fails alone. The cost of the request is
    /// divided among the published ones, by the length of their parts.
    fn insights_done(&mut self, begun: &Begun, answered: Answered) {
        let Answered { members, model, endpoint, attempts, bill, weights, degraded, first_token, took } = answered;
        let made = Made { model, endpoint, attempts, degraded, pins: true, first_token, took };
        let overtaken: Vec<bool> = begun.members.iter().map(|member| self.overtaken(&member.key, begun)).collect();
        let published = members.iter().zip(&overtaken).map(|(part, overtaken)| part.is_ok() && !overtaken);
        let weights: Vec<u64> = published.zip(weights).map(|(is, weight)| if is { weight } else { 0 }).collect();
        let bills = bill.split(&weights);
        for (((member, part), overtaken), bill) in begun.members.iter().zip(members).zip(overtaken).zip(bills) {
            match part {
                Ok(_) if overtaken => {
                    let (now, random) = (self.now.ms, self.random());
                    if let Some(slot) = self.schedule.rolling(&member.key.analysis) {
                        // As after a failure, so that frequent revisions of turns do not cause a request each time.
                        slot.failed(now, true, random);
                        slot.manual |= member.cause == Cause::Manual;
                    }
                }
                Ok(reading) => self.publish(begun, member, reading, bill, &made),
                Err(failed) => {
                    self.task_failed(&member.key, begun.is_final, failed);
                    let slot = self.schedule.rolling(&member.key.analysis).filter(|_| begun.bundled);
                    if let Some(slot) = slot {
                        slot.broke_its_part();
                    }
                }
            }
        }
    }

    /// With `on_revision = "refuse"`: returns true if a turn that the task covered was revised meanwhile.
    fn overtaken(&mut self, key: &TaskKey, begun: &Begun) -> bool {
        if begun.is_final || key.turn.is_some() {
            return false;
        }
        let refuses = self.schedule.rolling(&key.analysis).is_some_and(|slot| slot.analysis.settings.refuses_revised);
        refuses && self.log.context.revised_since(begun.covers.revision, begun.covers.to)
    }

    pub(super) fn publish(&mut self, begun: &Begun, member: &BegunMember, reading: Reading, bill: Bill, made: &Made) {
        let now = self.now.ms;
        let BegunMember { key, prompt, cause, news_ms, fired_ms } = member;
        let (route, variant, prompt) = (begun.route.to_string(), begun.variant.to_string(), prompt.to_string());
        let standing = self.log.standings.get(&*key.analysis);
        let rev = 1 + match key.turn {
            None => standing.map_or(0, |standing| standing.rev),
            Some(turn) => standing.and_then(|standing| standing.by_turn.get(&turn)).map_or(0, |insight| insight.rev),
        };
        let first = made.pins && standing.is_none_or(|standing| standing.pinned.is_none());
        let pinned = first.then(|| (route.clone(), variant.clone(), prompt.clone()));
        let last_word = begun.is_final || key.turn.is_some() || self.log.status == State::Completed;
        let insight = Insight {
            id: format!("i_{}", self.random_suffix()),
            analysis: key.analysis.to_string(),
            rev,
            status: if last_word { Status::Final } else { Status::Provisional },
            degraded: made.degraded,
            turn: key.turn,
            covers: begun.covers,
            behind_turns: match key.turn {
                Some(_) => 0,
                None => (self.log.turns.len() as u64).saturating_sub(begun.turns),
            },
            trigger: self.trigger_of(*cause),
            value: reading.value,
            changes: reading.changes,
            dropped_operations: reading.dropped.total(),
            evidence: reading.evidence,
            provenance: Provenance {
                route,
                variant,
                model: made.model.clone(),
                endpoint: made.endpoint.clone(),
                prompt,
                attempts: made.attempts,
                usage: bill.usage,
                cost_usd: bill.cost_usd,
            },
            latency_ms: LatencyMs {
                debounce: fired_ms.saturating_sub(*news_ms),
                queue: begun.started_ms.saturating_sub(*fired_ms),
                first_token: made.first_token.map(millis),
                model: millis(made.took),
                total: now.saturating_sub(*news_ms),
            },
        };
        self.emit(&Event::InsightUpdated { insight: Arc::new(insight) }, &Private { pinned, ..Private::default() });
        match key.turn {
            Some(turn) => self.schedule.turn_over(&key.analysis, turn),
            None => {
                self.failures.succeeded(&key.analysis);
                if let Some(slot) = self.schedule.rolling(&key.analysis) {
                    slot.succeeded();
                    if begun.is_final {
                        slot.last = Last::Done;
                    }
                }
                if !last_word {
                    self.repair(&key.analysis);
                }
            }
        }
    }

    /// Handles every failure, before an attempt or after it: the task waits before its repetition, and the failure is
    /// published.
    pub(super) fn task_failed(&mut self, key: &TaskKey, is_final: bool, failed: Failed) {
        let random = self.random();
        self.failed(key, is_final, failed, random);
    }

    fn failed(&mut self, key: &TaskKey, is_final: bool, failed: Failed, random: f64) {
        match key.turn {
            Some(turn) => self.schedule.turn_over(&key.analysis, turn),
            None => {
                let now = self.now.ms;
                if let Some(slot) = self.schedule.rolling(&key.analysis) {
                    slot.failed(now, failed.temporary, random);
                    if is_final && !failed.temporary {
                        slot.last = Last::Missing(failed.code);
                    }
                }
            }
        }
        self.failures.push(key, failed);
    }

    /// A random number from 0 to 1.
    pub(super) fn random(&mut self) -> f64 {
        let [.., low, high] = (self.entropy)().to_le_bytes();
        f64::from(u16::from_le_bytes([low, high])) / f64::from(u16::MAX)
    }

    /// Publishes failures that may be published now.
    pub(super) fn publish_failures(&mut self) {
        if self.failures.is_empty() {
            return;
        }
        while self.has_room()
            && let Some((key, failed)) = self.failures.next(self.now.ms)
        {
            self.publish_failure(&key, failed);
        }
    }

    pub(super) fn publish_failure(&mut self, key: &TaskKey, mut failed: Failed) {
        measure::cut(&mut failed.message, MAX_MESSAGE_BYTES);
        let standing = self.log.standings.get(&*key.analysis);
        let last_good_rev = match key.turn {
            None => standing.map(|standing| standing.rev).filter(|rev| *rev > 0),
            Some(turn) => standing.and_then(|standing| standing.by_turn.get(&turn)).map(|insight| insight.rev),
        };
        let failure = InsightFailure {
            analysis: key.analysis.to_string(),
            turn: key.turn,
            code: failed.code.to_string(),
            message: failed.message,
            temporary: failed.temporary,
            last_good_rev,
        };
        self.emit(&Event::InsightFailed { failure }, &Private::default());
    }
}
