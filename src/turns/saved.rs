//! The data that the turn table needs besides the turns to be rebuilt exactly: private fields of journal records.
//!
//! Knows no journal. Empty fields are left out, and words are arrays, because this is written once per turn.

use serde::{Deserialize, Serialize};

use super::overlay::Overlay;
use crate::types::{Final, Revision, TurnKey, TurnNo, Word};

/// Maximum number of digests that are remembered of one vendor turn; the oldest are dropped first.
pub(super) const MAX_DIGESTS: usize = 32;

/// Private fields of a turn's record, which are never sent to clients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TurnPrivate {
    /// The turn's words, which its event leaves out.
    #[serde(default, rename = "w", with = "crate::types::words", skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
    /// The vendor turn of which it is a part, or the whole.
    #[serde(default, rename = "v", skip_serializing_if = "Option::is_none")]
    pub(super) vendor: Option<VendorTurn>,
    /// Other vendor turns of the stream that changed since the last record without changing any turn: by revisions that
    /// came early, or finals without news.
    #[serde(default, rename = "o", skip_serializing_if = "Vec::is_empty")]
    pub(super) others: Vec<VendorTurn>,
}

/// One turn as the vendor counts it: one part, or several if it was cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct VendorTurn {
    #[serde(rename = "k")]
    pub key: TurnKey,
    /// Ordinals of its parts, in order. Rebuilt from the turns themselves.
    #[serde(skip)]
    pub parts: Vec<TurnNo>,
    /// Ordinal of its first part, for keys that later turns use again.
    #[serde(default, rename = "n", skip_serializing_if = "Option::is_none")]
    pub first: Option<TurnNo>,
    /// Times at which it was cut; `None` until a final with word speakers came.
    #[serde(default, rename = "c", skip_serializing_if = "Option::is_none")]
    pub cuts: Option<Vec<u64>>,
    /// Digests of the applied finals.
    #[serde(default, rename = "d", skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<u64>,
    /// Set if one of them was formatted.
    #[serde(default, rename = "f", skip_serializing_if = "std::ops::Not::not")]
    pub formatted: bool,
    /// Speakers that revisions gave.
    #[serde(default, rename = "s", skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// Revisions that came before the turn, in order; times are call times.
    #[serde(default, rename = "e", skip_serializing_if = "Vec::is_empty")]
    pub early: Vec<EarlyRevision>,
}

impl VendorTurn {
    pub(super) fn new(key: TurnKey) -> Self {
        Self {
            key,
            parts: Vec::new(),
            first: None,
            cuts: None,
            digests: Vec::new(),
            formatted: false,
            overlay: None,
            early: Vec::new(),
        }
    }

    pub(super) fn remember(&mut self, digest: u64) {
        if self.digests.len() == MAX_DIGESTS {
            self.digests.remove(0);
        }
        self.digests.push(digest);
    }
}

/// A revision that waits for its turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct EarlyRevision {
    #[serde(default, rename = "s", skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    #[serde(default, rename = "t", skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(default, rename = "w", with = "crate::types::words", skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
}

impl EarlyRevision {
    /// `revision` with its words in call time.
    pub(super) fn of(revision: &Revision, offset_ms: u64) -> Self {
        Self {
            speaker: revision.speaker.clone(),
            text: revision.text.clone(),
            words: shifted(&revision.words, offset_ms),
        }
    }
}

/// `words` in call time, with no end before its start.
pub(super) fn shifted(words: &[Word], offset_ms: u64) -> Vec<Word> {
    words
        .iter()
        .map(|word| {
            let start_ms = word.start_ms.saturating_add(offset_ms);
            let end_ms = word.end_ms.saturating_add(offset_ms).max(start_ms);
            Word { start_ms, end_ms, ..word.clone() }
        })
        .collect()
}

/// A digest of a final's content: FNV-1a (64 bit, Fowler, Noll and Vo) over its fields, each ended by a byte that no
/// text contains. Confidences are left out, because vendors change them when they send a final again.
pub(super) fn digest(last: &Final) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    let label = |label: &Option<String>| label.as_ref().map_or(String::new(), |label| format!("={label}"));
    let time = |time: Option<u64>| time.map_or([0xfe; 8], u64::to_le_bytes);
    eat(&[u8::from(last.formatted)]);
    eat(last.text.as_bytes());
    eat(label(&last.speaker).as_bytes());
    eat(label(&last.language).as_bytes());
    eat(&time(last.start_ms));
    eat(&time(last.end_ms));
    for word in &last.words {
        eat(word.text.as_bytes());
        eat(&word.start_ms.to_le_bytes());
        eat(&word.end_ms.to_le_bytes());
        eat(label(&word.speaker).as_bytes());
    }
    hash
}
