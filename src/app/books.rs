//! The gateway's attempts into the ledger, and what is configured beside them: so that one bill stands over all vendors.

use crate::gateway::{self, Recorder};
use crate::ledger::{Ledger, LedgerError};
use crate::types::{AttemptBegun, AttemptDone};

/// Hands every attempt to the ledger.
pub(super) struct Books(pub(super) Ledger);

impl Recorder for Books {
    fn begun(&self, attempt: AttemptBegun) {
        self.0.begun(&attempt);
    }

    fn done(&self, attempt: AttemptDone) {
        self.0.done(&attempt);
    }
}

/// Writes down every endpoint, model, route and price that is not as it was.
pub(super) fn note_config(ledger: &Ledger, config: &gateway::Config) -> Result<(), LedgerError> {
    let now_ms = crate::base::time::unix_ms();
    config.inventory().iter().try_for_each(|(kind, name, detail)| ledger.configured(kind, name, detail, now_ms))
}
