//! The schedule of one request: its models one after the other, each model's candidates with retries, failover and a
//! hedge, and the processing of an answer: validation, repair, streams.
//!
//! Knows no client's protocol, no vendor's format and no HTTP.

pub(in crate::gateway) mod candidates;
mod commit;
mod complete;
mod embedded;
mod failover;
pub(in crate::gateway) mod fallbacks;
mod hedge;
mod in_flight;
mod next;
mod parts;
mod prepare;
mod repair;
mod run;
pub(in crate::gateway) mod shared;
mod start;
pub(in crate::gateway) mod stream;
pub(in crate::gateway) mod validators;
