//! The gate: whether a new turn adds anything to a call, so that a rolling analysis need not be asked about it.
//!
//! Knows no trigger and no analysis: a pure function of a turn and the few turns before it. A back-channel, a courtesy, a
//! fragment without content and what was just said once more add nothing. It is a linear model over features that can be
//! read off the words (see [`features`]); `scripts/train-local` trains it, and `scripts/eval-local` prints how many turns
//! it passes over, and how many of those mattered. The lists are English. A word that they do not know is content, so that
//! in other languages hardly any turn is passed over.

mod features;
mod lists;
mod weights;

use weights::{CUT, WEIGHTS};

/// Turns before a turn that tell what is new in it.
pub const BEFORE: usize = 12;
/// A turn of more words is never passed over: it need not be looked at.
const MOST_WORDS: usize = 24;

/// Returns true if a turn adds nothing to the turns before it. `before` has the texts of these, the newest first; at most
/// [`BEFORE`] of them are read. The first turn of a call always adds something.
pub fn adds_nothing<'a>(text: &str, before: impl IntoIterator<Item = &'a str>) -> bool {
    if text.split_whitespace().nth(MOST_WORDS).is_some() {
        return false;
    }
    // Reading the turns before costs twelve times as much as this turn, and can only count against passing it over.
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
