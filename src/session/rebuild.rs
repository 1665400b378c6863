//! Rebuilds a call from its log, piece by piece.
//!
//! Knows no task. A piece takes some milliseconds, on a thread that serves no clients.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::index::off_thread;
use crate::base::backoff::Backoff;
use crate::call::{Log, record};
use crate::journal::{Entry, JournalError, Record, Store};
use crate::types::CallId;

/// Bytes of a log that form a piece.
const PIECE_BYTES: usize = 256 * 1024;
/// First wait before another attempt to read a log; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What exists of a call when its session starts.
pub(super) enum Found {
    /// Neither an entry nor a log.
    Nothing,
    /// The call as it was rebuilt.
    Known(Box<Known>),
}

/// A call that was rebuilt.
pub(super) struct Known {
    /// The directory's entry of the call.
    pub(super) entry: Entry,
    /// The call's state, rebuilt from its log.
    pub(super) log: Log,
    /// Set if the call's log cannot be read any further; the reason.
    pub(super) damage: Option<String>,
}

/// Rebuilds the call from its directory entry and its log. If these cannot be read, it tries again until they can be.
/// `None` if `stop` was cancelled.
pub(super) async fn found(store: &dyn Store, stop: &CancellationToken, call: &CallId) -> Option<Found> {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let error = match store.entry(call).await {
            Ok(None) => return Some(Found::Nothing),
            Ok(Some(entry)) => match rebuilt(store, call).await {
                Ok((log, damage)) => return Some(Found::Known(Box::new(Known { entry, log, damage }))),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if backoff.pauses() == 0 {
            tracing::error!(call_id = %call, %error, "the call cannot be rebuilt from its journal now");
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(backoff.pause(rand::random())) => {}
        }
    }
}

/// Rebuilds the call from its log. Also returns the damage of the log, if there is any.
async fn rebuilt(store: &dyn Store, call: &CallId) -> Result<(Log, Option<String>), JournalError> {
    let mut rebuild = Rebuild { log: Log::new(call.clone()), damage: None };
    loop {
        let read = store.read(call, rebuild.log.head(), PIECE_BYTES).await;
        let more;
        (rebuild, more) = off_thread(move || {
            let more = rebuild.take(read);
            (rebuild, more)
        })
        .await?;
        if !more? {
            return Ok((rebuild.log, rebuild.damage));
        }
    }
}

/// A call that is being rebuilt.
struct Rebuild {
    log: Log,
    /// Set if the call's log cannot be read any further; the reason.
    damage: Option<String>,
}

impl Rebuild {
    /// Adds the next piece of the log; returns true if there may be more.
    ///
    /// # Errors
    /// The log cannot be read now.
    fn take(&mut self, read: Result<Vec<Arc<Record>>, JournalError>) -> Result<bool, JournalError> {
        let records = match read {
            Ok(records) => records,
            Err(JournalError::UnknownCall) if self.log.head() == 0 => Vec::new(),
            Err(JournalError::Damaged { message, .. }) => {
                self.damage = Some(message);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        for stored in &records {
            let decoded = record::decode(stored.seq, &stored.frame, &stored.private);
            if let Err(message) = decoded.and_then(|decoded| self.log.restore(decoded)) {
                self.damage = Some(message);
                return Ok(false);
            }
        }
        let bytes: usize = records.iter().map(|stored| stored.frame.len()).sum();
        Ok(bytes >= PIECE_BYTES)
    }
}
