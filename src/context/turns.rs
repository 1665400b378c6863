//! The turn table of one call: every turn of every stream as a mutable record, numbered, cut, deduplicated, revised.
//!
//! Knows no clock, no journal and no wire format. Each operation costs O(1) in the number of turns; only a merge of
//! speakers visits all turns of its stream.
//!
//! How finals, in any order and any repetition, become the same turns once:
//! * A final equal to one already applied to its turn (by digest) is a duplicate, whatever revised the turn since.
//! * A formatted final is never replaced by an unformatted one; any other new content is a revision.
//! * The first final with word speakers decides the cuts; later content is laid over them by the words' middles. Only a
//!   turn whose vendor has not ended it grows further parts, for words after all that it had.
//! * Speakers given by a revision are laid over later finals too; a revision that comes before its turn waits for it.

mod stream;

use std::collections::HashMap;
use std::sync::Arc;

use self::stream::Stream;
use super::content::{Content, lay, relabel, relay, texts_alone};
use super::cut;
use super::overlay::Overlay;
use super::saved::{EarlyRevision, TurnPrivate, VendorTurn, digest, shifted};
use crate::types::{Final, Revision, StreamId, SttEvent, Turn, TurnKey, TurnNo, Word};

/// How many revisions of one stream may wait for turns that have not come.
pub const MAX_EARLY_REVISIONS: usize = 256;

/// Why an event was not applied. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    /// A revision of a turn without a name.
    #[error("the revision names no turn")]
    Unnamed,
    /// Too many revisions wait for turns that have not come.
    #[error("{MAX_EARLY_REVISIONS} revisions of this stream already wait for turns that have not come")]
    TooManyEarly,
    /// A record to restore does not follow those before it.
    #[error("turn {found} cannot follow {len} turns")]
    Hole {
        /// Its ordinal.
        found: TurnNo,
        /// Turns so far.
        len: usize,
    },
}

/// What became of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    New,
    /// It was there; which of `text`, `speaker`, `times`, `language` changed. `words` stands there only if nothing
    /// else changed than its words.
    Revised(Vec<&'static str>),
}

/// One turn that is new or changed, to be journaled in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// As it stands now, words included.
    pub turn: Arc<Turn>,
    /// New, or what changed.
    pub kind: ChangeKind,
    /// What its record needs beside the turn.
    pub private: TurnPrivate,
}

/// All turns of a call.
#[derive(Debug, Default)]
pub struct Turns {
    slots: Vec<Slot>,
    streams: HashMap<StreamId, Stream>,
    revision: u64,
}

#[derive(Debug)]
struct Slot {
    turn: Arc<Turn>,
    /// Its entry in the stream's `vendors`; `None` where the vendor names no turns.
    vendor: Option<usize>,
}

impl Turns {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one event of `stream`; those that are no final, revision or merge do nothing. Stream times become call
    /// times by adding `offset_ms`; `arrival_ms` (call time) stands in where a final has no times. With `splits`,
    /// finals that mix speakers are cut and `turn_order` is minted; without, it is the producer's. Appends what
    /// changed to `out`, in the order in which it must be journaled.
    ///
    /// # Errors
    /// A revision that names no turn, or that would wait beyond [`MAX_EARLY_REVISIONS`].
    pub fn apply(
        &mut self,
        stream: &StreamId,
        splits: bool,
        offset_ms: u64,
        arrival_ms: u64,
        event: &SttEvent,
        out: &mut Vec<Change>,
    ) -> Result<(), TurnError> {
        match event {
            SttEvent::Final(last) => self.finalize(stream, splits, offset_ms, arrival_ms, last, out),
            SttEvent::Revise(revision) => return self.revise(stream, offset_ms, revision, out),
            SttEvent::MergeSpeakers { from, to } => self.merge(stream, from, to, out),
            _ => {}
        }
        Ok(())
    }

    /// The `turn_order` under which a partial of `key` goes out. `None` = void: a final of that order or above is there.
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

    /// Whether a revision of this stream waits for its turn and is in no record yet: a frame that lives in memory
    /// alone. It is saved with the stream's next change.
    pub fn holding(&self, stream: &StreamId) -> bool {
        self.streams
            .get(stream)
            .is_some_and(|stream| stream.unsaved.iter().any(|index| !stream.vendors[*index].early.is_empty()))
    }

