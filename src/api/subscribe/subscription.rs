//! One subscription: a reader, a filter, and a scope that decides which calls' events are sent.
//!
//! Its only I/O is reading the hub and the journal: the socket asks for frames ([`Subscription::poll`]), asks which
//! call's snapshot is owed ([`Subscription::next_view`]), and hands the view over ([`Subscription::viewed`]). While the
//! journal's answer is awaited, these methods return nothing, and the socket's `Notify` is woken once they may return
//! something.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::Deps;
use super::all_calls::AllCalls;
use super::frames;
use super::lookup;
use super::named_calls::NamedCalls;
use super::pager::Owed;
use super::request::{Calls, Refusal, Resume, Subscribe};
use crate::base::wake;
use crate::base::ws::Utf8Bytes;
use crate::hub::{Cursor, Filter, HubError, Item, Reader, Wants};
use crate::protocol::push::Members;
use crate::types::view::View;
use crate::types::{CallId, JsonMap, Seq};

enum Scope {
    NamedCalls(NamedCalls),
    AllCalls(Box<AllCalls>),
}

/// A batch of events that was read and whose items are admitted one after the other.
struct Admitting {
    items: Vec<Item>,
    /// Items before this index were admitted.
    admitted: usize,
    /// Items from this index on have not been looked at.
    next: usize,
    /// Everything up to this `order` had been delivered before the batch.
    order: u64,
    /// The lookup in the journal that decides about the next item.
    lookup: Option<BoxFuture<'static, Result<bool, HubError>>>,
}

/// One subscription of one socket.
pub(super) struct Subscription {
    id: String,
    members: Members,
    filter: Filter,
    /// `match` of the `subscribe`: calls whose metadata lacks one of these members are left out.
    wanted: JsonMap,
    reader: Reader,
    scope: Scope,
    admitting: Option<Admitting>,
    /// Wakes the socket.
    waker: Waker,
}

impl Subscription {
    /// Opens the subscription `id` as `request` asks, and makes the `subscribed` reply.
    pub(super) async fn open(
        request: Subscribe,
        id: String,
        deps: &Deps,
        notify: &Arc<Notify>,
    ) -> Result<(Self, Utf8Bytes), Refusal> {
        let Subscribe { id: request_id, calls, wanted, wait, filter, resume } = request;
        let refuse = |(code, message)| Refusal { id: request_id.clone(), code, message };
        let include = filter.include;
        let events = if include.turns { Wants::EVENTS } else { Wants::INSIGHTS.and(Wants::END).and(Wants::CALL) };
        let woken = (events.and_live(include.partials, include.deltas), notify);
        let (scope, reader, reply) = match calls {
            Calls::These(calls) => {
                let positions = match resume {
                    Resume::Positions(positions) => positions,
                    Resume::No | Resume::Cursor(_) => Default::default(),
                };
                let (named, reader, positions) =
                    NamedCalls::open(calls, &positions, &wanted, wait, &deps.hub, woken).await.map_err(refuse)?;
                let reply = frames::subscribed(request_id, &id, positions, None);
                (Scope::NamedCalls(named), reader, reply)
            }
            Calls::All => {
                let (all_calls, reader, positions) =
                    AllCalls::open(resume, &wanted, &deps.hub, woken).await.map_err(refuse)?;
                let position = all_calls.cursor(reader.order().unwrap_or(0));
                let all = (all_calls.is_recovered(), position);
                let reply = frames::subscribed(request_id, &id, positions, Some(all));
                (Scope::AllCalls(Box::new(all_calls)), reader, reply)
            }
        };
        let members = Members::subscription(&id);
        let waker = wake::waker(notify);
        Ok((Self { id, members, filter, wanted, reader, scope, admitting: None, waker }, reply))
    }

    /// The subscription's name: `sub_1`, `sub_2`, …
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn cursor(&self, order: u64) -> Option<Cursor> {
        match &self.scope {
            Scope::NamedCalls(_) => None,
            Scope::AllCalls(all_calls) => Some(all_calls.cursor(order)),
        }
    }

    /// Everything up to this `order` has been delivered.
    fn delivered(&self) -> u64 {
        self.admitting.as_ref().map_or_else(|| self.reader.order().unwrap_or(0), |batch| batch.order)
    }

