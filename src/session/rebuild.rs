//! A call rebuilt from its log, a piece at a time.
//!
//! Reads files: for threads that serve nobody. Knows no task.

use super::record;
use super::state::CallState;
use crate::journal::{Entry, JournalError, Store};
use crate::types::CallId;

/// Bytes of a log that make a piece: some milliseconds of work.
const PIECE_BYTES: usize = 256 * 1024;

/// A call on its way back.
pub(super) struct Rebuild {
    state: CallState,
    /// Why its log cannot be read any further.
    damage: Option<String>,
}

impl Rebuild {
    /// Nothing was read.
    pub(super) fn new(call: &CallId) -> Self {
        Self { state: CallState::new(call.clone()), damage: None }
    }

    /// Takes the next piece; whether there may be more.
    ///
    /// # Errors
    /// The log cannot be read now.
    pub(super) fn piece(&mut self, store: &dyn Store) -> Result<bool, JournalError> {
        let records = match store.read(&self.state.call_id, self.state.head, PIECE_BYTES) {
            Ok(records) => records,
            Err(JournalError::UnknownCall) if self.state.head == 0 => Vec::new(),
            Err(JournalError::Damaged { message, .. }) => {
                self.damage = Some(message);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        for stored in &records {
            if let Err(message) = record::decode(stored).and_then(|decoded| self.state.restore(decoded)) {
                self.damage = Some(message);
                return Ok(false);
            }
        }
        let bytes: usize = records.iter().map(|stored| stored.frame.len()).sum();
        Ok(bytes >= PIECE_BYTES)
    }

    /// The call, with what its directory entry knows better, and what is wrong with its log, if something is.
    pub(super) fn finish(self, entry: &Entry) -> (CallState, Option<String>) {
        let Self { mut state, damage } = self;
        if state.head > 0 || damage.is_some() {
            state.adopt(entry);
        }
        (state, damage)
    }
}
