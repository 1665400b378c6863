//! The items of a Realtime conversation, in the order of the talk. Knows no message.
//!
//! An item is *pending* from when its audio is known to be in the conversation until its transcript comes, or will not
//! come. What is known of an item comes out when no item before it is pending. An item of which nobody said what it
//! follows waits for nobody.

use std::collections::BTreeMap;

use crate::stt::wire;
use crate::types::{Final, SttEvent, TurnKey, Word};

/// Items remembered, finished ones included. More are never in the air at once.
const MAX_ITEMS: usize = 64;

#[derive(Default)]
pub(super) struct Items {
    /// In order of arrival.
    items: Vec<Item>,
    version: u64,
}

#[derive(Default)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) partial: String,
    pub(super) start_ms: Option<u64>,
    pub(super) end_ms: Option<u64>,
    /// The item before it in the conversation.
    previous: Option<String>,
    /// It is speech whose transcript is to come.
    expected: bool,
    /// In order of time.
    segments: Vec<Segment>,
    transcript: Option<Transcript>,
    /// What the model says in it, by content part, and its label; empty where it is not the model's.
    answer: BTreeMap<u64, String>,
    label: Option<&'static str>,
    /// No transcript will come: its segments are all there is.
    given_up: bool,
    /// Its turn came out.
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
    /// Items whose turns came out before their time: further segments and their transcripts correct these.
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

    /// A number that is another one whenever [`Items::held`] is.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The item of that id; the oldest makes room for a new one.
    pub(super) fn get(&mut self, id: &str, out: &mut Vec<SttEvent>) -> &mut Item {
        let index = self.items.iter().position(|item| item.id == id).unwrap_or_else(|| {
            if self.items.len() == MAX_ITEMS {
                self.version += 1;
                let mut oldest = self.items.remove(0);
                out.extend(oldest.waits().then(|| oldest.come_out()));
                // What waited for it waits no more.
                self.release(out);
            }
            self.items.push(Item { id: id.to_owned(), ..Item::default() });
            self.items.len() - 1
        });
        &mut self.items[index]
    }

    /// Notes where an item stands. `expected`: its transcript is to come.
    pub(super) fn place(&mut self, id: &str, previous: Option<&str>, expected: bool, out: &mut Vec<SttEvent>) {
        self.version += 1;
        let item = self.get(id, out);
        item.expected |= expected;
        if let Some(previous) = previous.filter(|previous| *previous != id) {
            item.previous = Some(previous.to_owned());
        }
    }

    /// An item's transcript came.
    pub(super) fn complete(&mut self, id: &str, transcript: Transcript, out: &mut Vec<SttEvent>) {
        self.version += 1;
        let item = self.get(id, out);
        item.transcript = Some(transcript);
        if item.done {
            // It is said again; whether that changes anything is for others to see.
            out.push(item.come_out());
        }
        self.release(out);
    }

    /// A part of what the model says in an item is complete. Its words carry `label`.
    pub(super) fn answer(&mut self, id: &str, part: u64, text: String, label: &'static str, out: &mut Vec<SttEvent>) {
        let item = self.get(id, out);
        item.label = Some(label);
        item.answer.insert(part, text);
        let text = item.answer.values().map(|part| part.trim()).collect::<Vec<_>>().join(" ");
        self.complete(id, Transcript { text, language: None, confidence: None }, out);
    }

    /// A segment of an item came. One that was there is ignored.
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

    /// An item's transcript will not come.
    pub(super) fn give_up(&mut self, id: &str, out: &mut Vec<SttEvent>) {
        self.version += 1;
        self.get(id, out).given_up = true;
        self.release(out);
    }

    /// Nothing more comes: all that waits comes out.
    pub(super) fn finish(&mut self, out: &mut Vec<SttEvent>) {
        self.version += 1;
        for index in self.talk_order() {
            let item = &mut self.items[index];
            if item.waits() {
                out.push(item.come_out());
            }
        }
    }

    /// Whether final speech waits here.
    pub(super) fn holding(&self) -> bool {
        self.items.iter().any(Item::waits)
    }

    /// What waits, as the turns that would come out now, in the order of the talk.
    pub(super) fn held(&self) -> Vec<Final> {
        if !self.holding() {
            return Vec::new();
        }
        let order = self.talk_order().into_iter().map(|index| &self.items[index]);
        order.filter(|item| item.waits()).map(Item::turn).collect()
    }

    /// Lets those transcripts out that wait for no item any more.
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

    /// Every item after the one before it, else in order of arrival.
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
    /// Its turn came out, or waits only for others.
    pub(super) fn said(&self) -> bool {
        self.done || self.transcript.is_some()
    }

    /// It holds final speech that did not come out.
    fn waits(&self) -> bool {
        !self.done && (self.transcript.is_some() || !self.segments.is_empty())
    }

    /// It waits only for items before it.
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

    /// The turn, as far as it is known; without a transcript, its text is that of its segments.
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
            // What is put together from segments gives way to a transcript, never the other way round.
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

/// A segment's words, its time shared out by their lengths.
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

/// The key of an item's turn.
pub(super) fn key(item_id: &str) -> TurnKey {
    TurnKey::Vendor(item_id.to_owned())
}
