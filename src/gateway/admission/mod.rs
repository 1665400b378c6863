//! Admission: whether a request may be sent to an endpoint now, or how long it waits. Concurrency, a fair queue, rates,
//! the vendor's own limits, budgets of money, circuit breakers, and how fast each model has been.
//!
//! Knows no name that can be asked, no configuration file, no HTTP and no attempt: it is given estimates, prices and
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
