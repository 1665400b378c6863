//! The turns of a call in chunks with their prompt lines, and the sticky window that bounds what a prompt holds.
//!
//! Knows no number given to a turn (that is the turn table's) and no prompt. A new turn costs O(1), a revision one
//! chunk, a snapshot O(chunks). Rendered text is made when a snapshot asks for it, and can be forgotten.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk::Chunk;
use super::snapshot::{Piece, Snapshot};
use super::{line, tokens};
use crate::types::{Turn, TurnNo};

/// Tokens of transcript that a prompt holds at most, unless an analysis says otherwise.
pub const DEFAULT_BUDGET_TOKENS: u64 = 16_000;

/// How many replacements [`Context::revised_since`] remembers.
const MAX_REPLACED: usize = 256;
/// Turns in a full chunk.
const CHUNK_TURNS: usize = 32;

/// The turns of a call, as snapshots see them.
#[derive(Debug, Default)]
pub struct Context {
    full: Vec<Arc<Chunk>>,
    tail: Chunk,
    /// Lines of the tail's turns.
    tail_lines: Vec<Arc<str>>,
    revision: u64,
    /// The newest replacements: the context's revision after each, and the turn.
    replaced: VecDeque<(u64, TurnNo)>,
}

/// Where one analysis' prompts begin: stays until they would be over budget, then leaves in one step down to half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Tokens of transcript at most.
    pub budget_tokens: u64,
    /// The first ordinal that is still in.
    pub from: TurnNo,
}

impl Window {
    /// A window from the call's first turn.
    pub fn new(budget_tokens: u64) -> Self {
        Self { budget_tokens, from: 0 }
    }

    /// Changes the budget; the start stays where it is.
    pub fn set_budget(&mut self, budget_tokens: u64) {
        self.budget_tokens = budget_tokens;
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new(DEFAULT_BUDGET_TOKENS)
    }
}

impl Context {
    /// A context without turns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a turn that is new (its ordinal is [`Context::len`]) or replaces the one there is.
    pub fn upsert(&mut self, turn: &Arc<Turn>) {
        self.revision += 1;
        let mut text = String::new();
        line::render(turn, &mut text);
        let cost = u32::try_from(tokens::estimate(&text)).unwrap_or(u32::MAX);
        let index = usize::try_from(turn.turn).unwrap_or(usize::MAX);
        let in_full = self.full.len() * CHUNK_TURNS;
        if index < self.len() {
            if self.replaced.len() == MAX_REPLACED {
                self.replaced.pop_front();
            }
            self.replaced.push_back((self.revision, turn.turn));
        }
        if index < in_full {
            let mut chunk = self.full[index / CHUNK_TURNS].unrendered();
            chunk.replace(index % CHUNK_TURNS, turn, cost);
            self.full[index / CHUNK_TURNS] = Arc::new(chunk);
        } else if index < self.len() {
            self.tail.replace(index - in_full, turn, cost);
            self.tail_lines[index - in_full] = text.into();
        } else {
            debug_assert_eq!(index, self.len(), "turns are numbered without holes");
            self.tail.push(turn, cost);
            self.tail_lines.push(text.into());
        }
        if self.tail.turns.len() == CHUNK_TURNS {
            self.full.push(Arc::new(std::mem::take(&mut self.tail)));
            self.tail_lines.clear();
        }
    }

    /// How many turns there are, those without text too.
    pub fn len(&self) -> usize {
        self.full.len() * CHUNK_TURNS + self.tail.turns.len()
    }

    /// No turn yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many times a turn was taken or replaced.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether a turn up to the ordinal `to` was replaced after the context had that revision. Says yes where that is
    /// longer ago than it remembers.
    pub fn revised_since(&self, revision: u64, to: Option<TurnNo>) -> bool {
        let forgotten = self.replaced.len() == MAX_REPLACED
            && self.replaced.front().is_some_and(|(oldest, _)| *oldest > revision.saturating_add(1));
        let newest = self.replaced.iter().rev().take_while(|(at, _)| *at > revision);
        to.is_some_and(|to| forgotten || newest.into_iter().any(|(_, turn)| *turn <= to))
    }

    /// Estimated tokens of one turn's line: what triggers count.
    pub fn tokens(&self, turn: TurnNo) -> u64 {
        let Ok(index) = usize::try_from(turn) else { return 0 };
        let chunk = self.chunk(index / CHUNK_TURNS);
        chunk.and_then(|chunk| chunk.tokens.get(index % CHUNK_TURNS)).map_or(0, |tokens| u64::from(*tokens))
    }

    /// All turns in the window, which moves if they are over its budget. Never over budget: a turn that alone is over
    /// it leaves too, and a snapshot can be empty.
    pub fn snapshot(&self, window: &mut Window) -> Snapshot {
        self.snapshot_to(window, self.len() as TurnNo)
    }

    /// As [`Context::snapshot`], of the turns below the ordinal `until` alone.
    pub fn snapshot_to(&self, window: &mut Window, until: TurnNo) -> Snapshot {
        let until = usize::try_from(until).unwrap_or(usize::MAX).min(self.len());
        let from = usize::try_from(window.from).unwrap_or(usize::MAX).min(until);
        let from = self.fit(from, until, window.budget_tokens, window.budget_tokens / 2);
        // A snapshot of earlier turns never takes the window back.
        window.from = window.from.max(from as TurnNo);
        Snapshot::new(self.revision, self.pieces(from, until), true)
    }

