//! Marks in the line of a turn that show what its text does not: interruptions, overlaps, long silences, changes of
//! language, and words that were recognised with low confidence.
//!
//! Knows no prompt. A mark depends on the turn and on turns before it, never on later ones, so a line that was shown
//! does not change.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::types::{Turn, Word};

/// Shortest silence that is marked, ms.
const SILENCE_MS: u64 = 5_000;
/// Shortest time that two speakers must share to be marked, ms. Times of speech-to-text are not more exact.
const OVERLAP_MS: u64 = 200;
/// Longest silence that is given in seconds.
const SECONDS: u64 = 120;
/// Words and turns below this confidence are marked. Real recognisers give a large part of their words about 0.5, and one
/// word in 200 less than this.
const LOW_CONFIDENCE: f32 = 0.4;
/// Mark after a word that may be wrong. Punctuation, so that a quote that repeats it is still found.
pub const DOUBT: &str = "(?)";
/// Longest language tag that is shown, bytes.
const TAG_BYTES: usize = 16;

/// The speech before a turn, as far as marks depend on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// The turn that ended last.
    last: Option<Arc<Turn>>,
    /// The newest turn whose language is known.
    spoken: Option<Arc<Turn>>,
}

impl Heard {
    /// Adds the next turn.
    pub(super) fn add(&mut self, turn: &Arc<Turn>) {
        if self.last.as_ref().is_none_or(|last| turn.end_ms >= last.end_ms) {
            self.last = Some(Arc::clone(turn));
        }
        if turn.language.is_some() {
            self.spoken = Some(Arc::clone(turn));
        }
    }

    /// Appends the marks of the next turn, each after a comma.
    pub(super) fn write(&self, turn: &Turn, out: &mut String) {
        if let Some(last) = self.last.as_deref().filter(|last| has_times(last) && has_times(turn)) {
            let silence = turn.start_ms.saturating_sub(last.end_ms);
            let shared = last.end_ms.min(turn.end_ms).saturating_sub(last.start_ms.max(turn.start_ms));
            let other = (&last.speaker, &last.stream_id) != (&turn.speaker, &turn.stream_id);
            if silence >= SILENCE_MS {
                let seconds = silence / 1_000;
                // Writing to a String cannot fail.
                let _ = if seconds <= SECONDS {
                    write!(out, ", after {seconds} s")
                } else {
                    write!(out, ", after {} min", seconds / 60)
                };
            } else if other && shared >= OVERLAP_MS {
                let interrupts = turn.start_ms > last.start_ms && turn.end_ms > last.end_ms;
                out.push_str(if interrupts { ", interrupts" } else { ", overlaps" });
            }
        }
        let before = self.spoken.as_ref().and_then(|spoken| spoken.language.as_deref());
        if let (Some(before), Some(now)) = (before, turn.language.as_deref())
            && !primary(before).eq_ignore_ascii_case(primary(now))
            && is_tag(now)
        {
            let _ = write!(out, ", in {now}");
        }
    }
}

/// Appends the mark of a turn that may be wrong as a whole: most of its words may be, or it has low confidence and its
/// words have none of their own.
pub(super) fn doubt(turn: &Turn, out: &mut String) {
    let by_word = turn.words.iter().any(|word| word.confidence.is_some());
    let low = turn.confidence.is_some_and(|confidence| confidence < LOW_CONFIDENCE);
    let doubtful = if by_word { is_mostly_doubtful(turn) } else { low };
    if doubtful {
        out.push_str(", unsure");
    }
}

fn is_doubtful(word: &Word) -> bool {
    word.confidence.is_some_and(|confidence| confidence < LOW_CONFIDENCE)
}

fn is_mostly_doubtful(turn: &Turn) -> bool {
    turn.words.iter().filter(|word| is_doubtful(word)).count() * 2 > turn.words.len()
}

/// The turn's text, with a mark after each word that may be wrong.
pub(super) fn doubted(turn: &Turn) -> Cow<'_, str> {
    let text = turn.text.trim();
    if !turn.words.iter().any(is_doubtful) || is_mostly_doubtful(turn) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut rest) = (String::with_capacity(text.len() + 16), text);
    for word in &turn.words {
        let said = word.text.trim();
        // A vendor's words can differ from its text: words that are not found in the rest of the text are skipped.
        let Some(at) = rest.find(said).filter(|_| !said.is_empty()) else { continue };
        let (before, after) = rest.split_at(at + said.len());
        out.push_str(before);
        if is_doubtful(word) {
            out.push_str(DOUBT);
        }
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Turns of vendors without times begin and end when they arrived.
fn has_times(turn: &Turn) -> bool {
    turn.end_ms > turn.start_ms
}

fn is_tag(language: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=TAG_BYTES).contains(&language.len()) && language.bytes().all(allowed)
}

fn primary(language: &str) -> &str {
    language.split(['-', '_']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
