//! Unfinished turns: final segments that wait until the vendor ends their turn, and the detection of a vendor's new
//! session.
//!
//! Knows no vendor and no clock: the call's session decides how long a turn may wait.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{DecodeError, wire};
use crate::protocol::ErrorCode;
use crate::types::{Final, SttEvent, TurnKey, Word};

/// A turn that its vendor does not end is ended at this many bytes of text.
const MAX_HELD_BYTES: usize = 32 << 10;
/// Maximum number of words of a held turn. The turn ends at this number, whatever the length of its text.
const MAX_HELD_WORDS: usize = 4096;
/// Maximum number of channels of a connection. Their state is kept in memory and with each record until the connection
/// ends.
const MAX_CHANNELS: usize = 64;
/// Speech that starts more than this long before the end of its channel's last speech belongs to a new session, ms.
const FALL_MS: u64 = 10_000;
/// The limit of [`FALL_MS`] for speech that starts within the first [`FALL_MS`] of a session, ms. The times of
/// consecutive words overlap by less at every vendor.
const FALL_TO_START_MS: u64 = 1_000;
/// Number of finals that are remembered to recognise repeated ones.
const MAX_KNOWN: usize = 64;

/// Returns the state of a channel, or of another part that a vendor numbers. `field` names the number in the frame.
///
/// # Errors
///
/// `bad_field` for a new one beyond the first [`MAX_CHANNELS`].
pub(super) fn channel<'a, K: Ord, V: Default>(
    known: &'a mut BTreeMap<K, V>,
    key: K,
    field: &str,
) -> Result<&'a mut V, DecodeError> {
    if known.len() >= MAX_CHANNELS && !known.contains_key(&key) {
        let message = format!(
            "{field}: at most {MAX_CHANNELS} different values are allowed on one connection (channels_per_connection)"
        );
        return Err(DecodeError::new(ErrorCode::BadField, message));
    }
    Ok(known.entry(key).or_default())
}

/// A piece of final speech, smaller than a turn.
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
    /// Sum of the confidences, each weighted by the number of words of its segment, and the sum of these weights.
    confidence: (f32, f32),
    /// Number of changes.
    version: u64,
}

impl Held {
    /// Restores the turn that an earlier decoder held, from its [`Held::peek`].
    pub(super) fn resume(last: &Final) -> Self {
        let weight = weight(&last.words);
        Self {
            text: last.text.clone(),
            words: last.words.clone(),
            start_ms: last.start_ms,
            end_ms: last.end_ms,
            language: last.language.clone(),
            confidence: last.confidence.map_or((0.0, 0.0), |confidence| (confidence * weight, weight)),
            version: 1,
        }
    }

    /// Returns true if nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.text.trim().is_empty() && self.words.is_empty()
    }

    /// Returns true if the turn is too long to continue and must end here.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= MAX_HELD_BYTES || self.words.len() >= MAX_HELD_WORDS
    }

    /// Start of the turn in ms, to order the turns of several channels.
    pub(super) fn start_ms(&self) -> Option<u64> {
        self.start_ms
    }

    /// Changes whenever the held turn changes. Within the life of a decoder, no two states have the same version.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Adds a segment. `separator` goes between its text and the text before it.
    pub(super) fn push(&mut self, segment: Segment, separator: &str) {
        self.version += 1;
        if !self.text.is_empty() && !segment.text.is_empty() {
            self.text.push_str(separator);
        }
        self.text.push_str(&segment.text);
        if let Some(confidence) = segment.confidence {
            let weight = weight(&segment.words);
            self.confidence.0 += confidence * weight;
            self.confidence.1 += weight;
        }
        // The times of words are more exact than those of their segment, which may begin and end in silence.
        let (first, last) = wire::span(&segment.words);
        self.start_ms = self.start_ms.or(first).or(segment.start_ms);
        self.end_ms = self.end_ms.max(last.or(segment.end_ms));
        self.words.extend(segment.words);
        self.language = self.language.take().or(segment.language);
    }

    /// The newest word, to which punctuation or the rest of a word attaches.
    pub(super) fn last_word(&mut self) -> Option<&mut Word> {
        self.words.last_mut()
    }

    /// The held text followed by `more`, which is not final yet.
    pub(super) fn with(&self, more: &str, separator: &str) -> String {
        let separator = if self.text.is_empty() || more.is_empty() { "" } else { separator };
        format!("{}{separator}{more}", self.text).trim().to_owned()
    }

    /// The speaker of the held words; `None` if there are several or none.
    pub(super) fn speaker(&self) -> Option<String> {
        wire::common_speaker(&self.words)
    }

    /// The turn as a final, as if the vendor never ended it; `None` if nothing is held. `speaker` is the label of a
    /// turn whose words have none.
    pub(super) fn peek(&self, channel: &str, speaker: Option<&str>) -> Option<Final> {
        if self.is_empty() {
            return None;
        }
        let (sum, weight) = self.confidence;
        Some(Final {
            key: TurnKey::Held(channel.to_owned()),
            formatted: true,
            text: self.text.trim_start().to_owned(),
            speaker: wire::common_speaker(&self.words).or_else(|| {
                let unlabelled = self.words.iter().all(|word| word.speaker.is_none());
                speaker.filter(|_| unlabelled).map(str::to_owned)
            }),
            words: self.words.clone(),
            start_ms: self.start_ms,
            end_ms: self.end_ms,
            language: self.language.clone(),
            confidence: (weight > 0.0).then(|| (sum / weight).clamp(0.0, 1.0)),
        })
    }

    /// Ends the turn; `None` if nothing is held. `speaker` as for [`Held::peek`].
    pub(super) fn take(&mut self, channel: &str, speaker: Option<&str>) -> Option<SttEvent> {
        let last = self.peek(channel, speaker);
        *self = Self { version: self.version + 1, ..Self::default() };
        let last = last?;
        let text = last.text.trim_end().to_owned();
        Some(SttEvent::Final(Box::new(Final { key: TurnKey::Ended(channel.to_owned()), text, ..last })))
    }
}

