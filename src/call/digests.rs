//! Digests of a call's oldest turns: when one is made, and that turns leave without one if none can be made.
//!
//! Knows no model. Analyses with the same `max_context_tokens`, the high-water mark, share their digests, whichever route
//! they ask: so the prompts of a bundle, and of an analysis that leaves it, begin alike. A digest is asked for beside the
//! analyses, which go on meanwhile, and is written with the next record of the call.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::answer::Failed;
use super::effects::Note;
use super::record::StoredDigest;
use super::task::{Asks, Chosen, DigestKey, Digested, Digesting, Output, Run, Start, Target, TaskNo};
use super::{Call, Log};
use crate::analysis::Facts;
use crate::base::backoff::Backoff;
use crate::base::time::millis;
use crate::context::{Digests, Snapshot, Source, digest_tokens};
use crate::protocol::FailureCode;

/// Number of failures in a row after which no digest is requested for [`REST_MS`].
const MAX_FAILED: u32 = 3;
/// Duration of that pause, ms. After it, one digest is requested again.
const REST_MS: u64 = 300_000;
/// Waits before the second and the third try.
const RETRIES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30)).with_jitter(0.25);
/// While a digest is made, windows grow by one part in this many beyond their budget, if the model has room for that.
const GROWTH_SHARE: u64 = 4;
/// A digest may have at most this many times the desired tokens; a longer one is refused.
const MOST_TIMES: u64 = 2;

/// The digests for one high-water mark.
struct Series {
    digests: Digests,
    /// Failures in a row.
    failed: u32,
    backoff: Backoff,
    /// No digest is asked for before this time.
    hold_ms: u64,
    /// Set if the embedded provider would be asked, which makes none.
    never: bool,
}

impl Default for Series {
    fn default() -> Self {
        Self { digests: Digests::default(), failed: 0, backoff: RETRIES, hold_ms: 0, never: false }
    }
}

impl Series {
    /// Returns true if no digest is to be expected: turns leave windows without.
    fn rests(&self, now_ms: u64) -> bool {
        self.never || self.failed >= MAX_FAILED && now_ms < self.hold_ms
    }
}

/// All digests of a call, and those that wait for a record.
#[derive(Default)]
pub(super) struct Compactions {
    by_mark: BTreeMap<u64, Series>,
    ready: VecDeque<StoredDigest>,
}

impl Compactions {
    /// Those in the log.
    pub(super) fn new(log: &Log) -> Self {
        let series = |digests: &Digests| Series { digests: digests.clone(), ..Series::default() };
        let by_mark = log.digests.iter().map(|(mark, digests)| (*mark, series(digests))).collect();
        Self { by_mark, ready: VecDeque::new() }
    }

    /// The next digest to write.
    pub(super) fn next_to_write(&mut self) -> Option<StoredDigest> {
        self.ready.pop_front()
    }
}

impl Call {
    /// A snapshot through the window of a rolling analysis, with the digests of the turns that have left it. `room`: the
    /// estimated tokens for which the model has room, if that is known.
    pub(super) fn windowed(&mut self, name: &str, budget: u64, room: Option<u64>, is_final: bool) -> Option<Snapshot> {
        self.schedule.rolling(name)?.window.set_budget(budget);
        let most = if is_final { None } else { self.compact(name, room) };
        let slot = self.schedule.rolling(name)?;
        let mark = slot.analysis.settings.max_context_tokens;
        let digests = &self.compactions.by_mark.entry(mark).or_default().digests;
        let (context, window) = (&self.log.context, &mut slot.window);
        Some(if is_final {
            context.snapshot_final_over(window, digests)
        } else {
            context.snapshot_over(window, digests, most)
        })
    }

    /// Asks for the next digest that the window of an analysis needs, if it needs one. Returns the tokens up to which the
    /// window may grow meanwhile; `None` if nothing is made.
    fn compact(&mut self, name: &str, room: Option<u64>) -> Option<u64> {
        let mark = self.schedule.rolling(name)?.analysis.settings.max_context_tokens;
        let is_made = self.makes_digest(mark);
        let (now, context) = (self.now.ms, &self.log.context);
        let slot = self.schedule.rolling.iter_mut().find(|slot| *slot.analysis.name == *name)?;
        let budget = slot.window.budget();
        let analysis = Arc::clone(&slot.analysis.name);
        let series = self.compactions.by_mark.entry(mark).or_default();
        let verbatim = slot.window.leaves(context, &series.digests)?;
        let most = budget.saturating_add(budget / GROWTH_SHARE).min(room.unwrap_or(u64::MAX));
        if is_made {
            return Some(most);
        }
        if series.rests(now) {
            return None;
        }
        let turns = series.digests.next(context, budget, verbatim)?;
        if now >= series.hold_ms && !self.life.stopping && self.has_room() {
            self.want(Target::Digest(DigestKey { mark, analysis, turns, tokens: digest_tokens(budget) }));
        }
        Some(most)
    }

