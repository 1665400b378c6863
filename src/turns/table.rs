//! The table itself: its turns by ordinal, its streams, and how content becomes a turn or a revision of one.
//!
//! Does not know the meaning of finals and revisions: [`super::apply`] decides which turn gets which content.

use std::collections::HashMap;
use std::sync::Arc;

use super::change::{Change, ChangeKind, TurnError};
use super::content::Content;
use super::saved::TurnPrivate;
use super::stream::Stream;
use crate::types::{Final, StreamId, Turn, TurnKey, TurnNo};

/// All turns of a call.
#[derive(Debug, Default)]
pub struct Turns {
    pub(super) slots: Vec<Slot>,
    pub(super) streams: HashMap<StreamId, Stream>,
    revision: u64,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) turn: Arc<Turn>,
    /// Index in the stream's `vendors`; `None` if the vendor does not name turns.
    pub(super) vendor: Option<usize>,
}

impl Turns {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The `turn_order` with which a partial of `key` is sent. `None` if the partial is outdated, because a final of
    /// that order or above exists.
    pub fn partial_order(&self, stream: &StreamId, key: &TurnKey) -> Option<u64> {
        let stream = self.streams.get(stream);
        if let TurnKey::Order(order) = key {
            let highest = stream.and_then(|stream| stream.highest);
            return highest.is_none_or(|highest| highest < *order).then_some(*order);
        }
        let Some(stream) = stream else { return Some(0) };
        if let TurnKey::Held(_) = key {
            return Some(stream.next_order);
        }
        let known = stream.by_key.get(key).is_some_and(|index| !stream.vendors[*index].parts.is_empty());
        (!known).then_some(stream.next_order)
    }

    /// The highest `turn_order` of the stream; `None` = it has no turn.
    pub fn acked(&self, stream: &StreamId) -> Option<u64> {
        self.streams.get(stream)?.highest
    }

    /// Returns true if a revision of this stream waits for its turn and is in no record yet, so that its frame exists
    /// only in memory. It is saved with the stream's next change.
    pub fn holding(&self, stream: &StreamId) -> bool {
        self.streams
            .get(stream)
            .is_some_and(|stream| stream.unsaved.iter().any(|index| !stream.vendors[*index].early.is_empty()))
    }

