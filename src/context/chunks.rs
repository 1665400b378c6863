//! The turns of a call in chunks, with the estimated tokens of their prompt lines.
//!
//! Does not number turns (the turn table does); knows no prompt and no window. A new turn costs O(1), a revision one
//! chunk.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk::{Chunk, Piece, Spoken};
use super::line;
use super::marks::Heard;
use crate::base::text::Words;
use crate::types::{Turn, TurnNo};

/// How many replacements [`Context::revised_since`] remembers.
const MAX_REPLACED: usize = 256;
/// Number of turns in a full chunk.
const CHUNK_TURNS: usize = 32;
/// The marks of a turn depend on at most this many turns before it.
const HEARD_TURNS: TurnNo = 8;

/// The turns of a call, for snapshots.
#[derive(Debug, Default)]
pub struct Context {
    full: Vec<Arc<Chunk>>,
    tail: Chunk,
    revision: u64,
    /// The newest replacements: the context's revision after each, and the turn.
    replaced: VecDeque<(u64, Corrected)>,
}

/// A turn that was replaced.
#[derive(Debug, Clone, Copy)]
pub struct Corrected {
    /// Its ordinal.
    pub turn: TurnNo,
    /// Set if the speaker changed.
    pub speaker: bool,
    /// Set if the words changed, regardless of letter case and punctuation.
    pub words: bool,
}

impl Corrected {
    fn new(before: &Turn, now: &Turn) -> Self {
        let words = before.text != now.text && Words::of(&before.text) != Words::of(&now.text);
        Self { turn: now.turn, speaker: before.speaker != now.speaker, words }
    }
}

impl Context {
    /// A context without turns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a new turn (its ordinal is [`Context::len`]) or replaces an existing one.
    pub fn upsert(&mut self, turn: &Arc<Turn>) {
        self.revision += 1;
        let cost = u32::try_from(line::tokens_next(turn, &self.heard(turn.turn))).unwrap_or(u32::MAX);
        let index = usize::try_from(turn.turn).unwrap_or(usize::MAX);
        let in_full = self.full.len() * CHUNK_TURNS;
        if let Some(before) = self.get(turn.turn) {
            let corrected = Corrected::new(before, turn);
            if self.replaced.len() == MAX_REPLACED {
                self.replaced.pop_front();
            }
            self.replaced.push_back((self.revision, corrected));
        }
        if index < in_full {
            Arc::make_mut(&mut self.full[index / CHUNK_TURNS]).replace(index % CHUNK_TURNS, turn, cost);
        } else if index < self.len() {
            self.tail.replace(index - in_full, turn, cost);
        } else {
            debug_assert_eq!(index, self.len(), "turns are numbered without holes");
            self.tail.push(turn, cost);
        }
        if self.tail.turns.len() == CHUNK_TURNS {
            self.full.push(Arc::new(std::mem::take(&mut self.tail)));
        }
    }

    /// Number of turns, including those without text.
    pub fn len(&self) -> usize {
        self.full.len() * CHUNK_TURNS + self.tail.turns.len()
    }

    /// Returns true if there is no turn.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of times a turn was added or replaced.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns true if a turn up to the ordinal `to` was replaced after the context had this revision, or if that is
    /// longer ago than it remembers.
    pub fn revised_since(&self, revision: u64, to: Option<TurnNo>) -> bool {
        let touched =
            |to| self.corrected_since(revision).is_none_or(|mut corrected| corrected.any(|turn| turn.turn <= to));
        to.is_some_and(touched)
    }

    /// The turns that were replaced after the context had this revision, newest first; `None` if that is longer ago than
    /// it remembers.
    pub fn corrected_since(&self, revision: u64) -> Option<impl Iterator<Item = Corrected>> {
        let forgotten = self.replaced.len() == MAX_REPLACED
            && self.replaced.front().is_some_and(|(oldest, _)| *oldest > revision.saturating_add(1));
        let newest = self.replaced.iter().rev().take_while(move |(at, _)| *at > revision).map(|(_, one)| *one);
        (!forgotten).then_some(newest)
    }

    /// Estimated tokens of one turn's line, which triggers count.
    pub fn tokens(&self, turn: TurnNo) -> u64 {
        let Ok(index) = usize::try_from(turn) else { return 0 };
        let chunk = self.chunk(index / CHUNK_TURNS);
        chunk.and_then(|chunk| chunk.tokens.get(index % CHUNK_TURNS)).map_or(0, |tokens| u64::from(*tokens))
    }