    /// One turn alone, and beside it, not covered, at most `before` turns with text that come before it, as far as they
    /// fit `budget_tokens`.
    pub fn snapshot_turn(&self, turn: TurnNo, before: usize, budget_tokens: u64) -> Snapshot {
        let from = usize::try_from(turn).unwrap_or(usize::MAX).min(self.len());
        let pieces = self.pieces(from, (from + 1).min(self.len()));
        let (mut tokens, mut earlier) = (0, Vec::new());
        for index in (0..from).rev() {
            if earlier.len() == before {
                break;
            }
            let Some(known) = self.at(index).filter(|turn| line::has_line(turn)) else { continue };
            tokens += self.tokens(known.turn);
            if tokens > budget_tokens {
                break;
            }
            earlier.push(Arc::clone(known));
        }
        earlier.reverse();
        Snapshot::with_before(self.revision, pieces, true, earlier)
    }

    /// The last word on a call: the newest turns that fit, in order of `start_ms`.
    pub fn snapshot_final(&self, budget_tokens: u64) -> Snapshot {
        let from = self.fit(0, self.len(), budget_tokens, budget_tokens);
        let mut turns: Vec<Arc<Turn>> =
            self.turns(from, self.len()).filter(|turn| line::has_line(turn)).cloned().collect();
        if turns.is_sorted_by_key(|turn| turn.start_ms) {
            // Same order, so that the lines rendered before are shared, and caches still hit.
            return Snapshot::new(self.revision, self.pieces(from, self.len()), true);
        }
        turns.sort_by_key(|turn| turn.start_ms);
        let tokens = (from..self.len()).map(|index| self.tokens(index as TurnNo)).sum();
        Snapshot::new(self.revision, vec![Piece::rendered(turns, tokens)], false)
    }

    /// Drops rendered text, for a call that is idle. The next snapshot makes the same bytes again.
    pub fn forget_text(&mut self) {
        for chunk in &mut self.full {
            *chunk = Arc::new(chunk.unrendered());
        }
    }

    /// The first ordinal from which the turns up to `until` fit: `from` if they are within `budget`, else the first
    /// from which they are within `down_to`.
    fn fit(&self, mut from: usize, until: usize, budget: u64, down_to: u64) -> usize {
        let mut total = self.total(from, until);
        if total <= budget {
            return from;
        }
        while from < until && total > down_to {
            total -= self.tokens(from as TurnNo);
            from += 1;
        }
        from
    }

    fn total(&self, from: usize, until: usize) -> u64 {
        spans(from, until)
            .map(|(index, first, last)| match self.chunk(index) {
                Some(chunk) if last - first == CHUNK_TURNS => chunk.total,
                Some(chunk) => chunk.tokens[first..last].iter().map(|tokens| u64::from(*tokens)).sum(),
                None => 0,
            })
            .sum()
    }

    fn chunk(&self, index: usize) -> Option<&Chunk> {
        match self.full.get(index) {
            Some(chunk) => Some(chunk),
            None => (index == self.full.len()).then_some(&self.tail),
        }
    }

    fn at(&self, index: usize) -> Option<&Arc<Turn>> {
        self.chunk(index / CHUNK_TURNS)?.turns.get(index % CHUNK_TURNS)
    }

    fn turns(&self, from: usize, until: usize) -> impl Iterator<Item = &Arc<Turn>> {
        let chunks = spans(from, until).filter_map(|(index, first, last)| Some((self.chunk(index)?, first, last)));
        chunks.flat_map(|(chunk, first, last)| &chunk.turns[first..last])
    }

    fn pieces(&self, from: usize, until: usize) -> Vec<Piece> {
        let pieces = spans(from, until).filter_map(|(index, first, last)| {
            Some(match self.full.get(index) {
                Some(chunk) if last - first == CHUNK_TURNS => Piece::Whole(Arc::clone(chunk)),
                Some(chunk) => {
                    let tokens = chunk.tokens[first..last].iter().map(|tokens| u64::from(*tokens)).sum();
                    Piece::rendered(chunk.turns[first..last].to_vec(), tokens)
                }
                None if index == self.full.len() => Piece::Lines {
                    turns: self.tail.turns[first..last].to_vec(),
                    lines: self.tail_lines[first..last].iter().filter(|line| !line.is_empty()).cloned().collect(),
                    tokens: self.tail.tokens[first..last].iter().map(|tokens| u64::from(*tokens)).sum(),
                },
                None => return None,
            })
        });
        pieces.collect()
    }
}

/// The chunks that `from..until` touches: their index, and the part of each.
fn spans(from: usize, until: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let chunks = if from < until { from / CHUNK_TURNS..until.div_ceil(CHUNK_TURNS) } else { 0..0 };
    chunks.map(move |index| {
        let base = index * CHUNK_TURNS;
        (index, from.saturating_sub(base), (until - base).min(CHUNK_TURNS))
    })
}

#[cfg(test)]
mod tests;
