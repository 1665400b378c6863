//! Divides long paragraphs, and estimates missing times from the words, for files that have only the starts of turns, or
//! no times.
//!
//! Knows no format.

use super::merge::{LONG_CHARS, LONGEST_CHARS, ends_sentence};
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

/// The parts of a paragraph: a long one is divided after sentences, because evidence refers to turns.
fn divided(open: Open) -> Vec<Open> {
    if open.text.chars().count() <= LONGEST_CHARS {
        return vec![open];
    }
    let (mut parts, mut from, mut characters) = (Vec::new(), 0, 0);
    for (at, character) in open.text.char_indices() {
        let at = at + character.len_utf8();
        characters += 1;
        let said = open.text.get(from..at).unwrap_or_default();
        let is_gap = open.text.get(at..).is_some_and(|rest| rest.starts_with(char::is_whitespace));
        let is_end =
            characters >= LONG_CHARS && (is_gap || matches!(character, '。' | '！' | '？')) && ends_sentence(said);
        let is_full = characters >= LONGEST_CHARS && (is_gap || characters >= 2 * LONGEST_CHARS);
        if is_end || is_full {
            parts.push(said.trim());
            (from, characters) = (at, 0);
        }
    }
    parts.push(open.text.get(from..).unwrap_or_default().trim());
    let Open { line, speaker, mut start_ms, .. } = open.clone();
    let part = |text: &str| Open { line, speaker: speaker.clone(), text: text.to_owned(), start_ms: start_ms.take() };
    parts.into_iter().filter(|text| !text.is_empty()).map(part).collect()
}

/// The turns, in the order of the file. A turn without a start begins when the one before should have ended, but not
/// after the next time in the file. Also returns the names without any speech.
pub(super) fn close(open: Vec<Open>) -> (Vec<Turn>, Times, Vec<LeftOut>) {
    let (open, empty): (Vec<Open>, Vec<Open>) = open.into_iter().partition(|turn| !turn.text.trim().is_empty());
    let left_out = empty.iter().filter(|turn| turn.speaker.is_some()).map(|turn| LeftOut::name(turn.line)).collect();
    let open: Vec<Open> = open.into_iter().flat_map(divided).collect();
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
    fn long_paragraphs_are_divided_after_sentences_and_lose_no_word() {
        let long = "So this is what we have decided, and why. ".repeat(100);
        for (text, parts) in [
            (long.clone(), 7),
            ("word ".repeat(1_000), 3),
            ("今日は天気がいいです。".repeat(300), 6),
            ("x".repeat(10_000), 3),
            ("Short. ".repeat(300), 1),
        ] {
            let open =
                Open { line: 3, speaker: Some("Ann".to_owned()), text: text.trim().to_owned(), start_ms: Some(5_000) };
            let (turns, times, _) =
                close(vec![open, Open { line: 4, speaker: None, text: "next".to_owned(), start_ms: None }]);
            assert_eq!((turns.len(), times), (parts + 1, Times::Starts), "{}", &text[..9]);
            let squeezed = |text: &str| text.split_whitespace().collect::<String>();
            let said: String = turns[..parts].iter().map(|turn| squeezed(&turn.text)).collect();
            assert_eq!(said, squeezed(&text));
            assert!(turns[..parts].iter().all(|turn| turn.line == 3 && turn.speaker.as_deref() == Some("Ann")));
            assert!(turns.iter().all(|turn| turn.text.chars().count() <= 2 * LONGEST_CHARS));
            assert!(turns.windows(2).all(|pair| pair[0].start_ms < pair[1].start_ms), "{turns:?}");
        }
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
