//! The immutable copy of a context that a job sees.
//!
//! Knows no prompt. Cheap to make (it shares the context's chunks) and to clone.

use std::sync::{Arc, OnceLock};

use super::chunk::{Piece, Spoken};
use super::line;
use super::part::Shown;
use crate::types::{Coverage, Transcript, Turn, TurnNo};

/// Turns as they stood, and the text that a prompt shows of them.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pieces: Vec<Piece>,
    /// What a prompt shows of the pieces' turns.
    shown: Shown,
    /// Of a single turn: those before it, which its prompt may show but which it does not cover.
    before: Vec<Arc<Turn>>,
    /// Whether the pieces are in order of ordinals.
    ordered: bool,
    covers: Coverage,
    transcript: OnceLock<Arc<Transcript>>,
}

impl Piece {
    fn turns(&self) -> &[Arc<Turn>] {
        match self {
            Self::Whole(chunk) => &chunk.turns,
            Self::Some(turns, _) => turns,
        }
    }

    fn spoken(&self) -> Spoken {
        match self {
            Self::Whole(chunk) => chunk.spoken(),
            Self::Some(_, spoken) => *spoken,
        }
    }
}

impl Snapshot {
    /// Of turns in order of their ordinals.
    pub(super) fn new(revision: u64, pieces: Vec<Piece>, shown: Shown) -> Self {
        Self::of(revision, pieces, shown, Vec::new(), true)
    }

    /// The same, with turns that the prompt may show beside those it covers. All of them have text.
    pub(super) fn with_before(revision: u64, pieces: Vec<Piece>, shown: Shown, before: Vec<Arc<Turn>>) -> Self {
        Self::of(revision, pieces, shown, before, true)
    }

    /// Of turns that all have text, in another order.
    pub(super) fn out_of_order(revision: u64, turns: Vec<Arc<Turn>>, shown: Shown) -> Self {
        let each = turns.iter().map(|turn| Spoken { span: Some((turn.turn, turn.turn)), turns: 1 });
        let spoken = each.fold(Spoken::default(), Spoken::and);
        Self::of(revision, vec![Piece::Some(turns, spoken)], shown, Vec::new(), false)
    }

    fn of(revision: u64, pieces: Vec<Piece>, shown: Shown, before: Vec<Arc<Turn>>, ordered: bool) -> Self {
        let Spoken { span, turns } = pieces.iter().map(Piece::spoken).fold(Spoken::default(), Spoken::and);
        let (from, to) = (span.map(|(from, _)| from), span.map(|(_, to)| to));
        let covers = Coverage { from, to, turns, verbatim_from: from, revision };
        Self(Arc::new(Inner { pieces, shown, before, ordered, covers, transcript: OnceLock::new() }))
    }

    /// The context's revision when it was taken.
    pub fn revision(&self) -> u64 {
        self.0.covers.revision
    }

    /// Which turns the prompt holds. Turns without text are in no prompt, so they are not counted.
    pub fn covers(&self) -> Coverage {
        self.0.covers
    }

    /// What a prompt shows of the turns: texts of lines, each line ending in a line feed. The first ones are those of the
    /// snapshot before, byte by byte, if [`Snapshot::is_stable`] and the window has not moved.
    pub fn parts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.shown.parts.iter().map(|part| part.text()).filter(|text| !text.is_empty())
    }

    /// Lines of turns that the parts show in an older version, in their newest one; `[9] (withdrawn)` for a turn that has
    /// no text any more. Empty if there are none.
    pub fn corrections(&self) -> &str {
        &self.0.shown.corrections
    }

    /// Set if later snapshots begin with the same parts, until the window moves.
    pub fn is_stable(&self) -> bool {
        self.0.shown.stable
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

    /// Estimated tokens of the parts and the corrections.
    pub fn tokens(&self) -> u64 {
        self.0.shown.tokens
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
