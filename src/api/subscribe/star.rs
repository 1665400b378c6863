//! The scope of a subscription to all calls: one position in everything, and snapshots of the open calls at the
//! reader's pace.
//!
//! Snapshots are made in order of `call_id`, page by page, while events go on. Events of a call that has not had its
//! turn are not let through: the first of them brings its snapshot forward. A call that began meanwhile needs none.
//! Calls that are resumed by their own positions come from a [`Backlog`] until they have caught up. While any call is
//! behind or any snapshot owed, or contains more than the events delivered so far, cursors say so and cannot be resumed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use super::backlog::Backlog;
use super::frames::Standing as Reply;
use super::list::{head, is_met, matches_now};
use super::request::Resume;
use crate::hub::{Batch, Cursor, Frame, Hub, HubError, Interest, Item, Kind, Reader, Wants, contains};
use crate::journal::CallState;
use crate::types::view::View;
use crate::types::{CallId, JsonMap, Seq};

/// Calls looked up at once.
const PAGE: usize = 64;
/// Bytes of a log read at once to find a call's `meta` of old.
const FOLD_BYTES: usize = 64 * 1024;

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

/// Open calls that have not had their turn.
struct Pager {
    /// Calls up to this one have.
    after: Option<CallId>,
    page: VecDeque<CallId>,
    /// Where the next page begins.
    next: Option<CallId>,
}

/// A star as it is opened: itself, its reader, and what `subscribed` says of the calls that are resumed by name.
pub(super) type Opened = (Star, Reader, Vec<(CallId, Reply)>);

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
    owed: VecDeque<CallId>,
    pager: Option<Pager>,
    /// Views hold nothing of a higher `order`.
    settled_at: u64,
    /// `meta` as the pager saw it may be that of up to this `order`.
    paged_at: u64,
}

