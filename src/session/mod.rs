//! Sessions: one task per call, which owns all of that call's state.
//!
//! [`Sessions`] is the registry: it finds the task of a call, rebuilds it from the journal when a call is touched or a
//! timer of it is due, and isolates a call that panics. It knows no socket.

pub mod bounds;
pub mod command;
pub mod config;
mod ending;
mod failures;
pub mod fitting;
mod held;
mod index;
mod input;
mod jobs;
mod library;
mod metrics;
mod outline;
mod reading;
mod rebuild;
pub mod record;
mod registry;
mod schedule;
mod state;
mod streams;
mod task;
mod worker;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use metrics::Metrics;
pub use registry::{SessionError, Sessions};

use crate::analysis::Registry as Analyses;
use crate::base::drain::Drain;
use crate::base::queue::QueueGauges;
use crate::gateway::Gateway;
use crate::hub::Hub;
use crate::journal::Store;

/// What every session uses.
pub struct Deps {
    /// The journal and its directory.
    pub store: Arc<dyn Store>,
    /// The journal's tail, for partials and deltas.
    pub hub: Hub,
    /// Whom analyses are asked of.
    pub gateway: Gateway,
    /// The analyses that there are.
    pub analyses: Arc<Analyses>,
    /// Those that a call runs unless it names its own.
    pub default_analyses: Vec<String>,
    /// `[ingest]`
    pub ingest: config::IngestConfig,
    /// `[limits]`
    pub limits: config::LimitsConfig,
    /// Jobs at once, over all calls; fair.
    pub permits: Arc<Semaphore>,
    /// Counters.
    pub metrics: Metrics,
    /// The input queue's gauges.
    pub queue: Arc<QueueGauges>,
    /// Stopping.
    pub drain: Drain,
}
