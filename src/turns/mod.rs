//! The turn table of one call: every turn of every stream as a mutable record, numbered, cut, deduplicated, revised.
//!
//! Knows no clock, no journal, no prompt and no wire format. Each operation costs O(1) in the number of turns; only a
//! merge of speakers visits all turns of its stream.
//!
//! Finals in any order and with any repetition lead to the same turns:
//! * A final equal to one already applied to its turn (by digest) is a duplicate, whatever revised the turn since.
//! * A formatted final is never replaced by an unformatted one; any other new content is a revision.
//! * The first final with word speakers decides the cuts; later content is distributed over them by the words' middles.
//!   Only a turn whose vendor has not ended it gets further parts, for words after all earlier ones.
//! * Speakers given by a revision are applied to later finals too; a revision that comes before its turn waits for it.

mod apply;
mod change;
mod content;
mod cut;
mod overlay;
mod saved;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod timing;

pub use change::{Change, ChangeKind, MAX_EARLY_REVISIONS, TurnError};
pub use saved::TurnPrivate;
pub use table::Turns;
