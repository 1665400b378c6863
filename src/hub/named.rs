//! Positions in named calls: the newest frames of each come from memory, older ones from the journal.
//!
//! Knows no live frame. While a read of the journal is in flight, its position waits and the others continue.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::mailbox::{Mailbox, Watch};
use super::ring::Found;
use super::wants::Wants;
use super::{Frame, HubError, Inner};
use crate::journal::{Answer, JournalError, Record};
use crate::types::{CallId, Seq};

/// Maximum number of a reader's reads of the journal in flight.
const READS: usize = 16;

/// A read of the journal.
type Reading = Answer<Vec<Arc<Record>>>;

struct Slot {
    call: CallId,
    watch: Arc<Watch>,
    after: Seq,
    /// Set if nothing came after the position at the last read.
    caught_up: bool,
    /// The read of the journal that is in flight.
    reading: Option<Reading>,
    /// Set if there was news while that read was in flight.
    news: bool,
}

/// The positions in named calls.
#[derive(Default)]
pub(super) struct Calls {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_call: HashMap<CallId, usize>,
    /// Slots that may have more to read; a slot may be in it twice.
    ready: VecDeque<usize>,
    /// Slots with a read in flight.
    waiting: Vec<usize>,
}

impl Calls {
    /// Adds `call`, read after `after`; if it is read already, its position is changed.
    pub(super) fn add(&mut self, call: &CallId, after: Seq, hub: &Inner, mailbox: &Arc<Mailbox>, wants: Wants) {
        let index = match self.by_call.get(call) {
            Some(&index) => {
                if let Some(slot) = &mut self.slots[index] {
                    slot.after = after;
                    slot.caught_up = false;
                    // The result of this read is no longer wanted.
                    slot.reading = None;
                }
                index
            }
            None => {
                let index = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(None);
                    self.slots.len() - 1
                });
                let watch = Watch::new(mailbox, index);
                hub.rings.watch(call, Arc::clone(&watch), wants);
                let call = call.clone();
                self.by_call.insert(call.clone(), index);
                self.slots[index] = Some(Slot { call, watch, after, caught_up: false, reading: None, news: false });
                index
            }
        };
        self.ready.push_back(index);
    }

    /// Stops reading `call`; returns false if it was not read.
    pub(super) fn remove(&mut self, call: &CallId, hub: &Inner) -> bool {
        let index = self.by_call.get(call).copied();
        if let Some(index) = index {
            self.drop_slot(hub, index);
        }
        index.is_some()
    }

    /// Stops being woken for any call.
    pub(super) fn unwatch(&self, hub: &Inner) {
        for slot in self.slots.iter().flatten() {
            hub.rings.unwatch(&slot.call, &slot.watch);
        }
    }

    /// The position in `call`, if it is read.
    pub(super) fn position(&self, call: &CallId) -> Option<Seq> {
        let index = self.by_call.get(call)?;
        self.slots[*index].as_ref().map(|slot| slot.after)
    }

    /// Returns true if reads of the journal are in flight.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn drop_slot(&mut self, hub: &Inner, index: usize) {
        if let Some(slot) = self.slots[index].take() {
            hub.rings.unwatch(&slot.call, &slot.watch);
            self.by_call.remove(&slot.call);
            self.waiting.retain(|waiting| *waiting != index);
            self.free.push(index);
        }
    }

    /// The next frames, about `max_bytes` of them, that are available now. A call that cannot be read is reported in
    /// `failed`.
    pub(super) fn read(
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
        let mut waited = std::mem::take(&mut self.waiting).into_iter();
        let mut deferred = Vec::new();
        while bytes < max_bytes {
            let (index, has_waited) = match waited.next() {
                Some(index) => (index, true),
                None => match self.ready.pop_front() {
                    Some(index) => (index, false),
                    None => break,
                },
            };
            let Some(slot) = self.slots.get_mut(index).and_then(Option::as_mut) else { continue };
            if slot.reading.is_some() && !has_waited {
                slot.news = true;
                continue;
            }
            match slot.read(hub, mailbox, wants, max_bytes - bytes, self.waiting.len() < READS) {
                Ok(Read::Frames(read, more)) => {
                    bytes += read.iter().map(|frame| frame.text().len()).sum::<usize>();
                    if frames.is_empty() {
                        frames = read;
                    } else {
                        frames.extend(read);
                    }
                    if std::mem::take(&mut slot.news) || more {
                        self.ready.push_back(index);
                    }
                }
                Ok(Read::Waiting) => self.waiting.push(index),
                Ok(Read::Deferred) => deferred.push(index),
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
        self.waiting.extend(waited);
        self.ready.extend(deferred);
        frames
    }
}

/// The result of reading one slot.
enum Read {
    /// Frames, possibly none, and whether there may be more.
    Frames(Vec<Arc<Frame>>, bool),
    /// A read of the journal is in flight.
    Waiting,
    /// The slot needs the journal, but enough reads are in flight.
    Deferred,
}

/// Why a slot returned nothing.
enum End {
    /// The call was erased after all of it had been read.
    Quiet,
    /// The call cannot be read any further.
    Failed(HubError),
    /// The call can be read later.
    Later(HubError),
}

impl Slot {
    /// The frames after the position, which is moved. A read of the journal is started only if `may_start`.
    fn read(
        &mut self,
        hub: &Inner,
        mailbox: &Mailbox,
        wants: Wants,
        max_bytes: usize,
        may_start: bool,
    ) -> Result<Read, End> {
        if self.reading.is_none() {
            self.watch.clear();
            if let Found::Frames { frames, more, upto } = hub.rings.read(&self.call, self.after, wants, max_bytes) {
                hub.metrics.from_memory.inc_by(frames.len() as u64);
                (self.after, self.caught_up) = (upto, !more);
                return Ok(Read::Frames(frames, more));
            }
            if !may_start {
                return Ok(Read::Deferred);
            }
        }
        let reading = self.reading.get_or_insert_with(|| hub.journal.read(&self.call, self.after, max_bytes));
        let Some(result) = reading.poll_with(&mailbox.waker()) else { return Ok(Read::Waiting) };
        self.reading = None;
        let (frames, more) = match result {
            Ok(records) => {
                let more = !records.is_empty();
                let last = records.last().map(|record| record.seq);
                let frames: Vec<_> = records.into_iter().filter_map(|record| Frame::new(&self.call, record)).collect();
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
        };
        self.caught_up = !more;
        Ok(Read::Frames(frames, more))
    }
}
