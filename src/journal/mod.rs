//! The journal: the durable, ordered log of each call's events, and the directory of all calls.
//!
//! Knows no event: a record is the bytes of a wire frame and the bytes of its private fields. [`Journal`] and
//! [`Directory`] are the seam: nothing above knows which store is behind them.
//!
//! Order: `seq` is dense per call, from 1. `order` is the order of commits over all calls of this daemon, strictly
//! rising, over restarts too, with holes; it is what a cursor of a `*` subscription names.

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
mod metrics;
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

pub use config::{Config, Durability};
pub use embedded::{Embedded, open};
pub use metrics::Metrics;
pub use open::OpenError;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub use crate::types::directory::{CallState, Entry};
use crate::types::{CallId, Seq};

/// What is to be appended: one event.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// The event's wire form, one JSON object without line breaks (see [`crate::types::event::encode`]).
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

/// Resolves when the append is durable. The write itself has been handed over before this is returned, so dropping it
/// cancels nothing.
pub type CommitFuture = Pin<Box<dyn Future<Output = Result<Commit, JournalError>> + Send>>;

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

/// The log of events.
pub trait Journal: Send + Sync {
    /// Appends `batch` to `call`, atomically, if its head is `after` (0 for a new call). `entry` is the call's directory
    /// entry if it changed; for a new call it must be given. An empty batch with an entry changes the entry alone.
    ///
    /// Called by one writer per call at a time, with one append in flight. (Where a new writer comes while the batch of
    /// its predecessor is on its way, it waits for that one's end.)
    ///
    /// The future resolves after the tail has heard of the batch.
    fn append(&self, call: &CallId, after: Seq, batch: Vec<NewRecord>, entry: Option<Entry>) -> CommitFuture;

    /// Records with `seq > after`, in order, at least one if there is one, at most about `max_bytes` of frames.
    /// Empty = `after` is the head (or above it).
    ///
    /// Reads files; takes well under a millisecond for 64 KiB.
    ///
    /// # Errors
    /// `UnknownCall`, `Gone`, `Damaged` (once the readable part is behind `after`), `Unavailable`.
    fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Result<Vec<Arc<Record>>, JournalError>;

    /// The call's head.
    ///
    /// # Errors
    /// As [`Journal::read`].
    fn head(&self, call: &CallId) -> Result<Seq, JournalError>;

    /// Calls with records of `order > after` and the first such `seq` of each: where a `*` cursor resumes.
    ///
    /// # Errors
    /// `Unavailable`.
    fn since(&self, after: u64) -> Result<Vec<(CallId, Seq)>, JournalError>;

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
    fn close(&self);
}

/// Hears of commits. Called on a writer's or a sync thread: must not block, and must not call the journal.
pub trait Tail: Send + Sync {
    /// `records` of `call` are durable. Calls of this come one after the other, in the order of `order`: a reader that has
    /// seen all up to some `order` has missed nothing before it.
    fn committed(&self, call: &CallId, records: &[Arc<Record>]);
    /// The call's log is gone (erased or past its retention).
    fn erased(&self, call: &CallId);
}

/// The directory: call -> what is known of it without its log.
pub trait Directory: Send + Sync {
    /// One call.
    fn entry(&self, call: &CallId) -> Option<Entry>;

    /// Calls in order of `call_id`, those after `after`, at most `limit`; with `state`, only such.
    fn page(&self, state: Option<CallState>, after: Option<&CallId>, limit: usize) -> Vec<Entry>;

    /// All open calls, with their entries. Cheap enough for 10,000.
    fn open_calls(&self) -> Vec<Entry>;

    /// How many calls are open.
    fn open_count(&self) -> usize;

    /// Marks a call failed without an event (its log is damaged, so none can be appended).
    fn mark_failed(&self, call: &CallId);

    /// Erases a call that is not open, log and entry, for good. `false` if there is none.
    ///
    /// # Errors
    /// `Unavailable`.
    fn erase(&self, call: &CallId) -> Result<bool, JournalError>;
}

/// Both halves, as the embedded store has them.
pub trait Store: Journal + Directory {}
impl<T: Journal + Directory> Store for T {}