fn weight(words: &[Word]) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "a turn has few words")]
    let weight = words.len().max(1) as f32;
    weight
}

/// The id of the vendor's session, if a message gave one.
#[derive(Debug, Default)]
pub(super) struct Session(pub(super) Option<String>);

impl Session {
    /// Stores the id from a begin message. Returns true if the session is new, or may be new because the message has no
    /// id.
    pub(super) fn begins(&mut self, id: Option<&str>) -> bool {
        let another = id.is_none() || self.0.as_deref() != id;
        if another {
            self.0 = id.map(str::to_owned);
        }
        another
    }
}

/// End of the final speech by channel, in ms. For dialects whose sessions have no id: a new session shows only in the
/// times.
#[derive(Debug, Default)]
pub(super) struct Timeline(pub(super) BTreeMap<String, u64>);

impl Timeline {
    /// Returns true if speech at `start_ms` must belong to a new session. The timeline is then cleared.
    pub(super) fn restarts(&mut self, channel: &str, start_ms: Option<u64>) -> bool {
        let (Some(start_ms), Some(end_ms)) = (start_ms, self.0.get(channel)) else { return false };
        let least = if start_ms < FALL_MS { FALL_TO_START_MS } else { FALL_MS };
        let falls = start_ms + least < *end_ms;
        if falls {
            self.0.clear();
        }
        falls
    }

    /// Records the end of final speech. An end before the recorded one is ignored.
    pub(super) fn note(&mut self, channel: &str, end_ms: Option<u64>) {
        let Some(end_ms) = end_ms else { return };
        if let Some(known) = self.0.get_mut(channel) {
            *known = end_ms.max(*known);
        } else if self.0.len() < MAX_CHANNELS {
            self.0.insert(channel.to_owned(), end_ms);
        }
    }
}

/// The finals of sessions that messages do not name, in their order. A speaker's finals come in the order of speech, so
/// each speaker label has its own timeline.
#[derive(Debug, Default)]
pub(super) struct Unnamed {
    timeline: Timeline,
    /// The newest finals whose vendor names them: key, start, and hash of the text; newest last.
    known: VecDeque<(TurnKey, Option<u64>, u64)>,
    version: u64,
}

impl Unnamed {
    /// Continues from the [`Carry::ends`](crate::types::Carry::ends) of an earlier connection.
    pub(super) fn resume(ends: &BTreeMap<String, u64>) -> Self {
        Self { timeline: Timeline(ends.clone()), ..Self::default() }
    }

    /// Ends of the final speech, for [`Carry::ends`](crate::types::Carry::ends).
    pub(super) fn ends(&self) -> BTreeMap<String, u64> {
        self.timeline.0.clone()
    }

    /// Changes whenever the ends change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Appends `event`, after [`SttEvent::Restarted`] if it is a final that begins a new session. In a session that is
    /// `named`, the times do not matter.
    pub(super) fn add(&mut self, event: SttEvent, named: bool, out: &mut Vec<SttEvent>) {
        if let SttEvent::Final(turn) = &event
            && !named
            && self.restarts(turn)
        {
            out.push(SttEvent::Restarted);
        }
        out.push(event);
    }

    /// Returns true if `turn` begins a new session. A repeated final does not: one with the key of an earlier final and
    /// its text or its start.
    fn restarts(&mut self, turn: &Final) -> bool {
        let mut text = DefaultHasher::new();
        turn.text.hash(&mut text);
        let this = (turn.key.clone(), turn.start_ms, text.finish());
        let same = |known: &(TurnKey, Option<u64>, u64)| known.0 == this.0 && (known.1 == this.1 || known.2 == this.2);
        let again = matches!(turn.key, TurnKey::Vendor(_)) && self.known.iter().any(same);
        let channel = turn.speaker.as_deref().unwrap_or_default();
        let restarts = !again && self.timeline.restarts(channel, turn.start_ms);
        if restarts {
            self.known.clear();
        }
        if matches!(turn.key, TurnKey::Vendor(_)) {
            self.known.retain(|known| known.0 != this.0);
            if self.known.len() == MAX_KNOWN {
                self.known.pop_front();
            }
            self.known.push_back(this);
        }
        self.timeline.note(channel, turn.end_ms.or(turn.start_ms));
        self.version += 1;
        restarts
    }

    /// Forgets everything, because a session begins that has a name or a begin message.
    pub(super) fn clear(&mut self) {
        self.version += 1;
        self.timeline.0.clear();
        self.known.clear();
    }
}
