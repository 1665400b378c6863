//! A digest: what stands in a prompt for old turns, as claims with the numbers of the turns that they are about.
//!
//! Knows no model and no window. A digest is made from turns, once, and never changes; it remembers in which version it
//! saw turns that had been revised, so that later revisions are noticed.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::chunks::Context;
use super::{escape, tokens};
use crate::types::TurnNo;

/// Something that was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// One sentence.
    pub text: String,
    /// The turns that say it, in order.
    pub turns: Vec<TurnNo>,
}

/// What was said in consecutive turns. It is never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Digest {
    from: TurnNo,
    to: TurnNo,
    revs: Vec<(TurnNo, u32)>,
    claims: Vec<Claim>,
    text: Arc<str>,
    tokens: u64,
}

/// The form in a journal.
#[derive(Serialize, Deserialize)]
struct Stored {
    from: TurnNo,
    to: TurnNo,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    revs: Vec<(TurnNo, u32)>,
    claims: Vec<Claim>,
}

impl From<Stored> for Digest {
    fn from(Stored { from, to, revs, claims }: Stored) -> Self {
        let text = text(from, to, &claims);
        Self { from, to, revs, claims, tokens: tokens::estimate(&text), text: text.into() }
    }
}

impl From<Digest> for Stored {
    fn from(Digest { from, to, revs, claims, .. }: Digest) -> Self {
        Self { from, to, revs, claims }
    }
}

/// Why claims do not become a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No claim is left.
    #[error("the digest has no claim about its turns")]
    Empty,
    /// The digest is too long.
    #[error("the digest has {tokens} tokens, over the limit of {most}")]
    TooLong { tokens: u64, most: u64 },
}

/// The turns of a digest that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The turns' ordinals; at least one of them has text.
    pub turns: Range<TurnNo>,
    /// The ordinals of those with text.
    spoken: Vec<TurnNo>,
    /// The versions of those that were revised.
    revs: Vec<(TurnNo, u32)>,
    /// Estimated tokens of their lines.
    pub tokens: u64,
}

impl Source {
    /// The turns as they are now; `None` if none of them has text.
    pub fn new(context: &Context, turns: Range<TurnNo>) -> Option<Self> {
        let all = || turns.clone().filter_map(|turn| context.get(turn));
        let spoken: Vec<TurnNo> = all().map(|turn| turn.turn).filter(|turn| context.tokens(*turn) > 0).collect();
        let revs = all().filter(|turn| turn.rev > 0).map(|turn| (turn.turn, turn.rev)).collect();
        let tokens = context.total(turns.start, turns.end);
        (!spoken.is_empty()).then_some(Self { turns, spoken, revs, tokens })
    }

    /// The first ordinal of a turn with text.
    #[cfg(test)]
    pub(super) fn spoken_first(&self) -> TurnNo {
        self.spoken[0]
    }

    /// Makes the digest of the claims that are only about these turns; the others are dropped.
    ///
    /// # Errors
    /// No claim is left, or they have more than `most` tokens.
    pub fn digest(&self, claims: Vec<Claim>, most: u64) -> Result<Digest, Unusable> {
        let known = |turn: &TurnNo| self.spoken.binary_search(turn).is_ok();
        let sound =
            |claim: &Claim| !claim.text.trim().is_empty() && !claim.turns.is_empty() && claim.turns.iter().all(known);
        let mut claims: Vec<Claim> = claims.into_iter().filter(sound).collect();
        for claim in &mut claims {
            claim.turns.sort_unstable();
            claim.turns.dedup();
        }
        claims.sort_by_key(|claim| claim.turns.first().copied());
        if claims.is_empty() {
            return Err(Unusable::Empty);
        }
        let (from, to) = (self.turns.start, self.turns.end.saturating_sub(1));
        let digest = Digest::from(Stored { from, to, revs: self.revs.clone(), claims });
        if digest.tokens > most {
            return Err(Unusable::TooLong { tokens: digest.tokens, most });
        }
        Ok(digest)
    }
}

impl Digest {
    /// The ordinals of its turns.
    pub fn turns(&self) -> Range<TurnNo> {
        self.from..self.to.saturating_add(1)
    }

    /// Its claims, in the order of their turns.
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Its lines in a prompt.
    pub(super) fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Estimated tokens of its lines.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Returns true if the turn was revised after the digest was made.
    pub(super) fn misses(&self, context: &Context, turn: TurnNo) -> bool {
        let known = self.revs.binary_search_by_key(&turn, |(turn, _)| *turn).ok();
        let seen = known.map_or(0, |at| self.revs[at].1);
        context.get(turn).is_some_and(|now| now.rev != seen)
    }

    /// Its turns that were revised after it was made.
    pub(super) fn missed<'a>(&'a self, context: &'a Context) -> impl Iterator<Item = TurnNo> + 'a {
        self.turns().filter(|turn| self.misses(context, *turn))
    }
}

/// A line that says which turns it is about, and a line for each claim. All text is escaped, so that a claim is one line.
fn text(from: TurnNo, to: TurnNo, claims: &[Claim]) -> String {
    // Writing to a String cannot fail.
    let mut out = String::new();
    let _ = writeln!(out, "In short, turns {from} to {to}:");
    for claim in claims {
        let turns: Vec<String> = claim.turns.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "* [{}] {}", turns.join(", "), escape::text(&claim.text));
    }
    out
}
