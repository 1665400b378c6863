//! Where the prompts about a call begin, and the parts that they share: text that was shown once is shown again byte by
//! byte.
//!
//! Knows no prompt and no model. A window grows by one part per snapshot. A turn that is revised after it was shown
//! stays unchanged in its part, and its newest version is a line in [`Shown::corrections`]. Only when there are too
//! many turns or corrections does the window start over with the digests that there are and a single part: a
//! compaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::chunks::Context;
use super::digest::Digest;
use super::digests::{DIGESTS_SHARE, Digests};
use super::part::{Part, Shown};
use super::{line, tokens};
use crate::types::TurnNo;

/// Default limit of transcript tokens in a prompt.
pub const DEFAULT_BUDGET_TOKENS: u64 = 16_000;
/// Corrections may use one part in this many of the budget. Beyond that the window starts over, which writes each turn
/// in its newest version but invalidates the cached prefix.
const CORRECTIONS_SHARE: u64 = 8;
/// One part in this many of the budget is free after the window has started over with digests; otherwise it would start
/// over again too soon.
const FREE_SHARE: u64 = 8;
/// So many of the newest turns always stay, as far as they have at most three quarters of the budget.
pub(super) const KEPT_TURNS: usize = 20;

/// The turns that the prompts of one question show. Its beginning stays until the prompts would exceed the budget; then
/// it moves in one step until half of the budget is free.
#[derive(Debug, Clone)]
pub struct Window {
    budget_tokens: u64,
    /// The digests before the parts.
    digests: Vec<Arc<Digest>>,
    /// The first ordinal that was in no digest when the window last started over.
    known: TurnNo,
    /// The first ordinal in the window.
    from: TurnNo,
    /// The first ordinal that is in no part.
    until: TurnNo,
    /// The shown parts, in order.
    parts: Vec<Arc<Part>>,
    /// Estimated tokens of the digests and the parts.
    tokens: u64,
    /// Turns in the digests and the parts that have a newer version.
    corrected: BTreeSet<TurnNo>,
    /// The context's revision up to which `corrected` is known.
    revision: u64,
}

impl Window {
    /// A window from the call's first turn.
    pub fn new(budget_tokens: u64) -> Self {
        Self {
            budget_tokens,
            digests: Vec::new(),
            known: 0,
            from: 0,
            until: 0,
            parts: Vec::new(),
            tokens: 0,
            corrected: BTreeSet::new(),
            revision: 0,
        }
    }

    /// Changes the budget; shown parts are kept.
    pub fn set_budget(&mut self, budget_tokens: u64) {
        self.budget_tokens = budget_tokens;
    }

    /// Maximum number of transcript tokens.
    pub fn budget(&self) -> u64 {
        self.budget_tokens
    }

    /// The first ordinal in the window.
    pub fn from(&self) -> TurnNo {
        self.from
    }

    /// The first ordinal that was never shown.
    pub(super) fn until(&self) -> TurnNo {
        self.until
    }

    /// The digests that it shows.
    pub(super) fn digests(&self) -> &[Arc<Digest>] {
        &self.digests
    }

    /// If turns must leave the window, or have left it and are in no digest: the first ordinal that then stays verbatim.
    /// `digests`: those that there are.
    pub fn leaves(&mut self, context: &Context, digests: &Digests) -> Option<TurnNo> {
        let until = context.len() as TurnNo;
        self.note_corrections(context);
        let (_, corrected) = self.corrections(context);
        let is_over = self.fits(context, until, corrected, self.budget_tokens).is_err();
        if !is_over && !self.has_gap() {
            return None;
        }
        if self.would_do(context, until, digests) {
            return Some(digests.until());
        }
        // As the window would start over with the next digest: not later, or turns would leave that are in none.
        let room = (self.budget_tokens - self.budget_tokens / DIGESTS_SHARE).saturating_sub(corrected);
        let fits = if is_over { self.budget_tokens / 2 } else { room.saturating_sub(self.budget_tokens / FREE_SHARE) };
        let cut = self.cut(context, (self.from, until), fits, room);
        Some(cut.min(context.newest(until, 1, self.budget_tokens)))
    }

