//! One request in progress: its candidates, its failures, and its remaining retries and time.
//!
//! Only holds the state. `next` decides which candidate is asked, `start` starts an attempt, `commit` and `failover`
//! decide what follows from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::candidates;
use super::shared::Shared;
use crate::base::backoff::Backoff;
use crate::gateway::catalogue::resolved::{Candidate, Resolved};
use crate::gateway::code::Code;
use crate::gateway::error::{AttemptFailure, Failure};
use crate::gateway::request::{Origin, Request};
use crate::types::attempt::first_id;
use crate::types::{RequestDone, Why};

/// Waits before retries of one candidate, unless the vendor asks for longer ones.
const RETRIES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// One request in progress.
pub(super) struct Run<'a> {
    pub(super) shared: &'a Shared,
    pub(super) resolved: &'a Resolved,
    pub(super) origin: Origin,
    /// The analyses that are asked, if the schema is one for several, each with its share of an attempt. All shares are
    /// equal until the answer is known.
    pub(super) shares: Vec<(Arc<str>, u64)>,
    /// How many times one candidate may be asked again.
    pub(super) retries: u32,
    pub(super) deadline: Instant,
    pub(super) keep_raw: bool,
    pub(super) one_call: bool,
    pub(super) answering: Option<&'a AtomicBool>,
    pub(super) id: i64,
    pub(super) at_ms: i64,
    /// Code of the error, if the request has no answer.
    pub(super) code: Option<Code>,
    pub(super) candidates: Vec<Progress>,
    pub(super) failures: Vec<AttemptFailure>,
    pub(super) last: Option<Failure>,
    /// Number of HTTP calls made.
    pub(super) attempts: u32,
    /// Time spent waiting for the network and the vendors, including the waits before retries.
    pub(super) waited: Duration,
    pub(super) repairing: bool,
    pub(super) hedged: bool,
    pub(super) current: usize,
}

/// Progress of one candidate.
pub(super) struct Progress {
    pub(super) candidate: Candidate,
    pub(super) tries: u32,
    /// Waits after its failures.
    pub(super) backoff: Backoff,
    pub(super) ready_at: Instant,
    pub(super) dead: bool,
    /// Number of schema modes that this request has stepped down at this candidate.
    pub(super) schema_step: usize,
    pub(super) stepping: bool,
    /// Set if a step down followed a server error (HTTP 500), which may have had another cause than the schema mode.
    pub(super) schema_doubtful: bool,
    /// Set if the candidate was passed over before; that failure is recorded already.
    pub(super) passed_over: bool,
    /// Why the candidate's newest attempt was made.
    pub(super) why: Option<Why>,
}

/// The next unique id of an attempt or request that starts now; increases with time, also across restarts.
pub(super) fn next_id(now_ms: i64) -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let first = first_id(now_ms);
    let step = |last: i64| Some(first.max(last + 1));
    match LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
        Ok(last) | Err(last) => first.max(last + 1),
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        resolved: &'a Resolved,
        request: &Request,
        deadline: Instant,
        keep_raw: bool,
        answering: Option<&'a AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        let candidates = candidates::arrange(resolved, &request.chat)
            .into_iter()
            .map(|candidate| Progress {
                candidate,
                tries: 0,
                backoff: RETRIES,
                ready_at: now,
                dead: false,
                schema_step: 0,
                stepping: false,
                schema_doubtful: false,
                passed_over: false,
                why: None,
            })
            .collect();
        let at_ms = crate::base::time::unix_ms();
        Self {
            shared,
            resolved,
            origin: request.origin.clone(),
            shares: request.parts.iter().map(|part| (Arc::clone(&part.analysis), 1)).collect(),
            retries: if request.once { 0 } else { resolved.retries },
            deadline,
            keep_raw,
            one_call: request.chat.parallel_tool_calls == Some(false),
            answering,
            id: next_id(at_ms),
            at_ms,
            code: None,
            candidates,
            failures: Vec::new(),
            last: None,
            attempts: 0,
            waited: Duration::ZERO,
            repairing: false,
            hedged: false,
            current: 0,
        }
    }

    /// Prepares a repair: every candidate may be asked again, starting with the one that answered.
    pub(super) fn repair(&mut self) {
        let now = Instant::now();
        self.repairing = true;
        self.last = None;
        for progress in &mut self.candidates {
            progress.tries = 0;
            progress.backoff.reset();
            progress.ready_at = now;
        }
        // A lesser schema mode was used only because of a server error, and its answer violates the schema: go back to
        // the better mode.
        let answered = &mut self.candidates[self.current];
        if std::mem::take(&mut answered.schema_doubtful) {
            answered.schema_step = 0;
            if let Candidate::Remote(remote) = &answered.candidate {
                remote.trust_schema_mode();
            }
        }
        self.candidates.swap(0, self.current);
        self.current = 0;
    }

    /// Returns true if the candidate may be asked now or later.
    pub(super) fn may_try(&self, position: usize) -> bool {
        let progress = &self.candidates[position];
        !progress.dead && (progress.tries <= self.retries || progress.stepping)
    }

    /// The endpoint and the vendor model of the candidate that answered last; `None` for the embedded provider.
    pub(super) fn current(&self) -> Option<(Arc<str>, Arc<str>)> {
        match &self.candidates.get(self.current)?.candidate {
            Candidate::Remote(remote) => Some((Arc::clone(&remote.endpoint.name), Arc::clone(&remote.vendor_model))),
            Candidate::Local => None,
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let Some(recorder) = &self.shared.recorder else { return };
        recorder.over(RequestDone {
            id: self.id,
            at_ms: self.at_ms,
            key: self.origin.key.take(),
            call: self.origin.call.take(),
            analysis: self.origin.analysis.take(),
            route: Arc::clone(&self.resolved.route),
            variant: Arc::clone(&self.resolved.variant),
            model: Arc::clone(&self.resolved.model),
            attempts: self.attempts,
            code: self.code.map(Code::as_str),
        });
    }
}
