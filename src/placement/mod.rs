//! Placement: which node owns a call.
//!
//! Knows no session and no socket: the code that is about to start a session asks here first.

mod local;

pub use local::Local;

use crate::journal::Answer;
use crate::types::CallId;

/// Who runs a call's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This node.
    Here,
    /// The node at this URL.
    There(String),
    /// No node yet; the first one that appends to the call's log will.
    Nobody,
}

/// Answers which node owns a call. An answer may be out of date when it is used: the fence of
/// [`Store::append`](crate::journal::Store::append) decides.
pub trait Placement: Send + Sync {
    /// The owner of `call`, which need not exist.
    fn owner(&self, call: &CallId) -> Answer<Owner>;
}