    /// Adds the turns below `until`, which is not below [`Window::until`]. If there are too many, the window starts over
    /// with the `digests`. `most`: while a digest is being made, the window grows up to so many tokens.
    pub(super) fn show(&mut self, context: &Context, until: TurnNo, digests: &Digests, most: Option<u64>) -> Shown {
        let closes = most.is_none() && self.has_gap() && digests.until() > self.known;
        let limit = most.map_or(self.budget_tokens, |most| most.max(self.budget_tokens));
        let extended = if closes { Err(self.budget_tokens / 2) } else { self.extend_to(context, until, limit) };
        extended.unwrap_or_else(|keeps| {
            self.start_over(context, until, digests, keeps);
            let (corrections, corrected) = self.corrections(context);
            self.shown(corrections, corrected)
        })
    }

    /// Adds the turns below `until` as one more part.
    ///
    /// # Errors
    /// They do not fit: the number of tokens that the window may keep if it starts over.
    pub(super) fn extend(&mut self, context: &Context, until: TurnNo) -> Result<Shown, u64> {
        self.extend_to(context, until, self.budget_tokens)
    }

    fn extend_to(&mut self, context: &Context, until: TurnNo, limit: u64) -> Result<Shown, u64> {
        self.note_corrections(context);
        let (corrections, corrected) = self.corrections(context);
        self.fits(context, until, corrected, limit)?;
        if until > self.until {
            self.parts.push(Arc::new(Part::new(context.turns_of(self.until, until), context.heard(self.until))));
            self.tokens += context.total(self.until, until);
            self.until = until;
        }
        Ok(self.shown(corrections, corrected))
    }

    fn shown(&self, corrections: String, corrected: u64) -> Shown {
        let (digests, parts) = (self.digests.clone(), self.parts.clone());
        Shown { digests, parts, corrections, tokens: self.tokens + corrected, stable: true }
    }

    /// Checks that the window still has at most `limit` tokens with all turns below `until`.
    ///
    /// # Errors
    /// The number of tokens that the window may keep if it starts over.
    fn fits(&self, context: &Context, until: TurnNo, corrected: u64, limit: u64) -> Result<(), u64> {
        let new = context.total(self.until, until);
        if self.tokens.saturating_add(new).saturating_add(corrected) > limit {
            return Err(self.budget_tokens / 2);
        }
        let share = self.budget_tokens / CORRECTIONS_SHARE;
        let is_over = corrected > share && limit == self.budget_tokens;
        if is_over { Err(self.budget_tokens - share) } else { Ok(()) }
    }

    /// A compaction: the digests that have room, and one part of the turns after them, each in its newest version. All of
    /// these turns stay if they have at most `keeps` tokens, or leave enough free; otherwise half of the budget is left
    /// free, and turns leave that are in no digest.
    fn start_over(&mut self, context: &Context, until: TurnNo, digests: &Digests, keeps: u64) {
        self.digests = digests.shown(self.budget_tokens).to_vec();
        self.known = digests.until();
        if !context.leaves_room(until, self.budget_tokens) {
            self.digests.clear();
        }
        self.forget_revised(context);
        self.tokens = self.digests.iter().map(|digest| digest.tokens()).sum();
        let others = self.tokens + self.corrections(context).1;
        let (first, keeps) = if digests.is_empty() {
            (self.from, keeps)
        } else {
            (digests.until().min(until), keeps.max(self.budget_tokens - self.budget_tokens / FREE_SHARE))
        };
        let (fits, room) = (keeps.saturating_sub(others), self.budget_tokens.saturating_sub(others));
        self.from = self.cut(context, (first, until), fits, room);
        self.until = until;
        self.tokens += context.total(self.from, until);
        self.parts = vec![Arc::new(Part::new(context.turns_of(self.from, until), context.heard(self.from)))];
    }

