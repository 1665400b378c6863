//! The journal: the durable, ordered log of each call's events, and the directory of all calls.
//!
//! Knows no event: a record is a header, which the journal stores without interpreting it, the bytes of a wire frame,
//! and the bytes of its private fields. All code above uses the trait [`Store`], and does not know which store
//! implements it or when it answers.
//!
//! Order: `seq` numbers the events of a call, from 1 without gaps. `order` numbers the commits of all calls of this
//! daemon: it increases strictly, over restarts too, with gaps. The cursor of a subscription to all calls (`*`) names
//! an `order`.

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

/// One event to append.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// The header by which readers select the event.
    pub header: Header,
    /// The event's wire form, one JSON object without line breaks (see `protocol::event::encode`).
    pub frame: Bytes,
    /// Private fields as JSON, or empty. They are never sent to clients.
    pub private: Bytes,
}

/// An event that was appended.
#[derive(Debug, Clone)]
pub struct Record {
    /// Position in the call, from 1 without gaps.
    pub seq: Seq,
    /// Position among all commits of this daemon.
    pub order: u64,
    /// The header by which readers select the event.
    pub header: Header,
    /// The wire form.
    pub frame: Bytes,
    /// Private fields as JSON, or empty.
    pub private: Bytes,
}

/// A durable append.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The call's head after it.
    pub head: Seq,
    /// The records that were stored, shared with the journal's tail.
    pub records: Vec<Arc<Record>>,
}

/// Why the journal could not do an operation.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// Another writer has appended: the log's head is not the one that the caller named. The batch was not written.
    #[error("the journal's head of this call is {head}, not {after}")]
    Fenced {
        /// The present head.
        head: Seq,
        /// The head that the caller named.
        after: Seq,
    },
    /// The disk is full, I/O failed, or the store is not reachable. No part of the batch will ever be read, and a retry
    /// is right.
    #[error("the journal cannot write: {0}")]
    Unavailable(String),
    /// The log is damaged elsewhere than at a torn end. Events before the damage stay readable.
    #[error("the journal of this call is damaged after event {after}: {message}")]
    Damaged {
        /// Last readable event.
        after: Seq,
        /// Which damage was found, and where.
        message: String,
    },
    /// The call does not exist: it never did, it was erased, or its retention is over.
    #[error("no such call in the journal")]
    UnknownCall,
    /// The requested positions were deleted by retention.
    #[error("events up to {oldest} were deleted by retention")]
    Gone {
        /// Oldest position that still exists.
        oldest: Seq,
    },
}

/// The store of all calls: the log of each, and the directory (for each call, what can be known without reading its
/// log).
///
/// An [`Answer`] may be available at once or take a while; callers must not rely on either. Answers about one call that
/// are awaited one after the other are consistent: a later one contains everything that an earlier one has shown.
pub trait Store: Send + Sync {
    /// Appends `batch` to `call`, atomically, if its head is `after` (0 for a new call). `entry` is the call's
    /// directory entry if it changed; a new call needs one. An empty batch with an entry changes the entry alone.
    ///
    /// `after` is the fence: of two writers of one call, one gets `Fenced`. Each writer has at most one append in
    /// flight. (If a new writer appends while a batch of its predecessor is in flight, its append waits for the end of
    /// that batch.)
    ///
    /// The answer comes when the batch is durable and the tail has received it. The write itself has been started
    /// before this returns.
    fn append(&self, call: &CallId, after: Seq, batch: Vec<NewRecord>, entry: Option<Entry>) -> Answer<Commit>;

    /// Records with `seq > after`, in order: at least one if there is one, otherwise at most about `max_bytes` of
    /// frames. Empty if `after` is the head or above it.
    ///
    /// Errors: `UnknownCall`, `Gone`, `Damaged` (once the readable part ends at or before `after`), `Unavailable`.
    fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Answer<Vec<Arc<Record>>>;

    /// The call's head. Errors as those of [`Store::read`].
    fn head(&self, call: &CallId) -> Answer<Seq>;

    /// Calls with records of `order > after` and the first such `seq` of each, to resume a subscription to all calls.
    fn since(&self, after: u64) -> Answer<Vec<(CallId, Seq)>>;

    /// The directory's entry of one call; `None` if there is no such call.
    fn entry(&self, call: &CallId) -> Answer<Option<Entry>>;

    /// Calls in order of `call_id`, starting after `after`, at most `limit`; with `state`, only calls in that state.
    fn page(&self, state: Option<CallState>, after: Option<&CallId>, limit: usize) -> Answer<Vec<Entry>>;

    /// All open calls, with their entries. Cheap enough for 10,000.
    fn open_calls(&self) -> Answer<Vec<Entry>>;

    /// Number of open calls, as far as this daemon knows.
    fn open_count(&self) -> usize;

    /// Marks a call as failed without an event (its log is damaged, so no event can be appended). Has no effect on a
    /// call that does not exist or has failed already.
    fn mark_failed(&self, call: &CallId) -> Answer<()>;

    /// Erases the log and the entry of a call that is not open, permanently. Returns false if the call does not exist.
    fn erase(&self, call: &CallId) -> Answer<bool>;

    /// Everything up to this `order` was announced: the tail has received it, and `read` returns it. A cursor that
    /// starts now has this value.
    fn order(&self) -> u64;

    /// Identifies the history of the whole journal; it changes whenever the epochs of open calls do. Part of the cursor
    /// of a subscription to all calls.
    fn generation(&self) -> u64;

    /// Registers the listener that receives every commit of all calls, in the order of `order`, once it is durable. At
    /// most one.
    fn set_tail(&self, tail: Arc<dyn Tail>);

    /// Checks that appends work (`/readyz`).
    ///
    /// # Errors
    /// The last failure, until an append or a probe succeeds.
    fn health(&self) -> Result<(), JournalError>;

    /// Makes everything that was appended durable, and marks the shutdown as clean. No append may follow.
    fn close(&self) -> Answer<()>;
}

/// Receives commits. Called on a writer's or a sync thread, so it must not block and must not call the journal.
pub trait Tail: Send + Sync {
    /// `records` of `call` are durable. These calls come one after the other, in the order of `order`: a reader that
    /// has received everything up to some `order` has missed nothing before it.
    fn committed(&self, call: &CallId, records: &[Arc<Record>]);
    /// The call's log was deleted: the call was erased, or its retention is over.
    fn erased(&self, call: &CallId);
}