impl Star {
    /// From where it is resumed, if that can be met, else from the present. `Err` is (code, message), and nothing is
    /// open.
    pub(super) fn open(
        resume: Resume,
        wanted: &JsonMap,
        hub: &Hub,
        (wants, notify): (Wants, &Arc<Notify>),
    ) -> Result<Opened, (&'static str, String)> {
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
            pager: position.is_none().then(|| Pager { after: None, page: VecDeque::new(), next: None }),
            settled_at: 0,
            paged_at: 0,
        };
        let replies = star.resume(positions, wanted, hub, notify)?;
        star.turn_page(wanted, hub);
        Ok((star, reader, replies))
    }

    /// Looks up the calls that are resumed by name.
    fn resume(
        &mut self,
        positions: HashMap<CallId, (String, Seq)>,
        wanted: &JsonMap,
        hub: &Hub,
        notify: &Arc<Notify>,
    ) -> Result<Vec<(CallId, Reply)>, (&'static str, String)> {
        let mut replies = Vec::with_capacity(positions.len());
        let mut behind = Vec::new();
        for (call, position) in positions {
            let Some(entry) = hub.journal().entry(&call) else {
                // It may have been erased meanwhile, which is no mistake of who saw it.
                replies.push((call, Reply { epoch: None, seq: 0, recovered: false }));
                continue;
            };
            let newest = head(&call, hub)?;
            if !contains(&entry.meta, wanted) {
                continue;
            }
            let recovered = is_met(&position, &entry, newest, hub);
            if !recovered {
                self.join(&call, newest);
                self.owed.push_back(call.clone());
            } else if position.1 == newest {
                self.known.insert(call.clone(), Standing::Following(newest));
            } else {
                self.known.insert(call.clone(), Standing::Resuming);
                self.unsettled += 1;
                behind.push((call.clone(), position.1, newest));
            }
            replies.push((call, Reply { epoch: Some(entry.epoch), seq: newest, recovered }));
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
            Item::Event(frame) => self.admit_missed(frame, wanted, hub),
            Item::Live(_) => false,
        });
        self.catch_up(hub);
        Ok(Some(items))
    }

    fn admit_missed(&mut self, frame: &Frame, wanted: &JsonMap, hub: &Hub) -> bool {
        let call = frame.call();
        if self.known.get(call) != Some(&Standing::Resuming) {
            return false;
        }
        // The update by which the call leaves is the last that is told of it.
        if !wanted.is_empty() && matches_now(frame, wanted) == Some(false) {
            let held = self.backlog.as_mut().map_or(0, |backlog| backlog.leave(call));
            // The stream may have held back that it came in again.
            if hub.journal().entry(call).is_some_and(|entry| contains(&entry.meta, wanted)) {
                self.known.insert(call.clone(), Standing::Joining(held));
                self.owed.push_back(call.clone());
            } else {
                self.settled(call.clone(), Standing::Outside, hub);
            }
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

    /// Whether the event goes through.
    pub(super) fn admit(&mut self, frame: &Frame, wanted: &JsonMap, hub: &Hub) -> bool {
        let Some(standing) = self.standing(frame, wanted, hub) else { return true };
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
                    self.owed.push_back(call.clone());
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
    fn standing(&mut self, frame: &Frame, wanted: &JsonMap, hub: &Hub) -> Option<Standing> {
        let call = frame.call();
        if let Some(standing) = self.known.get(call) {
            return Some(*standing);
        }
        let standing = if wanted.is_empty() {
            let had_its_turn = self.pager.as_ref().is_none_or(|pager| pager.after.as_ref() >= Some(call));
            if had_its_turn {
                return None;
            }
            if frame.seq() == 1 { Standing::Following(0) } else { Standing::Joining(0) }
        } else if frame.kind() == Kind::CallStarted {
            if matches_now(frame, wanted) == Some(true) { Standing::Following(0) } else { Standing::Outside }
        } else if self.is_past_pages(frame.order()) {
            let matched = meta_before(call, frame.seq(), hub).is_some_and(|meta| contains(&meta, wanted));
            if matched { Standing::Following(0) } else { Standing::Outside }
        } else {
            let matches = hub.journal().entry(call).is_some_and(|entry| contains(&entry.meta, wanted));
            if matches { Standing::Joining(0) } else { Standing::Outside }
        };
        if let Standing::Joining(_) = standing {
            self.join(call, frame.seq());
            self.owed.push_back(call.clone());
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
            None => wanted.is_empty() && self.pager.as_ref().is_none_or(|pager| pager.after.as_ref() >= Some(call)),
        }
    }

    /// The next call whose snapshot is owed.
    pub(super) fn next_view(&mut self, wanted: &JsonMap, hub: &Hub) -> Option<CallId> {
        if let Some(call) = self.owed.pop_front() {
            return Some(call);
        }
        loop {
            let pager = self.pager.as_mut()?;
            let call = pager.page.pop_front()?;
            pager.after = Some(call.clone());
            self.turn_page(wanted, hub);
            if !self.known.contains_key(&call) {
                // What is before the reader's position comes by the snapshot or not at all.
                let head = hub.journal().head(&call).unwrap_or(0);
                self.join(&call, head);
                return Some(call);
            }
        }
    }

    /// Fills an empty page; without any further open call, the pager is done. Done early, so that the last snapshot is
    /// known to be the last.
    fn turn_page(&mut self, wanted: &JsonMap, hub: &Hub) {
        while let Some(pager) = &mut self.pager
            && pager.page.is_empty()
        {
            let entries = hub.journal().page(Some(CallState::Open), pager.next.as_ref(), PAGE);
            self.paged_at = self.paged_at.max(hub.newest());
            let Some(last) = entries.last() else {
                self.pager = None;
                return;
            };
            pager.next = Some(last.call_id.clone());
            pager.page = entries
                .into_iter()
                .filter(|entry| contains(&entry.meta, wanted))
                .map(|entry| entry.call_id)
                .filter(|call| !self.known.contains_key(call))
                .collect();
        }
    }

    /// The call is owed still.
    pub(super) fn owe_again(&mut self, call: CallId) {
        self.owed.push_front(call);
    }

    /// Takes the view; `true` if its snapshot is to be sent.
    pub(super) fn viewed(&mut self, call: &CallId, view: Option<&View>, wanted: &JsonMap, hub: &Hub) -> bool {
        let seen = match self.known.get(call) {
            Some(Standing::Joining(seen)) => *seen,
            _ => return false,
        };
        if let Some(view) = view
            && view.seq < seen
        {
            // Events that were held back are not in it yet.
            self.owed.push_back(call.clone());
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

/// The call's `meta` before its event `seq`, from its log.
fn meta_before(call: &CallId, seq: Seq, hub: &Hub) -> Option<JsonMap> {
    let mut meta = None;
    let mut after = 0;
    while after + 1 < seq {
        let records = hub.journal().read(call, after, FOLD_BYTES).ok()?;
        after = records.last()?.seq;
        let before = records.into_iter().take_while(|record| record.seq < seq);
        for frame in before.filter_map(|record| Frame::new(call, record)) {
            meta = frame.meta().or(meta);
        }
    }
    meta
}
