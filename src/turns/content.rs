//! The content of a turn before it has a number: applies finals and new text to the parts of a vendor turn.
//!
//! Knows no turn table and no other turn.

use super::cut;
use super::overlay::Overlay;
use super::saved::VendorTurn;
use super::timing::interpolate;
use crate::base::text;
use crate::types::{Final, Turn, Word};

/// A turn's content, before it has a number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Content {
    pub text: String,
    pub words: Vec<Word>,
    pub speaker: Option<String>,
    pub start_ms: u64,
    pub end_ms: u64,
}

impl Content {
    pub(super) fn of(turn: &Turn) -> Self {
        Self {
            text: turn.text.clone(),
            words: turn.words.clone(),
            speaker: turn.speaker.clone(),
            start_ms: turn.start_ms,
            end_ms: turn.end_ms,
        }
    }
}

/// The content that a final gives to each part of its vendor turn. `words` are in call time, with revised speakers;
/// `current` is the parts' present content.
pub(super) fn lay(
    vendor: &VendorTurn,
    last: &Final,
    words: Vec<Word>,
    offset_ms: u64,
    arrival_ms: u64,
    current: &[Content],
) -> Vec<Content> {
    let cuts = vendor.cuts.as_deref().unwrap_or_default();
    let given = |time: Option<u64>| time.map(|time| time.saturating_add(offset_ms));
    let first = current.first();
    let start_ms = given(last.start_ms)
        .or_else(|| words.first().map(|word| word.start_ms))
        .or_else(|| first.map(|part| part.start_ms))
        .unwrap_or(arrival_ms);
    let end_ms = given(last.end_ms)
        .or_else(|| words.last().map(|word| word.end_ms))
        .or_else(|| current.last().map(|part| part.end_ms))
        .unwrap_or(start_ms)
        .max(start_ms);
    let overlay = vendor.overlay.as_ref();
    let now = first.and_then(|part| part.speaker.as_deref());
    if cuts.is_empty() {
        let revised = overlay.and_then(|overlay| {
            let by_words = cut::majority(&words, now).filter(|_| !overlay.stretches.is_empty());
            overlay.label.as_deref().or(by_words)
        });
        let speaker =
            revised.or(last.speaker.as_deref()).or_else(|| cut::majority(&words, now)).or(now).map(str::to_owned);
        return vec![Content { text: last.text.clone(), words, speaker, start_ms, end_ms }];
    }
    let without_words = words.is_empty();
    let words = if without_words { interpolate(&last.text, start_ms, end_ms) } else { words };
    let count = cuts.len() + 1;
    let parts: Vec<usize> = words.iter().map(|word| cut::part_of(cuts, word.middle_ms())).collect();
    let texts = cut::texts(&last.text, &words, &parts, count);
    let mut by_part: Vec<Vec<Word>> = vec![Vec::new(); count];
    for (word, part) in words.into_iter().zip(parts) {
        by_part[part].push(word);
    }
    let label_alone = overlay.and_then(Overlay::label_alone);
    let laid = by_part.into_iter().zip(texts).enumerate().map(|(part, (mut words, text))| {
        // The part before a cut is new content, not the whole content from before.
        let kept = current.get(part).filter(|_| current.len() == count);
        let edge = |index: Option<usize>, otherwise: u64| index.map_or(otherwise, |index| cuts[index]);
        let times = (words.iter().map(|word| word.start_ms).min(), words.iter().map(|word| word.end_ms).max());
        let now = kept.and_then(|part| part.speaker.as_deref());
        let speaker =
            label_alone.or_else(|| cut::majority(&words, now)).or(now).or(last.speaker.as_deref()).map(str::to_owned);
        if without_words {
            words.clear();
        }
        let (start_ms, end_ms) = match (times, kept) {
            ((Some(start), Some(end)), _) if !without_words => (start, end),
            (_, Some(kept)) => (kept.start_ms, kept.end_ms),
            _ => {
                let start = edge(part.checked_sub(1), start_ms);
                (start, edge((part < cuts.len()).then_some(part), end_ms).max(start))
            }
        };
        Content { text, words, speaker, start_ms, end_ms }
    });
    laid.collect()
}

/// Distributes the same words with new times over the same cuts. `None` if the words differ, or if no word moved to
/// another part.
pub(super) fn relay(cuts: &[u64], current: &[Content], words: &[Word]) -> Option<Vec<Content>> {
    let known = || current.iter().flat_map(|part| &part.words);
    let same = words.len() == known().count() && known().zip(words).all(|(old, new)| old.text == new.text);
    let times = |word: &Word| (word.start_ms, word.end_ms);
    if cuts.is_empty() || !same || known().zip(words).all(|(old, new)| times(old) == times(new)) {
        return None;
    }
    let moved = |(old, new): (&Word, &Word)| Word { start_ms: new.start_ms, end_ms: new.end_ms, ..old.clone() };
    let words: Vec<Word> = known().zip(words).map(moved).collect();
    let whole = text::join(current.iter().map(|part| part.text.as_str()));
    let parts: Vec<usize> = words.iter().map(|word| cut::part_of(cuts, word.middle_ms())).collect();
    let mut contents = current.to_vec();
    for (content, text) in contents.iter_mut().zip(cut::texts(&whole, &words, &parts, current.len())) {
        content.words.clear();
        content.text = text;
    }
    for (word, part) in words.into_iter().zip(parts) {
        contents.get_mut(part)?.words.push(word);
    }
    for content in &mut contents {
        let starts = content.words.iter().map(|word| word.start_ms).min();
        let ends = content.words.iter().map(|word| word.end_ms).max();
        if let (Some(start_ms), Some(end_ms)) = (starts, ends) {
            (content.start_ms, content.end_ms) = (start_ms, end_ms);
        }
    }
    Some(contents)
}

/// Distributes new text without words over the parts of a turn: completely if there is one part, otherwise by
/// interpolated times.
pub(super) fn texts_alone(text: &str, cuts: &[u64], parts: &[Content]) -> Vec<String> {
    if parts.len() < 2 {
        return vec![text.to_owned()];
    }
    let start_ms = parts.iter().map(|part| part.start_ms).min().unwrap_or_default();
    let end_ms = parts.iter().map(|part| part.end_ms).max().unwrap_or_default();
    let words = interpolate(text, start_ms, end_ms);
    let of: Vec<usize> = words.iter().map(|word| cut::part_of(cuts, word.middle_ms())).collect();
    cut::texts(text, &words, &of, parts.len())
}

/// Replaces a label; returns true if it occurred.
pub(super) fn relabel(speaker: Option<&mut String>, words: &mut [Word], from: &str, to: &str) -> bool {
    let labels = speaker.into_iter().chain(words.iter_mut().filter_map(|word| word.speaker.as_mut()));
    let mut found = false;
    for label in labels.filter(|label| *label == from) {
        to.clone_into(label);
        found = true;
    }
    found && from != to
}
