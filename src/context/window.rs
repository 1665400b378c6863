//! Where the prompts about a call begin, and the parts that they share: text that was shown once is shown again byte by
//! byte.
//!
//! Knows no prompt and no model. A window grows by one part per snapshot. A turn that is revised after it was shown
//! stays unchanged in its part, and its newest version is a line in [`Shown::corrections`]. Only when there are too
//! many turns or corrections does the window start over with a single part: a compaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::chunks::Context;
use super::part::{Part, Shown};
use super::{line, tokens};
use crate::types::TurnNo;

/// Default limit of transcript tokens in a prompt.
pub const DEFAULT_BUDGET_TOKENS: u64 = 16_000;
/// Corrections may use one part in this many of the budget. Beyond that the window starts over, which writes each turn
/// in its newest version but invalidates the cached prefix.
const CORRECTIONS_SHARE: u64 = 8;

/// The turns that the prompts of one question show. Its beginning stays until the prompts would exceed the budget; then
/// it moves in one step until half of the budget is free.
#[derive(Debug, Clone)]
pub struct Window {
    budget_tokens: u64,
    /// The first ordinal in the window.
    from: TurnNo,
    /// The first ordinal that is in no part.
    until: TurnNo,
    /// The shown parts, in order.
    parts: Vec<Arc<Part>>,
    /// Estimated tokens of the parts.
    tokens: u64,
    /// Turns in the parts that have a newer version.
    corrected: BTreeSet<TurnNo>,
    /// The context's revision up to which `corrected` is known.
    revision: u64,
}

impl Window {
    /// A window from the call's first turn.
    pub fn new(budget_tokens: u64) -> Self {
        Self { budget_tokens, from: 0, until: 0, parts: Vec::new(), tokens: 0, corrected: BTreeSet::new(), revision: 0 }
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

    /// Adds the turns below `until`, which is not below [`Window::until`]. If there are too many, the window starts
    /// over.
    pub(super) fn show(&mut self, context: &Context, until: TurnNo) -> Shown {
        self.extend(context, until).unwrap_or_else(|most| {
            self.start_over(context, until, most);
            Shown { parts: self.parts.clone(), corrections: String::new(), tokens: self.tokens, stable: true }
        })
    }

    /// Adds the turns below `until` as one more part.
    ///
    /// # Errors
    /// They do not fit: the number of tokens that the window may keep if it starts over.
    pub(super) fn extend(&mut self, context: &Context, until: TurnNo) -> Result<Shown, u64> {
        self.note_corrections(context);
        let (corrections, corrected) = self.corrections(context);
        let new = context.total(self.until, until);
        if self.tokens.saturating_add(new).saturating_add(corrected) > self.budget_tokens {
            return Err(self.budget_tokens / 2);
        }
        let share = self.budget_tokens / CORRECTIONS_SHARE;
        if corrected > share {
            return Err(self.budget_tokens - share);
        }
        if until > self.until {
            self.parts.push(Arc::new(Part::new(context.turns_of(self.until, until), context.heard(self.until))));
            self.tokens += new;
            self.until = until;
        }
        Ok(Shown { parts: self.parts.clone(), corrections, tokens: self.tokens + corrected, stable: true })
    }

    /// A compaction: one part of the newest turns, each in its newest version. All of them stay if they have at most
    /// `most` tokens; otherwise half of the budget is left free.
    fn start_over(&mut self, context: &Context, until: TurnNo, most: u64) {
        self.from = context.fit(self.from, until, most, self.budget_tokens / 2, self.budget_tokens);
        self.until = until;
        self.tokens = context.total(self.from, until);
        self.parts = vec![Arc::new(Part::new(context.turns_of(self.from, until), context.heard(self.from)))];
        self.corrected.clear();
    }

    /// Records which of the shown turns were replaced since the last call of this.
    fn note_corrections(&mut self, context: &Context) {
        let range = self.from..self.until;
        match context.corrected_since(self.revision) {
            Some(replaced) => {
                self.corrected.extend(replaced.map(|one| one.turn).filter(|turn| range.contains(turn)));
            }
            // The context no longer remembers the replacements.
            None => {
                let shown = self.parts.iter().flat_map(|part| part.turns());
                let replaced = shown.filter(|shown| context.get(shown.turn).is_none_or(|now| !Arc::ptr_eq(shown, now)));
                self.corrected = replaced.map(|shown| shown.turn).collect();
            }
        }
        self.revision = context.revision();
    }

    /// The lines of corrected turns in their newest version, and their tokens.
    fn corrections(&self, context: &Context) -> (String, u64) {
        let mut lines = String::new();
        for turn in &self.corrected {
            let part = self.parts.partition_point(|part| part.first().is_some_and(|first| first <= *turn));
            let shown = part.checked_sub(1).and_then(|part| self.parts[part].shown(*turn));
            let (Some(shown), Some(now)) = (shown, context.get(*turn)) else { continue };
            line::correct(shown, now, &mut lines);
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
