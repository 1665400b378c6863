//! Estimates times of words for which a vendor gave none.
//!
//! Knows no vendor: the time of a text is divided by the length of its words.

use crate::base::text;
use crate::types::Word;

/// The written words of `text`, with times from `start_ms` to `end_ms` in proportion to their length in characters.
pub(super) fn interpolate(text: &str, start_ms: u64, end_ms: u64) -> Vec<Word> {
    let words: Vec<&str> = text::written(text).collect();
    let total: u64 = words.iter().map(|word| word.chars().count() as u64).sum();
    let span = end_ms.saturating_sub(start_ms);
    // Computed in 128 bits, because a vendor's times may have any value.
    let at = |done: u64| {
        let part = u128::from(span) * u128::from(done) / u128::from(total.max(1));
        start_ms.saturating_add(u64::try_from(part).unwrap_or(span))
    };
    let mut done = 0;
    words
        .into_iter()
        .map(|word| {
            let from = at(done);
            done += word.chars().count() as u64;
            Word { text: word.to_owned(), start_ms: from, end_ms: at(done), speaker: None, confidence: None }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shared_by_length_in_every_script() {
        let times = |text| {
            interpolate(text, 1_000, 2_000)
                .into_iter()
                .map(|word| (word.text, word.start_ms, word.end_ms))
                .collect::<Vec<_>>()
        };
        let expected = |words: &[(&str, u64, u64)]| {
            words.iter().map(|(text, start, end)| ((*text).to_owned(), *start, *end)).collect::<Vec<_>>()
        };
        assert_eq!(
            times("Hi there you"),
            expected(&[("Hi", 1_000, 1_200), ("there", 1_200, 1_700), ("you", 1_700, 2_000)])
        );
        assert_eq!(
            times("解約です"),
            expected(&[("解", 1_000, 1_250), ("約", 1_250, 1_500), ("で", 1_500, 1_750), ("す", 1_750, 2_000)])
        );
        assert_eq!(times(" "), expected(&[]));
        assert_eq!(interpolate("a b", u64::MAX - 1, u64::MAX).len(), 2, "no overflow");
    }
}
