//! The storage format of words in records: arrays `[text, start_ms, length_ms, speaker, confidence]`, because words are
//! written once per turn and are most of its bytes. Use with serde's `with`.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Word;

#[derive(Serialize, Deserialize)]
struct Compact<'a>(#[serde(borrow)] Cow<'a, str>, u64, u64, #[serde(borrow)] Option<Cow<'a, str>>, Option<f32>);

/// Writes words as arrays.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(words: &[Word], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(words.iter().map(|word| {
        let length = word.end_ms.saturating_sub(word.start_ms);
        let speaker = word.speaker.as_deref().map(Cow::Borrowed);
        Compact(Cow::Borrowed(&word.text), word.start_ms, length, speaker, word.confidence)
    }))
}

/// Reads words from arrays.
///
/// # Errors
/// Those of the deserializer.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Word>, D::Error> {
    let words = Vec::<Compact<'_>>::deserialize(deserializer)?;
    Ok(words
        .into_iter()
        .map(|Compact(text, start_ms, length, speaker, confidence)| Word {
            text: text.into_owned(),
            start_ms,
            end_ms: start_ms.saturating_add(length),
            speaker: speaker.map(Cow::into_owned),
            confidence,
        })
        .collect())
}
