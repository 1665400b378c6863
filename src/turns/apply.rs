//! Applies finals, revisions and merges of speakers to the table.
//!
//! Knows no record and no call: it calls [`Turns::put`] and [`Turns::set`] with the content of each part of a vendor
//! turn.

use super::change::{Change, MAX_EARLY_REVISIONS, TurnError};
use super::content::{Content, lay, relabel, relay, texts_alone};
use super::cut;
use super::overlay::Overlay;
use super::saved::{EarlyRevision, VendorTurn, digest, shifted};
use super::table::Turns;
use crate::types::{Final, Revision, StreamId, SttEvent, TurnKey, Word};

impl Turns {
    /// Applies one event of `stream`; events other than finals, revisions and merges do nothing. Stream times become
    /// call times by adding `offset_ms`; `arrival_ms` (call time) is used if a final has no times. With `splits`,
    /// finals that mix speakers are cut and `turn_order` is minted; without, it is the producer's. Appends what changed
    /// to `out`, in the order in which it must be journaled.
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
            // Not a turn: some vendors send an empty final when they are asked to stop.
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

    /// Applies a revision to an existing turn.
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

    /// Keeps the present speakers of a vendor turn when later finals of it come.
    fn make_sticky(&mut self, stream_id: &StreamId, index: usize, from: &str, to: &str) {
        let Some(stream) = self.streams.get_mut(stream_id) else { return };
        let vendor = &mut stream.vendors[index];
        if let Some(overlay) = &mut vendor.overlay {
            overlay.relabel(from, to);
            return;
        }
        let turns = || vendor.parts.iter().map(|part| &self.slots[*part as usize].turn);
        let label = turns().next().filter(|_| vendor.parts.len() == 1).and_then(|turn| turn.speaker.as_deref());
        // Words of parts that come later may still have the old label: they are replaced next.
        let mut words: Vec<Word> = turns().flat_map(|turn| turn.words.iter().cloned()).collect();
        relabel(None, &mut words, from, to);
        let overlay = Overlay::of(label, &words);
        vendor.overlay = overlay;
    }
}
