//! The gate: decides whether a new turn adds anything to a call. A rolling analysis need not be asked about a turn that
//! adds nothing.
//!
//! Knows no trigger and no analysis: a pure function of a turn and the few turns before it. These add nothing: a
//! back-channel ("uh-huh"), a courtesy, a fragment without content, and a repetition of what was just said. The gate is
//! a linear model over features that are computed from the words (see [`features`]). `scripts/train-local` trains it,
//! and `scripts/eval-local` prints how many turns it classifies as adding nothing, and how many of those mattered. The
//! lists are English. A word that they do not contain counts as content, so that in other languages hardly any turn is
//! classified as adding nothing.

mod features;
mod lists;
mod weights;

use weights::{CUT, WEIGHTS};

/// Number of earlier turns with which a turn is compared.
pub const BEFORE: usize = 12;
/// A turn with more words than this always adds something, and its features are not computed.
const MOST_WORDS: usize = 24;

/// Returns true if a turn adds nothing to the turns before it. `before` has the texts of these, the newest first; at most
/// [`BEFORE`] of them are read. The first turn of a call always adds something.
pub fn adds_nothing<'a>(text: &str, before: impl IntoIterator<Item = &'a str>) -> bool {
    if text.split_whitespace().nth(MOST_WORDS).is_some() {
        return false;
    }
    // Reading the earlier turns costs twelve times as much as reading this turn, and can only lead to the result that
    // the turn adds something. So the turn is first checked alone.
    if sum(features::of(text, None)) <= CUT {
        return false;
    }
    let before: Vec<&str> = before.into_iter().take(BEFORE).collect();
    !before.is_empty() && sum(features::of(text, Some(&before))) > CUT
}

fn sum(features: [f32; features::COUNT]) -> f32 {
    features.iter().zip(WEIGHTS).map(|(feature, weight)| feature * weight).sum()
}

#[cfg(test)]
mod tests;
