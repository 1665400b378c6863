//! State that all requests of a gateway share.

use std::sync::Arc;

use super::validators::Validators;
use crate::gateway::admission::budget::Budget;
use crate::gateway::exchanges::Exchanges;
use crate::gateway::metrics::Metrics;
use crate::gateway::recorder::Recorder;
use crate::gateway::transport::client::Client;

/// State that all requests share and that a reload of the catalogue does not change.
pub(in crate::gateway) struct Shared {
    pub(in crate::gateway) client: Client,
    pub(in crate::gateway) metrics: Arc<Metrics>,
    pub(in crate::gateway) recorder: Option<Arc<dyn Recorder>>,
    pub(in crate::gateway) budget: Option<Arc<Budget>>,
    pub(in crate::gateway) validators: Arc<Validators>,
    /// Set if calls are not live.
    pub(in crate::gateway) exchanges: Option<Arc<Exchanges>>,
}
