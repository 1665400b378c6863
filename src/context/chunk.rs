//! Consecutive turns with the tokens of their lines, and the text that a prompt shows of them.
//!
//! Knows neither the other chunks of its call nor a snapshot. Text is rendered when it is asked for the first time.

use std::sync::{Arc, OnceLock};

use super::line;
use crate::types::{Turn, TurnNo};

/// Consecutive turns.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    pub turns: Vec<Arc<Turn>>,
    /// Estimated tokens of each turn's line; 0 where it has none.
    pub tokens: Vec<u32>,
    pub total: u64,
    rendered: OnceLock<Rendered>,
}

/// Consecutive turns as a prompt shows them.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    /// Their lines.
    pub text: Arc<str>,
    /// First and last ordinal that has a line.
    pub span: Option<(TurnNo, TurnNo)>,
    /// How many have one.
    pub turns: u64,
}

impl Chunk {
    /// All its turns as lines; made at the first call.
    pub(super) fn rendered(&self) -> &Rendered {
        self.rendered.get_or_init(|| Rendered::of(&self.turns))
    }

    /// The same turns without rendered text: a copy to be changed.
    pub(super) fn unrendered(&self) -> Self {
        Self { rendered: OnceLock::new(), ..self.clone() }
    }

    pub(super) fn push(&mut self, turn: &Arc<Turn>, tokens: u32) {
        self.turns.push(Arc::clone(turn));
        self.tokens.push(tokens);
        self.total += u64::from(tokens);
    }

    pub(super) fn replace(&mut self, at: usize, turn: &Arc<Turn>, tokens: u32) {
        self.turns[at] = Arc::clone(turn);
        self.total = self.total - u64::from(self.tokens[at]) + u64::from(tokens);
        self.tokens[at] = tokens;
    }
}

impl Rendered {
    pub(super) fn of(turns: &[Arc<Turn>]) -> Self {
        let mut text = String::new();
        for turn in turns {
            line::render(turn, &mut text);
        }
        let (span, count) = span(turns);
        Self { text: text.into(), span, turns: count }
    }
}

/// First and last ordinal that has a line, and how many have one.
pub(super) fn span(turns: &[Arc<Turn>]) -> (Option<(TurnNo, TurnNo)>, u64) {
    let with_lines = turns.iter().filter(|turn| line::has_line(turn)).map(|turn| turn.turn);
    with_lines.fold((None, 0), |(span, count), turn| {
        (
            span.map_or(Some((turn, turn)), |(from, to): (TurnNo, TurnNo)| Some((from.min(turn), to.max(turn)))),
            count + 1,
        )
    })
}
