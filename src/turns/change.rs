//! The result of applying an event to the turn table: turns that are new or changed, or the reason why nothing changed.
//!
//! Knows no table.

use std::sync::Arc;

use super::saved::TurnPrivate;
use crate::types::{Turn, TurnNo};

/// Maximum number of revisions of one stream that wait for turns that have not come.
pub const MAX_EARLY_REVISIONS: usize = 256;

/// Why an event was not applied. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    /// The revision does not name its turn.
    #[error("the revision names no turn")]
    Unnamed,
    /// Too many revisions wait for turns that have not come.
    #[error("{MAX_EARLY_REVISIONS} revisions of this stream already wait for turns that have not come")]
    TooManyEarly,
    /// A record to restore does not continue from those before it.
    #[error("turn number {found} cannot follow after {len} turns")]
    Hole {
        /// Ordinal of the turn in the record.
        found: TurnNo,
        /// Number of turns so far.
        len: usize,
    },
}

/// How a turn changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// The turn is new.
    New,
    /// The turn existed; which of `text`, `speaker`, `times`, `language` changed. `words` is listed only if nothing but
    /// its words changed.
    Revised(Vec<&'static str>),
}

/// One turn that is new or changed, to be journaled in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The turn after the change, with its words.
    pub turn: Arc<Turn>,
    pub kind: ChangeKind,
    /// What the turn's record needs besides the turn.
    pub private: TurnPrivate,
}
