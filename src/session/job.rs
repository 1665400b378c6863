//! Everything that one task needs.

use std::sync::Arc;

use crate::analysis::{Analysis, Prompt};
use crate::call::task::Start;
use crate::gateway::Resolved;
use crate::types::CallId;

/// Analyses in the order of their request's schema, each with its prompt; empty for a producer's own question.
pub(super) type Bundle = Vec<(Arc<Analysis>, Arc<Prompt>)>;

/// One task.
pub(super) struct Job {
    pub(super) call: CallId,
    /// The task that the call wants.
    pub(super) start: Box<Start>,
    /// The analyses in the schema of its request.
    pub(super) bundle: Bundle,
    /// The chosen model.
    pub(super) arm: Arc<Resolved>,
    /// `limits.insight_bytes`.
    pub(super) insight_bytes: usize,
}
