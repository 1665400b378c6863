//! The snapshots of a call's turns: through a window, of one turn, and the last one of the call.
//!
//! Knows no prompt and no text of one, and not how turns are stored. A snapshot costs O(chunks).

use std::sync::Arc;

use super::chunks::{Context, index};
use super::line;
use super::marks::Heard;
use super::part::{Part, Shown};
use super::snapshot::Snapshot;
use super::window::Window;
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
        let shown = window.show(self, until);
        Snapshot::new(self.revision(), self.pieces(index(window.from()), index(until)), shown)
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
        Snapshot::with_before(self.revision(), pieces, self.shown_once(from, until), earlier)
    }

    /// The last snapshot of a call: the newest turns that fit, in order of `start_ms`. If the window shows exactly
    /// these in that order, it is a snapshot of the window, so that the vendor's cached prefix is used once more.
    pub fn snapshot_final(&self, window: &mut Window) -> Snapshot {
        let (len, budget) = (self.len() as TurnNo, window.budget());
        let from = self.fit(0, len, budget, budget, budget);
        let mut turns = self.turns_of(from, len);
        turns.retain(|turn| line::has_line(turn));
        let in_order = turns.is_sorted_by_key(|turn| turn.start_ms);
        if !in_order {
            turns.sort_by_key(|turn| turn.start_ms);
            let shown = Shown::once(Part::new(turns.clone(), Heard::default()), self.total(from, len));
            return Snapshot::out_of_order(self.revision(), turns, shown);
        }
        let shown = if from == window.from() { window.extend(self, len).ok() } else { None };
        match shown {
            Some(shown) => Snapshot::new(self.revision(), self.pieces(index(from), index(len)), shown),
            None => self.once(from, len),
        }
    }

    /// A snapshot that shares its text with no other.
    fn once(&self, from: TurnNo, until: TurnNo) -> Snapshot {
        Snapshot::new(self.revision(), self.pieces(index(from), index(until)), self.shown_once(from, until))
    }

    fn shown_once(&self, from: TurnNo, until: TurnNo) -> Shown {
        Shown::once(Part::new(self.turns_of(from, until), self.heard(from)), self.total(from, until))
    }
}
