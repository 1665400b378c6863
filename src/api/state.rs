//! What the handlers of all routes use.
//!
//! Knows no route.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use super::subscribe;
use crate::base::drain::Drain;
use crate::base::inflight::Holder;
use crate::hub::Hub;
use crate::ingest;
use crate::journal::Store;
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::session::Sessions;

/// Everything that handlers use.
pub struct Api {
    pub sessions: Sessions,
    /// Distributes new events to subscribers.
    pub hub: Hub,
    /// Stores all events.
    pub store: Arc<dyn Store>,
    /// What the gateway used, and its cost.
    pub ledger: Ledger,
    /// Client keys and their scopes.
    pub keys: Keys,
    /// Metrics of producers' sockets.
    pub ingest: ingest::Metrics,
    /// Dependencies of the STT proxy.
    pub proxy: ingest::proxy::Deps,
    /// Dependencies of subscribers' sockets.
    pub subscribe: Arc<subscribe::Deps>,
    /// The registry of all metrics.
    pub registry: Arc<Registry>,
    /// Signals the shutdown of the daemon.
    pub drain: Drain,
}

/// Counts a connection until it ends. It comes with each request, and an upgraded socket keeps it, because for the HTTP
/// server the connection ends with the upgrade.
#[derive(Clone)]
pub struct ConnectionGuard {
    /// Dropped with the last clone of this value.
    pub counts: Arc<dyn std::any::Any + Send + Sync>,
    /// Counts the connection's bytes in flight.
    pub holder: Holder,
}
