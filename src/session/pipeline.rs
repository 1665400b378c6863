//! The commit pipeline of one call: one append in flight, repeated until the journal accepts it.
//!
//! Knows neither the call nor the meaning of a record. Replies are returned once their batch is durable.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;

use crate::base::backoff::Backoff;
use crate::call::effects::{Batch, Reply};
use crate::call::record::Outgoing;
use crate::journal::{Answer, Commit, Entry, JournalError, NewRecord, Store};
use crate::types::{CallId, Seq};

/// Waits before a failed append is repeated.
const RETRIES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// The appends of one call.
pub(super) struct Pipeline {
    store: Arc<dyn Store>,
    call: CallId,
    flight: Option<Flight>,
    /// Waits after consecutive failures of the batch in flight.
    backoff: Backoff,
    retry_at: Option<Instant>,
}

struct Flight {
    commit: Answer<Commit>,
    after: Seq,
    records: Vec<NewRecord>,
    entry: Option<Entry>,
    replies: Vec<Reply>,
}

/// Why a batch is not durable.
pub(super) enum Failure {
    /// The journal refuses it, for the first time since the last success; the append is repeated.
    First(String),
    /// The journal still refuses it.
    Again,
    /// This session may no longer write the log, or the log cannot be written at all.
    Lost(JournalError),
}

impl Pipeline {
    /// A pipeline with nothing in flight.
    pub(super) fn new(store: Arc<dyn Store>, call: CallId) -> Self {
        Self { store, call, flight: None, backoff: RETRIES, retry_at: None }
    }

    /// Returns true if nothing is in flight, so that the next batch may be appended.
    pub(super) fn is_idle(&self) -> bool {
        self.flight.is_none()
    }

    /// When the append is repeated, if the journal refused it.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Appends a batch. Nothing else may be in flight.
    pub(super) fn append(&mut self, batch: Batch) {
        let Batch { after, records, entry, replies } = batch;
        let new = |Outgoing { header, frame, private, .. }| NewRecord { header, frame, private };
        let records: Vec<NewRecord> = records.into_iter().map(new).collect();
        let commit = self.store.append(&self.call, after, records.clone(), entry.clone());
        self.flight = Some(Flight { commit, after, records, entry, replies });
    }

    /// Repeats the append in flight.
    pub(super) fn retry(&mut self) {
        self.retry_at = None;
        if let Some(flight) = &mut self.flight {
            let (records, entry) = (flight.records.clone(), flight.entry.clone());
            flight.commit = self.store.append(&self.call, flight.after, records, entry);
        }
    }

    /// The result of the append in flight; never ends if there is none, or if it waits for its repetition.
    ///
    /// # Cancel safety
    /// Safe: if this future is dropped, the append stays in flight.
    pub(super) async fn committed(&mut self) -> Result<Commit, JournalError> {
        match &mut self.flight {
            Some(flight) if self.retry_at.is_none() => (&mut flight.commit).await,
            _ => std::future::pending().await,
        }
    }

    /// As [`Pipeline::committed`], if the result is available at once.
    pub(super) fn committed_now(&mut self) -> Option<Result<Commit, JournalError>> {
        self.flight.as_mut().and_then(|flight| (&mut flight.commit).now_or_never())
    }

    /// Processes a result: returns the head, and the replies to send now.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) fn finish(&mut self, result: Result<Commit, JournalError>) -> Result<(Seq, Vec<Reply>), Failure> {
        match result {
            Ok(commit) => {
                self.backoff.reset();
                let replies = self.flight.take().map(|flight| flight.replies).unwrap_or_default();
                Ok((commit.head, replies))
            }
            Err(JournalError::Unavailable(message)) => {
                self.retry_at = Some(Instant::now() + self.backoff.pause(rand::random()));
                Err(if self.backoff.pauses() == 1 { Failure::First(message) } else { Failure::Again })
            }
            Err(error) => Err(Failure::Lost(error)),
        }
    }
}
