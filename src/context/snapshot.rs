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
    before: Before,
    /// Set if the pieces are in order of ordinals.
    ordered: bool,
    covers: Coverage,
    transcript: OnceLock<Arc<Transcript>>,
}

/// The turns before the pieces of a snapshot.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Those of the digests that the prompt shows.
    pub digested: Vec<Piece>,
    /// Estimated tokens of their lines.
    pub tokens: u64,
    /// For a snapshot of one turn: earlier turns, which its prompt may show but which it does not cover.
    pub turns: Vec<Arc<Turn>>,
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
    pub(super) fn new(revision: u64, before: Before, pieces: Vec<Piece>, shown: Shown) -> Self {
        Self::of(revision, before, pieces, shown, true)
    }

    /// A snapshot of turns in another order; all of them have text.
    pub(super) fn out_of_order(revision: u64, before: Before, turns: Vec<Arc<Turn>>, shown: Shown) -> Self {
        let each = turns.iter().map(|turn| Spoken { span: Some((turn.turn, turn.turn)), turns: 1 });
        let spoken = each.fold(Spoken::default(), Spoken::and);
        Self::of(revision, before, vec![Piece::Some(turns, spoken)], shown, false)
    }

    fn of(revision: u64, before: Before, pieces: Vec<Piece>, shown: Shown, ordered: bool) -> Self {
        let spoken = |pieces: &[Piece]| pieces.iter().map(Piece::spoken).fold(Spoken::default(), Spoken::and);
        let (digested, verbatim) = (spoken(&before.digested), spoken(&pieces));
        let Spoken { span, turns } = digested.and(verbatim);
        let covers = Coverage {
            from: span.map(|(from, _)| from),
            to: span.map(|(_, to)| to),
            turns,
            digest_to: digested.span.map(|(_, to)| to),
            verbatim_from: verbatim.span.map(|(from, _)| from),
            revision,
        };
        Self(Arc::new(Inner { pieces, shown, before, ordered, covers, transcript: OnceLock::new() }))
    }

    /// The context's revision when it was taken.
    pub fn revision(&self) -> u64 {
        self.0.covers.revision
    }

    /// The turns in the prompt, verbatim or in a digest. Turns without text are in no prompt, so they are not counted.
    pub fn covers(&self) -> Coverage {
        self.0.covers
    }

    /// The texts that a prompt shows, each of whole lines: the digests, then the turns. The first ones are byte by byte
    /// those of the previous snapshot, if [`Snapshot::is_stable`] and the window has not moved.
    pub fn parts(&self) -> impl Iterator<Item = &Arc<str>> {
        let parts = self.0.shown.parts.iter().map(|part| part.text()).filter(|text| !text.is_empty());
        self.0.shown.digests.iter().map(|digest| digest.text()).chain(parts)
    }

    /// Lines with the newest version of turns that the texts are about in an older one; `[9] (withdrawn)` for a turn that
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
        lines(&self.0.before.turns)
    }

    /// The lines of all turns that the prompt may show or of which it shows a digest.
    pub fn held_lines(&self) -> String {
        lines(self.all_held())
    }

    /// The turns that the prompt may show, covered or not, and those of which it shows a digest: what an answer says is
    /// checked against what was said.
    pub fn all_held(&self) -> impl Iterator<Item = &Arc<Turn>> {
        self.0.before.turns.iter().chain(spoken(&self.0.before.digested)).chain(self.turns())
    }

    /// The turn with this ordinal, if it is one of [`Snapshot::all_held`].
    pub fn held(&self, turn: TurnNo) -> Option<&Arc<Turn>> {
        let earlier = || self.0.before.turns.iter().find(|before| before.turn == turn);
        self.turn(turn).or_else(|| find(&self.0.before.digested, turn)).or_else(earlier)
    }

    /// Estimated tokens of the lines of [`Snapshot::all_held`], except the turns before a snapshot of one turn.
    pub fn held_tokens(&self) -> u64 {
        self.0.before.tokens.saturating_add(self.0.shown.tokens)
    }

    /// Estimated tokens of the digests, the parts and the corrections.
    pub fn tokens(&self) -> u64 {
        self.0.shown.tokens
    }

    /// The turns in reading order, as structured data; if a single turn is covered, it is the last. Made at the first
    /// call.
    pub fn transcript(&self) -> Arc<Transcript> {
        let make = || Arc::new(Transcript { turns: self.all_held().cloned().collect() });
        Arc::clone(self.0.transcript.get_or_init(make))
    }

    /// The turns that the prompt shows verbatim, in reading order; those with text only.
    pub fn turns(&self) -> impl DoubleEndedIterator<Item = &Arc<Turn>> {
        spoken(&self.0.pieces)
    }

    /// The turn with this ordinal, if it is in the snapshot verbatim and has text.
    pub fn turn(&self, turn: TurnNo) -> Option<&Arc<Turn>> {
        if !self.0.ordered {
            return self.turns().find(|candidate| candidate.turn == turn);
        }
        find(&self.0.pieces, turn)
    }

    /// Number of turns in the prompt, verbatim or in a digest.
    pub fn len(&self) -> usize {
        usize::try_from(self.0.covers.turns).unwrap_or(usize::MAX)
    }

    /// Returns true if the prompt contains no turn verbatim.
    pub fn is_empty(&self) -> bool {
        self.0.covers.verbatim_from.is_none()
    }
}

/// The turns with text.
fn spoken(pieces: &[Piece]) -> impl DoubleEndedIterator<Item = &Arc<Turn>> {
    pieces.iter().flat_map(Piece::turns).filter(|turn| line::has_line(turn))
}

/// The turn with this ordinal in pieces in order, if it has text.
fn find(pieces: &[Piece], turn: TurnNo) -> Option<&Arc<Turn>> {
    let piece = pieces.partition_point(|piece| piece.turns().last().is_some_and(|last| last.turn < turn));
    let turns = pieces.get(piece)?.turns();
    let index = usize::try_from(turn.checked_sub(turns.first()?.turn)?).ok()?;
    turns.get(index).filter(|turn| line::has_line(turn))
}

/// The lines of turns that follow one another.
fn lines<'a>(turns: impl IntoIterator<Item = &'a Arc<Turn>>) -> String {
    let (mut out, mut heard) = (String::new(), Heard::default());
    for turn in turns {
        line::render_next(turn, &mut heard, &mut out);
    }
    out
}
