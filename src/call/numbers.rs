//! Numbers of a call's connections and of the peers that wait for its answers.

/// Number of a connection in its call, from 1; stored durably, so that it is never given twice.
pub type ConnectionNo = u64;
/// Number of a peer that waits for an answer: a producer's socket or a request. The driver assigns it, and never twice.
pub(crate) type PeerNo = u64;
