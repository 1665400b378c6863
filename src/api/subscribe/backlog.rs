//! The calls that a subscription to all calls resumes from a position of their own. Each is read here until it has
//! caught up with the common stream.
//!
//! While a call is here, its events come from here, and those in the common stream are held back. Knows no `match` and
//! no snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::hub::{Batch, Hub, HubError, Interest, Reader, Wants};
use crate::types::{CallId, Seq};

/// The calls that are still behind.
pub(super) struct Backlog {
    reader: Reader,
    /// For each call, the position up to which nothing in the stream was held back.
    behind: HashMap<CallId, Seq>,
}

impl Backlog {
    /// Starts with `calls`: the call, its position, and its newest event when the stream began.
    pub(super) fn open(calls: Vec<(CallId, Seq, Seq)>, hub: &Hub, notify: &Arc<Notify>) -> Self {
        let positions = calls.iter().map(|(call, after, _)| (call.clone(), *after)).collect();
        let reader = hub.reader_with(Interest::Calls(positions), Wants::EVENTS, Arc::clone(notify));
        Self { reader, behind: calls.into_iter().map(|(call, _, newest)| (call, newest)).collect() }
    }

    /// Returns true if no call is behind.
    pub(super) fn is_done(&self) -> bool {
        self.behind.is_empty()
    }

    /// Records that the stream held back this event of `call`.
    pub(super) fn hold(&mut self, call: &CallId, seq: Seq) {
        if let Some(newest) = self.behind.get_mut(call) {
            *newest = seq.max(*newest);
        }
    }

    /// Stops reading the call; returns its newest event that was held back.
    pub(super) fn leave(&mut self, call: &CallId) -> Seq {
        self.reader.remove(call);
        self.behind.remove(call).unwrap_or(0)
    }

    /// The next events, about `max_bytes` of them, if any are available now.
    ///
    /// # Errors
    /// As [`Reader::try_next`].
    pub(super) fn next(&mut self, max_bytes: usize) -> Result<Option<Batch>, HubError> {
        self.reader.try_next(max_bytes)
    }

    /// Removes and returns the calls that have caught up, or of which nothing more can be read. Each comes with the
    /// position up to which its events are complete.
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
