//! Calls that a subscription to all calls resumes by their own positions: what was missed in each, until its events in
//! the stream of everything are the next ones.
//!
//! While a call is here, its events come from here and the stream's are held back. Knows no `match` and no snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::hub::{Batch, Hub, HubError, Interest, Reader, Wants};
use crate::types::{CallId, Seq};

/// The calls that are still behind.
pub(super) struct Backlog {
    reader: Reader,
    /// The position in each from which on nothing has been held back.
    behind: HashMap<CallId, Seq>,
}

impl Backlog {
    /// Of `calls`: call, position, and its newest event when the stream began.
    pub(super) fn open(calls: Vec<(CallId, Seq, Seq)>, hub: &Hub, notify: &Arc<Notify>) -> Self {
        let positions = calls.iter().map(|(call, after, _)| (call.clone(), *after)).collect();
        let reader = hub.reader_with(Interest::Calls(positions), Wants::EVENTS, Arc::clone(notify));
        Self { reader, behind: calls.into_iter().map(|(call, _, newest)| (call, newest)).collect() }
    }

    /// Nothing is behind.
    pub(super) fn is_done(&self) -> bool {
        self.behind.is_empty()
    }

    /// The stream holds this event of `call` back.
    pub(super) fn hold(&mut self, call: &CallId, seq: Seq) {
        if let Some(newest) = self.behind.get_mut(call) {
            *newest = seq.max(*newest);
        }
    }

    /// The call is not read any further; its newest event that was held back.
    pub(super) fn leave(&mut self, call: &CallId) -> Seq {
        self.reader.remove(call);
        self.behind.remove(call).unwrap_or(0)
    }

    /// The next events, of about `max_bytes`, if there are any now.
    ///
    /// # Errors
    /// As [`Reader::try_next`].
    pub(super) fn next(&mut self, max_bytes: usize) -> Result<Option<Batch>, HubError> {
        self.reader.try_next(max_bytes)
    }

    /// Calls that have caught up, or of which there is no more to read, each with the position up to which nothing is
    /// to come from elsewhere. They are here no more.
    pub(super) fn caught_up(&mut self) -> Vec<(CallId, Seq)> {
        // The reader drops a call that was erased or is damaged.
        let position = |call: &CallId, newest: Seq| self.reader.position(call).unwrap_or(newest);
        let done: Vec<_> = self
            .behind
            .iter()
            .map(|(call, newest)| (call, *newest, position(call, *newest)))
            .filter(|(_, newest, position)| position >= newest)
            .map(|(call, _, position)| (call.clone(), position))
            .collect();
        for (call, _) in &done {
            self.leave(call);
        }
        done
    }
}
