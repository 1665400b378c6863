//! The interface between the gateway and the owner of the ledger.

use crate::types::{AttemptBegun, AttemptDone, RequestDone};

/// Receives the report of every attempt. Called on the request path: must neither block nor fail.
pub trait Recorder: Send + Sync {
    /// Called before an attempt is made. When it returns, the report is as durable as the recorder can make it.
    fn begun(&self, attempt: AttemptBegun);
    /// Called when the attempt has ended.
    fn done(&self, attempt: AttemptDone);
    /// Called when a request makes no further attempts; its last attempt may still be streaming its answer.
    fn over(&self, _request: RequestDone) {}
    /// Records the current items of a kind (such as listed prices) as `(name, detail)`. Items recorded before and not
    /// named here stay. Not called on the request path; may block.
    fn noted(&self, _kind: &'static str, _items: Vec<(String, String)>) {}
}
