//! The gateway's attempts into the ledger, and what is configured beside them: so that one bill stands over all vendors.

use crate::gateway::budget::Budget;
use crate::gateway::{self, Recorder};
use crate::ledger::{Ledger, LedgerError};
use crate::session::config::LimitsConfig;
use crate::types::{AttemptBegun, AttemptDone};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

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

/// The caps on money, with what the ledger knows to be spent already.
pub(super) fn budget(ledger: &Ledger, limits: &LimitsConfig) -> Result<Budget, LedgerError> {
    let now_ms = crate::base::time::unix_ms();
    let today = ledger.spent_since(now_ms - now_ms.rem_euclid(DAY_MS))?;
    let ledger = ledger.clone();
    let by_call = move |call: &crate::types::CallId| {
        ledger.spent_by_call(call.as_str()).unwrap_or_else(|error| {
            tracing::error!(%error, "what a call has spent cannot be read; it counts from now on");
            0
        })
    };
    Ok(Budget::new(limits.usd_per_call, limits.usd_per_day, today, Box::new(by_call)))
}

/// Writes down every endpoint, model, route and price that is not as it was.
pub(super) fn note_config(ledger: &Ledger, config: &gateway::Config) -> Result<(), LedgerError> {
    let now_ms = crate::base::time::unix_ms();
    config.inventory().iter().try_for_each(|(kind, name, detail)| ledger.configured(kind, name, detail, now_ms))
}
