//! The digests of a call's oldest turns, and which of them is to be made next.
//!
//! Knows no model and no window. Digests are of consecutive turns from the call's first on, without holes: a digest
//! begins where the one before it ends, so turns that left the window while none could be made are made up for later.

use std::ops::Range;
use std::sync::Arc;

use super::chunks::Context;
use super::digest::Digest;
use crate::types::TurnNo;

/// All digests in a prompt together have at most one part in this many of the budget.
pub(super) const DIGESTS_SHARE: u64 = 4;
/// A new digest is made of turns that have at least one part in this many of the budget: below this, it would save
/// little.
const LEAST_SHARE: u64 = 8;
/// Two digests are made anew as one if their turns have at most this many budgets of tokens. So no turn is read again
/// without end, and the cost of a call stays linear in its length.
const MERGED_BUDGETS: u64 = 2;
/// Desired length of one digest: one part in this many of the budget, within these limits in tokens, and never more
/// than half of the share of all digests.
const DIGEST_PART: u64 = 16;
const DIGEST_TOKENS: (u64, u64) = (200, 2_000);

/// Digests of consecutive turns, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digests(Vec<Arc<Digest>>);

impl Digests {
    /// Adds a digest, in place of those of the same turns.
    pub fn add(&mut self, digest: Arc<Digest>) {
        let turns = digest.turns();
        self.0.retain(|known| known.turns().start < turns.start || known.turns().end > turns.end);
        let at = self.0.partition_point(|known| known.turns().start < turns.start);
        self.0.insert(at, digest);
    }

    /// The first ordinal that is in no digest.
    pub fn until(&self) -> TurnNo {
        self.0.last().map_or(0, |last| last.turns().end)
    }

    /// All digests, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Digest>> {
        self.0.iter()
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those whose turns are all in `turns`.
    pub fn within<'a>(&'a self, turns: &'a Range<TurnNo>) -> impl Iterator<Item = &'a Arc<Digest>> {
        self.0.iter().filter(|known| turns.start <= known.turns().start && known.turns().end <= turns.end)
    }

    /// The newest digests that a prompt with this budget has room for.
    pub(super) fn shown(&self, budget: u64) -> &[Arc<Digest>] {
        let (mut from, mut left) = (self.0.len(), budget / DIGESTS_SHARE);
        while let Some(tokens) = from.checked_sub(1).map(|before| self.0[before].tokens())
            && tokens <= left
        {
            left -= tokens;
            from -= 1;
        }
        &self.0[from..]
    }

    /// The turns of the digest that is to be made next, for windows with this budget that show turns verbatim from
    /// `verbatim` on. First those of which there is no digest; then those of a digest of which a turn was revised; then,
    /// if the digests have no room, those of the two oldest that can be made anew as one.
    pub fn next(&self, context: &Context, budget: u64, verbatim: TurnNo) -> Option<Range<TurnNo>> {
        let from = self.until();
        if from < verbatim && context.total(from, verbatim) >= (budget / LEAST_SHARE).max(1) {
            return Some(from..context.filled(from, verbatim, budget));
        }
        let revised = self.shown(budget).iter().find(|known| known.missed(context).next().is_some());
        if let Some(revised) = revised {
            return Some(revised.turns());
        }
        if self.0.iter().map(|known| known.tokens()).sum::<u64>() <= budget / DIGESTS_SHARE {
            return None;
        }
        let mut pairs = self.0.windows(2).map(|pair| pair[0].turns().start..pair[1].turns().end);
        let most = budget.saturating_mul(MERGED_BUDGETS);
        pairs.find(|turns| context.total(turns.start, turns.end) <= most)
    }
}

/// The tokens that a digest for windows with this budget should have.
pub fn digest_tokens(budget: u64) -> u64 {
    let (least, most) = DIGEST_TOKENS;
    (budget / DIGEST_PART).clamp(least, most).min(budget / DIGESTS_SHARE / 2).max(1)
}

#[cfg(test)]
mod tests;
