//! Appending: one write on the caller's thread; with `"machine"`, it is durable once a sync thread reports that.
//!
//! No part of a failed batch may ever be read. Readers see only announced records, and the file is truncated at once or
//! before the next write to it.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::oneshot;

use super::config::Durability;
use super::log::{Before, Content, Log};
use super::record::oversize;
use super::sequencer::{Committed, Durable, Ticket};
use super::slot::Slot;
use super::store::Shared;
use super::work::Unsynced;
use super::{Answer, Commit, Entry, JournalError, NewRecord, Record, Seq};
use crate::types::CallId;

/// An encoding buffer that has grown beyond this size is freed.
const BUFFER_KEPT: usize = 1 << 20;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A batch that was written, or a change of the entry without a batch.
struct Written {
    ticket: Ticket,
    commit: Commit,
    before: Before,
    new: bool,
    /// With `"machine"`: the entry to store once the batch is durable.
    entry: Option<Entry>,
}

impl Shared {
    pub(super) fn append(
        &self,
        call: &CallId,
        after: Seq,
        batch: Vec<NewRecord>,
        entry: Option<Entry>,
    ) -> Result<Answer<Commit>, JournalError> {
        let started = Instant::now();
        if self.closed.load(Ordering::Acquire) {
            return Err(JournalError::Unavailable("the journal is closed".to_owned()));
        }
        if let Some(message) = batch.iter().find_map(oversize) {
            return Err(JournalError::Unavailable(message));
        }
        loop {
            let log = self.find(call, entry.is_some()).ok_or(JournalError::UnknownCall)?;
            let mut content = log.content();
            if !content.retired {
                self.load(&log, &mut content)?;
            }
            if content.retired {
                continue;
            }
            if content.head != log.visible() {
                // Another writer's batch is in flight, and the head is known only once it ends.
                let order = content.order;
                drop(content);
                self.sequencer.wait_for(order);
                continue;
            }
            let written = self.append_to(&log, &mut content, after, batch, entry);
            if written.is_err() && content.head == 0 && !content.retired && self.retire(&log) {
                content.retired = true;
            }
            drop(content);
            let future = self.hand_over(log, written?);
            self.storage.metrics.append_seconds.observe(started.elapsed().as_secs_f64());
            return Ok(future);
        }
    }

    fn append_to(
        &self,
        log: &Arc<Log>,
        content: &mut Content,
        after: Seq,
        batch: Vec<NewRecord>,
        mut entry: Option<Entry>,
    ) -> Result<Written, JournalError> {
        if let Some(damage) = content.damage_error() {
            return Err(damage);
        }
        if content.head != after {
            return Err(JournalError::Fenced { head: content.head, after });
        }
        let new = content.head == 0;
        if new && (entry.is_none() || batch.is_empty()) {
            return Err(JournalError::UnknownCall);
        }
        let ticket = self.ticket(batch.len() as u64)?;
        let before = content.before();
        if !batch.is_empty() {
            self.write(log, content, &ticket, &batch, if new { entry.take() } else { None })?;
        }
        if self.config.durability == Durability::Process
            && let Some(entry) = entry.take()
        {
            self.set_entry(content, entry).map_err(|error| {
                self.rollback(log, content, before);
                self.failed("change an entry", &error)
            })?;
        }
        let commit = commit(content.head, ticket.first_order, batch);
        Ok(Written { ticket, commit, before, new, entry })
    }

    /// Has a written batch announced, after a sync if that is needed.
    fn hand_over(&self, log: Arc<Log>, written: Written) -> Answer<Commit> {
        let Written { ticket, commit, before, new, entry } = written;
        match self.config.durability {
            Durability::Process => {
                self.health.works();
                if log.needs_sync() {
                    self.work.dirty(&log);
                }
                announced(ticket, Durable { log, commit, answer: None })
            }
            Durability::Machine => {
                let (answer, receiver) = oneshot::channel();
                let durable = Durable { log, commit, answer: Some(answer) };
                self.work.unsynced(Unsynced { ticket, durable, before, new, entry });
                answered(receiver)
            }
        }
    }

