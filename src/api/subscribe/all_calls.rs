//! The scope of a subscription to all calls: one position in the stream of all events, and snapshots of the open calls
//! at the reader's speed.
//!
//! Snapshots are made in order of `call_id`, page by page, while events continue to be sent. Events of a call whose
//! snapshot has not been made are not sent; the first of them brings its snapshot forward. A call that began after the
//! subscription needs no snapshot. Calls that are resumed from positions of their own come from a [`Backlog`] until
//! they have caught up. A cursor cannot be resumed, and says so, while any call is behind, any snapshot is owed, or a
//! snapshot contains events that come later in the stream.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::sync::Notify;

use super::backlog::Backlog;
use super::lookup::{Lookup, is_met, look_up};
use super::named_calls::matches_now;
use super::pager::{Owed, Pager, Turned};
use super::request::Resume;
use crate::hub::{Batch, Cursor, Frame, Hub, HubError, Interest, Item, Reader, Wants, contains};
use crate::protocol::ErrorCode;
use crate::protocol::event::Kind;
use crate::protocol::subscribe::SubscribedCall;
use crate::types::view::View;
use crate::types::{CallId, JsonMap, Seq};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The call's `meta` does not match.
    Outside,
    /// The call's snapshot is owed, and must contain its events up to this one, which were not sent.
    Joining(Seq),
    /// The call's events come from the backlog.
    Resuming,
    /// The call's events above this one are sent.
    Following(Seq),
}

/// A new [`AllCalls`], its reader, and what `subscribed` says of the calls that are resumed by name.
pub(super) type Opened = (AllCalls, Reader, Vec<(CallId, SubscribedCall)>);

/// A subscription to all calls.
pub(super) struct AllCalls {
    generation: u64,
    recovered: bool,
    /// The calls whose events are not all sent as they come. Without `match`, it is emptied once all snapshots were
    /// sent; with `match`, it contains every open call that was seen.
    known: HashMap<CallId, Standing>,
    /// Number of calls that are joining or resuming.
    unsettled: usize,
    backlog: Option<Backlog>,
    owed: VecDeque<Owed>,
    pager: Option<Pager>,
    /// No view that was sent contains an event with a higher `order`.
    settled_at: u64,
    /// The `meta` that the pager saw may include changes up to this `order`.
    paged_at: u64,
}

