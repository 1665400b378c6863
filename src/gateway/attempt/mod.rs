//! Attempts: one HTTP request to one endpoint, from its start to the end of its answer, and its record.
//!
//! Knows nothing of other candidates, of retries and of the use of an answer.

pub(in crate::gateway) mod context;
pub(in crate::gateway) mod decoding;
pub(in crate::gateway) mod opened;
pub(in crate::gateway) mod record;
pub(in crate::gateway) mod start;
pub(in crate::gateway) mod stream;