    /// The next frames, about `max_bytes` of them; returns false if there are none now.
    pub(super) fn poll(&mut self, deps: &Deps, max_bytes: usize, out: &mut Vec<Utf8Bytes>) -> Result<bool, HubError> {
        let words = self.filter.include.words;
        if self.admitting.is_none() {
            let order = self.delivered();
            // The words of a turn are several times as large as the turn.
            let max_bytes = if words { max_bytes / 4 } else { max_bytes };
            if let Scope::AllCalls(all_calls) = &mut self.scope
                && let Some(missed) = all_calls.missed(max_bytes, &self.wanted, &deps.hub)?
            {
                for item in self.filter.pick(&missed, &deps.hub) {
                    if let Item::Event(frame) = item {
                        out.push(frame.push(&self.members, self.cursor(order), words));
                    }
                }
                return Ok(true);
            }
            let Some(batch) = self.reader.try_next(max_bytes)? else {
                if let Scope::AllCalls(all_calls) = &mut self.scope {
                    all_calls.settle(order, &self.wanted);
                }
                return Ok(false);
            };
            if let Some(dropped) = batch.dropped {
                out.push(frames::lagged(&self.id, self.cursor(order), dropped));
            }
            self.admitting = Some(Admitting { items: batch.items, admitted: 0, next: 0, order, lookup: None });
        }
        if !self.admit(deps)? {
            return Ok(false);
        }
        let Some(Admitting { mut items, admitted, mut order, .. }) = self.admitting.take() else { return Ok(false) };
        items.truncate(admitted);
        for item in self.filter.pick(&items, &deps.hub) {
            match item {
                Item::Event(frame) => {
                    order = frame.order();
                    out.push(frame.push(&self.members, self.cursor(order), words));
                }
                Item::Live(live) => out.push(live.push(&self.members, self.cursor(order))),
            }
        }
        Ok(true)
    }

    /// Admits the items of the current batch; returns false while it waits for the journal.
    fn admit(&mut self, deps: &Deps) -> Result<bool, HubError> {
        let Self { scope, reader, wanted, admitting, waker, .. } = self;
        let Some(batch) = admitting else { return Ok(true) };
        while let Some(item) = batch.items.get(batch.next) {
            let admitted = match (item, &mut *scope) {
                (Item::Event(frame), Scope::NamedCalls(named)) => named.admit(frame, wanted, reader),
                (Item::Event(frame), Scope::AllCalls(all_calls)) => {
                    let mut matched = false;
                    if let Some(what) = all_calls.lookup(frame, wanted) {
                        let matches = batch.lookup.get_or_insert_with(|| {
                            lookup::matches(frame.call().clone(), what, wanted.clone(), deps.hub.clone()).boxed()
                        });
                        let Poll::Ready(result) = matches.poll_unpin(&mut Context::from_waker(waker)) else {
                            return Ok(false);
                        };
                        batch.lookup = None;
                        matched = result?;
                    }
                    all_calls.admit(frame, wanted, matched)
                }
                (Item::Live(live), Scope::NamedCalls(named)) => named.follows(&live.call),
                (Item::Live(live), Scope::AllCalls(all_calls)) => all_calls.follows(&live.call, wanted),
            };
            if admitted {
                batch.items.swap(batch.admitted, batch.next);
                batch.admitted += 1;
            }
            batch.next += 1;
        }
        Ok(true)
    }

    /// A call whose snapshot is owed, if one is known now. The caller must hand it back to [`Subscription::viewed`] or
    /// [`Subscription::not_viewed`].
    ///
    /// # Errors
    /// `Unavailable`: the journal cannot be read now.
    pub(super) fn next_view(&mut self, deps: &Deps) -> Result<Option<Owed>, HubError> {
        // Otherwise a snapshot would be sent before events that were read earlier.
        if self.admitting.is_some() {
            return Ok(None);
        }
        match &mut self.scope {
            Scope::NamedCalls(named) => Ok(named.next_view()),
            Scope::AllCalls(all_calls) => all_calls.next_view(&self.wanted, &deps.hub, &self.waker),
        }
    }

    /// Takes the view of a call (`None` if the call was erased), and its newest event if that was looked up. Makes the
    /// snapshot if it is still wanted.
    pub(super) fn viewed(&mut self, call: &CallId, newest: Seq, view: Option<&View>, deps: &Deps) -> Option<Utf8Bytes> {
        let due = match &mut self.scope {
            Scope::NamedCalls(named) => named.viewed(call, view, &self.wanted, &mut self.reader),
            Scope::AllCalls(all_calls) => all_calls.viewed(call, newest, view, &self.wanted, &deps.hub),
        };
        let view = view.filter(|_| due)?;
        deps.metrics.snapshots.inc();
        let cursor = self.cursor(self.delivered());
        Some(frames::snapshot(&self.id, cursor, view, &self.filter))
    }

    /// Records that the call could not be shown and that its snapshot is still owed.
    pub(super) fn not_viewed(&mut self, owed: Owed) {
        match &mut self.scope {
            Scope::NamedCalls(named) => named.owe_again(owed.call),
            Scope::AllCalls(all_calls) => all_calls.owe_again(owed),
        }
    }
}
