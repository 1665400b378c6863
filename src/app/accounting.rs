//! Accounting: writes the gateway's attempts into the ledger, and the configuration of that time beside them, so that
//! one bill covers all vendors. Gives the gateway its budget.
//!
//! Knows no HTTP and no request: the gateway reports attempts, and the ledger stores them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::otel::Spans;
use crate::base::drain::Drain;
use crate::base::sync::lock;
use crate::call::config::LimitsConfig;
use crate::gateway::{self, Budget, Gateway, Recorder, UNKNOWN_SPENT};
use crate::keys;
use crate::ledger::{Ledger, LedgerError};
use crate::types::{AttemptBegun, AttemptDone, RequestDone};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Interval of retries to open a ledger that could not be opened at the start.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Writes every attempt into the ledger, and exports it as a span if that is configured.
pub(super) struct LedgerRecorder {
    pub(super) ledger: Ledger,
    pub(super) spans: Option<Arc<Spans>>,
}

impl Recorder for LedgerRecorder {
    fn begun(&self, attempt: AttemptBegun) {
        self.ledger.begun(&attempt);
        if let Some(spans) = &self.spans {
            spans.begun(attempt);
        }
    }

    fn done(&self, attempt: AttemptDone) {
        self.ledger.done(&attempt);
        if let Some(spans) = &self.spans {
            spans.done(attempt);
        }
    }

    fn over(&self, request: RequestDone) {
        if let Some(spans) = &self.spans {
            spans.over(request);
        }
    }

    fn noted(&self, kind: &'static str, items: Vec<(String, String)>) {
        let now_ms = crate::base::time::unix_ms();
        let items: Vec<_> = items.iter().map(|(name, detail)| (kind, name.as_str(), detail.as_str())).collect();
        // The list of one endpoint says nothing about the models of others, so no item is recorded as removed.
        if let Err(error) = self.ledger.configured(&[], &items, now_ms) {
            tracing::error!(%error, kind, "a change of the configuration could not be written to the ledger");
        }
    }
}

/// The spending limits, with the spending so far as the ledger has it.
pub(super) fn budget(ledger: &Ledger, limits: &LimitsConfig) -> Result<Budget, LedgerError> {
    let today = match spent_today(ledger) {
        Err(LedgerError::Waiting(_)) => UNKNOWN_SPENT,
        spent => spent?,
    };
    let ledger = ledger.clone();
    let by_call = move |call: &crate::types::CallId| match ledger.spent_by_call(call.as_str()) {
        Ok(spent) => spent,
        Err(LedgerError::Waiting(_)) => UNKNOWN_SPENT,
        Err(error) => {
            tracing::error!(%error, "the past cost of a call cannot be read; its cost counts from now on");
            0
        }
    };
    Ok(Budget::new(limits.usd_per_call, limits.usd_per_day, today, Box::new(by_call)))
}

/// Waits for a ledger that could not be opened at the start. Then records what was skipped, and reads what was spent.
pub(super) async fn catch_up(audit: ConfigAudit, config: gateway::Config, gateway: Gateway, drain: Drain) {
    while let Err(LedgerError::Waiting(_)) = audit.ledger.health() {
        tokio::select! {
            biased;
            () = drain.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    let done = tokio::task::spawn_blocking(move || {
        audit.note_keys();
        audit.note_config(&config)?;
        audit.spent_today().map(|today| gateway.learn_spent(today))
    });
    match done.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, "the amount spent before the start is not known yet: spending limits count as \
                reached")
        }
        Err(_) => tracing::error!("recording the configuration in the ledger panicked"),
    }
}

/// Money spent since the UTC day began, pico-dollars.
fn spent_today(ledger: &Ledger) -> Result<i64, LedgerError> {
    let now_ms = crate::base::time::unix_ms();
    ledger.spent_since(now_ms - now_ms.rem_euclid(DAY_MS))
}

/// Records the configuration in the ledger, so that a bill can refer to it.
pub(super) struct ConfigAudit {
    ledger: Ledger,
    /// Path of the key file.
    keys: PathBuf,
    /// State of the key file when it was last recorded; `None` before the first time.
    seen: Mutex<Option<Stamp>>,
    /// Where the configured key comes from.
    configured: Option<String>,
}

/// Modification time and length of a file; `None` if it does not exist.
type Stamp = Option<(SystemTime, u64)>;

impl ConfigAudit {
    pub(super) fn new(ledger: Ledger, keys: PathBuf, configured: Option<String>) -> Self {
        Self { ledger, keys, seen: Mutex::new(None), configured }
    }

    /// A copy that has recorded nothing yet.
    pub(super) fn fresh(&self) -> Self {
        Self::new(self.ledger.clone(), self.keys.clone(), self.configured.clone())
    }

    /// Money spent since the UTC day began, pico-dollars.
    pub(super) fn spent_today(&self) -> Result<i64, LedgerError> {
        spent_today(&self.ledger)
    }

    /// Records every endpoint, model, route and price that has changed.
    pub(super) fn note_config(&self, config: &gateway::Config) -> Result<(), LedgerError> {
        let items = config.inventory();
        let items: Vec<_> = items.iter().map(|(kind, name, detail)| (*kind, name.as_str(), detail.as_str())).collect();
        self.ledger.configured(gateway::config::INVENTORY, &items, crate::base::time::unix_ms())
    }

    /// Records the names and scopes of all client keys that have changed, if the key file has. No key itself is
    /// recorded.
    pub(super) fn note_keys(&self) {
        let stamp = std::fs::metadata(&self.keys).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
        {
            let mut seen = lock(&self.seen);
            if *seen == Some(stamp) {
                return;
            }
            *seen = Some(stamp);
        }
        // An unreadable key file is reported where clients' keys are checked.
        let Ok(entries) = keys::list(&self.keys) else { return };
        let made = entries.into_iter().map(|entry| {
            let revoked = entry.revoked_at.map_or_else(String::new, |at| format!(", revoked {at}"));
            (entry.name, format!("scopes {}{revoked}", entry.scopes.join(",")))
        });
        let configured = self.configured.iter().map(|from| ("server.key".to_owned(), format!("scopes admin, {from}")));
        let details: Vec<(String, String)> = made.chain(configured).collect();
        let items: Vec<_> = details.iter().map(|(name, detail)| ("key", name.as_str(), detail.as_str())).collect();
        if let Err(error) = self.ledger.configured(&["key"], &items, crate::base::time::unix_ms()) {
            tracing::error!(%error, "the client keys could not be written to the ledger");
        }
    }
}
