//! The immutable copy of a context that a job sees.
//!
//! Knows no prompt. Cheap to make (it shares the context's chunks) and to clone.

use std::sync::{Arc, OnceLock};

use super::chunk::{Piece, Spoken};
use super::line;
use super::marks::Heard;
use super::part::Shown;
use crate::types::{Coverage, Transcript, Turn, TurnNo};

/// Turns in their state at one moment, and the text that a prompt shows of them.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pieces: Vec<Piece>,
    /// The text that a prompt shows of the pieces' turns.
    shown: Shown,
    /// For a snapshot of one turn: the turns before it, which its prompt may show but which it does not cover.
    before: Vec<Arc<Turn>>,
    /// Set if the pieces are in order of ordinals.
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
    /// A snapshot of turns in order of their ordinals.
    pub(super) fn new(revision: u64, pieces: Vec<Piece>, shown: Shown) -> Self {
        Self::of(revision, pieces, shown, Vec::new(), true)
    }

    /// A snapshot with turns that the prompt may show besides those it covers. All of them have text.
    pub(super) fn with_before(revision: u64, pieces: Vec<Piece>, shown: Shown, before: Vec<Arc<Turn>>) -> Self {
        Self::of(revision, pieces, shown, before, true)
    }

    /// A snapshot of turns in another order; all of them have text.
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

    /// The turns in the prompt. Turns without text are in no prompt, so they are not counted.
    pub fn covers(&self) -> Coverage {
        self.0.covers
    }

    /// The texts that a prompt shows, each of whole lines. The first ones are byte by byte those of the previous
    /// snapshot, if [`Snapshot::is_stable`] and the window has not moved.
    pub fn parts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.shown.parts.iter().map(|part| part.text()).filter(|text| !text.is_empty())
    }

    /// Lines with the newest version of turns that the parts show in an older one; `[9] (withdrawn)` for a turn that
    /// has lost its text. Empty if there are none.
    pub fn corrections(&self) -> &str {
        &self.0.shown.corrections
    }

    /// Set if later snapshots begin with the same parts, until the window moves.
    pub fn is_stable(&self) -> bool {
        self.0.shown.stable
    }

    /// The lines of the turns before the covered one. Empty except for a snapshot of one turn.
    pub fn before(&self) -> String {
        lines(&self.0.before)
    }

    /// The lines of all turns that the prompt may show.
    pub fn held_lines(&self) -> String {
        lines(self.all_held())
    }

    /// The turns that the prompt may show, covered or not.
    pub fn all_held(&self) -> impl Iterator<Item = &Arc<Turn>> {
        self.0.before.iter().chain(self.turns())
    }

    /// The turn with this ordinal, if the prompt may show it, covered or not.
    pub fn held(&self, turn: TurnNo) -> Option<&Arc<Turn>> {
        self.turn(turn).or_else(|| self.0.before.iter().find(|before| before.turn == turn))
    }

    /// Estimated tokens of the parts and the corrections.
    pub fn tokens(&self) -> u64 {
        self.0.shown.tokens
    }

    /// The turns in reading order, as structured data; if a single turn is covered, it is the last. Made at the first
    /// call.
    pub fn transcript(&self) -> Arc<Transcript> {
        let make = || Arc::new(Transcript { turns: self.all_held().cloned().collect() });
        Arc::clone(self.0.transcript.get_or_init(make))
    }

    /// The turns in reading order, those with text only.
    pub fn turns(&self) -> impl DoubleEndedIterator<Item = &Arc<Turn>> {
        self.0.pieces.iter().flat_map(Piece::turns).filter(|turn| line::has_line(turn))
    }

    /// The turn with this ordinal, if it is in the snapshot and has text.
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

    /// Number of turns in the prompt.
    pub fn len(&self) -> usize {
        usize::try_from(self.0.covers.turns).unwrap_or(usize::MAX)
    }

    /// Returns true if the prompt contains no turn.
    pub fn is_empty(&self) -> bool {
        self.0.covers.turns == 0
    }
}

/// The lines of turns that follow one another.
fn lines<'a>(turns: impl IntoIterator<Item = &'a Arc<Turn>>) -> String {
    let (mut out, mut heard) = (String::new(), Heard::default());
    for turn in turns {
        line::render_next(turn, &mut heard, &mut out);
    }
    out
}
