//! What a connection's decoder holds: final words that wait for their vendor to end the turn. Tracks how long they have
//! waited, and which of them were already released as a turn.
//!
//! Knows no call and no clock: the caller passes the time.

use std::sync::Arc;

use crate::types::{Carry, Final, TurnKey};

/// Words of one turn that wait.
struct Waiting {
    last: Final,
    /// When the newest words came.
    since_ms: u64,
    /// The turn as it was last released.
    out: Option<Final>,
}

impl Waiting {
    fn is_out(&self) -> bool {
        self.out.as_ref() == Some(&self.last)
    }
}

/// All words that one decoder holds.
pub(super) struct Holding {
    /// The decoder's state after the newest frame.
    newest: Arc<Carry>,
    /// The decoder's state after the newest covered frame.
    covered: Arc<Carry>,
    /// Waiting turns in the order of speech.
    waiting: Vec<Waiting>,
}

impl Holding {
    /// The state of a decoder that was resumed from `carry`; all of its words were already released.
    pub(super) fn resume(carry: Arc<Carry>) -> Self {
        let known = |last: &Final| Waiting { last: last.clone(), since_ms: 0, out: Some(last.clone()) };
        let waiting = carry.held.iter().map(known).collect();
        Self { newest: Arc::clone(&carry), covered: carry, waiting }
    }

    /// Takes the decoder's state after a further frame. Returns true if words wait that did not wait before.
    pub(super) fn note(&mut self, carry: &Arc<Carry>, now_ms: u64) -> bool {
        if Arc::ptr_eq(&self.newest, carry) {
            return false;
        }
        self.newest = Arc::clone(carry);
        let mut before = std::mem::take(&mut self.waiting);
        let waiting = carry.held.iter().map(|last| {
            let known = before.iter().position(|known| known.last.key == last.key).map(|index| before.remove(index));
            match known {
                Some(known) if known.last == *last => known,
                known => Waiting { last: last.clone(), since_ms: now_ms, out: known.and_then(|known| known.out) },
            }
        });
        self.waiting = waiting.collect();
        self.waiting.iter().any(|waiting| waiting.since_ms == now_ms && !waiting.is_out())
    }

    /// Returns true if no words wait, released or not.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns true if all waiting words were released.
    pub(super) fn is_out(&self) -> bool {
        !self.newest.closed && self.waiting.iter().all(Waiting::is_out)
    }

    /// Returns true if a released turn has ended since the newest covered frame without changing.
    pub(super) fn ended_unseen(&self) -> bool {
        self.covered.held.len() > self.newest.held.len()
    }

    /// Marks the newest frame as covered.
    pub(super) fn cover(&mut self) {
        self.covered = Arc::clone(&self.newest);
    }

    /// The state from which a later decoder is resumed, if the newest frame is covered or not.
    pub(super) fn carry(&self, newest: bool) -> &Arc<Carry> {
        if newest { &self.newest } else { &self.covered }
    }

    /// When words will next have waited for `held_ms`.
    pub(super) fn due_ms(&self, held_ms: u64) -> Option<u64> {
        let waits = self.waiting.iter().filter(|waiting| !waiting.is_out());
        waits.map(|waiting| waiting.since_ms.saturating_add(held_ms)).min()
    }

    /// Releases the words that came by `until_ms`, and those before them in the order of speech.
    pub(super) fn let_out(&mut self, until_ms: u64) -> Vec<Final> {
        let due = |waiting: &Waiting| !waiting.is_out() && waiting.since_ms <= until_ms;
        let last =
            self.waiting.iter().rposition(|waiting| due(waiting) && matches!(waiting.last.key, TurnKey::Vendor(_)));
        let mut out = Vec::new();
        for (index, waiting) in self.waiting.iter_mut().enumerate() {
            if due(waiting) || !waiting.is_out() && last.is_some_and(|last| index < last) {
                waiting.out = Some(waiting.last.clone());
                let text = waiting.last.text.trim_end().to_owned();
                out.push(Final { text, ..waiting.last.clone() });
            }
        }
        out
    }