    fn ticket(&self, count: u64) -> Result<Ticket, JournalError> {
        loop {
            if let Ok(ticket) = self.sequencer.reserve(count) {
                return Ok(ticket);
            }
            self.reserve_block(count).map_err(|error| self.failed("reserve positions", &error))?;
        }
    }

    /// Writes a batch; if `entry` is given, the call is new.
    fn write(
        &self,
        log: &Arc<Log>,
        content: &mut Content,
        ticket: &Ticket,
        batch: &[NewRecord],
        entry: Option<Entry>,
    ) -> Result<(), JournalError> {
        let file = match entry {
            // The entry is written first, so that every log has one.
            Some(entry) => {
                let slot = Slot { entry, newest_order: 0, head: 0 };
                self.calls.put(slot).map_err(|error| self.failed("begin a call", &error))?;
                let created = content.create_file(&log.call, &self.storage);
                let (file, opened) = created.map_err(|error| {
                    self.erase_log(log, content);
                    self.failed("begin a call", &error)
                })?;
                if opened {
                    self.opened(log);
                }
                content.open = true;
                file
            }
            None => self.file(log, content)?,
        };
        if !content.open {
            // The directory says where the log of an ended call ends, so its entry must be as new as the log.
            let slot = self.calls.with(&log.call, Slot::clone);
            let slot = slot.map(|slot| Slot { newest_order: ticket.last_order, ..slot });
            let noted = slot.map_or(Ok(()), |slot| self.calls.put(slot));
            noted.map_err(|error| self.failed("append", &error))?;
        }
        let new = content.head == 0;
        let written = with_buffer(|buffer| content.write(&self.storage, &file, ticket.first_order, batch, buffer));
        match written {
            Ok(bytes) => {
                self.storage.metrics.appends.inc();
                self.storage.metrics.appended_bytes.inc_by(bytes as u64);
                Ok(())
            }
            Err(error) => {
                if new {
                    self.erase_log(log, content);
                }
                Err(self.failed("append", &error))
            }
        }
    }

    /// Updates the entry of a call from `content`.
    pub(super) fn set_entry(&self, content: &mut Content, entry: Entry) -> io::Result<()> {
        let slot = Slot { entry, newest_order: content.order, head: content.head };
        let open = slot.open();
        self.calls.put(slot)?;
        content.open = open;
        Ok(())
    }

    /// Restores the log to its state before a batch; a new call is removed.
    pub(super) fn rollback(&self, log: &Arc<Log>, content: &mut Content, before: Before) {
        if before.head() == content.head {
            return;
        }
        if before.head() == 0 {
            return self.erase_log(log, content);
        }
        let file = content.open_file(&log.call, &self.storage).ok().flatten();
        content.rollback(&self.storage, file.as_ref().map(|(file, _)| file.as_ref()), before);
    }
}

/// Makes the commit of a batch that ends at `head`.
fn commit(head: Seq, first_order: u64, batch: Vec<NewRecord>) -> Commit {
    let first = head + 1 - batch.len() as u64;
    let records =
        (first..).zip(first_order..).zip(batch).map(|((seq, order), NewRecord { header, frame, private })| {
            Arc::new(Record { seq, order, header, frame, private })
        });
    Commit { head, records: records.collect() }
}

/// The future of a batch that is already durable.
fn announced(ticket: Ticket, durable: Durable) -> Answer<Commit> {
    match ticket.durable(durable) {
        Some(Ok(commit)) => Answer::ready(Ok(commit)),
        Some(Err(receiver)) => answered(receiver),
        None => Answer::ready(Err(closed())),
    }
}

fn answered(receiver: oneshot::Receiver<Committed>) -> Answer<Commit> {
    Answer::later(async move { receiver.await.unwrap_or_else(|_| Err(closed())) })
}

fn closed() -> JournalError {
    JournalError::Unavailable("the journal was closed before the batch was durable".to_owned())
}

fn with_buffer<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        let result = work(buffer);
        if buffer.capacity() > BUFFER_KEPT {
            *buffer = Vec::new();
        }
        result
    })
}