    /// Returns true if there are digests that the window does not show yet, and it would lose no turn by starting over with
    /// them.
    fn would_do(&self, context: &Context, until: TurnNo, digests: &Digests) -> bool {
        let (first, shown) = (digests.until(), digests.shown(self.budget_tokens));
        if first <= self.digested() || !context.leaves_room(until, self.budget_tokens) {
            return false;
        }
        let others = shown.iter().map(|digest| digest.tokens()).sum::<u64>() + corrections_of(shown, context).1;
        let most = self.budget_tokens - self.budget_tokens / FREE_SHARE;
        context.total(first, until).saturating_add(others) <= most
    }

    /// Leaves out the oldest digests until there is room for the corrections of the others.
    fn forget_revised(&mut self, context: &Context) {
        self.parts.clear();
        self.revision = context.revision();
        self.corrected = self.digests.iter().flat_map(|digest| digest.missed(context)).collect();
        while self.corrections(context).1 > self.budget_tokens / CORRECTIONS_SHARE / 2 {
            self.digests.remove(0);
            let first = self.digests.first().map(|digest| digest.turns().start);
            self.corrected.retain(|turn| first.is_some_and(|first| *turn >= first));
        }
    }

    /// The first ordinal, not below `from`, from which turns stay: `from` if they have at most `fits` tokens; otherwise
    /// the first one from which they have at most half of the budget, or that of the newest turns, which always stay.
    fn cut(&self, context: &Context, (from, until): (TurnNo, TurnNo), fits: u64, room: u64) -> TurnNo {
        let fitting = context.fit(from, until, fits, fits.min(self.budget_tokens / 2), room);
        let newest = context.newest(until, KEPT_TURNS, room.min(self.budget_tokens / 4 * 3));
        fitting.min(newest).max(from)
    }

    /// The first ordinal after those in the digests that it shows.
    fn digested(&self) -> TurnNo {
        self.digests.last().map_or(0, |last| last.turns().end)
    }

    /// Returns true if there are turns before the window that are in no digest.
    fn has_gap(&self) -> bool {
        self.from > self.digested()
    }

    /// Records which of the shown turns were replaced since the last call of this.
    fn note_corrections(&mut self, context: &Context) {
        let digested = self.digests.first().map_or(0..0, |first| first.turns().start..self.digested());
        let range = self.from..self.until;
        match context.corrected_since(self.revision) {
            Some(replaced) => {
                let turns = replaced.map(|one| one.turn);
                self.corrected.extend(turns.filter(|turn| range.contains(turn) || digested.contains(turn)));
            }
            // The context no longer remembers the replacements.
            None => {
                let shown = self.parts.iter().flat_map(|part| part.turns());
                let replaced = shown.filter(|shown| context.get(shown.turn).is_none_or(|now| !Arc::ptr_eq(shown, now)));
                let missed = self.digests.iter().flat_map(|digest| digest.missed(context));
                self.corrected = replaced.map(|shown| shown.turn).chain(missed).collect();
            }
        }
        self.revision = context.revision();
    }

    /// The lines of corrected turns in their newest version, and their tokens.
    fn corrections(&self, context: &Context) -> (String, u64) {
        let mut lines = String::new();
        for turn in &self.corrected {
            let Some(now) = context.get(*turn) else { continue };
            let part = self.parts.partition_point(|part| part.first().is_some_and(|first| first <= *turn));
            match part.checked_sub(1).and_then(|part| self.parts[part].shown(*turn)) {
                Some(shown) => line::correct(shown, now, &mut lines),
                None => line::state(now, &mut lines),
            }
        }
        let tokens = tokens::estimate(&lines);
        (lines, tokens)
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new(DEFAULT_BUDGET_TOKENS)
    }
}

/// The lines of turns of which `digests` were made in an older version, as they are now, and their tokens.
pub(super) fn corrections_of(digests: &[Arc<Digest>], context: &Context) -> (String, u64) {
    let mut lines = String::new();
    let missed = digests.iter().flat_map(|digest| digest.missed(context));
    missed.filter_map(|turn| context.get(turn)).for_each(|now| line::state(now, &mut lines));
    let tokens = tokens::estimate(&lines);
    (lines, tokens)
}