    /// The first ordinal from which the turns up to `until` fit: `from` if they are within `budget`, otherwise the
    /// first ordinal from which they are within `down_to`. The newest turn with text stays if it has at most `most`
    /// tokens: a prompt without it would not contain the newest speech.
    pub(super) fn fit(&self, mut from: TurnNo, until: TurnNo, budget: u64, down_to: u64, most: u64) -> TurnNo {
        let mut total = self.total(from, until);
        if total <= budget {
            return from;
        }
        while from < until && total > down_to {
            let left = self.tokens(from);
            if total <= most && total == left {
                break;
            }
            total -= left;
            from += 1;
        }
        from
    }

    /// The first of the newest turns below `until`: at most `count` turns with text, of at most `most` tokens together.
    pub(super) fn newest(&self, until: TurnNo, count: usize, most: u64) -> TurnNo {
        let (mut first, mut counted, mut total) = (until, 0, 0_u64);
        for turn in (0..until).rev() {
            let tokens = self.tokens(turn);
            (counted, total) = (counted + usize::from(tokens > 0), total + tokens);
            if counted > count || total > most {
                break;
            }
            first = turn;
        }
        first
    }

    /// Returns true if the newest turn with text below `until` leaves room for digests in a prompt with this budget.
    pub(super) fn leaves_room(&self, until: TurnNo, budget: u64) -> bool {
        let newest = (0..until).rev().map(|turn| self.tokens(turn)).find(|tokens| *tokens > 0);
        newest.unwrap_or(0) <= budget / 8 * 5
    }

    /// The first ordinal, at most `until`, up to which the turns from `from` on have at most `most` tokens; at least one
    /// turn with text is before it.
    pub(super) fn filled(&self, from: TurnNo, until: TurnNo, most: u64) -> TurnNo {
        let (mut end, mut total) = (from, 0_u64);
        while end < until {
            let tokens = self.tokens(end);
            if total > 0 && total + tokens > most {
                break;
            }
            (end, total) = (end + 1, total + tokens);
        }
        end
    }

    /// Estimated tokens of the turns in `from..until`.
    pub(super) fn total(&self, from: TurnNo, until: TurnNo) -> u64 {
        spans(index(from), index(until).min(self.len()))
            .map(|(index, first, last)| match self.chunk(index) {
                Some(chunk) if last - first == CHUNK_TURNS => chunk.total,
                Some(chunk) => chunk.tokens[first..last].iter().map(|tokens| u64::from(*tokens)).sum(),
                None => 0,
            })
            .sum()
    }

    /// The turn with this ordinal in its present state.
    pub(super) fn get(&self, turn: TurnNo) -> Option<&Arc<Turn>> {
        let index = index(turn);
        self.chunk(index / CHUNK_TURNS)?.turns.get(index % CHUNK_TURNS)
    }

    /// The turns in `from..until` in their present state.
    pub(super) fn turns_of(&self, from: TurnNo, until: TurnNo) -> Vec<Arc<Turn>> {
        let chunks = spans(index(from), index(until).min(self.len()))
            .filter_map(|(index, first, last)| Some(&self.chunk(index)?.turns[first..last]));
        chunks.flatten().cloned().collect()
    }

    /// The speech before a turn, in its present state.
    pub(super) fn heard(&self, turn: TurnNo) -> Heard {
        let mut heard = Heard::default();
        let before = self.turns_of(turn.saturating_sub(HEARD_TURNS), turn);
        before.iter().filter(|turn| line::has_line(turn)).for_each(|turn| heard.add(turn));
        heard
    }

    fn chunk(&self, index: usize) -> Option<&Chunk> {
        match self.full.get(index) {
            Some(chunk) => Some(chunk),
            None => (index == self.full.len()).then_some(&self.tail),
        }
    }

    /// The turns in `from..until`, as whole shared chunks where possible.
    pub(super) fn pieces(&self, from: usize, until: usize) -> Vec<Piece> {
        let pieces = spans(from, until).filter_map(|(index, first, last)| match self.full.get(index) {
            Some(chunk) if last - first == CHUNK_TURNS => Some(Piece::Whole(Arc::clone(chunk))),
            _ => {
                let chunk = self.chunk(index)?;
                let turns = &chunk.turns[first..last];
                Some(Piece::Some(turns.to_vec(), Spoken::of(turns, &chunk.tokens[first..last])))
            }
        });
        pieces.collect()
    }
}

/// An ordinal as an index.
pub(super) fn index(turn: TurnNo) -> usize {
    usize::try_from(turn).unwrap_or(usize::MAX)
}

/// The chunks that `from..until` touches: their index, and the range in each.
fn spans(from: usize, until: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let chunks = if from < until { from / CHUNK_TURNS..until.div_ceil(CHUNK_TURNS) } else { 0..0 };
    chunks.map(move |index| {
        let base = index * CHUNK_TURNS;
        (index, from.saturating_sub(base), (until - base).min(CHUNK_TURNS))
    })
}

#[cfg(test)]
mod tests;
