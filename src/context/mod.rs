//! What prompts see of a call: its turns, windows over them, and the immutable, bounded snapshots that jobs get.
//!
//! Knows no clock, no socket, no journal, no LLM, and not how a turn gets its number (that is the turn table's).
//! [`Context`] holds turns in chunks, so that a new turn costs O(1) and a [`Snapshot`] O(chunks); a [`Window`] holds what the
//! prompts of one question have shown, so that each begins with the bytes of the one before. [`escape`] keeps what was
//! said from becoming structure.

mod chunk;
mod chunks;
pub mod escape;
mod line;
mod part;
mod snapshot;
pub mod tokens;
mod views;
mod window;

pub use chunks::Context;
pub use snapshot::Snapshot;
pub use window::{DEFAULT_BUDGET_TOKENS, Window};
