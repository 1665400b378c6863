//! What an attempt needs besides the bytes of its request and its endpoint.

use std::sync::atomic::AtomicBool;

use tokio::time::Instant;

use crate::gateway::catalogue::config::Timeouts;
use crate::gateway::transport::client::Client;
use crate::llm::ChatRequest;

/// Parameters of an attempt.
#[derive(Clone, Copy)]
pub(in crate::gateway) struct Context<'a> {
    pub(in crate::gateway) client: &'a Client,
    pub(in crate::gateway) timeouts: Timeouts,
    pub(in crate::gateway) request: &'a ChatRequest,
    /// Deadline of the whole request.
    pub(in crate::gateway) deadline: Instant,
    /// Deadline for the header of a plain answer.
    pub(in crate::gateway) plain_header: Instant,
    /// Set if vendor chunks are kept as they arrived.
    pub(in crate::gateway) keep_raw: bool,
    /// Set if the request allows at most one tool call. Not every vendor has such a parameter: of several calls, only
    /// the first is passed on.
    pub(in crate::gateway) one_call: bool,
    /// Set to true once a vendor has begun to answer.
    pub(in crate::gateway) answering: Option<&'a AtomicBool>,
}
