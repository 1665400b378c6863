//! A turn in the making: final segments that wait for the vendor's word that the turn is over.
//!
//! Knows no vendor. What is in here is exactly what [`super::Decoder::holding`] tells of.

use super::wire;
use crate::types::{Final, SttEvent, TurnKey, Word};

/// Where a vendor never says that a turn is over, it is after this many bytes of text.
const MAX_HELD_BYTES: usize = 32 << 10;

/// A stretch of final speech, smaller than a turn.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub text: String,
    pub words: Vec<Word>,
    pub start_ms: Option<u64>,
    pub end_ms: Option<u64>,
    pub language: Option<String>,
    pub confidence: Option<f32>,
}

/// Segments of one turn, in order.
#[derive(Debug, Default)]
pub(super) struct Held {
    text: String,
    words: Vec<Word>,
    start_ms: Option<u64>,
    end_ms: Option<u64>,
    language: Option<String>,
    /// Sum of confidences, each weighted by its segment's words, and the sum of these weights.
    confidence: (f32, f32),
}

impl Held {
    /// Nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.text.trim().is_empty() && self.words.is_empty()
    }

    /// The turn must end here, for it is too long to go on.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= MAX_HELD_BYTES
    }

    /// When the turn began, for the order of turns of several channels.
    pub(super) fn start_ms(&self) -> Option<u64> {
        self.start_ms
    }

    /// Adds a segment; `separator` goes between its text and that before.
    pub(super) fn push(&mut self, segment: Segment, separator: &str) {
        if !self.text.is_empty() && !segment.text.is_empty() {
            self.text.push_str(separator);
        }
        self.text.push_str(&segment.text);
        if let Some(confidence) = segment.confidence {
            #[expect(clippy::cast_precision_loss, reason = "a turn has few words")]
            let weight = segment.words.len().max(1) as f32;
            self.confidence.0 += confidence * weight;
            self.confidence.1 += weight;
        }
        // Words tell the time better than their segment, which may begin and end in silence.
        let (first, last) = wire::span(&segment.words);
        self.start_ms = self.start_ms.or(first).or(segment.start_ms);
        self.end_ms = self.end_ms.max(last.or(segment.end_ms));
        self.words.extend(segment.words);
        self.language = self.language.take().or(segment.language);
    }

    /// The word said last, to which a mark or the rest of a word attaches.
    pub(super) fn last_word(&mut self) -> Option<&mut Word> {
        self.words.last_mut()
    }

    /// What is held, and `more` that is not final yet.
    pub(super) fn with(&self, more: &str, separator: &str) -> String {
        let separator = if self.text.is_empty() || more.is_empty() { "" } else { separator };
        format!("{}{separator}{more}", self.text).trim().to_owned()
    }

    /// The speaker of what is held, if it is one.
    pub(super) fn speaker(&self) -> Option<String> {
        wire::common_speaker(&self.words)
    }

    /// Ends the turn. `speaker` is the label of words and turns that have none of their own.
    pub(super) fn take(&mut self, speaker: Option<&str>) -> Option<SttEvent> {
        let held = std::mem::take(self);
        if held.is_empty() {
            return None;
        }
        let confidence = (held.confidence.1 > 0.0).then(|| (held.confidence.0 / held.confidence.1).clamp(0.0, 1.0));
        Some(SttEvent::Final(Box::new(Final {
            key: TurnKey::Next,
            formatted: true,
            text: held.text.trim().to_owned(),
            speaker: wire::common_speaker(&held.words).or_else(|| {
                let unlabelled = held.words.iter().all(|word| word.speaker.is_none());
                speaker.filter(|_| unlabelled).map(str::to_owned)
            }),
            words: held.words,
            start_ms: held.start_ms,
            end_ms: held.end_ms,
            language: held.language,
            confidence,
        })))
    }
}
