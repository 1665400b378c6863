//! The gateway's attempts into the ledger, and what is configured beside them: so that one bill stands over all vendors.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::otel::Spans;
use crate::base::drain::Drain;
use crate::gateway::budget::{Budget, UNKNOWN_SPENT};
use crate::gateway::{self, Gateway, Recorder};
use crate::keys;
use crate::ledger::{Ledger, LedgerError};
use crate::session::config::LimitsConfig;
use crate::types::{AttemptBegun, AttemptDone, RequestDone};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How soon a ledger that is there at last is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Hands every attempt to the ledger, and to whoever makes spans of them.
pub(super) struct Books {
    pub(super) ledger: Ledger,
    pub(super) spans: Option<Arc<Spans>>,
}

impl Recorder for Books {
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
        // Another endpoint's list is another endpoint's affair: nothing is gone by this one.
        if let Err(error) = self.ledger.configured(&[], &items, now_ms) {
            tracing::error!(%error, kind, "a change is not in the ledger");
        }
    }
}

/// The caps on money, with what the ledger knows to be spent already.
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
            tracing::error!(%error, "what a call has spent cannot be read; it counts from now on");
            0
        }
    };
    Ok(Budget::new(limits.usd_per_call, limits.usd_per_day, today, Box::new(by_call)))
}

/// Waits for a ledger that could not be opened at the start, and makes up for what was left undone.
pub(super) async fn catch_up(inventory: Inventory, config: gateway::Config, gateway: Gateway, drain: Drain) {
    while let Err(LedgerError::Waiting(_)) = inventory.ledger.health() {
        tokio::select! {
            biased;
            () = drain.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    let done = tokio::task::spawn_blocking(move || {
        inventory.note_keys();
        inventory.note_config(&config)?;
        inventory.spent_today().map(|today| gateway.learn_spent(today))
    });
    match done.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, "what was spent before the start is not known: caps count as reached")
        }
        Err(_) => tracing::error!("the ledger could not be made up for"),
    }
}

/// Since the day of UTC began, pico-dollars.
fn spent_today(ledger: &Ledger) -> Result<i64, LedgerError> {
    let now_ms = crate::base::time::unix_ms();
    ledger.spent_since(now_ms - now_ms.rem_euclid(DAY_MS))
}

/// What the bill names, and where it is looked up.
pub(super) struct Inventory {
    ledger: Ledger,
    /// The key file, and its newest state that was written down.
    keys: PathBuf,
    seen: Mutex<Option<Stamp>>,
    /// Where the key of the configuration comes from.
    configured: Option<String>,
}

/// Of a file that may not be there.
type Stamp = Option<(SystemTime, u64)>;

impl Inventory {
    pub(super) fn new(ledger: Ledger, keys: PathBuf, configured: Option<String>) -> Self {
        Self { ledger, keys, seen: Mutex::new(None), configured }
    }

    /// One that has written nothing down.
    pub(super) fn anew(&self) -> Self {
        Self::new(self.ledger.clone(), self.keys.clone(), self.configured.clone())
    }

    /// What was spent today, pico-dollars.
    pub(super) fn spent_today(&self) -> Result<i64, LedgerError> {
        spent_today(&self.ledger)
    }

    /// Writes down every endpoint, model, route and price that is not as it was.
    pub(super) fn note_config(&self, config: &gateway::Config) -> Result<(), LedgerError> {
        let items = config.inventory();
        let items: Vec<_> = items.iter().map(|(kind, name, detail)| (*kind, name.as_str(), detail.as_str())).collect();
        self.ledger.configured(gateway::config::INVENTORY, &items, crate::base::time::unix_ms())
    }

    /// Writes down every client key that is not as it was, if the key file is not the one of last time. Of a key only its
    /// name and its scopes.
    pub(super) fn note_keys(&self) {
        let stamp = std::fs::metadata(&self.keys).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == Some(stamp) {
                return;
            }
            *seen = Some(stamp);
        }
        // One that cannot be read is told of by whoever lets clients in.
        let Ok(entries) = keys::list(&self.keys) else { return };
        let made = entries.into_iter().map(|entry| {
            let revoked = entry.revoked_at.map_or_else(String::new, |at| format!(", revoked {at}"));
            (entry.name, format!("scopes {}{revoked}", entry.scopes.join(",")))
        });
        let configured = self.configured.iter().map(|from| ("server.key".to_owned(), format!("scopes admin, {from}")));
        let details: Vec<(String, String)> = made.chain(configured).collect();
        let items: Vec<_> = details.iter().map(|(name, detail)| ("key", name.as_str(), detail.as_str())).collect();
        if let Err(error) = self.ledger.configured(&["key"], &items, crate::base::time::unix_ms()) {
            tracing::error!(%error, "the client keys are not in the ledger");
        }
    }
}
