//! The context of a call: its turns as mutable records, and the immutable, bounded snapshots that jobs see.
//!
//! Knows no clock, no socket, no journal and no LLM. [`Turns`] numbers, cuts, deduplicates and revises turns;
//! [`Context`] holds the same turns in chunks with their prompt lines, so that a new turn costs O(1) and a
//! [`Snapshot`] O(chunks); a [`Window`] is one analysis' sticky start in them. [`escape`] keeps what was said from
//! becoming structure.

mod chunks;
mod content;
mod cut;
pub mod escape;
mod line;
mod overlay;
mod saved;
mod snapshot;
pub mod tokens;
pub mod turns;

pub use chunks::{Context, DEFAULT_BUDGET_TOKENS, Window};
pub use saved::TurnPrivate;
pub use snapshot::Snapshot;
pub use turns::{Change, ChangeKind, MAX_EARLY_REVISIONS, TurnError, Turns};
