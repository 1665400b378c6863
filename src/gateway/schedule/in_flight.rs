//! An attempt in flight, and what it holds: permission of the circuit breaker, a slot, money, its record.

use std::borrow::Cow;
use std::sync::Arc;

use crate::gateway::admission::budget::Reservation;
use crate::gateway::admission::limiter::Permit;
use crate::gateway::attempt::record::AttemptRecord;
use crate::gateway::attempt::start::Start;
use crate::gateway::catalogue::endpoint::EndpointModel;
use crate::gateway::error::Failure;
use crate::gateway::metrics::Metrics;
use crate::llm::{ChatRequest, SchemaMode, Wire};

/// Outcome of sending an attempt: it reached its commit point, or failed before it.
pub(super) type Sent = Result<Start, Failure>;

/// A started attempt.
pub(super) struct InFlight<'a, 'r> {
    pub(super) position: usize,
    pub(super) remote: Arc<EndpointModel>,
    /// The request, adapted to this model.
    pub(super) request: Cow<'r, ChatRequest>,
    pub(super) record: Box<AttemptRecord>,
    pub(super) probe: Probe<'a>,
    pub(super) mode_step: usize,
    pub(super) schema_mode: SchemaMode,
    /// The encoded request in the vendor's format; taken out when it is sent.
    pub(super) wire: Wire,
}

/// Everything that an attempt must have before it starts. Dropping it unused gives everything back.
pub(super) struct Admission<'a> {
    /// Permission of the circuit breaker.
    pub(super) probe: Probe<'a>,
    /// A concurrency slot and a share of the rates; `None` where nothing is limited.
    pub(super) permit: Option<Permit>,
    /// Reserved money; `None` where nothing is capped or no price is known.
    pub(super) reservation: Option<Reservation>,
}

/// The right to be the breaker's probe; given back on drop if the attempt did not decide the probe.
pub(super) struct Probe<'a> {
    remote: Arc<EndpointModel>,
    metrics: &'a Metrics,
    pub(super) pending: bool,
}

impl<'a> Probe<'a> {
    pub(super) fn new(remote: &Arc<EndpointModel>, metrics: &'a Metrics, pending: bool) -> Self {
        Self { remote: Arc::clone(remote), metrics, pending }
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if self.pending {
            self.remote.breaker.given_up();
            self.metrics.breaker(
                &self.remote.endpoint.name,
                &self.remote.vendor_model,
                self.remote.breaker.phase() as i64,
            );
        }
    }
}