    /// The part of a partial of the turn `key` that was not released.
    pub(super) fn rest<'text>(&self, key: &TurnKey, text: &'text str) -> &'text str {
        let waiting = self.waiting.iter().find(|waiting| waiting.last.key == *key);
        let out = waiting.and_then(|waiting| waiting.out.as_ref()).map_or("", |out| out.text.trim());
        text.strip_prefix(out).map_or(text, str::trim_start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stt::{self, Dialect};
    use crate::turns::Turns;
    use crate::types::{StreamId, SttEvent};

    fn held(turns: &[(&str, &str)]) -> Arc<Carry> {
        let last = |(channel, text): &(&str, &str)| Final {
            key: TurnKey::Held((*channel).to_owned()),
            formatted: true,
            text: (*text).to_owned(),
            speaker: None,
            words: Vec::new(),
            start_ms: None,
            end_ms: None,
            language: None,
            confidence: None,
        };
        Arc::new(Carry { held: turns.iter().map(last).collect(), ..Carry::default() })
    }

    fn texts(out: Vec<Final>) -> Vec<String> {
        out.into_iter().map(|last| last.text).collect()
    }

    #[test]
    fn held_turn_waits_from_its_own_last_word() {
        let mut holding = Holding::resume(Arc::default());
        holding.note(&held(&[("0", "I want ")]), 100);
        holding.note(&held(&[("0", "I want "), ("1", "Sure.")]), 900);
        assert_eq!(holding.due_ms(1_000), Some(1_100));
        assert_eq!(texts(holding.let_out(100)), ["I want"]);
        assert_eq!((holding.due_ms(1_000), holding.is_out()), (Some(1_900), false));
        holding.note(&held(&[("0", "I want to leave."), ("1", "Sure.")]), 1_500);
        assert_eq!(texts(holding.let_out(u64::MAX)), ["I want to leave.", "Sure."]);
        assert_eq!((holding.due_ms(1_000), holding.is_out()), (None, true));
        assert!(holding.let_out(u64::MAX).is_empty(), "each once");
    }

    #[test]
    fn resumed_turn_has_partials_only_after_its_published_words() {
        let carry = held(&[("0", "I want ")]);
        let mut holding = Holding::resume(Arc::clone(&carry));
        assert!(holding.is_out() && holding.let_out(u64::MAX).is_empty());
        let key = carry.held[0].key.clone();
        assert_eq!(holding.rest(&key, "I want to leave"), "to leave");
        assert_eq!(holding.rest(&TurnKey::Next, "I want to leave"), "I want to leave");
        holding.note(&held(&[]), 5);
        assert!(holding.is_empty());
    }

    /// The turns at the end, whatever the order: label and text of each.
    type Outcome = Vec<(Option<String>, String)>;

    /// Feeds `frames` as a session does. Before each frame of `chances`, waiting words are released; with `reconnects`,
    /// another decoder continues from there.
    fn outcome(mut dialect: &'static dyn Dialect, frames: &[String], chances: &[usize], reconnects: bool) -> Outcome {
        let stream = StreamId::parse("s_1").expect("id");
        let mut turns = Turns::new();
        let splits = dialect.splits();
        let mut apply = |event: &SttEvent| {
            turns.apply(&stream, splits, 0, 0, event, &mut Vec::new()).ok();
        };
        let mut decoder = dialect.open();
        let mut holding = Holding::resume(Arc::default());
        for (index, frame) in frames.iter().enumerate() {
            if chances.contains(&index) {
                holding.let_out(u64::MAX).into_iter().for_each(|last| apply(&SttEvent::Final(Box::new(last))));
                if reconnects && holding.is_out() {
                    let carry = Arc::clone(holding.carry(true));
                    dialect = decoder.picked().unwrap_or(dialect);
                    decoder = dialect.resume(&carry);
                    holding = Holding::resume(carry);
                }
            }
            let mut events = Vec::new();
            decoder.decode(frame, &mut events).ok();
            holding.note(&Arc::new(decoder.carry()), 0);
            events.iter().for_each(&mut apply);
        }
        let mut rest = Vec::new();
        decoder.finish(&mut rest);
        rest.iter().for_each(&mut apply);
        let mut outcome: Outcome = turns
            .iter()
            .filter(|turn| !turn.text.is_empty())
            .map(|turn| (turn.speaker.clone(), turn.text.clone()))
            .collect();
        outcome.sort();
        outcome
    }

    #[test]
    fn held_words_make_the_same_turns_whenever_they_are_released() {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stt");
        let mut held = 0;
        for dialect in stt::DIALECTS {
            for entry in std::fs::read_dir(golden.join(dialect.name())).expect("fixtures") {
                let path = entry.expect("entry").path();
                if path.extension().is_none_or(|extension| extension != "jsonl") {
                    continue;
                }
                let text = std::fs::read_to_string(&path).expect("fixture");
                let frames: Vec<String> = text.lines().map(str::to_owned).collect();
                // A named turn is split once, by the speakers of the words that were released first: these may be fewer
                // than at the end.
                let plain = |outcome: Outcome| {
                    let texts = outcome.iter().flat_map(|(_, text)| text.split_whitespace());
                    let mut words: Outcome = texts.map(|word| (None, word.to_owned())).collect();
                    words.sort();
                    if dialect.names_turns() { words } else { outcome }
                };
                let whole = plain(outcome(*dialect, &frames, &[], false));
                let every: Vec<usize> = (0..frames.len()).collect();
                let plans = (0..frames.len()).map(|at| vec![at]).chain([every]);
                for plan in plans {
                    let name = path.display();
                    let let_out = plain(outcome(*dialect, &frames, &plan, false));
                    assert_eq!(let_out, whole, "{name}: let out before {plan:?}");
                    let resumed = plain(outcome(*dialect, &frames, &plan, true));
                    assert_eq!(resumed, whole, "{name}: connected anew before {plan:?}");
                }
                let mut decoder = dialect.open();
                held += frames
                    .iter()
                    .filter(|frame| decoder.decode(frame, &mut Vec::new()).is_ok() && decoder.holding())
                    .count();
            }
        }
        assert!(held > 20, "the fixtures hold words: {held} frames");
    }
}
