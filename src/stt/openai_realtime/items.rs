//! The items of a Realtime conversation, in the order of speech. Knows no message.
//!
//! An item is *pending* from the time its audio is known to be in the conversation until its transcript arrives, or is
//! known not to arrive. An item is sent once no item before it is pending. An item whose predecessor is unknown waits
//! for none.

use std::collections::BTreeMap;

use crate::stt::{DecodeError, held, wire};
use crate::types::{Final, SttEvent, TurnKey, Word};

/// Maximum number of items remembered, finished ones included. A session never has more unfinished items at once.
const MAX_ITEMS: usize = 64;

#[derive(Default)]
pub(super) struct Items {
    /// The items in order of arrival.
    items: Vec<Item>,
    version: u64,
}

#[derive(Default)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) partial: String,
    pub(super) start_ms: Option<u64>,
    pub(super) end_ms: Option<u64>,
    /// Id of the item before it in the conversation.
    previous: Option<String>,
    /// Set if the item is speech whose transcript is expected.
    expected: bool,
    /// The item's segments in order of time.
    segments: Vec<Segment>,
    transcript: Option<Transcript>,
    /// The model's text by content part, and its speaker label; empty and `None` if the item is not the model's.
    answer: BTreeMap<u64, String>,
    label: Option<&'static str>,
    /// Set if no transcript will come; the turn then consists of the segments.
    given_up: bool,
    /// Set once the item's turn was sent.
    done: bool,
}

pub(super) struct Transcript {
    pub(super) text: String,
    pub(super) language: Option<String>,
    pub(super) confidence: Option<f32>,
}

pub(super) struct Segment {
    pub(super) id: String,
    pub(super) text: String,
    pub(super) speaker: Option<String>,
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
}

impl Items {
    /// Restores items whose turns were sent before they were complete: later segments and transcripts correct them.
    pub(super) fn resume(held: &[Final]) -> Self {
        let items = held.iter().filter_map(|last| {
            let TurnKey::Vendor(id) = &last.key else { return None };
            let runs = last.words.chunk_by(|one, next| one.speaker == next.speaker);
            let segment = |(number, words): (usize, &[Word])| {
                let (start_ms, end_ms) = wire::span(words);
                Some(Segment {
                    id: format!("resumed {number}"),
                    text: words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "),
                    speaker: words.first()?.speaker.clone(),
                    start_ms: start_ms?,
                    end_ms: end_ms?,
                })
            };
            let transcript =
                Transcript { text: last.text.clone(), language: last.language.clone(), confidence: last.confidence };
            Some(Item {
                id: id.clone(),
                start_ms: last.start_ms,
                end_ms: last.end_ms,
                segments: runs.enumerate().filter_map(segment).collect(),
                transcript: last.formatted.then_some(transcript),
                done: true,
                ..Item::default()
            })
        });
        Self { items: items.collect(), version: 1 }
    }

    /// A number that changes whenever [`Items::held`] changes.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The item with that id, added if it is new. If there are too many, the oldest is dropped, and sent first if it
    /// waits.
    pub(super) fn get(&mut self, id: &str, out: &mut Vec<SttEvent>) -> &mut Item {
        let index = self.items.iter().position(|item| item.id == id).unwrap_or_else(|| {
            if self.items.len() == MAX_ITEMS {
                self.version += 1;
                let mut oldest = self.items.remove(0);
                out.extend(oldest.waits().then(|| oldest.come_out()));
                // Items that waited for the dropped one may be ready now.
                self.release(out);
            }
            self.items.push(Item { id: id.to_owned(), ..Item::default() });
            self.items.len() - 1
        });
        &mut self.items[index]
    }

    /// Records the item before this one. `expected`: a transcript of this item is to come.
    pub(super) fn place(&mut self, id: &str, previous: Option<&str>, expected: bool, out: &mut Vec<SttEvent>) {
        self.version += 1;
        let item = self.get(id, out);
        item.expected |= expected;
        if let Some(previous) = previous.filter(|previous| *previous != id) {
            item.previous = Some(previous.to_owned());
        }
    }

    /// Records an item's transcript and sends the turns that are ready.
    pub(super) fn complete(&mut self, id: &str, transcript: Transcript, out: &mut Vec<SttEvent>) {
        self.version += 1;
        let item = self.get(id, out);
        item.transcript = Some(transcript);
        if item.done {
            // The turn is sent again; the receiver checks if anything changed.
            out.push(item.come_out());
        }
        self.release(out);
    }

    /// Records a complete part of the model's text in an item. `label` becomes the turn's speaker.
    ///
    /// # Errors
    ///
    /// `bad_field` for too many parts of one item.
    pub(super) fn answer(
        &mut self,
        id: &str,
        part: u64,
        text: String,
        label: &'static str,
        out: &mut Vec<SttEvent>,
    ) -> Result<(), DecodeError> {
        let item = self.get(id, out);
        *held::channel(&mut item.answer, part, "content_index")? = text;
        item.label = Some(label);
        let text = item.answer.values().map(|part| part.trim()).collect::<Vec<_>>().join(" ");
        self.complete(id, Transcript { text, language: None, confidence: None }, out);
        Ok(())
    }

