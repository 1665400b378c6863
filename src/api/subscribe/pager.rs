//! Lists the open calls whose snapshots are owed to a subscription to all calls, page by page in order of `call_id`.
//!
//! Does not know the state of any call: the caller says which calls are known already.

use std::collections::VecDeque;
use std::task::Waker;

use crate::hub::{Hub, HubError, contains};
use crate::journal::{Answer, CallState, Entry};
use crate::types::{CallId, JsonMap};

/// Number of calls that are looked up at once.
const PAGE: usize = 64;

/// A call whose snapshot is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) call: CallId,
    /// Set if the snapshot must contain all events that the journal has of the call when the snapshot is made.
    pub(super) with_newest: bool,
}

/// Open calls whose snapshots have not been requested.
#[derive(Default)]
pub(super) struct Pager {
    /// Calls up to this one have been listed.
    after: Option<CallId>,
    page: VecDeque<CallId>,
    /// The call after which the next page begins.
    next: Option<CallId>,
    /// The request for the next page, while it is awaited.
    turning: Option<Answer<Vec<Entry>>>,
}

/// The result of asking for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// The page contains calls.
    There,
    /// The page was requested and has not come.
    Waiting,
    /// There are no more open calls.
    Done,
}

impl Pager {
    /// Returns true if the call has been listed.
    pub(super) fn is_past(&self, call: &CallId) -> bool {
        self.after.as_ref() >= Some(call)
    }

    /// Removes and returns the next call of the page.
    pub(super) fn pop(&mut self) -> Option<CallId> {
        let call = self.page.pop_front()?;
        self.after = Some(call.clone());
        Some(call)
    }

    /// Fills an empty page with calls that match `wanted` and for which `is_known` is false. `waker` is woken when a
    /// requested page has come. `seen` is called with every page.
    ///
    /// # Errors
    /// `Unavailable`: it can be tried again.
    pub(super) fn turn(
        &mut self,
        wanted: &JsonMap,
        hub: &Hub,
        waker: &Waker,
        is_known: impl Fn(&CallId) -> bool,
        mut seen: impl FnMut(),
    ) -> Result<Turned, HubError> {
        while self.page.is_empty() {
            let open = Some(CallState::Open);
            let turning = self.turning.get_or_insert_with(|| hub.journal().page(open, self.next.as_ref(), PAGE));
            let Some(entries) = turning.poll_with(waker) else { return Ok(Turned::Waiting) };
            self.turning = None;
            let entries = entries.map_err(|error| HubError::Unavailable(error.to_string()))?;
            seen();
            let Some(last) = entries.last() else { return Ok(Turned::Done) };
            self.next = Some(last.call_id.clone());
            let matching = entries.into_iter().filter(|entry| contains(&entry.meta, wanted));
            self.page = matching.map(|entry| entry.call_id).filter(|call| !is_known(call)).collect();
        }
        Ok(Turned::There)
    }
}
