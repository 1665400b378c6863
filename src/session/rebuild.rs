//! A call rebuilt from its log, a piece at a time.
//!
//! Reads files: for threads that serve nobody. Knows no task.

use crate::call::{Log, record};
use crate::journal::{JournalError, Store};
use crate::types::CallId;

/// Bytes of a log that make a piece: some milliseconds of work.
const PIECE_BYTES: usize = 256 * 1024;

/// A call on its way back.
pub(super) struct Rebuild {
    log: Log,
    /// Why its log cannot be read any further.
    damage: Option<String>,
}

impl Rebuild {
    /// Nothing was read.
    pub(super) fn new(call: &CallId) -> Self {
        Self { log: Log::new(call.clone()), damage: None }
    }

    /// Takes the next piece; whether there may be more.
    ///
    /// # Errors
    /// The log cannot be read now.
    pub(super) fn piece(&mut self, store: &dyn Store) -> Result<bool, JournalError> {
        let records = match store.read(self.log.call_id(), self.log.head(), PIECE_BYTES) {
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

    /// What the log says, and what is wrong with it, if something is.
    pub(super) fn finish(self) -> (Log, Option<String>) {
        (self.log, self.damage)
    }
}
