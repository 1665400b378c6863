//! The immutable copy of a context that a job sees.
//!
//! Knows no prompt. Cheap to make (it shares the context's chunks) and to clone.

use std::sync::{Arc, OnceLock};

use super::chunk::{Chunk, Rendered, span};
use super::line;
use crate::types::{Coverage, Transcript, Turn, TurnNo};

/// Turns as they stood, with their prompt lines.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pieces: Vec<Piece>,
    /// Of a single turn: those before it, which its prompt may show but which it does not cover.
    before: Vec<Arc<Turn>>,
    /// Whether the pieces are in order of ordinals.
    ordered: bool,
    covers: Coverage,
    tokens: u64,
    transcript: OnceLock<Arc<Transcript>>,
}

/// Consecutive turns of a snapshot.
#[derive(Debug)]
pub(super) enum Piece {
    /// A whole chunk of the context.
    Whole(Arc<Chunk>),
    /// Turns with lines of their own.
    Lines { turns: Vec<Arc<Turn>>, lines: Vec<Arc<str>>, tokens: u64 },
}

impl Piece {
    /// A piece whose lines are rendered now.
    pub(super) fn rendered(turns: Vec<Arc<Turn>>, tokens: u64) -> Self {
        let lines = vec![Rendered::of(&turns).text];
        Self::Lines { turns, lines, tokens }
    }

    fn turns(&self) -> &[Arc<Turn>] {
        match self {
            Self::Whole(chunk) => &chunk.turns,
            Self::Lines { turns, .. } => turns,
        }
    }

    fn tokens(&self) -> u64 {
        match self {
            Self::Whole(chunk) => chunk.total,
            Self::Lines { tokens, .. } => *tokens,
        }
    }
}

impl Snapshot {
    pub(super) fn new(revision: u64, pieces: Vec<Piece>, ordered: bool) -> Self {
        Self::with_before(revision, pieces, ordered, Vec::new())
    }

    /// With turns that the prompt may show beside those it covers. All of them have text.
    pub(super) fn with_before(revision: u64, pieces: Vec<Piece>, ordered: bool, before: Vec<Arc<Turn>>) -> Self {
        let covers = coverage(revision, &pieces);
        let tokens = pieces.iter().map(Piece::tokens).sum();
        Self(Arc::new(Inner { pieces, before, ordered, covers, tokens, transcript: OnceLock::new() }))
    }

    /// The context's revision when it was taken.
    pub fn revision(&self) -> u64 {
        self.0.covers.revision
    }

    /// Which turns the prompt holds. Turns without text are in no prompt, so they are not counted.
    pub fn covers(&self) -> Coverage {
        self.0.covers
    }

    /// The turns' lines in reading order, each segment ending in a line feed, to be joined without anything between.
    pub fn lines(&self) -> Vec<Arc<str>> {
        let mut segments = Vec::with_capacity(self.0.pieces.len() + 32);
        for piece in &self.0.pieces {
            match piece {
                Piece::Whole(chunk) => segments.push(Arc::clone(&chunk.rendered().text)),
                Piece::Lines { lines, .. } => segments.extend(lines.iter().cloned()),
            }
        }
        segments.retain(|segment| !segment.is_empty());
        segments
    }

    /// The lines of the turns before the one that is covered, each ending in a line feed. Empty but for a single turn's.
    pub fn before(&self) -> String {
        let mut out = String::new();
        for turn in &self.0.before {
            line::render(turn, &mut out);
        }
        out
    }

    /// The lines of all turns that the prompt may show, each ending in a line feed.
    pub fn held_lines(&self) -> String {
        let mut out = String::new();
        for turn in self.all_held() {
            line::render(turn, &mut out);
        }
        out
    }

    /// The turns that the prompt may show, covered or not.
    pub fn all_held(&self) -> impl Iterator<Item = &Arc<Turn>> {
        self.0.before.iter().chain(self.turns())
    }

    /// One turn that the prompt may show, covered or not.
    pub fn held(&self, turn: TurnNo) -> Option<&Arc<Turn>> {
        self.turn(turn).or_else(|| self.0.before.iter().find(|before| before.turn == turn))
    }

    /// Estimated tokens of the lines.
    pub fn tokens(&self) -> u64 {
        self.0.tokens
    }

    /// The turns in reading order, structured; the one that is covered, where it is a single one, is the last. Made at the
    /// first call.
    pub fn transcript(&self) -> Arc<Transcript> {
        let make = || Arc::new(Transcript { turns: self.all_held().cloned().collect() });
        Arc::clone(self.0.transcript.get_or_init(make))
    }

    /// The turns in reading order, those with text only.
    pub fn turns(&self) -> impl DoubleEndedIterator<Item = &Arc<Turn>> {
        self.0.pieces.iter().flat_map(Piece::turns).filter(|turn| line::has_line(turn))
    }

    /// One turn, if it is in the snapshot and has text.
    pub fn turn(&self, turn: TurnNo) -> Option<&Arc<Turn>> {
        if !self.0.ordered {
            return self.turns().find(|candidate| candidate.turn == turn);
        }
        let pieces = &self.0.pieces;
        let piece = pieces.partition_point(|piece| piece.turns().last().is_some_and(|last| last.turn < turn));
        let turns = pieces.get(piece)?.turns();
        let index = usize::try_from(turn.checked_sub(turns.first()?.turn)?).ok()?;
        turns.get(index).filter(|turn| line::has_line(turn))
    }

    /// How many turns the prompt holds.
    pub fn len(&self) -> usize {
        usize::try_from(self.0.covers.turns).unwrap_or(usize::MAX)
    }

    /// The prompt holds no turn.
    pub fn is_empty(&self) -> bool {
        self.0.covers.turns == 0
    }
}

fn coverage(revision: u64, pieces: &[Piece]) -> Coverage {
    let mut covers = Coverage { from: None, to: None, turns: 0, verbatim_from: None, revision };
    for piece in pieces {
        let (span, turns) = match piece {
            Piece::Whole(chunk) => (chunk.rendered().span, chunk.rendered().turns),
            Piece::Lines { turns, .. } => span(turns),
        };
        covers.from = [covers.from, span.map(|(from, _)| from)].into_iter().flatten().min();
        covers.to = covers.to.max(span.map(|(_, to)| to));
        covers.turns += turns;
    }
    covers.verbatim_from = covers.from;
    covers
}