    /// The turns in the making of `stream` but for those of `held` have ended: their keys are free.
    pub fn end_all_but(&mut self, stream: &StreamId, held: &[Final]) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.end_all_but(held);
        }
    }

    /// One turn.
    pub fn get(&self, turn: TurnNo) -> Option<&Arc<Turn>> {
        Some(&self.slots.get(usize::try_from(turn).ok()?)?.turn)
    }

    /// All turns, by ordinal, those without text too.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Turn>> + ExactSizeIterator {
        self.slots.iter().map(|slot| &slot.turn)
    }

    /// How many turns there are, those without text too.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// No turn yet.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many changes were applied.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Applies one journaled change: the records of a call, in order, rebuild the table as it was.
    ///
    /// # Errors
    /// The turn's ordinal does not follow those before it.
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

    fn finalize(
        &mut self,
        stream_id: &StreamId,
        splits: bool,
        offset_ms: u64,
        arrival_ms: u64,
        last: &Final,
        out: &mut Vec<Change>,
    ) {
        let stream = self.streams.entry(stream_id.clone()).or_default();
        let key = match &last.key {
            TurnKey::Ended(channel) => TurnKey::Held(channel.clone()),
            key => key.clone(),
        };
        let known = stream.by_key.get(&key).copied();
        if let TurnKey::Ended(_) = last.key {
            stream.by_key.remove(&key);
        }
        let is_turn = known.is_some_and(|index| !stream.vendors[index].parts.is_empty());
        if last.text.trim().is_empty() && (splits || !is_turn) {
            // No turn, and never one of a vendor that sends an empty final when it is told to stop.
            if let Some(index) = known.filter(|_| !is_turn) {
                stream.forget_early(index);
            }
            return;
        }
        let grows = matches!(key, TurnKey::Held(_));
        let index = match last.key {
            TurnKey::Next => None,
            TurnKey::Ended(_) => known,
            _ => Some(known.unwrap_or_else(|| stream.insert(VendorTurn::new(key)))),
        };
        let mut vendor = index.map_or_else(|| VendorTurn::new(TurnKey::Next), |index| stream.vendors[index].clone());
        let digest = digest(last);
        if vendor.digests.contains(&digest) || (vendor.formatted && !last.formatted) {
            return;
        }
        let mut words = shifted(&last.words, offset_ms);
        if splits && words.iter().any(|word| word.speaker.is_some()) {
            match &mut vendor.cuts {
                None => vendor.cuts = Some(cut::find_cuts(&words)),
                Some(cuts) if grows => {
                    let had = vendor.parts.iter().flat_map(|part| &self.slots[*part as usize].turn.words);
                    let after = had.map(Word::middle_ms).chain(cuts.last().copied()).max().unwrap_or_default();
                    cuts.extend(cut::find_cuts(&words).into_iter().filter(|cut| *cut > after));
                }
                Some(_) => {}
            }
        }
        if let Some(overlay) = &vendor.overlay {
            overlay.apply(&mut words);
        }
        vendor.formatted = last.formatted;
        vendor.remember(digest);
        let early = std::mem::take(&mut vendor.early);
        let current: Vec<Content> =
            vendor.parts.iter().map(|part| Content::of(&self.slots[*part as usize].turn)).collect();
        let contents = lay(&vendor, last, words, offset_ms, arrival_ms, &current);
        if let Some(index) = index {
            stream.early -= early.len();
            stream.vendors[index] = vendor;
        }
        let before = out.len();
        for (part, content) in contents.into_iter().enumerate() {
            self.put(stream_id, splits, index, part, content, Some(last), out);
        }
        self.save(stream_id, index, before, out);
        if let Some(index) = index {
            for revision in early {
                self.revise_turn(stream_id, index, &revision, out);
            }
        }
    }

    fn revise(
        &mut self,
        stream_id: &StreamId,
        offset_ms: u64,
        revision: &Revision,
        out: &mut Vec<Change>,
    ) -> Result<(), TurnError> {
        if matches!(revision.key, TurnKey::Next | TurnKey::Held(_) | TurnKey::Ended(_)) {
            return Err(TurnError::Unnamed);
        }
        let stream = self.streams.entry(stream_id.clone()).or_default();
        let known = stream.by_key.get(&revision.key).copied();
        let given = EarlyRevision::of(revision, offset_ms);
        if let Some(index) = known.filter(|index| !stream.vendors[*index].parts.is_empty()) {
            self.revise_turn(stream_id, index, &given, out);
            return Ok(());
        }
        if known.is_some_and(|index| stream.vendors[index].early.contains(&given)) {
            return Ok(());
        }
        if stream.early >= MAX_EARLY_REVISIONS {
            return Err(TurnError::TooManyEarly);
        }
        let index = known.unwrap_or_else(|| stream.insert(VendorTurn::new(revision.key.clone())));
        stream.vendors[index].early.push(given);
        stream.early += 1;
        stream.mark_unsaved(index);
        Ok(())
    }

    /// Lays a revision over a turn that is there.
    fn revise_turn(&mut self, stream_id: &StreamId, index: usize, revision: &EarlyRevision, out: &mut Vec<Change>) {
        let Some(stream) = self.streams.get_mut(stream_id) else { return };
        let vendor = &mut stream.vendors[index];
        let overlay = Overlay::of(revision.speaker.as_deref(), &revision.words);
        if overlay.is_some() {
            vendor.overlay.clone_from(&overlay);
        }
        let parts = vendor.parts.clone();
        let mut contents: Vec<Content> =
            parts.iter().map(|part| Content::of(&self.slots[*part as usize].turn)).collect();
        if let Some(text) = &revision.text {
            let cuts = vendor.cuts.as_deref().unwrap_or_default();
            let texts = texts_alone(text, cuts, &contents);
            for (content, text) in contents.iter_mut().zip(texts) {
                content.text = text;
            }
        }
        if let Some(moved) = relay(vendor.cuts.as_deref().unwrap_or_default(), &contents, &revision.words) {
            contents = moved;
        }
        if let Some(overlay) = overlay {
            let single = contents.len() == 1;
            for content in &mut contents {
                overlay.apply(&mut content.words);
                let whole = if single { overlay.label.as_deref() } else { overlay.label_alone() };
                let by_words = || {
                    let words = if content.words.is_empty() { &revision.words } else { &content.words };
                    cut::majority(words, content.speaker.as_deref())
                };
                if let Some(speaker) = whole.or_else(by_words).map(str::to_owned) {
                    content.speaker = Some(speaker);
                }
            }
        }
        let before = out.len();
        for (part, content) in contents.into_iter().enumerate() {
            self.put(stream_id, false, Some(index), part, content, None, out);
        }
        self.save(stream_id, Some(index), before, out);
    }

    fn merge(&mut self, stream_id: &StreamId, from: &str, to: &str, out: &mut Vec<Change>) {
        let Some(stream) = self.streams.get_mut(stream_id) else { return };
        for index in 0..stream.vendors.len() {
            let mut found = false;
            for early in &mut stream.vendors[index].early {
                found |= relabel(early.speaker.as_mut(), &mut early.words, from, to);
            }
            if found {
                stream.mark_unsaved(index);
            }
        }
        for slot in 0..self.slots.len() {
            let turn = &self.slots[slot].turn;
            if turn.stream_id != *stream_id {
                continue;
            }
            let mut content = Content::of(turn);
            if !relabel(content.speaker.as_mut(), &mut content.words, from, to) {
                continue;
            }
            let vendor = self.slots[slot].vendor;
            let before = out.len();
            self.set(slot, content, None, out);
            if let Some(index) = vendor {
                self.make_sticky(stream_id, index, from, to);
            }
            self.save(stream_id, vendor, before, out);
        }
    }

    /// Keeps the speakers of a vendor turn as they stand, against finals of it that are still to come.
    fn make_sticky(&mut self, stream_id: &StreamId, index: usize, from: &str, to: &str) {
        let Some(stream) = self.streams.get_mut(stream_id) else { return };
        let vendor = &mut stream.vendors[index];
        if let Some(overlay) = &mut vendor.overlay {
            overlay.relabel(from, to);
            return;
        }
        let turns = || vendor.parts.iter().map(|part| &self.slots[*part as usize].turn);
        let label = turns().next().filter(|_| vendor.parts.len() == 1).and_then(|turn| turn.speaker.as_deref());
        // Words of later parts may still carry the old label: they are next in turn.
        let mut words: Vec<Word> = turns().flat_map(|turn| turn.words.iter().cloned()).collect();
        relabel(None, &mut words, from, to);
        let overlay = Overlay::of(label, &words);
        vendor.overlay = overlay;
    }

    /// Puts content into a part of a vendor turn: the part there is, or a new turn.
    #[expect(clippy::too_many_arguments, reason = "one place where content becomes a turn")]
    fn put(
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
    fn set(&mut self, slot: usize, content: Content, last: Option<&Final>, out: &mut Vec<Change>) {
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

    /// Gives the changes from `before` on their private fields; without any, the state waits for the next change.
    fn save(&mut self, stream_id: &StreamId, vendor: Option<usize>, before: usize, out: &mut [Change]) {
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

#[cfg(test)]
mod tests;