impl AllCalls {
    /// Opens the subscription at the cursor if that can be resumed, else at the newest event. `Err` is (code, message);
    /// then no subscription was made.
    pub(super) async fn open(
        resume: Resume,
        wanted: &JsonMap,
        hub: &Hub,
        (wants, notify): (Wants, &Arc<Notify>),
    ) -> Result<Opened, (ErrorCode, String)> {
        let generation = hub.journal().generation();
        let newest = hub.newest();
        let (cursor, positions) = match resume {
            Resume::No => (None, HashMap::new()),
            Resume::Cursor(cursor) => (cursor.parse::<Cursor>().ok(), HashMap::new()),
            Resume::Positions(positions) => (None, positions),
        };
        let position = cursor
            .filter(|cursor| cursor.generation == generation)
            .and_then(|cursor| cursor.order)
            .filter(|order| *order <= newest);
        let after = position.unwrap_or(newest);
        // The reader's position is taken before the pages: a call that begins between the two is in both; the other way
        // round it would be in neither.
        let reader = hub.reader_with(Interest::All { after }, wants, Arc::clone(notify));
        let mut all_calls = Self {
            generation,
            recovered: position.is_some(),
            known: HashMap::new(),
            unsettled: 0,
            backlog: None,
            owed: VecDeque::new(),
            pager: position.is_none().then(Pager::default),
            settled_at: 0,
            paged_at: 0,
        };
        let replies = all_calls.resume(positions, wanted, hub, notify).await?;
        let first_page = poll_fn(|context| match all_calls.turn_page(wanted, hub, context.waker()) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err((ErrorCode::JournalUnavailable, error.to_string()))),
        });
        first_page.await?;
        Ok((all_calls, reader, replies))
    }

    /// Looks up the calls that are resumed by name.
    async fn resume(
        &mut self,
        positions: HashMap<CallId, (String, Seq)>,
        wanted: &JsonMap,
        hub: &Hub,
        notify: &Arc<Notify>,
    ) -> Result<Vec<(CallId, SubscribedCall)>, (ErrorCode, String)> {
        let mut replies = Vec::with_capacity(positions.len());
        let mut behind = Vec::new();
        for (call, position) in positions {
            let Some((newest, entry)) = look_up(&call, hub).await? else {
                // The call may have been erased meanwhile, which is not the subscriber's mistake.
                replies.push((call, SubscribedCall { epoch: None, seq: 0, recovered: false }));
                continue;
            };
            if !contains(&entry.meta, wanted) {
                continue;
            }
            let recovered = is_met(&position, &entry, newest, hub).await;
            if !recovered {
                self.join(&call, newest);
                self.owe(call.clone());
            } else if position.1 == newest {
                self.known.insert(call.clone(), Standing::Following(newest));
            } else {
                self.known.insert(call.clone(), Standing::Resuming);
                self.unsettled += 1;
                behind.push((call.clone(), position.1, newest));
            }
            replies.push((call, SubscribedCall { epoch: Some(entry.epoch), seq: newest, recovered }));
        }
        self.backlog = (!behind.is_empty()).then(|| Backlog::open(behind, hub, notify));
        Ok(replies)
    }

    /// The next missed events of calls that are resumed by name, if any are available now.
    pub(super) fn missed(
        &mut self,
        max_bytes: usize,
        wanted: &JsonMap,
        hub: &Hub,
    ) -> Result<Option<Vec<Item>>, HubError> {
        let Some(backlog) = &mut self.backlog else { return Ok(None) };
        let Some(Batch { mut items, .. }) = backlog.next(max_bytes)? else {
            self.catch_up(hub);
            return Ok(None);
        };
        items.retain(|item| match item {
            Item::Event(frame) => self.admit_missed(frame, wanted),
            Item::Live(_) => false,
        });
        self.catch_up(hub);
        Ok(Some(items))
    }

    fn admit_missed(&mut self, frame: &Frame, wanted: &JsonMap) -> bool {
        let call = frame.call();
        if self.known.get(call) != Some(&Standing::Resuming) {
            return false;
        }
        // Sends the `call.updated` that ends the match, and nothing after it.
        if !wanted.is_empty() && matches_now(frame, wanted) == Some(false) {
            let held = self.backlog.as_mut().map_or(0, |backlog| backlog.leave(call));
            // The stream may have held back an event by which the call matches again: its view will show that.
            self.known.insert(call.clone(), Standing::Joining(held));
            self.owe(call.clone());
        }
        true
    }

    /// From here on, calls that have caught up are followed in the common stream.
    fn catch_up(&mut self, hub: &Hub) {
        let Some(backlog) = &mut self.backlog else { return };
        let caught_up = backlog.caught_up();
        if backlog.is_done() {
            self.backlog = None;
        }
        for (call, position) in caught_up {
            self.settled(call, Standing::Following(position), hub);
        }
    }

    /// Ends the joining or resuming of a call. What was sent of the call may be newer than the stream's position: a
    /// client that resumed from an earlier cursor would get the events in between a second time.
    fn settled(&mut self, call: CallId, standing: Standing, hub: &Hub) {
        self.unsettled -= 1;
        self.settled_at = self.settled_at.max(hub.newest());
        self.known.insert(call, standing);
    }

    /// Returns true if the cursor could be resumed.
    pub(super) fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// The cursor after everything up to `order` has been delivered.
    pub(super) fn cursor(&self, order: u64) -> Cursor {
        let whole = self.pager.is_none() && self.unsettled == 0 && order >= self.settled_at;
        Cursor { generation: self.generation, order: whole.then_some(order) }
    }

    /// Records that everything up to `order` has been delivered and that nothing is waiting.
    pub(super) fn settle(&mut self, order: u64, wanted: &JsonMap) {
        if wanted.is_empty() && !self.known.is_empty() && self.cursor(order).order.is_some() {
            self.known = HashMap::new();
        }
    }

    /// What must be looked up before the event can be admitted, if anything.
    pub(super) fn lookup(&self, frame: &Frame, wanted: &JsonMap) -> Option<Lookup> {
        if wanted.is_empty() || frame.kind() == Kind::CallStarted || self.known.contains_key(frame.call()) {
            return None;
        }
        Some(if self.is_past_pages(frame.order()) { Lookup::MetaBefore(frame.seq()) } else { Lookup::Meta })
    }

    /// Returns true if the event is to be sent. `matched` is the result of the lookup.
    pub(super) fn admit(&mut self, frame: &Frame, wanted: &JsonMap, matched: bool) -> bool {
        let Some(standing) = self.standing(frame, wanted, matched) else { return true };
        let call = frame.call();
        let is_past_snapshots = self.is_past_pages(frame.order()) && frame.order() > self.settled_at;
        let is_settled = matches!(standing, Standing::Following(_) | Standing::Outside);
        if frame.kind().ends_call() && is_past_snapshots && is_settled {
            // An ended call is forgotten. Should another event of it come, its log says whether it matched.
            self.known.remove(call);
        }
        match standing {
            Standing::Following(floor) => {
                if frame.seq() <= floor {
                    return false;
                }
                // Sends the `call.updated` that ends the match, and nothing after it.
                if !wanted.is_empty() && matches_now(frame, wanted) == Some(false) {
                    self.known.insert(call.clone(), Standing::Outside);
                }
                true
            }
            Standing::Outside => {
                if matches_now(frame, wanted) == Some(true) {
                    self.join(call, frame.seq());
                    self.owe(call.clone());
                }
                false
            }
            Standing::Joining(_) => {
                self.known.insert(call.clone(), Standing::Joining(frame.seq()));
                false
            }
            Standing::Resuming => {
                if let Some(backlog) = &mut self.backlog {
                    backlog.hold(call, frame.seq());
                }
                false
            }
        }
    }

    /// The state of the call before this event; `None` if its events are simply sent.
    fn standing(&mut self, frame: &Frame, wanted: &JsonMap, matched: bool) -> Option<Standing> {
        let call = frame.call();
        if let Some(standing) = self.known.get(call) {
            return Some(*standing);
        }
        let standing = if wanted.is_empty() {
            let had_its_turn = self.pager.as_ref().is_none_or(|pager| pager.is_past(call));
            if had_its_turn {
                return None;
            }
            if frame.seq() == 1 { Standing::Following(0) } else { Standing::Joining(0) }
        } else if frame.kind() == Kind::CallStarted {
            if matches_now(frame, wanted) == Some(true) { Standing::Following(0) } else { Standing::Outside }
        } else if !matched {
            Standing::Outside
        } else if self.is_past_pages(frame.order()) {
            Standing::Following(0)
        } else {
            Standing::Joining(0)
        };
        if let Standing::Joining(_) = standing {
            self.join(call, frame.seq());
            self.owe(call.clone());
        } else {
            self.known.insert(call.clone(), standing);
        }
        Some(standing)
    }

    /// Returns true if events of this `order` come after everything that the pager saw. Then a call is followed only if
    /// its `meta` matched before the event.
    fn is_past_pages(&self, order: u64) -> bool {
        self.pager.is_none() && order > self.paged_at
    }

    fn join(&mut self, call: &CallId, seen: Seq) {
        if !matches!(self.known.insert(call.clone(), Standing::Joining(seen)), Some(Standing::Joining(_))) {
            self.unsettled += 1;
        }
    }

    /// Returns true if live frames of the call are to be sent.
    pub(super) fn follows(&self, call: &CallId, wanted: &JsonMap) -> bool {
        match self.known.get(call) {
            Some(Standing::Following(_)) => true,
            Some(Standing::Outside | Standing::Joining(_) | Standing::Resuming) => false,
            None => wanted.is_empty() && self.pager.as_ref().is_none_or(|pager| pager.is_past(call)),
        }
    }

    fn owe(&mut self, call: CallId) {
        self.owed.push_back(Owed { call, with_newest: false });
    }

    /// The next call whose snapshot is owed, if it is known now; `waker` is woken when one may be known.
    ///
    /// # Errors
    /// `Unavailable`: nothing is lost, and it can be tried again.
    pub(super) fn next_view(&mut self, wanted: &JsonMap, hub: &Hub, waker: &Waker) -> Result<Option<Owed>, HubError> {
        if let Some(owed) = self.owed.pop_front() {
            return Ok(Some(owed));
        }
        loop {
            if !self.turn_page(wanted, hub, waker)? {
                return Ok(None);
            }
            let Some(call) = self.pager.as_mut().and_then(Pager::pop) else { return Ok(None) };
            // The next page is requested early, so that the last snapshot is known to be the last. An error here is
            // ignored: it occurs again when the page is needed.
            drop(self.turn_page(wanted, hub, waker));
            if !self.known.contains_key(&call) {
                self.join(&call, 0);
                // Events before the reader's position come only in the snapshot.
                return Ok(Some(Owed { call, with_newest: true }));
            }
        }
    }

    /// Fills an empty page; if there is no further open call, the pager is done. Returns false if the page was
    /// requested; `waker` is woken when it has come.
    fn turn_page(&mut self, wanted: &JsonMap, hub: &Hub, waker: &Waker) -> Result<bool, HubError> {
        let Self { pager, known, paged_at, .. } = self;
        let Some(turning) = pager else { return Ok(true) };
        let is_known = |call: &CallId| known.contains_key(call);
        let seen = || *paged_at = hub.newest().max(*paged_at);
        let turned = turning.turn(wanted, hub, waker, is_known, seen)?;
        if turned == Turned::Done {
            *pager = None;
        }
        Ok(turned != Turned::Waiting)
    }

    /// Records that the call's snapshot is still owed.
    pub(super) fn owe_again(&mut self, owed: Owed) {
        self.owed.push_front(owed);
    }

    /// Takes the view, which must contain all events up to `newest`; returns true if its snapshot is to be sent.
    pub(super) fn viewed(
        &mut self,
        call: &CallId,
        newest: Seq,
        view: Option<&View>,
        wanted: &JsonMap,
        hub: &Hub,
    ) -> bool {
        let seen = match self.known.get(call) {
            Some(Standing::Joining(seen)) => newest.max(*seen),
            _ => return false,
        };
        if let Some(view) = view
            && view.seq < seen
        {
            // The view does not contain the events that were held back.
            self.known.insert(call.clone(), Standing::Joining(seen));
            self.owe(call.clone());
            return false;
        }
        let standing = match view {
            Some(view) if contains(&view.meta, wanted) => Standing::Following(view.seq),
            _ => Standing::Outside,
        };
        self.settled(call.clone(), standing, hub);
        if view.is_none() {
            self.known.remove(call);
        }
        matches!(standing, Standing::Following(_))
    }
}
