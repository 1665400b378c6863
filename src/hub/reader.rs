//! A reader: positions in some calls, or one position in all calls, and the batches of events after them.
//!
//! Does not filter and encodes nothing, and does not know where frames come from: the newest are in memory and older
//! ones in the journal.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::all::All;
use super::mailbox::{Mailbox, Waiting};
use super::named::Calls;
use super::wants::Wants;
use super::{Dropped, Frame, HubError, Inner, Live};
use crate::types::{CallId, Seq};

/// The calls that a reader reads.
#[derive(Debug, Clone)]
pub enum Interest {
    /// The listed calls, each after a `seq` (0 = from its beginning). A call need not exist yet.
    Calls(Vec<(CallId, Seq)>),
    /// All events after a commit `order`.
    All {
        /// The last `order` that is not wanted.
        after: u64,
    },
}

/// One item of a batch.
#[derive(Debug, Clone)]
pub enum Item {
    /// A sequenced event.
    Event(Arc<Frame>),
    /// A live frame, at the place between events at which it was published.
    Live(Arc<Live>),
}

/// Result of one read.
#[derive(Debug, Default)]
pub struct Batch {
    /// Events in `seq` order per call ([`Interest::All`]: in commit order), live frames among them.
    pub items: Vec<Item>,
    /// Live frames that were dropped since the last batch.
    pub dropped: Option<Dropped>,
}

enum Positions {
    Calls(Calls),
    All(All),
}

/// A reader of the journal's tail.
pub struct Reader {
    hub: Arc<Inner>,
    mailbox: Arc<Mailbox>,
    wants: Wants,
    positions: Positions,
    /// Errors found while there were frames to return first.
    failed: VecDeque<HubError>,
    /// Set while a long read is in progress: there is more to do without any news.
    working: bool,
}

impl Reader {
    pub(super) fn new(hub: Arc<Inner>, interest: Interest, wants: Wants, notify: Arc<Notify>) -> Self {
        let mailbox = Mailbox::new(notify);
        hub.metrics.readers.inc();
        let positions = match &interest {
            Interest::Calls(_) => Positions::Calls(Calls::default()),
            Interest::All { after } => Positions::All(All::new(*after, &hub, &mailbox, wants)),
        };
        let mut reader = Self { hub, mailbox, wants, positions, failed: VecDeque::new(), working: false };
        if let Interest::Calls(calls) = interest {
            for (call, after) in calls {
                reader.add(&call, after);
            }
        }
        reader.mailbox.notify().notify_one();
        reader
    }

    /// Adds `call`, read after `after`; if it is read already, its position is changed. Does nothing for
    /// [`Interest::All`].
    pub fn add(&mut self, call: &CallId, after: Seq) {
        let Positions::Calls(calls) = &mut self.positions else { return };
        calls.add(call, after, &self.hub, &self.mailbox, self.wants);
        self.mailbox.notify().notify_one();
    }

    /// Stops reading `call`. Does nothing for [`Interest::All`].
    pub fn remove(&mut self, call: &CallId) {
        if let Positions::Calls(calls) = &mut self.positions
            && calls.remove(call, &self.hub)
        {
            self.mailbox.forget_live(|live| live.call == *call);
        }
    }

    /// The last `seq` of `call` that was returned, if the call is read.
    pub fn position(&self, call: &CallId) -> Option<Seq> {
        match &self.positions {
            Positions::Calls(calls) => calls.position(call),
            Positions::All(_) => None,
        }
    }

    /// For [`Interest::All`]: every event up to this `order` was returned.
    pub fn order(&self) -> Option<u64> {
        match &self.positions {
            Positions::Calls(_) => None,
            Positions::All(all) => Some(all.order()),
        }
    }

    /// The next batch, of at most about `max_bytes` of events (or one larger event), as soon as there is something.
    ///
    /// # Errors
    /// See [`HubError`]. The reader can be used further after each of them.
    ///
    /// # Cancel safety
    /// Safe: positions move only when a batch is returned.
    pub async fn next(&mut self, max_bytes: usize) -> Result<Batch, HubError> {
        loop {
            if let Some(batch) = self.try_next(max_bytes)? {
                return Ok(batch);
            }
            if self.working {
                tokio::task::yield_now().await;
            } else {
                self.mailbox.notify().notified().await;
            }
        }
    }

    /// Returns true while older events are still being searched for: no batch now does not mean that there is none.
    pub fn is_working(&self) -> bool {
        let waiting = match &self.positions {
            Positions::Calls(calls) => calls.is_waiting(),
            Positions::All(all) => all.is_catching_up(),
        };
        self.working || waiting
    }

    /// The next batch, if there is something now. `None`: the reader's `Notify` is woken when there may be something.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn try_next(&mut self, max_bytes: usize) -> Result<Option<Batch>, HubError> {
        let max_bytes = max_bytes.max(1);
        if let Some(error) = self.failed.pop_front() {
            return Err(error);
        }
        self.working = false;
        let frames = match &mut self.positions {
            Positions::Calls(calls) => calls.read(&self.hub, &self.mailbox, self.wants, max_bytes, &mut self.failed),
            Positions::All(all) => {
                let mut scratch = VecDeque::new();
                self.mailbox.take_dirty(&mut scratch);
                let (frames, working) = all.read(&self.hub, &self.mailbox, max_bytes, &mut self.failed);
                self.working = working;
                frames
            }
        };
        let mut batch = Batch { items: frames.into_iter().map(Item::Event).collect(), dropped: None };
        self.join_live(&mut batch);
        if batch.items.is_empty() && batch.dropped.is_none() {
            if self.working {
                self.mailbox.notify().notify_one();
            }
            return self.failed.pop_front().map_or(Ok(None), Err);
        }
        Ok(Some(batch))
    }

    /// Inserts the live frames whose preceding events have been read, at their places.
    fn join_live(&self, batch: &mut Batch) {
        let (waiting, dropped) = self.mailbox.take_live(|waiting| match &self.positions {
            Positions::Calls(calls) => match calls.position(&waiting.live.call) {
                Some(position) => position >= waiting.after,
                // The call is no longer read.
                None => true,
            },
            Positions::All(all) => all.order() >= waiting.after_order,
        });
        if let Some(dropped) = dropped {
            self.hub.metrics.dropped_partials.inc_by(dropped.partials);
            self.hub.metrics.dropped_deltas.inc_by(dropped.deltas);
        }
        batch.dropped = dropped;
        for Waiting { live, after, after_order } in waiting {
            let later = |item: &Item| match (item, &self.positions) {
                (Item::Event(frame), Positions::Calls(_)) => *frame.call() == live.call && frame.seq() > after,
                (Item::Event(frame), Positions::All(_)) => frame.order() > after_order,
                (Item::Live(_), _) => false,
            };
            if let Positions::Calls(calls) = &self.positions
                && calls.position(&live.call).is_none()
            {
                continue;
            }
            let at = batch.items.iter().position(later).unwrap_or(batch.items.len());
            batch.items.insert(at, Item::Live(live));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        match &self.positions {
            Positions::Calls(calls) => calls.unwatch(&self.hub),
            Positions::All(all) => all.unwatch(&self.hub),
        }
        self.hub.metrics.readers.dec();
    }
}
