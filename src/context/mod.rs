//! The view that prompts have of a call: its turns, windows over them, and the immutable, bounded snapshots for jobs.
//!
//! Knows no clock, no socket, no journal and no LLM, and does not number turns (the turn table does). [`Context`] keeps
//! turns in chunks, so that a new turn costs O(1) and a [`Snapshot`] O(chunks). A [`Window`] keeps the text that the
//! prompts of one question have shown, so that each begins with the bytes of the one before; for turns that have left it,
//! prompts show [`Digests`]. [`escape`] prevents spoken text from becoming structure of a prompt.

mod chunk;
mod chunks;
mod digest;
mod digests;
mod line;
mod marks;
mod part;
mod snapshot;
mod views;
mod window;

pub use crate::base::{escape, tokens};
pub use chunks::{Context, Corrected};
pub use digest::{Claim, Digest, Source, Unusable};
pub use digests::{Digests, digest_tokens};
pub use marks::DOUBT;
pub use snapshot::Snapshot;
pub use window::{DEFAULT_BUDGET_TOKENS, Window};
