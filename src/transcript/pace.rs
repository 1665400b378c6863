//! Estimates missing times from the words, for files that have only the starts of turns, or no times.
//!
//! Knows no format.

use super::{LeftOut, Times, Turn};
use crate::base::text;

/// Time that a word of normal speech takes, ms.
const WORD_MS: u64 = 400;
/// A turn ends when the next one starts, but has at most this much time for each word: anything longer is a pause, ms.
const SLOW_WORD_MS: u64 = 1_000;

/// A turn with the times that the file gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) line: usize,
    pub(super) speaker: Option<String>,
    pub(super) text: String,
    pub(super) start_ms: Option<u64>,
}

/// The turns, in the order of the file. A turn without a start begins when the one before should have ended, but not
/// after the next time in the file. Also returns the names without any speech.
pub(super) fn close(open: Vec<Open>) -> (Vec<Turn>, Times, Vec<LeftOut>) {
    let (open, empty): (Vec<Open>, Vec<Open>) = open.into_iter().partition(|turn| !turn.text.trim().is_empty());
    let left_out = empty.iter().filter(|turn| turn.speaker.is_some()).map(|turn| LeftOut::name(turn.line)).collect();
    let given = open.iter().filter(|turn| turn.start_ms.is_some()).count();
    let times = if given > 0 { Times::Starts } else { Times::Estimated };
    let mut next_given = vec![u64::MAX; open.len()];
    let mut next = u64::MAX;
    for (turn, at) in open.iter().zip(&mut next_given).rev() {
        *at = next;
        next = turn.start_ms.unwrap_or(next);
    }
    let words: Vec<u64> = open.iter().map(|turn| text::count(&turn.text).max(1) as u64).collect();
    let mut cursor = 0;
    let mut turns: Vec<Turn> = Vec::with_capacity(open.len());
    for ((turn, next), words) in open.into_iter().zip(next_given).zip(&words) {
        let start_ms = turn.start_ms.unwrap_or_else(|| cursor.min(next));
        cursor = start_ms.saturating_add(words * WORD_MS);
        let text = turn.text.trim().to_owned();
        turns.push(Turn { line: turn.line, speaker: turn.speaker, text, start_ms, end_ms: cursor });
    }
    for (index, words) in words.iter().enumerate() {
        let next = turns.get(index + 1).map(|turn| turn.start_ms);
        let Some(turn) = turns.get_mut(index) else { break };
        if let Some(next) = next.filter(|next| *next > turn.start_ms) {
            turn.end_ms = next.min(turn.start_ms.saturating_add(words * SLOW_WORD_MS));
        }
    }
    (turns, times, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(open: &[(Option<u64>, &str)]) -> (Vec<(u64, u64)>, Times) {
        let open = open.iter().map(|(start_ms, text)| Open {
            line: 1,
            speaker: None,
            text: (*text).to_owned(),
            start_ms: *start_ms,
        });
        let (turns, times, _) = close(open.collect());
        (turns.into_iter().map(|turn| (turn.start_ms, turn.end_ms)).collect(), times)
    }

    #[test]
    fn times_that_are_missing_are_estimated_from_the_words() {
        for (open, expected, times) in [
            (
                &[(None, "one two"), (None, "three"), (None, " "), (None, "four")][..],
                &[(0, 800), (800, 1_200), (1_200, 1_600)][..],
                Times::Estimated,
            ),
            // Up to the next start, but not across a pause.
            (
                &[(Some(1_000), "one two"), (Some(2_500), "three"), (Some(60_000), "four")],
                &[(1_000, 2_500), (2_500, 3_500), (60_000, 60_400)],
                Times::Starts,
            ),
            // Between two starts, and after the last.
            (
                &[(Some(0), "one two three"), (None, "four"), (Some(1_000), "five"), (None, "six")],
                &[(0, 1_000), (1_000, 1_400), (1_000, 1_400), (1_400, 1_800)],
                Times::Starts,
            ),
            // Starts that go backwards are kept as they are in the file.
            (&[(Some(9_000), "one"), (Some(1_000), "two")], &[(9_000, 9_400), (1_000, 1_400)], Times::Starts),
            (&[], &[], Times::Estimated),
        ] {
            assert_eq!(read(open), (expected.to_vec(), times), "{open:?}");
        }
    }
}