    /// Marks the unfinished turns of `stream` as ended, except those of `held`: their keys can be used again.
    pub fn end_all_but(&mut self, stream: &StreamId, held: &[Final]) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.end_all_but(held);
        }
    }

    /// The turn with this ordinal.
    pub fn get(&self, turn: TurnNo) -> Option<&Arc<Turn>> {
        Some(&self.slots.get(usize::try_from(turn).ok()?)?.turn)
    }

    /// All turns, by ordinal, including those without text.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Turn>> + ExactSizeIterator {
        self.slots.iter().map(|slot| &slot.turn)
    }

    /// Number of turns, including those without text.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns true if there is no turn.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Number of changes that were applied.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Applies one journaled change. The records of a call, applied in order, rebuild the table exactly.
    ///
    /// # Errors
    /// The turn's ordinal does not continue from those before it.
    pub fn restore(&mut self, mut turn: Turn, private: TurnPrivate) -> Result<(), TurnError> {
        let hole = TurnError::Hole { found: turn.turn, len: self.slots.len() };
        let index = usize::try_from(turn.turn).map_err(|_| hole.clone())?;
        if index > self.slots.len() {
            return Err(hole);
        }
        if turn.words.is_empty() {
            turn.words = private.words;
        }
        let is_new = index == self.slots.len();
        let stream = self.streams.entry(turn.stream_id.clone()).or_default();
        stream.count(turn.turn_order);
        let vendor = private.vendor.map(|saved| stream.restore(saved));
        for saved in private.others {
            stream.restore(saved);
        }
        if is_new {
            if let Some(vendor) = vendor {
                stream.vendors[vendor].parts.push(turn.turn);
            }
            self.slots.push(Slot { turn: Arc::new(turn), vendor });
        } else {
            self.slots[index].turn = Arc::new(turn);
        }
        self.revision += 1;
        Ok(())
    }
    /// Puts content into a part of a vendor turn: into the existing part, or into a new turn.
    #[expect(clippy::too_many_arguments, reason = "one place where content becomes a turn")]
    pub(super) fn put(
        &mut self,
        stream_id: &StreamId,
        splits: bool,
        vendor: Option<usize>,
        part: usize,
        content: Content,
        last: Option<&Final>,
        out: &mut Vec<Change>,
    ) {
        let Some(stream) = self.streams.get_mut(stream_id) else { return };
        let existing = vendor.and_then(|index| stream.vendors[index].parts.get(part)).copied();
        if let Some(turn) = existing {
            self.set(turn as usize, content, last, out);
            return;
        }
        let Some(last) = last else { return };
        let number = self.slots.len() as TurnNo;
        let turn_order = match last.key {
            TurnKey::Order(order) if !splits => order,
            _ => stream.next_order,
        };
        stream.count(turn_order);
        if let Some(index) = vendor {
            let vendor = &mut stream.vendors[index];
            vendor.parts.push(number);
            if let TurnKey::Held(_) = vendor.key {
                vendor.first.get_or_insert(number);
            }
        }
        let Content { text, words, speaker, start_ms, end_ms } = content;
        let turn = Arc::new(Turn {
            turn: number,
            stream_id: stream_id.clone(),
            turn_order,
            vendor_turn: if let TurnKey::Vendor(id) = &last.key { Some(id.clone()) } else { None },
            rev: 0,
            speaker,
            text,
            start_ms,
            end_ms,
            language: last.language.clone(),
            confidence: last.confidence,
            words,
        });
        self.slots.push(Slot { turn: Arc::clone(&turn), vendor });
        self.revision += 1;
        out.push(Change { turn, kind: ChangeKind::New, private: TurnPrivate::default() });
    }

    /// Gives a turn new content; equal content is no change.
    pub(super) fn set(&mut self, slot: usize, content: Content, last: Option<&Final>, out: &mut Vec<Change>) {
        let slot = &mut self.slots[slot];
        let old = &slot.turn;
        let language = last.and_then(|last| last.language.clone()).or_else(|| old.language.clone());
        let mut changed = Vec::new();
        if content.text != old.text {
            changed.push("text");
        }
        if content.speaker != old.speaker {
            changed.push("speaker");
        }
        if (content.start_ms, content.end_ms) != (old.start_ms, old.end_ms) {
            changed.push("times");
        }
        if language != old.language {
            changed.push("language");
        }
        if changed.is_empty() && content.words != old.words {
            changed.push("words");
        }
        if changed.is_empty() {
            return;
        }
        let Content { text, words, speaker, start_ms, end_ms } = content;
        let turn = Arc::new(Turn {
            rev: old.rev.saturating_add(1),
            speaker,
            text,
            start_ms,
            end_ms,
            language,
            confidence: last.and_then(|last| last.confidence).or(old.confidence),
            words,
            turn: old.turn,
            stream_id: old.stream_id.clone(),
            turn_order: old.turn_order,
            vendor_turn: old.vendor_turn.clone(),
        });
        slot.turn = Arc::clone(&turn);
        self.revision += 1;
        out.push(Change { turn, kind: ChangeKind::Revised(changed), private: TurnPrivate::default() });
    }

    /// Adds the streams' private fields to the changes from index `before`; if there are none, the state waits for the
    /// next change.
    pub(super) fn save(&mut self, stream_id: &StreamId, vendor: Option<usize>, before: usize, out: &mut [Change]) {
        let Some(stream) = self.streams.get_mut(stream_id) else { return };
        if out.len() == before {
            if let Some(index) = vendor {
                stream.mark_unsaved(index);
            }
            return;
        }
        for change in &mut out[before..] {
            change.private.words.clone_from(&change.turn.words);
            change.private.vendor = vendor.map(|index| stream.vendors[index].clone());
        }
        let others = std::mem::take(&mut stream.unsaved);
        out[before].private.others = others
            .into_iter()
            .filter(|index| Some(*index) != vendor)
            .map(|index| stream.vendors[index].clone())
            .collect();
    }
}
