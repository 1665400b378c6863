//! Consecutive turns with the estimated tokens of their prompt lines.
//!
//! Knows neither the other chunks of its call nor a snapshot, and no text of a prompt.

use std::sync::{Arc, OnceLock};

use crate::types::{Turn, TurnNo};

/// Consecutive turns.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    pub turns: Vec<Arc<Turn>>,
    /// Estimated tokens of each turn's line; 0 if it has none.
    pub tokens: Vec<u32>,
    pub total: u64,
    spoken: OnceLock<Spoken>,
}

/// Which of some turns have a line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spoken {
    /// First and last ordinal of a turn with a line.
    pub span: Option<(TurnNo, TurnNo)>,
    /// Number of turns with a line.
    pub turns: u64,
}

impl Chunk {
    /// Which of its turns have a line; computed at the first call.
    pub(super) fn spoken(&self) -> Spoken {
        *self.spoken.get_or_init(|| Spoken::of(&self.turns, &self.tokens))
    }

    pub(super) fn push(&mut self, turn: &Arc<Turn>, tokens: u32) {
        self.turns.push(Arc::clone(turn));
        self.tokens.push(tokens);
        self.total += u64::from(tokens);
        self.spoken = OnceLock::new();
    }

    pub(super) fn replace(&mut self, at: usize, turn: &Arc<Turn>, tokens: u32) {
        self.turns[at] = Arc::clone(turn);
        self.total = self.total - u64::from(self.tokens[at]) + u64::from(tokens);
        self.tokens[at] = tokens;
        self.spoken = OnceLock::new();
    }
}

impl Spoken {
    /// Computes it from turns and the tokens of their lines.
    pub(super) fn of(turns: &[Arc<Turn>], tokens: &[u32]) -> Self {
        let with_lines = turns.iter().zip(tokens).filter(|(_, tokens)| **tokens > 0).map(|(turn, _)| turn.turn);
        with_lines.fold(Self::default(), |known, turn| known.and(Self { span: Some((turn, turn)), turns: 1 }))
    }

    /// Combines two of them.
    pub(super) fn and(self, other: Self) -> Self {
        let span = match (self.span, other.span) {
            (Some((from, to)), Some((first, last))) => Some((from.min(first), to.max(last))),
            (one, other) => one.or(other),
        };
        Self { span, turns: self.turns + other.turns }
    }
}

/// A piece of a snapshot: consecutive turns.
#[derive(Debug)]
pub(super) enum Piece {
    /// A whole chunk of the context.
    Whole(Arc<Chunk>),
    /// Some turns, and which of them have a line.
    Some(Vec<Arc<Turn>>, Spoken),
}
