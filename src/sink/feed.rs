//! What a sink delivers: everything after a position, filtered, as the frames of a subscription to all calls.

use std::time::Duration;

use super::Config;
use crate::base::ws::Utf8Bytes;
use crate::hub::{Cursor, Filter, Hub, HubError, Interest, Item, Prefix, Reader};
use crate::types::{CallId, Seq};

/// After the journal could not be read, it is tried again so much later.
const RETRY: Duration = Duration::from_secs(1);

/// One frame to deliver.
#[derive(Debug)]
pub(super) struct Piece {
    /// The call and its position there; `None` for a live frame.
    pub event: Option<(CallId, Seq)>,
    /// Everything up to this `order` is behind, once this piece is.
    pub order: u64,
    /// The frame, with its `cursor`.
    pub text: Utf8Bytes,
}

/// Makes readers of what one sink wants.
pub(super) struct Feed {
    hub: Hub,
    calls: Option<Vec<CallId>>,
    filter: Filter,
    generation: u64,
}

/// A reader from one position on.
pub(super) struct Tap<'a> {
    feed: &'a Feed,
    reader: Reader,
    name: &'a str,
}

impl Feed {
    pub(super) fn new(config: &Config, hub: Hub) -> Self {
        let generation = hub.journal().generation();
        Self { hub, calls: config.calls.clone(), filter: config.filter.clone(), generation }
    }

    /// The newest `order` that there is.
    pub(super) fn newest(&self) -> u64 {
        self.hub.newest()
    }

    /// Reads after `order`; `live` frames too, where the filter wants them. `name` is for the log.
    pub(super) fn tap<'a>(&'a self, name: &'a str, order: u64, live: bool) -> Tap<'a> {
        let reader = self.hub.reader(Interest::All { after: order });
        let include = self.filter.include;
        reader.want_live(live && include.partials, live && include.deltas);
        Tap { feed: self, reader, name }
    }
}

impl Tap<'_> {
    /// The next frames, of about `max_bytes`, and the `order` up to which everything is behind once they are. There may
    /// be none, where nothing of what came is wanted.
    ///
    /// # Cancel safety
    /// Safe, but for a pause after a failure of the journal, which begins anew.
    pub(super) async fn next(&mut self, max_bytes: usize) -> (Vec<Piece>, u64) {
        loop {
            let before = self.reader.order().unwrap_or(0);
            match self.reader.next(max_bytes).await {
                Ok(batch) => {
                    let pieces = self.pieces(before, &batch.items);
                    return (pieces, self.reader.order().unwrap_or(before));
                }
                Err(error @ (HubError::Gone { .. } | HubError::Damaged { .. })) => {
                    tracing::warn!(sink = self.name, %error, "the sink goes on without that call's events");
                }
                Err(HubError::Unavailable(error)) => {
                    tracing::warn!(sink = self.name, error, "the sink waits for the journal");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn pieces(&self, before: u64, items: &[Item]) -> Vec<Piece> {
        let Feed { hub, calls, filter, generation } = self.feed;
        let is_wanted = |call: &CallId| calls.as_ref().is_none_or(|calls| calls.contains(call));
        let prefix = Prefix::default();
        let mut order = before;
        let mut pieces = Vec::new();
        for item in filter.pick(items, hub) {
            let cursor = |order| Some(Cursor { generation: *generation, order: Some(order) });
            match item {
                Item::Event(frame) if is_wanted(frame.call()) => {
                    order = frame.order();
                    let text = prefix.event(frame, cursor(order), filter.include.words);
                    pieces.push(Piece { event: Some((frame.call().clone(), frame.seq())), order, text });
                }
                Item::Live(live) if is_wanted(&live.call) => {
                    pieces.push(Piece { event: None, order, text: prefix.live(live, cursor(order)) });
                }
                Item::Event(_) | Item::Live(_) => {}
            }
        }
        pieces
    }
}
