//! Numbers of a call's connections and of those who wait for its answers.

/// Number of a connection in its call, from 1; durable, so that it is never given twice.
pub type ConnectionNo = u64;
/// Number of whoever waits for an answer: a producer's socket or a question. Given by the driver, never twice.
pub(crate) type PeerNo = u64;
