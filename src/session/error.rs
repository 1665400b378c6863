//! Errors of starting or finding a call's session.

use crate::journal::JournalError;
use crate::types::CallId;

/// A call's session could not be started or found.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// No such call.
    #[error("no call {0}")]
    UnknownCall(CallId),
    /// A limit, named.
    #[error("{message}")]
    Limit {
        /// Names the limit.
        message: String,
    },
    /// Its log is damaged, or it failed twice.
    #[error("call {0} has failed; what it had stays readable, see the daemon's log")]
    Failed(CallId),
    /// The journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// Another node runs the call.
    #[error("call {call} is run by the node at {url}; connect there")]
    Elsewhere {
        /// The call.
        call: CallId,
        /// URL of the node.
        url: String,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}
