//! Ingest: receives turns from STT vendors and other producers.
//!
//! Knows no context and no journal, and of analyses only their names and the questions that producers bring. A
//! connection's task reads frames, decodes them into events and sends these to the call's session; acks and insights
//! return on the same socket. Ingest never waits for an LLM; while a session's queue is full, its sockets are not read.

mod attachment;
pub mod batch;
mod ending;
mod feed;
pub mod listen;
mod metrics;
mod params;
pub mod proxy;
mod pump;
pub mod record;
mod results;
pub mod source;
mod unacked;
mod watch;

pub use metrics::Metrics;
