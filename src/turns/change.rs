//! What an event makes of the turn table: turns that are new or changed, or the reason why nothing changed.
//!
//! Knows no table.

use std::sync::Arc;

use super::saved::TurnPrivate;
use crate::types::{Turn, TurnNo};

/// How many revisions of one stream may wait for turns that have not come.
pub const MAX_EARLY_REVISIONS: usize = 256;

/// Why an event was not applied. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    /// A revision of a turn without a name.
    #[error("the revision names no turn")]
    Unnamed,
    /// Too many revisions wait for turns that have not come.
    #[error("{MAX_EARLY_REVISIONS} revisions of this stream already wait for turns that have not come")]
    TooManyEarly,
    /// A record to restore does not follow those before it.
    #[error("turn {found} cannot follow {len} turns")]
    Hole {
        /// Its ordinal.
        found: TurnNo,
        /// Turns so far.
        len: usize,
    },
}

/// What became of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    New,
    /// It was there; which of `text`, `speaker`, `times`, `language` changed. `words` stands there only if nothing
    /// else changed than its words.
    Revised(Vec<&'static str>),
}

/// One turn that is new or changed, to be journaled in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// As it stands now, words included.
    pub turn: Arc<Turn>,
    /// New, or what changed.
    pub kind: ChangeKind,
    /// What its record needs beside the turn.
    pub private: TurnPrivate,
}
