//! The scope of a subscription to all calls: one position in everything, and snapshots of the open calls at the
//! reader's pace.
//!
//! Snapshots are made in order of `call_id`, page by page, while events go on. Events of a call that has not had its
//! turn are not let through: the first of them brings its snapshot forward. A call that began meanwhile needs none.
//! Calls that are resumed by their own positions come from a [`Backlog`] until they have caught up. While any call is
//! behind or any snapshot owed, or contains more than the events delivered so far, cursors say so and cannot be resumed.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::sync::Notify;

use super::backlog::Backlog;
use super::list::matches_now;
use super::lookup::{Lookup, is_met, look_up};
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
    /// Its `meta` does not match.
    Outside,
    /// Its snapshot is owed, and must hold events up to this one, which were not let through.
    Joining(Seq),
    /// Its events come from the backlog.
    Resuming,
    /// Events above this one go through.
    Following(Seq),
}

/// A star as it is opened: itself, its reader, and what `subscribed` says of the calls that are resumed by name.
pub(super) type Opened = (Star, Reader, Vec<(CallId, SubscribedCall)>);

/// All calls.
pub(super) struct Star {
    generation: u64,
    recovered: bool,
    /// Calls of which more is known than that their events go through. Without `match` it is emptied once all snapshots
    /// are behind; with it, a call is in it while it is open.
    known: HashMap<CallId, Standing>,
    /// Calls that are joining or resuming.
    unsettled: usize,
    backlog: Option<Backlog>,
    owed: VecDeque<Owed>,
    pager: Option<Pager>,
    /// Views hold nothing of a higher `order`.
    settled_at: u64,
    /// `meta` as the pager saw it may be that of up to this `order`.
    paged_at: u64,
}

impl Star {
    /// From where it is resumed, if that can be met, else from the present. `Err` is (code, message), and nothing is
    /// open.
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
        // First the position, then the pages: a call that begins between them is in both, none is in neither.
        let reader = hub.reader_with(Interest::All { after }, wants, Arc::clone(notify));
        let mut star = Self {
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
        let replies = star.resume(positions, wanted, hub, notify).await?;
        let first_page = poll_fn(|context| match star.turn_page(wanted, hub, context.waker()) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err((ErrorCode::JournalUnavailable, error.to_string()))),
        });
        first_page.await?;
        Ok((star, reader, replies))
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
                // It may have been erased meanwhile, which is no mistake of who saw it.
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

    /// What was missed in calls that are resumed by name: the next of it, if there is any now.
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
        // The update by which the call leaves is the last that is told of it.
        if !wanted.is_empty() && matches_now(frame, wanted) == Some(false) {
            let held = self.backlog.as_mut().map_or(0, |backlog| backlog.leave(call));
            // The stream may have held back that it came in again: its view will tell.
            self.known.insert(call.clone(), Standing::Joining(held));
            self.owe(call.clone());
        }
        true
    }

    /// Calls that have caught up are followed in the stream from here on.
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

    /// The call's joining or resuming is over. What was sent of it is of the present: who resumed before it would see
    /// the events in between.
    fn settled(&mut self, call: CallId, standing: Standing, hub: &Hub) {
        self.unsettled -= 1;
        self.settled_at = self.settled_at.max(hub.newest());
        self.known.insert(call, standing);
    }

    /// Whether the cursor was met.
    pub(super) fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// The cursor once everything up to `order` has been delivered.
    pub(super) fn cursor(&self, order: u64) -> Cursor {
        let whole = self.pager.is_none() && self.unsettled == 0 && order >= self.settled_at;
        Cursor { generation: self.generation, order: whole.then_some(order) }
    }

    /// Everything up to `order` has been delivered and nothing is waiting.
    pub(super) fn settle(&mut self, order: u64, wanted: &JsonMap) {
        if wanted.is_empty() && !self.known.is_empty() && self.cursor(order).order.is_some() {
            self.known = HashMap::new();
        }
    }

    /// What must be looked up before the event is admitted, if anything.
    pub(super) fn lookup(&self, frame: &Frame, wanted: &JsonMap) -> Option<Lookup> {
        if wanted.is_empty() || frame.kind() == Kind::CallStarted || self.known.contains_key(frame.call()) {
            return None;
        }
        Some(if self.is_past_pages(frame.order()) { Lookup::MetaBefore(frame.seq()) } else { Lookup::Meta })
    }

    /// Whether the event goes through. `matched`: what was looked up matches.
    pub(super) fn admit(&mut self, frame: &Frame, wanted: &JsonMap, matched: bool) -> bool {
        let Some(standing) = self.standing(frame, wanted, matched) else { return true };
        let call = frame.call();
        let is_past_snapshots = self.is_past_pages(frame.order()) && frame.order() > self.settled_at;
        let is_settled = matches!(standing, Standing::Following(_) | Standing::Outside);
        if frame.kind().ends_call() && is_past_snapshots && is_settled {
            // Not followed for ever: should an event of it come yet, its log tells how it stood.
            self.known.remove(call);
        }
        match standing {
            Standing::Following(floor) => {
                if frame.seq() <= floor {
                    return false;
                }
                // The update by which the call leaves is the last that is told of it.
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

    /// How the call stands before this event; `None` where its events simply go through.
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

    /// Whether events of this `order` come after all that the pager saw: then a call is followed if its `meta` matched
    /// before the event, and not else.
    fn is_past_pages(&self, order: u64) -> bool {
        self.pager.is_none() && order > self.paged_at
    }

    fn join(&mut self, call: &CallId, seen: Seq) {
        if !matches!(self.known.insert(call.clone(), Standing::Joining(seen)), Some(Standing::Joining(_))) {
            self.unsettled += 1;
        }
    }

    /// Whether live frames of the call go through.
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

    /// The next call whose snapshot is owed, if it is known now; `waker` is woken when it may be.
    ///
    /// # Errors
    /// `Unavailable`: nothing is lost, it can be asked for again.
    pub(super) fn next_view(&mut self, wanted: &JsonMap, hub: &Hub, waker: &Waker) -> Result<Option<Owed>, HubError> {
        if let Some(owed) = self.owed.pop_front() {
            return Ok(Some(owed));
        }
        loop {
            if !self.turn_page(wanted, hub, waker)? {
                return Ok(None);
            }
            let Some(call) = self.pager.as_mut().and_then(Pager::pop) else { return Ok(None) };
            // Early, so that the last snapshot is known to be the last. What fails here fails again when it is needed.
            drop(self.turn_page(wanted, hub, waker));
            if !self.known.contains_key(&call) {
                self.join(&call, 0);
                // What is before the reader's position comes by the snapshot or not at all.
                return Ok(Some(Owed { call, with_newest: true }));
            }
        }
    }

    /// Fills an empty page; without any further open call, the pager is done. `false`: the page was asked for, and
    /// `waker` is woken when it is there.
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

    /// The call is owed still.
    pub(super) fn owe_again(&mut self, owed: Owed) {
        self.owed.push_front(owed);
    }

    /// Takes the view, which must hold all events up to `newest`; `true` if its snapshot is to be sent.
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
            // Events that were held back are not in it yet.
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
