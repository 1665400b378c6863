//! The frames that a sink delivers: everything after a position, filtered, in the form of a subscription to all calls.

use std::sync::Mutex;
use std::time::Duration;

use super::{Behind, Config};
use crate::base::sync::lock;
use crate::base::ws::Utf8Bytes;
use crate::hub::{Cursor, Filter, Hub, HubError, Interest, Item, Reader, Wants};
use crate::protocol::push::Members;
use crate::types::{CallId, Seq};

/// Wait after a failure to read the journal.
const RETRY: Duration = Duration::from_secs(1);

/// One frame to deliver.
#[derive(Debug)]
pub(super) struct Piece {
    /// The call and the event's `seq`; `None` for a live frame.
    pub event: Option<(CallId, Seq)>,
    /// Once this piece is delivered, everything up to this `order` is.
    pub order: u64,
    /// The frame, with its `cursor`.
    pub text: Utf8Bytes,
}

/// Makes readers of the frames that one sink wants.
pub(super) struct Feed {
    hub: Hub,
    calls: Option<Vec<CallId>>,
    filter: Filter,
    generation: u64,
    end: Mutex<End>,
}

/// Where a reader found no further event. Orders have gaps, which a restart can make wide: a gap counts as read.
#[derive(Debug, Clone, Copy)]
struct End {
    order: u64,
    /// The newest `order` at that time.
    newest: u64,
}

/// A reader that starts at one position.
pub(super) struct Tap<'a> {
    feed: &'a Feed,
    reader: Reader,
    name: &'a str,
    behind: Option<Behind>,
}

impl Feed {
    pub(super) fn new(config: &Config, hub: Hub) -> Self {
        let generation = hub.journal().generation();
        let end = Mutex::new(End { order: u64::MAX, newest: 0 });
        Self { hub, calls: config.calls.clone(), filter: config.filter.clone(), generation, end }
    }

    /// Number of events after `order`, about.
    pub(super) fn behind(&self, order: u64) -> u64 {
        let end = *lock(&self.end);
        let read = if order >= end.order { order.max(end.newest) } else { order };
        self.hub.newest().saturating_sub(read)
    }

    /// Reads after `order`; with `live`, also the live frames that the filter wants. `name` is for the log. With a
    /// gauge in `behind`, the frames of one read count as delivered when the next is requested.
    pub(super) fn tap<'a>(&'a self, name: &'a str, order: u64, live: bool, behind: Option<Behind>) -> Tap<'a> {
        let include = self.filter.include;
        let wants = Wants::EVENTS.and_live(live && include.partials, live && include.deltas);
        let reader = self.hub.reader(Interest::All { after: order }, wants);
        Tap { feed: self, reader, name, behind }
    }
}

impl Tap<'_> {
    /// The next frames, of about `max_bytes`, and the `order` up to which everything is delivered once they are. The
    /// list is empty if none of the frames that were read is wanted.
    ///
    /// # Cancel safety
    /// Safe, except that a pause after a failure of the journal starts over.
    pub(super) async fn next(&mut self, max_bytes: usize) -> (Vec<Piece>, u64) {
        loop {
            let before = self.reader.order().unwrap_or(0);
            let newest = self.feed.hub.newest();
            let read = match self.reader.try_next(max_bytes) {
                Ok(None) => {
                    if !self.reader.is_working() {
                        self.ended(End { order: before, newest });
                    }
                    self.reader.next(max_bytes).await
                }
                Ok(Some(batch)) => Ok(batch),
                Err(error) => Err(error),
            };
            match read {
                Ok(batch) => {
                    let pieces = self.pieces(before, &batch.items);
                    return (pieces, self.reader.order().unwrap_or(before));
                }
                Err(error @ (HubError::Gone { .. } | HubError::Damaged { .. })) => {
                    tracing::warn!(sink = self.name, %error, "the sink continues without that call's events");
                }
                Err(HubError::Unavailable(error)) => {
                    tracing::warn!(sink = self.name, error, "the sink cannot read the journal; retrying");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn ended(&self, end: End) {
        *lock(&self.feed.end) = end;
        if let Some(behind) = &self.behind {
            behind.set(self.feed.behind(end.order));
        }
    }

    fn pieces(&self, before: u64, items: &[Item]) -> Vec<Piece> {
        let Feed { hub, calls, filter, generation, .. } = self.feed;
        let is_wanted = |call: &CallId| calls.as_ref().is_none_or(|calls| calls.contains(call));
        let members = Members::default();
        let mut order = before;
        let mut pieces = Vec::new();
        for item in filter.pick(items, hub) {
            let cursor = |order| Some(Cursor { generation: *generation, order: Some(order) });
            match item {
                Item::Event(frame) if is_wanted(frame.call()) => {
                    order = frame.order();
                    let text = frame.push(&members, cursor(order), filter.include.words);
                    pieces.push(Piece { event: Some((frame.call().clone(), frame.seq())), order, text });
                }
                Item::Live(live) if is_wanted(&live.call) => {
                    pieces.push(Piece { event: None, order, text: live.push(&members, cursor(order)) });
                }
                Item::Event(_) | Item::Live(_) => {}
            }
        }
        pieces
    }
}
