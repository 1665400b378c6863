//! The snapshots of a call's turns: through a window, of one turn, of the turns of a digest, and the last one of the call.
//!
//! Knows no prompt and no text of one, and not how turns are stored. A snapshot costs O(chunks).

use std::ops::Range;
use std::sync::Arc;

use super::chunks::{Context, index};
use super::digest::Digest;
use super::digests::Digests;
use super::line;
use super::marks::Heard;
use super::part::{Part, Shown};
use super::snapshot::{Before, Snapshot};
use super::window::{Window, corrections_of};
use crate::types::TurnNo;

impl Context {
    /// All turns in the window, to which new turns are added; if it exceeds its budget, the window moves. The result is
    /// never over budget: a newest turn that alone exceeds the budget is left out, so a snapshot can be empty.
    pub fn snapshot(&self, window: &mut Window) -> Snapshot {
        self.snapshot_to(window, self.len() as TurnNo)
    }

    /// As [`Context::snapshot`], but only of turns below the ordinal `until`. A window that has shown later turns
    /// already is not changed.
    pub fn snapshot_to(&self, window: &mut Window, until: TurnNo) -> Snapshot {
        let until = until.min(self.len() as TurnNo);
        if until < window.until() {
            let from = self.fit(window.from().min(until), until, window.budget(), window.budget() / 2, window.budget());
            return self.once(from, until);
        }
        self.through(window, until, &Digests::default(), None)
    }

    /// As [`Context::snapshot`], with the digests of turns that have left the window. `most`: a digest is being made, and
    /// until it is there, the window may grow beyond its budget, up to so many tokens.
    pub fn snapshot_over(&self, window: &mut Window, digests: &Digests, most: Option<u64>) -> Snapshot {
        self.through(window, self.len() as TurnNo, digests, most)
    }

    fn through(&self, window: &mut Window, until: TurnNo, digests: &Digests, most: Option<u64>) -> Snapshot {
        let shown = window.show(self, until, digests, most);
        let before = self.before(window.digests());
        Snapshot::new(self.revision(), before, self.pieces(index(window.from()), index(until)), shown)
    }

    /// The turns of digests.
    fn before(&self, digests: &[Arc<Digest>]) -> Before {
        let (Some(first), Some(last)) = (digests.first(), digests.last()) else { return Before::default() };
        let (from, until) = (first.turns().start, last.turns().end);
        Before {
            digested: self.pieces(index(from), index(until)),
            tokens: self.total(from, until),
            ..Before::default()
        }
    }

    /// The turns of a digest that is to be made, and nothing else.
    pub fn snapshot_of(&self, turns: Range<TurnNo>) -> Snapshot {
        self.once(turns.start, turns.end.min(self.len() as TurnNo))
    }

    /// One turn alone, with at most `before` earlier turns that have text, uncovered, as many as fit `budget_tokens`.
    pub fn snapshot_turn(&self, turn: TurnNo, before: usize, budget_tokens: u64) -> Snapshot {
        let (mut tokens, mut earlier) = (0, Vec::new());
        for turn in (0..turn.min(self.len() as TurnNo)).rev() {
            if earlier.len() == before {
                break;
            }
            let Some(known) = self.get(turn).filter(|turn| line::has_line(turn)) else { continue };
            tokens += self.tokens(known.turn);
            if tokens > budget_tokens {
                break;
            }
            earlier.push(Arc::clone(known));
        }
        earlier.reverse();
        let (from, until) = (turn, turn.saturating_add(1).min(self.len() as TurnNo));
        let pieces = self.pieces(index(from), index(until));
        let before = Before { turns: earlier, ..Before::default() };
        Snapshot::new(self.revision(), before, pieces, self.shown_once(from, until))
    }

    /// The last snapshot of a call: the newest turns that fit, in order of `start_ms`. If the window shows exactly
    /// these in that order, it is a snapshot of the window, so that the vendor's cached prefix is used once more.
    pub fn snapshot_final(&self, window: &mut Window) -> Snapshot {
        self.snapshot_final_over(window, &Digests::default())
    }

    /// As [`Context::snapshot_final`], with the digests of turns that do not fit.
    pub fn snapshot_final_over(&self, window: &mut Window, digests: &Digests) -> Snapshot {
        let (len, budget) = (self.len() as TurnNo, window.budget());
        let whole = self.total(0, len) <= budget;
        let none = whole || !self.leaves_room(len, budget);
        let digests: &[Arc<Digest>] = if none { &[] } else { digests.shown(budget) };
        let (corrections, corrected) = corrections_of(digests, self);
        let others = digests.iter().map(|digest| digest.tokens()).sum::<u64>() + corrected;
        let (first, room) = (digests.last().map_or(0, |last| last.turns().end), budget.saturating_sub(others));
        let from = self.fit(first, len, room, room, room);
        let mut turns = self.turns_of(from, len);
        turns.retain(|turn| line::has_line(turn));
        let shown = |part: Part| Shown {
            digests: digests.to_vec(),
            parts: vec![Arc::new(part)],
            corrections: corrections.clone(),
            tokens: others + self.total(from, len),
            stable: false,
        };
        if !turns.is_sorted_by_key(|turn| turn.start_ms) {
            turns.sort_by_key(|turn| turn.start_ms);
            let part = Part::new(turns.clone(), Heard::default());
            return Snapshot::out_of_order(self.revision(), self.before(digests), turns, shown(part));
        }
        let extended =
            if from == window.from() && digests == window.digests() { window.extend(self, len).ok() } else { None };
        let part = || Part::new(self.turns_of(from, len), self.heard(from));
        let shown = extended.unwrap_or_else(|| shown(part()));
        Snapshot::new(self.revision(), self.before(digests), self.pieces(index(from), index(len)), shown)
    }

    /// A snapshot that shares its text with no other.
    fn once(&self, from: TurnNo, until: TurnNo) -> Snapshot {
        let pieces = self.pieces(index(from), index(until));
        Snapshot::new(self.revision(), Before::default(), pieces, self.shown_once(from, until))
    }

    fn shown_once(&self, from: TurnNo, until: TurnNo) -> Shown {
        Shown::once(Part::new(self.turns_of(from, until), self.heard(from)), self.total(from, until))
    }
}