    /// Returns true if the last run of an analysis waits for a digest, which is asked for if it is needed: at most half
    /// of the time for final runs.
    pub(super) fn awaits_digest(&mut self, index: usize) -> bool {
        let slot = &self.schedule.rolling[index];
        if slot.analysis.is_computed() || self.digest_until().is_none() {
            return false;
        }
        let (name, mark) = (Arc::clone(&slot.analysis.name), slot.analysis.settings.max_context_tokens);
        self.compact(&name, None);
        self.makes_digest(mark)
    }

    /// Until when last runs wait for digests; `None` if that time has passed.
    pub(super) fn digest_until(&self) -> Option<u64> {
        let until = self.now.ms.saturating_add(self.final_left());
        let waits = until.saturating_sub(millis(self.settings.ingest.final_timeout) / 2);
        (waits > self.now.ms).then_some(waits)
    }

    /// Returns true if a digest for this high-water mark is being made.
    pub(super) fn makes_digest(&self, mark: u64) -> bool {
        self.tasks.out.values().any(|out| matches!(&out.target, Target::Digest(key) if key.mark == mark))
    }

    /// Starts a digest, whose task has its permit.
    pub(super) fn digest_ready(&mut self, no: TaskNo, key: &DigestKey, chosen: Result<Chosen, Failed>) {
        let source = Source::new(&self.log.context, key.turns.clone());
        let source = match (chosen, source) {
            (Err(failed), _) => {
                self.tasks.out.remove(&no);
                return self.digest_failed(key, failed.code);
            }
            (Ok(chosen), Some(source)) if !chosen.local => source,
            (Ok(chosen), _) => {
                self.tasks.out.remove(&no);
                self.compactions.by_mark.entry(key.mark).or_default().never |= chosen.local;
                return;
            }
        };
        let snapshot = self.log.context.snapshot_of(key.turns.clone());
        let facts = Facts {
            call_id: self.log.call_id.clone(),
            meta: self.log.meta.clone(),
            speakers: self.speakers(),
            turn: None,
        };
        if let Some(out) = self.tasks.out.get_mut(&no) {
            out.run = Some(Run::Digest { tokens: source.tokens });
        }
        let most = key.tokens.saturating_mul(MOST_TIMES);
        let asks = Asks::Digest(Box::new(Digesting { source, tokens: key.tokens, most }));
        self.effects.start = Some(Box::new(Start { no, asks, snapshot, facts, last: false, deadline: None }));
    }

    /// Takes a digest of turns with so many tokens. One that saves too little counts as a failure.
    pub(super) fn digest_done(&mut self, key: &DigestKey, tokens: u64, result: Result<Output, Failed>) {
        let Digested { digest, cost_usd } = match result {
            Ok(Output::Digest(made)) => made,
            // The kind of a task's result always matches the kind of the task.
            Ok(_) => return,
            Err(failed) => return self.digest_failed(key, failed.code),
        };
        let series = self.compactions.by_mark.entry(key.mark).or_default();
        let replaced: Vec<u64> = series.digests.within(&key.turns).map(|known| known.tokens()).collect();
        let is_shorter = replaced.len() < 2 || digest.tokens() < replaced.iter().sum::<u64>();
        if !is_shorter || digest.tokens() > tokens / 4 * 3 {
            return self.digest_failed(key, FailureCode::TooComplex);
        }
        let digest = Arc::new(digest);
        series.digests.add(Arc::clone(&digest));
        (series.failed, series.hold_ms) = (0, 0);
        series.backoff.reset();
        self.compactions.ready.push_back(StoredDigest { mark: key.mark, digest, cost_usd });
    }

    fn digest_failed(&mut self, key: &DigestKey, code: FailureCode) {
        let (now, random) = (self.now.ms, self.random());
        let series = self.compactions.by_mark.entry(key.mark).or_default();
        series.failed = series.failed.saturating_add(1);
        let stops = series.failed >= MAX_FAILED;
        let pause = if stops { REST_MS } else { millis(series.backoff.pause(random)) };
        series.hold_ms = now.saturating_add(pause);
        self.effects.notes.push(Note::DigestFailed { code, stops });
    }
}

#[cfg(test)]
mod tests;
