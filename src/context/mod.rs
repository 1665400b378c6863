//! What prompts see of a call: its turns in chunks with their lines, windows over them, and the immutable, bounded
//! snapshots that jobs get.
//!
//! Knows no clock, no socket, no journal, no LLM, and not how a turn gets its number (that is the turn table's).
//! [`Context`] holds turns in chunks, so that a new turn costs O(1) and a [`Snapshot`] O(chunks); a [`Window`] is where the
//! prompts of one analysis begin. [`escape`] keeps what was said from becoming structure.

mod chunk;
mod chunks;
pub mod escape;
mod line;
mod snapshot;
pub mod tokens;

pub use chunks::{Context, DEFAULT_BUDGET_TOKENS, Window};
pub use snapshot::Snapshot;
