//! A reader: positions in some calls, or one position in all calls, and batches of what comes after them.
//!
//! Does not filter and encodes nothing. The newest frames come from memory and older ones from the journal, by the same
//! steps; the user of a reader cannot tell which.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use super::mailbox::{Mailbox, Waiting, Watch};
use super::merge::{Merge, Step};
use super::ring::Found;
use super::wants::Wants;
use super::{Dropped, Frame, HubError, Inner, Live};
use crate::journal::JournalError;
use crate::types::{CallId, Seq};

/// The calls that a reader reads.
#[derive(Debug, Clone)]
pub enum Interest {
    /// These calls, each after a `seq` (0 = from its beginning). A call need not exist yet.
    Calls(Vec<(CallId, Seq)>),
    /// Everything after a commit `order`.
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
    /// A live frame, at its place among the events where it was published.
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

struct Slot {
    call: CallId,
    watch: Arc<Watch>,
    after: Seq,
    /// Set if nothing came after the position at the last read.
    caught_up: bool,
}

#[derive(Default)]
struct Calls {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_call: HashMap<CallId, usize>,
    /// Slots that may have more to read; a slot may be in it twice.
    ready: VecDeque<usize>,
}

struct All {
    watch: Arc<Watch>,
    after: u64,
    merge: Option<Box<Merge>>,
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
    pub(super) working: bool,
}

impl Reader {
    pub(super) fn new(hub: Arc<Inner>, interest: Interest, wants: Wants, notify: Arc<Notify>) -> Self {
        let mailbox = Mailbox::new(notify);
        hub.metrics.readers.inc();
        let positions = match &interest {
            Interest::Calls(_) => Positions::Calls(Calls::default()),
            Interest::All { after } => {
                let watch = Watch::new(&mailbox, 0);
                // Its position moves with every event.
                hub.rings.watch_all(Arc::clone(&watch), wants.and(Wants::EVENTS));
                Positions::All(All { watch, after: *after, merge: None })
            }
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

    /// Reads `call` too, after `after`; if it is read already, its position is set. Nothing for [`Interest::All`].
    pub fn add(&mut self, call: &CallId, after: Seq) {
        let Positions::Calls(calls) = &mut self.positions else { return };
        let index = match calls.by_call.get(call) {
            Some(&index) => {
                if let Some(slot) = &mut calls.slots[index] {
                    slot.after = after;
                    slot.caught_up = false;
                }
                index
            }
            None => {
                let index = calls.free.pop().unwrap_or_else(|| {
                    calls.slots.push(None);
                    calls.slots.len() - 1
                });
                let watch = Watch::new(&self.mailbox, index);
                self.hub.rings.watch(call, Arc::clone(&watch), self.wants);
                calls.slots[index] = Some(Slot { call: call.clone(), watch, after, caught_up: false });
                calls.by_call.insert(call.clone(), index);
                index
            }
        };
        calls.ready.push_back(index);
        self.mailbox.notify().notify_one();
    }

    /// Stops reading `call`. Does nothing for [`Interest::All`].
    pub fn remove(&mut self, call: &CallId) {
        if let Positions::Calls(calls) = &mut self.positions
            && let Some(index) = calls.by_call.get(call).copied()
        {
            calls.drop_slot(&self.hub, index);
            self.mailbox.forget_live(|live| live.call == *call);
        }
    }

    /// The last `seq` of `call` that was returned, if the call is read.
    pub fn position(&self, call: &CallId) -> Option<Seq> {
        match &self.positions {
            Positions::Calls(calls) => {
                calls.by_call.get(call).and_then(|index| calls.slots[*index].as_ref()).map(|slot| slot.after)
            }
            Positions::All(_) => None,
        }
    }

    /// For [`Interest::All`]: every event up to this `order` was returned.
    pub fn order(&self) -> Option<u64> {
        match &self.positions {
            Positions::Calls(_) => None,
            Positions::All(all) => Some(all.after),
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
        self.working
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
                let (frames, working) = all.read(&self.hub, max_bytes, &mut self.failed);
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
            Positions::Calls(calls) => match calls.slot(&waiting.live.call) {
                Some(slot) => slot.after >= waiting.after,
                // That call is not read any more.
                None => true,
            },
            Positions::All(all) => all.after >= waiting.after_order,
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
                && calls.slot(&live.call).is_none()
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
        match &mut self.positions {
            Positions::Calls(calls) => {
                for slot in calls.slots.iter().flatten() {
                    self.hub.rings.unwatch(&slot.call, &slot.watch);
                }
            }
            Positions::All(all) => self.hub.rings.unwatch_all(&all.watch),
        }
        self.hub.metrics.readers.dec();
    }
}

impl Calls {
    fn slot(&self, call: &CallId) -> Option<&Slot> {
        self.by_call.get(call).and_then(|index| self.slots[*index].as_ref())
    }

    fn drop_slot(&mut self, hub: &Inner, index: usize) {
        if let Some(slot) = self.slots[index].take() {
            hub.rings.unwatch(&slot.call, &slot.watch);
            self.by_call.remove(&slot.call);
            self.free.push(index);
        }
    }

    fn read(
        &mut self,
        hub: &Inner,
        mailbox: &Mailbox,
        wants: Wants,
        max_bytes: usize,
        failed: &mut VecDeque<HubError>,
    ) -> Vec<Arc<Frame>> {
        mailbox.take_dirty(&mut self.ready);
        let mut frames: Vec<Arc<Frame>> = Vec::new();
        let mut bytes = 0;
        while bytes < max_bytes
            && let Some(index) = self.ready.pop_front()
        {
            let Some(slot) = self.slots.get_mut(index).and_then(Option::as_mut) else { continue };
            match slot.read(hub, wants, max_bytes - bytes) {
                Ok((read, more)) => {
                    bytes += read.iter().map(|frame| frame.text().len()).sum::<usize>();
                    if frames.is_empty() {
                        frames = read;
                    } else {
                        frames.extend(read);
                    }
                    if more {
                        self.ready.push_back(index);
                    }
                }
                Err(End::Quiet) => self.drop_slot(hub, index),
                Err(End::Failed(error)) => {
                    failed.push_back(error);
                    self.drop_slot(hub, index);
                }
                Err(End::Later(error)) => {
                    failed.push_back(error);
                    self.ready.push_back(index);
                    break;
                }
            }
        }
        frames
    }
}

/// Why a slot returned nothing.
enum End {
    /// Its call was erased after all of it had been read.
    Quiet,
    /// It cannot be read any further.
    Failed(HubError),
    /// It can be read later.
    Later(HubError),
}

impl Slot {
    /// The frames after the position, which moves, and whether there may be more.
    fn read(&mut self, hub: &Inner, wants: Wants, max_bytes: usize) -> Result<(Vec<Arc<Frame>>, bool), End> {
        self.watch.clear();
        let (frames, more) = match hub.rings.read(&self.call, self.after, wants, max_bytes) {
            Found::Frames { frames, more, upto } => {
                hub.metrics.from_memory.inc_by(frames.len() as u64);
                self.after = upto;
                (frames, more)
            }
            Found::NotHere => match hub.journal.read(&self.call, self.after, max_bytes) {
                Ok(records) => {
                    let more = !records.is_empty();
                    let last = records.last().map(|record| record.seq);
                    let frames: Vec<_> =
                        records.into_iter().filter_map(|record| Frame::new(&self.call, record)).collect();
                    hub.metrics.from_journal.inc_by(frames.len() as u64);
                    self.after = last.unwrap_or(self.after);
                    (frames, more)
                }
                // The call does not exist yet: the reader waits for it.
                Err(JournalError::UnknownCall) if self.after == 0 => (Vec::new(), false),
                Err(JournalError::UnknownCall) if self.caught_up && hub.rings.head(&self.call) <= self.after => {
                    return Err(End::Quiet);
                }
                Err(JournalError::UnknownCall | JournalError::Gone { .. }) => {
                    return Err(End::Failed(HubError::Gone { call: self.call.clone(), after: self.after }));
                }
                Err(error @ JournalError::Damaged { .. }) => {
                    let message = error.to_string();
                    return Err(End::Failed(HubError::Damaged { call: self.call.clone(), message }));
                }
                Err(error @ (JournalError::Unavailable(_) | JournalError::Fenced { .. })) => {
                    return Err(End::Later(HubError::Unavailable(error.to_string())));
                }
            },
        };
        self.caught_up = !more;
        Ok((frames, more))
    }
}

impl All {
    /// Reads the frames after the position, and moves it. Also returns whether a long read continues.
    fn read(&mut self, hub: &Inner, max_bytes: usize, failed: &mut VecDeque<HubError>) -> (Vec<Arc<Frame>>, bool) {
        self.watch.clear();
        loop {
            if let Some(merge) = &mut self.merge {
                match merge.step(hub.journal.as_ref(), max_bytes, failed) {
                    Ok(Step::Frames(frames)) => {
                        hub.metrics.from_journal.inc_by(frames.len() as u64);
                        self.after = frames.last().map_or(self.after, |frame| frame.order());
                        return (frames, false);
                    }
                    Ok(Step::Working) => return (Vec::new(), true),
                    Ok(Step::Done) => {
                        self.after = self.after.max(merge.upto());
                        self.merge = None;
                    }
                    Err(error) => {
                        failed.push_back(error);
                        return (Vec::new(), false);
                    }
                }
            }
            match hub.rings.read_all(self.after, max_bytes) {
                Ok(frames) => {
                    hub.metrics.from_memory.inc_by(frames.len() as u64);
                    self.after = frames.last().map_or(self.after, |frame| frame.order());
                    return (frames, false);
                }
                Err(floor) => match Merge::new(hub.journal.as_ref(), self.after, floor) {
                    Ok(merge) => self.merge = Some(Box::new(merge)),
                    Err(error) => {
                        failed.push_back(HubError::Unavailable(error.to_string()));
                        return (Vec::new(), false);
                    }
                },
            }
        }
    }
}