    /// Adds a segment to an item. A segment that is already there is ignored.
    pub(super) fn segment(&mut self, id: &str, segment: Segment, out: &mut Vec<SttEvent>) {
        self.version += 1;
        let item = self.get(id, out);
        if item.segments.iter().any(|other| other.id == segment.id) {
            return;
        }
        let time = |segment: &Segment| (segment.start_ms, segment.end_ms);
        let place = item.segments.partition_point(|other| time(other) <= time(&segment));
        item.segments.insert(place, segment);
        if item.done {
            out.push(item.come_out());
        }
        self.release(out);
    }

    /// Records that an item's transcript will not come.
    pub(super) fn give_up(&mut self, id: &str, out: &mut Vec<SttEvent>) {
        self.version += 1;
        self.get(id, out).given_up = true;
        self.release(out);
    }

    /// Sends all waiting turns, because nothing more will come.
    pub(super) fn finish(&mut self, out: &mut Vec<SttEvent>) {
        self.version += 1;
        for index in self.talk_order() {
            let item = &mut self.items[index];
            if item.waits() {
                out.push(item.come_out());
            }
        }
    }

    /// Returns true if final speech waits here.
    pub(super) fn holding(&self) -> bool {
        self.items.iter().any(Item::waits)
    }

    /// The waiting turns as they would be sent now, in the order of speech.
    pub(super) fn held(&self) -> Vec<Final> {
        if !self.holding() {
            return Vec::new();
        }
        let order = self.talk_order().into_iter().map(|index| &self.items[index]);
        order.filter(|item| item.waits()).map(Item::turn).collect()
    }

    /// Sends the turns that no longer wait for another item.
    fn release(&mut self, out: &mut Vec<SttEvent>) {
        if !self.items.iter().any(Item::is_ready) {
            return;
        }
        let mut blocked = vec![false; self.items.len()];
        for index in self.talk_order() {
            let previous = self.previous(index);
            blocked[index] = previous.is_some_and(|before| blocked[before] || self.items[before].is_pending());
            let item = &mut self.items[index];
            if !blocked[index] && item.is_ready() {
                self.version += 1;
                out.push(item.come_out());
            }
        }
    }

    fn previous(&self, index: usize) -> Option<usize> {
        let previous = self.items[index].previous.as_deref()?;
        self.items.iter().position(|item| item.id == previous)
    }

    /// Indices of the items in the order of speech: each one after its predecessor, otherwise in order of arrival.
    fn talk_order(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.items.len());
        let mut placed = vec![false; self.items.len()];
        for index in 0..self.items.len() {
            let mut chain = Vec::new();
            let mut next = Some(index);
            while let Some(index) = next.filter(|index| !placed[*index]) {
                placed[index] = true;
                chain.push(index);
                next = self.previous(index);
            }
            order.extend(chain.into_iter().rev());
        }
        order
    }
}

impl Item {
    /// Returns true if the item's turn was sent, or waits only for other items.
    pub(super) fn said(&self) -> bool {
        self.done || self.transcript.is_some()
    }

    /// Returns true if the item has final speech that was not sent.
    fn waits(&self) -> bool {
        !self.done && (self.transcript.is_some() || !self.segments.is_empty())
    }

    /// Returns true if the item waits only for items before it.
    fn is_ready(&self) -> bool {
        self.waits() && (self.transcript.is_some() || self.given_up)
    }

    fn is_pending(&self) -> bool {
        self.expected && !self.said() && !self.given_up
    }

    fn come_out(&mut self) -> SttEvent {
        self.done = true;
        self.partial = String::new();
        SttEvent::Final(Box::new(self.turn()))
    }

    /// The turn as far as it is known. Without a transcript, its text is joined from its segments.
    fn turn(&self) -> Final {
        let (text, language, confidence) = match &self.transcript {
            Some(said) => (said.text.clone(), said.language.clone(), said.confidence),
            None => (self.segments.iter().map(|segment| segment.text.trim()).collect::<Vec<_>>().join(" "), None, None),
        };
        let words: Vec<Word> = self.segments.iter().flat_map(words).collect();
        let (first, last) = wire::span(&words);
        let start_ms = first.or(self.start_ms);
        Final {
            key: key(&self.id),
            // A transcript replaces a text that was joined from segments, never the other way round.
            formatted: self.transcript.is_some(),
            text,
            speaker: wire::common_speaker(&words).or_else(|| self.label.map(str::to_owned)),
            words,
            start_ms,
            end_ms: last.or(self.end_ms.map(|end| end.max(start_ms.unwrap_or(0)))),
            language,
            confidence,
        }
    }
}

/// The words of a segment. Its time is divided among them by their number of characters.
fn words(segment: &Segment) -> Vec<Word> {
    let total: usize = segment.text.split_whitespace().map(|word| word.chars().count()).sum();
    let at =
        |chars: usize| segment.start_ms + (segment.end_ms - segment.start_ms) * chars as u64 / (total as u64).max(1);
    let mut before = 0;
    segment
        .text
        .split_whitespace()
        .map(|text| {
            let start_ms = at(before);
            before += text.chars().count();
            let (text, speaker) = (text.to_owned(), segment.speaker.clone());
            Word { text, start_ms, end_ms: at(before), speaker, confidence: None }
        })
        .collect()
}

pub(super) fn key(item_id: &str) -> TurnKey {
    TurnKey::Vendor(item_id.to_owned())
}
