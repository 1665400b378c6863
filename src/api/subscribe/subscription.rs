//! One subscription: a reader, a filter, and a scope that says which calls' events go through.
//!
//! Does no I/O but reads of the hub: the socket asks for frames ([`Subscription::poll`]), asks which call it owes a
//! snapshot ([`Subscription::next_view`]), and hands the view over ([`Subscription::viewed`]).

use std::sync::Arc;

use tokio::sync::Notify;

use super::Deps;
use super::frames;
use super::list::List;
use super::request::{Calls, Refusal, Resume, Subscribe};
use super::star::Star;
use crate::base::ws::Utf8Bytes;
use crate::hub::{Cursor, Filter, HubError, Item, Prefix, Reader, Wants};
use crate::types::view::View;
use crate::types::{CallId, JsonMap};

enum Scope {
    List(List),
    Star(Box<Star>),
}

/// One subscription of one socket.
pub(super) struct Subscription {
    id: String,
    prefix: Prefix,
    filter: Filter,
    /// `match`
    wanted: JsonMap,
    reader: Reader,
    scope: Scope,
}

impl Subscription {
    /// Opens what `request` asks for, as `id`, and makes the `subscribed` reply.
    pub(super) fn open(
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
                let (list, reader, standings) =
                    List::open(calls, &positions, &wanted, wait, &deps.hub, woken).map_err(refuse)?;
                let reply = frames::subscribed(request_id.as_ref(), &id, &standings, None);
                (Scope::List(list), reader, reply)
            }
            Calls::All => {
                let (star, reader, standings) = Star::open(resume, &wanted, &deps.hub, woken).map_err(refuse)?;
                let position = star.cursor(reader.order().unwrap_or(0));
                let all = (star.is_recovered(), position.to_string());
                let reply = frames::subscribed(request_id.as_ref(), &id, &standings, Some(all));
                (Scope::Star(Box::new(star)), reader, reply)
            }
        };
        let prefix = Prefix::subscription(&id);
        Ok((Self { id, prefix, filter, wanted, reader, scope }, reply))
    }

    /// `sub_1`, …
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn cursor(&self, order: u64) -> Option<Cursor> {
        match &self.scope {
            Scope::List(_) => None,
            Scope::Star(star) => Some(star.cursor(order)),
        }
    }

    /// The next frames, of about `max_bytes`; `false` if there is nothing now.
    pub(super) fn poll(&mut self, deps: &Deps, max_bytes: usize, out: &mut Vec<Utf8Bytes>) -> Result<bool, HubError> {
        let mut order = self.reader.order().unwrap_or(0);
        let words = self.filter.include.words;
        // Words are several times their turn.
        let max_bytes = if words { max_bytes / 4 } else { max_bytes };
        if let Scope::Star(star) = &mut self.scope
            && let Some(missed) = star.missed(max_bytes, &self.wanted, &deps.hub)?
        {
            for item in self.filter.pick(&missed, &deps.hub) {
                if let Item::Event(frame) = item {
                    out.push(self.prefix.event(frame, self.cursor(order), words));
                }
            }
            return Ok(true);
        }
        let Some(batch) = self.reader.try_next(max_bytes)? else {
            if let Scope::Star(star) = &mut self.scope {
                star.settle(order, &self.wanted);
            }
            return Ok(false);
        };
        if let Some(dropped) = batch.dropped {
            out.push(frames::lagged(&self.prefix.members(self.cursor(order)), dropped));
        }
        let mut items = batch.items;
        let Self { scope, reader, wanted, .. } = self;
        items.retain(|item| match (item, &mut *scope) {
            (Item::Event(frame), Scope::List(list)) => list.admit(frame, wanted, reader),
            (Item::Event(frame), Scope::Star(star)) => star.admit(frame, wanted, &deps.hub),
            (Item::Live(live), Scope::List(list)) => list.follows(&live.call),
            (Item::Live(live), Scope::Star(star)) => star.follows(&live.call, wanted),
        });
        for item in self.filter.pick(&items, &deps.hub) {
            match item {
                Item::Event(frame) => {
                    order = frame.order();
                    out.push(self.prefix.event(frame, self.cursor(order), words));
                }
                Item::Live(live) => out.push(self.prefix.live(live, self.cursor(order))),
            }
        }
        Ok(true)
    }

    /// A call whose snapshot is owed; it must come back by [`Subscription::viewed`] or [`Subscription::not_viewed`].
    pub(super) fn next_view(&mut self, deps: &Deps) -> Option<CallId> {
        match &mut self.scope {
            Scope::List(list) => list.next_view(),
            Scope::Star(star) => star.next_view(&self.wanted, &deps.hub),
        }
    }

    /// The call as it stands; `None` if it is gone. Makes the snapshot, if it is still wanted.
    pub(super) fn viewed(&mut self, call: &CallId, view: Option<&View>, deps: &Deps) -> Option<Utf8Bytes> {
        let due = match &mut self.scope {
            Scope::List(list) => list.viewed(call, view, &self.wanted, &mut self.reader),
            Scope::Star(star) => star.viewed(call, view, &self.wanted, &deps.hub),
        };
        let view = view.filter(|_| due)?;
        deps.metrics.snapshots.inc();
        let members = self.prefix.members(self.cursor(self.reader.order().unwrap_or(0)));
        Some(frames::snapshot(&members, view, &self.filter))
    }

    /// The call could not be shown; it is owed again.
    pub(super) fn not_viewed(&mut self, call: CallId) {
        match &mut self.scope {
            Scope::List(list) => list.owe_again(call),
            Scope::Star(star) => star.owe_again(call),
        }
    }
}
