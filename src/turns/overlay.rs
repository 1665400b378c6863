//! The speakers that a revision gave to a turn: applied to all content of that turn that is sent later.
//!
//! Knows no turn: stores speakers by time, because the words of a formatted final need not be the words of the
//! revision.

use serde::{Deserialize, Serialize};

use crate::types::Word;

/// How far a word's middle may be from a stretch to take its speaker, ms: vendors pad edge words by up to a second.
const REACH_MS: u64 = 1_000;

/// Speakers by time, and the label of the whole turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Overlay {
    /// The speaker's label of the whole turn.
    #[serde(default, rename = "l", skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// First and last word middle of each run of one speaker, in time order.
    #[serde(default, rename = "s", skip_serializing_if = "Vec::is_empty")]
    pub stretches: Vec<(u64, u64, String)>,
}

impl Overlay {
    /// The overlay for `words` and `label`; `None` if they name no speaker.
    pub(super) fn of<'a>(label: Option<&str>, words: impl IntoIterator<Item = &'a Word>) -> Option<Self> {
        let mut stretches: Vec<(u64, u64, String)> = Vec::new();
        let mut spoken: Vec<(u64, &str)> =
            words.into_iter().filter_map(|word| Some((word.middle_ms(), word.speaker.as_deref()?))).collect();
        spoken.sort_by_key(|(middle, _)| *middle);
        for (middle, speaker) in spoken {
            match stretches.last_mut() {
                Some((_, last, known)) if known == speaker => *last = middle,
                _ => stretches.push((middle, middle, speaker.to_owned())),
            }
        }
        let label = label.map(str::to_owned);
        (label.is_some() || !stretches.is_empty()).then_some(Self { label, stretches })
    }

    /// Gives each word its speaker. A label without words relabels every labelled word.
    pub(super) fn apply(&self, words: &mut [Word]) {
        for word in words {
            if self.stretches.is_empty() {
                if word.speaker.is_some() {
                    word.speaker.clone_from(&self.label);
                }
            } else if let Some(speaker) = self.speaker_at(word.middle_ms()) {
                word.speaker = Some(speaker.to_owned());
            }
        }
    }

    /// The label, if it applies to all words.
    pub(super) fn label_alone(&self) -> Option<&str> {
        self.label.as_deref().filter(|_| self.stretches.is_empty())
    }

    /// Replaces a label everywhere.
    pub(super) fn relabel(&mut self, from: &str, to: &str) {
        let labels = self.stretches.iter_mut().map(|(_, _, speaker)| speaker).chain(self.label.as_mut());
        for label in labels.filter(|label| *label == from) {
            to.clone_into(label);
        }
    }

    fn speaker_at(&self, at: u64) -> Option<&str> {
        let after = self.stretches.partition_point(|(first, _, _)| *first <= at);
        let before = after.checked_sub(1).map(|index| &self.stretches[index]);
        let before = before.map(|(_, last, speaker)| (at.saturating_sub(*last), speaker));
        let after = self.stretches.get(after).map(|(first, _, speaker)| (first - at, speaker));
        let nearest = before.into_iter().chain(after).min_by_key(|(distance, _)| *distance)?;
        (nearest.0 <= REACH_MS).then_some(nearest.1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(start_ms: u64, end_ms: u64, speaker: Option<&str>) -> Word {
        Word { text: "w".into(), start_ms, end_ms, speaker: speaker.map(str::to_owned), confidence: None }
    }

    #[test]
    fn other_words_take_the_speaker_that_was_speaking_then() {
        let revised = [word(0, 10, Some("A")), word(20, 30, Some("A")), word(40, 50, Some("B"))];
        let overlay = Overlay::of(None, &revised).expect("speakers");
        let mut words = [word(0, 28, None), word(38, 52, Some("C")), word(9_000, 9_100, Some("C"))];
        overlay.apply(&mut words);
        let speakers = words.each_ref().map(|word| word.speaker.as_deref());
        assert_eq!(speakers, [Some("A"), Some("B"), Some("C")], "a far word keeps its own");
    }

    #[test]
    fn a_label_alone_relabels_what_was_labelled() {
        let overlay = Overlay::of(Some("B"), &[]).expect("label");
        let mut words = [word(0, 1, None), word(2, 3, Some("A"))];
        overlay.apply(&mut words);
        assert_eq!(words.each_ref().map(|word| word.speaker.as_deref()), [None, Some("B")]);
        assert_eq!(Overlay::of(None, &[word(0, 1, None)]), None);
    }
}
