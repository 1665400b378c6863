//! A vendor's own list of models as it was last read, and when it is read next. If reading it fails, the last list
//! stays in use.
//!
//! Reads nothing itself: see `discovery`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::config::vendor_id_is_valid;
use crate::base::backoff::Backoff;
use crate::base::sync::lock;
use crate::base::time::unix_ms;
use crate::gateway::price::{Price, per_million};
use crate::llm::models::{Listed, Traits};

/// Waits after failures, each at most the configured interval.
const RETRIES: Backoff = Backoff::new(Duration::from_secs(15), Duration::MAX).with_jitter(0.0);

/// One vendor's list, as it was read at one time.
#[derive(Debug)]
pub(in crate::gateway) struct Listing {
    pub(in crate::gateway) at_ms: i64,
    models: HashMap<Box<str>, Known>,
}

/// A listed model.
#[derive(Debug)]
pub(in crate::gateway) struct Known {
    pub(in crate::gateway) traits: Traits,
    pub(in crate::gateway) price: Option<Price>,
    retired: bool,
}

impl Listing {
    pub(super) fn new(listed: Vec<Listed>) -> Self {
        let models = listed.into_iter().filter(|model| vendor_id_is_valid(&model.id)).map(|model| {
            let price = model.price.map(|price| Price {
                from_ms: 0,
                input: per_million(price.input),
                cached: per_million(price.cached.unwrap_or(price.input)),
                cache_write: per_million(price.cache_write.unwrap_or(price.input)),
                output: per_million(price.output),
            });
            (model.id.into_boxed_str(), Known { traits: model.traits, price, retired: model.retired })
        });
        Self { at_ms: unix_ms(), models: models.collect() }
    }

    pub(in crate::gateway) fn get(&self, vendor_model: &str) -> Option<&Known> {
        self.models.get(vendor_model)
    }

    /// Number of models, retired ones included.
    pub(super) fn len(&self) -> usize {
        self.models.len()
    }

    /// The models with a listed price.
    pub(super) fn prices(&self) -> impl Iterator<Item = (&str, Price)> {
        self.models.iter().filter_map(|(id, known)| Some((&**id, known.price?)))
    }

    /// The vendor ids that can be asked: those that are not retired.
    pub(in crate::gateway) fn names(&self) -> impl Iterator<Item = &str> {
        self.models.iter().filter(|(_, known)| !known.retired).map(|(id, _)| &**id)
    }
}

/// An endpoint's list and when it is read next. Kept over a reload that leaves the endpoint's name, address and
/// provider unchanged.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Listings {
    current: ArcSwapOption<Listing>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the list is read next; `None` = at once.
    due: Option<Instant>,
    backoff: Backoff,
    error: Option<String>,
}

impl Default for State {
    fn default() -> Self {
        Self { due: None, backoff: RETRIES, error: None }
    }
}

impl Listings {
    pub(in crate::gateway) fn current(&self) -> Option<Arc<Listing>> {
        self.current.load_full()
    }

    /// Returns true if the vendor lists this model and has not retired it.
    pub(in crate::gateway) fn has(&self, vendor_model: &str) -> bool {
        let current = self.current.load();
        current.as_ref().and_then(|listing| listing.get(vendor_model)).is_some_and(|known| !known.retired)
    }

    /// When the list is read next; `None` = at once.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lock().due
    }

    /// Why the newest attempt to read the list failed.
    pub(super) fn error(&self) -> Option<String> {
        self.lock().error.clone()
    }

    /// Takes a list that was read.
    pub(super) fn succeeded(&self, listing: Listing, interval: Duration) {
        self.current.store(Some(Arc::new(listing)));
        *self.lock() = State { due: Some(Instant::now() + interval), ..State::default() };
    }

    /// Notes a failure. Returns how long to wait before the next attempt.
    pub(super) fn failed(&self, error: String, interval: Duration) -> Duration {
        let mut state = self.lock();
        let wait = state.backoff.pause(0.0).min(interval);
        state.due = Some(Instant::now() + wait);
        state.error = Some(error);
        wait
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
