//! Sessions: one task per call, which drives that call's state machine.
//!
//! [`Sessions`] is the registry: it finds the task of a call, rebuilds it from the journal when a call is touched or a
//! timer of it is due, and isolates a call that panics. It knows no socket, and decides nothing about a call: that is
//! [`crate::call`].

mod actor;
mod answers;
mod arriving;
mod bundle;
pub mod command;
mod error;
mod failure;
mod index;
mod job;
mod library;
mod live;
mod metrics;
pub mod offline;
mod peers;
mod pipeline;
mod reading;
mod rebuild;
mod registry;
mod runs;
mod worker;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use error::SessionError;
pub use metrics::Metrics;
pub use registry::Sessions;

use crate::base::drain::Drain;
use crate::base::queue::QueueGauges;
use crate::call::Settings;
use crate::gateway::Gateway;
use crate::hub::Hub;
use crate::journal::Store;
use crate::placement::Placement;

/// Dependencies of every session.
pub struct Deps {
    /// The journal and its directory.
    pub store: Arc<dyn Store>,
    /// Which node owns a call.
    pub placement: Arc<dyn Placement>,
    /// The journal's tail, for partials and deltas.
    pub hub: Hub,
    /// Asks the LLMs.
    pub gateway: Gateway,
    /// Settings of all calls: analyses, `[ingest]` and `[limits]`.
    pub call: Arc<Settings>,
    /// Limits the number of tasks that run at once, over all calls; fair.
    pub permits: Arc<Semaphore>,
    pub metrics: Metrics,
    /// The input queue's gauges.
    pub queue: Arc<QueueGauges>,
    /// Signals the shutdown of the daemon.
    pub drain: Drain,
}
