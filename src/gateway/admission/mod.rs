//! Admission: decides whether a request may be sent to an endpoint now, and how long it waits. It has concurrency
//! limits, a fair queue, rates, the vendor's own limits, spending limits, circuit breakers, and the latency of each
//! model.
//!
//! Knows no model name, no configuration file, no HTTP and no attempt: the caller provides estimates, prices and
//! outcomes.

pub(in crate::gateway) mod budget;
pub(in crate::gateway) mod circuit_breaker;
pub(in crate::gateway) mod fair_queue;
pub(in crate::gateway) mod latency;
pub(in crate::gateway) mod limiter;
mod rate_window;
pub(in crate::gateway) mod refusal;
pub(in crate::gateway) mod token_estimate;
pub(in crate::gateway) mod vendor_limits;
