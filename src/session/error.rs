//! Errors of starting or finding a call's session.

use crate::journal::JournalError;
use crate::types::CallId;

/// Why a call's session could not be started or found.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// The call does not exist.
    #[error("no call {0}")]
    UnknownCall(CallId),
    /// A limit is reached.
    #[error("{message}")]
    Limit {
        /// Names the limit.
        message: String,
    },
    /// The call's log is damaged, or its session failed twice.
    #[error("call {0} has failed; its data so far can be read; see the daemon's log")]
    Failed(CallId),
    /// The journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// Another node runs the call.
    #[error("call {call} is run by the node at {url}; connect there")]
    Elsewhere {
        call: CallId,
        /// URL of the node.
        url: String,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}
