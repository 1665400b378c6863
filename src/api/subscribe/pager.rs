//! The open calls whose snapshots are owed for a subscription to all calls, page by page in order of `call_id`.
//!
//! Knows no standing of a call: it is told which calls are known already.

use std::collections::VecDeque;
use std::task::Waker;

use crate::hub::{Hub, HubError, contains};
use crate::journal::{Answer, CallState, Entry};
use crate::types::{CallId, JsonMap};

/// Calls looked up at once.
const PAGE: usize = 64;

/// A call whose snapshot is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owed {
    /// The call.
    pub(super) call: CallId,
    /// The snapshot must hold all events that the journal has of the call when it is asked for.
    pub(super) with_newest: bool,
}

/// Open calls whose snapshots have not been asked for.
#[derive(Default)]
pub(super) struct Pager {
    /// Calls up to this one have had their turn.
    after: Option<CallId>,
    page: VecDeque<CallId>,
    /// Where the next page begins.
    next: Option<CallId>,
    /// The next page, if it was asked for.
    turning: Option<Answer<Vec<Entry>>>,
}

/// What became of turning a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// The page has calls.
    There,
    /// The page was asked for.
    Waiting,
    /// There are no more open calls.
    Done,
}

impl Pager {
    /// Whether the call has had its turn.
    pub(super) fn is_past(&self, call: &CallId) -> bool {
        self.after.as_ref() >= Some(call)
    }

    /// The next call of the page, whose turn this is.
    pub(super) fn pop(&mut self) -> Option<CallId> {
        let call = self.page.pop_front()?;
        self.after = Some(call.clone());
        Some(call)
    }

    /// Fills an empty page with calls that match `wanted` and of which `is_known` is false. `waker` is woken when a page
    /// that was asked for is there. `seen` is called with every page.
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
