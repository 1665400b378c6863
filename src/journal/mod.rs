//! The journal: the durable, ordered log of each call's events, and the directory of all calls.
//!
//! Knows no event: a record is a header, which it keeps without giving it a meaning, the bytes of a wire frame, and the
//! bytes of its private fields. [`Store`] is the seam: nothing above knows which store is behind it, or when it answers.
//!
//! Order: `seq` is dense per call, from 1. `order` is the order of commits over all calls of this daemon, strictly
//! rising, over restarts too, with holes; it is what a cursor of a `*` subscription names.

mod answer;
mod append;
mod config;
mod directory;
mod embedded;
mod files;
mod folder;
mod found;
mod frame;
mod health;
mod locks;
mod log;
mod medium;
pub mod memory;
mod metrics;
mod migrate;
mod open;
mod record;
mod retention;
mod rounds;
mod scan;
mod sequencer;
mod slot;
mod state;
mod store;
mod sync;
#[cfg(test)]
mod tests;
mod threads;
mod work;

pub use answer::Answer;
pub use config::{Config, Durability};
pub use embedded::{Embedded, open};
pub use metrics::Metrics;
pub use migrate::HeaderOf;
pub use open::OpenError;

use std::sync::Arc;

use bytes::Bytes;

pub use crate::types::directory::{CallState, Entry};
pub use crate::types::header::{Header, KindCode};
use crate::types::{CallId, Seq};

/// What is to be appended: one event.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// What readers select the event by.
    pub header: Header,
    /// The event's wire form, one JSON object without line breaks (see `protocol::event::encode`).
    pub frame: Bytes,
    /// Private fields as JSON, or empty. Never goes out.
    pub private: Bytes,
}

/// What was appended.
#[derive(Debug, Clone)]
pub struct Record {
    /// Position in the call, dense from 1.
    pub seq: Seq,
    /// Position among all commits of this daemon.
    pub order: u64,
    /// What readers select the event by.
    pub header: Header,
    /// The wire form.
    pub frame: Bytes,
    /// Private fields as JSON, or empty.
    pub private: Bytes,
}

/// An append that is durable.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The call's head now.
    pub head: Seq,
    /// The records as they stand, shared with the journal's tail.
    pub records: Vec<Arc<Record>>,
}

/// Why the journal could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// Another writer was here: the head is not where the caller thought. The batch was not written.
    #[error("the journal's head of this call is {head}, not {after}")]
    Fenced {
        /// The head now.
        head: Seq,
        /// What the caller named.
        after: Seq,
    },
    /// Disk full, I/O error, store away. Nothing of the batch will ever be read; trying again is right.
    #[error("the journal cannot write: {0}")]
    Unavailable(String),
    /// The log is damaged at other than its torn end. What is before the damage stays readable.
    #[error("the journal of this call is damaged after event {after}: {message}")]
    Damaged {
        /// Last readable event.
        after: Seq,
        /// What was found, where.
        message: String,
    },
    /// No such call (never was, erased, or past its retention).
    #[error("no such call in the journal")]
    UnknownCall,
    /// The positions asked for have left retention.
    #[error("events up to {oldest} have left retention")]
    Gone {
        /// Oldest that is still there.
        oldest: Seq,
    },
}

/// The store of all calls: the log of each, and the directory (call -> what is known of it without its log).
///
/// An [`Answer`] may be there at once or take a while; callers must not rely on either. Answers about one call that are
/// waited for one after the other are consistent: what one of them has shown, later ones contain.
pub trait Store: Send + Sync {
    /// Appends `batch` to `call`, atomically, if its head is `after` (0 for a new call). `entry` is the call's directory
    /// entry if it changed; for a new call it must be given. An empty batch with an entry changes the entry alone.
    ///
    /// `after` is the fence: of two writers of one call, one gets `Fenced`. Each writer has one append in flight. (If a new
    /// writer appends while a batch of its predecessor is in flight, its append waits for the end of that one.)
    ///
    /// The answer comes when the batch is durable and the tail has heard of it. The write itself has been handed over
    /// before this returns.
    fn append(&self, call: &CallId, after: Seq, batch: Vec<NewRecord>, entry: Option<Entry>) -> Answer<Commit>;

    /// Records with `seq > after`, in order, at least one if there is one, at most about `max_bytes` of frames.
    /// Empty = `after` is the head (or above it).
    ///
    /// Errors: `UnknownCall`, `Gone`, `Damaged` (once the readable part ends at or before `after`), `Unavailable`.
    fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Answer<Vec<Arc<Record>>>;

    /// The call's head. Errors as those of [`Store::read`].
    fn head(&self, call: &CallId) -> Answer<Seq>;

    /// Calls with records of `order > after` and the first such `seq` of each: where a `*` cursor resumes.
    fn since(&self, after: u64) -> Answer<Vec<(CallId, Seq)>>;

    /// The directory's entry of one call; `None` if there is no such call.
    fn entry(&self, call: &CallId) -> Answer<Option<Entry>>;

    /// Calls in order of `call_id`, those after `after`, at most `limit`; with `state`, only such.
    fn page(&self, state: Option<CallState>, after: Option<&CallId>, limit: usize) -> Answer<Vec<Entry>>;

    /// All open calls, with their entries. Cheap enough for 10,000.
    fn open_calls(&self) -> Answer<Vec<Entry>>;

    /// How many calls are open, as far as this daemon knows.
    fn open_count(&self) -> usize;

    /// Marks a call failed without an event (its log is damaged, so none can be appended). Without effect on a call that
    /// does not exist or has failed already.
    fn mark_failed(&self, call: &CallId) -> Answer<()>;

    /// Erases a call that is not open, log and entry, for good. `false` if there is none.
    fn erase(&self, call: &CallId) -> Answer<bool>;

    /// All up to this `order` was announced: the tail has heard of it, and `read` returns it. For cursors that start now.
    fn order(&self) -> u64;

    /// Names the journal's history as a whole: changes whenever open calls' epochs do. Part of a `*` cursor.
    fn generation(&self) -> u64;

    /// Registers the listener that hears of every commit, in the order of `order` over all calls, once it is durable.
    /// At most one.
    fn set_tail(&self, tail: Arc<dyn Tail>);

    /// Whether appends work now (`/readyz`).
    ///
    /// # Errors
    /// The last failure, until an append or a probe succeeds.
    fn health(&self) -> Result<(), JournalError>;

    /// Makes all that was appended durable and marks the shutdown as clean. No append comes after it.
    fn close(&self) -> Answer<()>;
}

/// Hears of commits. Called on a writer's or a sync thread: must not block, and must not call the journal.
pub trait Tail: Send + Sync {
    /// `records` of `call` are durable. Calls of this come one after the other, in the order of `order`: a reader that has
    /// seen all up to some `order` has missed nothing before it.
    fn committed(&self, call: &CallId, records: &[Arc<Record>]);
    /// The call's log is gone (erased or past its retention).
    fn erased(&self, call: &CallId);
}
