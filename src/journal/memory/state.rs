//! The contents of a store in memory, and its simulated faults.
//!
//! Knows no lock and no future: its caller has locked it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::{CallState, Commit, Entry, JournalError, NewRecord, Record, Seq, Tail};
use super::Faults;
use crate::base::random::Random;
use crate::types::CallId;

#[derive(Default)]
pub(super) struct State {
    pub(super) calls: BTreeMap<CallId, Call>,
    pub(super) order: u64,
    pub(super) unreadable: bool,
    pub(super) unwritable: bool,
    pub(super) closed: bool,
    faults: Option<(Faults, Random)>,
    /// Appends that are not committed yet. Those of one call are committed in this order.
    pub(super) in_flight: VecDeque<InFlight>,
    /// Number of polls and operations so far; delays are counted in these.
    pub(super) now: u64,
}

#[derive(Clone)]
pub(super) struct Call {
    pub(super) entry: Entry,
    pub(super) log: Vec<Arc<Record>>,
    /// Events up to this one were deleted by retention.
    pub(super) oldest: Seq,
    /// Events after this one cannot be read.
    pub(super) damaged_after: Option<Seq>,
}

pub(super) struct InFlight {
    pub(super) due: u64,
    pub(super) call: CallId,
    pub(super) after: Seq,
    pub(super) batch: Vec<NewRecord>,
    pub(super) entry: Option<Entry>,
    pub(super) answer: oneshot::Sender<Result<Commit, JournalError>>,
}

impl State {
    /// An empty store with faults.
    pub(super) fn with(faults: Faults) -> Self {
        Self { faults: Some((faults, Random::new(faults.seed))), ..Self::default() }
    }

    /// A random number below `limit`; 0 without faults.
    pub(super) fn random(&mut self, limit: u64) -> u64 {
        self.faults.as_mut().map_or(0, |(_, random)| random.bits() % limit.max(1))
    }

    /// Number of polls after the first one that the next answer takes.
    pub(super) fn delay(&mut self) -> u64 {
        let most = self.faults.as_ref().map_or(0, |(faults, _)| faults.delay);
        self.random(most + 1)
    }

    /// Returns true if the next append is to be refused.
    pub(super) fn fences(&mut self) -> bool {
        let fenced = self.faults.as_ref().map_or(0, |(faults, _)| faults.fenced);
        fenced > 0 && self.random(fenced) == 0
    }

    /// Commits the appends that are due.
    pub(super) fn advance(&mut self, tail: Option<&Arc<dyn Tail>>) {
        self.now += 1;
        while let Some(position) = self.in_flight.iter().position(|append| append.due <= self.now) {
            let call = self.in_flight[position].call.clone();
            // An earlier append of the same call comes first, even if it is not due.
            let first = self.in_flight.iter().position(|append| append.call == call).unwrap_or(position);
            let Some(append) = self.in_flight.remove(first) else { return };
            let InFlight { after, batch, entry, answer, .. } = append;
            let result = self.commit(tail, &call, after, batch, entry);
            // The caller may be gone; the batch is committed in any case.
            drop(answer.send(result));
        }
    }

    pub(super) fn commit(
        &mut self,
        tail: Option<&Arc<dyn Tail>>,
        call: &CallId,
        after: Seq,
        batch: Vec<NewRecord>,
        entry: Option<Entry>,
    ) -> Result<Commit, JournalError> {
        if self.closed || self.unwritable {
            return Err(JournalError::Unavailable("the store takes no appends".to_owned()));
        }
        let known = self.calls.get(call);
        if let Some(damaged) = known.and_then(|known| known.damaged_after) {
            return Err(damage(damaged));
        }
        if known.is_none() && entry.is_none() {
            return Err(JournalError::UnknownCall);
        }
        let head = known.map_or(0, |known| known.log.len() as u64);
        if head != after {
            return Err(JournalError::Fenced { head, after });
        }
        if known.is_none() && batch.is_empty() {
            return Err(JournalError::UnknownCall);
        }
        if let Some(entry) = entry {
            match self.calls.get_mut(call) {
                Some(known) => known.entry = entry,
                None => {
                    let new = Call { entry, log: Vec::new(), oldest: 0, damaged_after: None };
                    self.calls.insert(call.clone(), new);
                }
            }
        }
        let Some(known) = self.calls.get_mut(call) else { return Err(JournalError::UnknownCall) };
        let mut records = Vec::with_capacity(batch.len());
        for NewRecord { header, frame, private } in batch {
            self.order += 1;
            let seq = known.log.len() as u64 + 1;
            records.push(Arc::new(Record { seq, order: self.order, header, frame, private }));
            known.log.extend(records.last().cloned());
        }
        let head = known.log.len() as u64;
        // Called under the lock, so that the tail gets the commits in their order.
        if let Some(tail) = tail {
            tail.committed(call, &records);
        }
        Ok(Commit { head, records })
    }

    pub(super) fn readable(&self) -> Result<(), JournalError> {
        if self.unreadable { Err(JournalError::Unavailable("the store cannot be read".to_owned())) } else { Ok(()) }
    }

    pub(super) fn call(&self, call: &CallId) -> Result<&Call, JournalError> {
        self.readable()?;
        self.calls.get(call).ok_or(JournalError::UnknownCall)
    }

    pub(super) fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Result<Vec<Arc<Record>>, JournalError> {
        let call = self.call(call)?;
        if after < call.oldest {
            return Err(JournalError::Gone { oldest: call.oldest });
        }
        let end = call.damaged_after.unwrap_or(call.log.len() as u64);
        if let Some(damaged) = call.damaged_after.filter(|damaged| after >= *damaged) {
            return Err(damage(damaged));
        }
        let mut bytes = 0;
        let newer = call.log.iter().take(end as usize).skip(after as usize);
        let taken = newer.take_while(|record| {
            let first = bytes == 0;
            bytes += record.frame.len();
            first || bytes <= max_bytes
        });
        Ok(taken.cloned().collect())
    }

    pub(super) fn head(&self, call: &CallId) -> Result<Seq, JournalError> {
        let call = self.call(call)?;
        call.damaged_after.map_or(Ok(call.log.len() as u64), |after| Err(damage(after)))
    }

    pub(super) fn since(&self, after: u64) -> Result<Vec<(CallId, Seq)>, JournalError> {
        self.readable()?;
        let first = |call: &Call| call.log.iter().find(|record| record.order > after).map(|record| record.seq);
        Ok(self.calls.iter().filter_map(|(name, call)| Some((name.clone(), first(call)?))).collect())
    }

    pub(super) fn entry(&self, call: &CallId) -> Result<Option<Entry>, JournalError> {
        self.readable()?;
        Ok(self.calls.get(call).map(|call| call.entry.clone()))
    }

    pub(super) fn page(
        &self,
        state: Option<CallState>,
        after: Option<&CallId>,
        limit: usize,
    ) -> Result<Vec<Entry>, JournalError> {
        self.readable()?;
        let entries = self.calls.values().map(|call| &call.entry);
        let wanted = entries
            .filter(|entry| state.is_none_or(|state| entry.state == state))
            .filter(|entry| after.is_none_or(|after| entry.call_id > *after));
        Ok(wanted.take(limit).cloned().collect())
    }
}

fn damage(after: Seq) -> JournalError {
    JournalError::Damaged { after, message: "it was damaged on purpose".to_owned() }
}
