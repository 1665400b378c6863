//! Decides which turns of a proxied session are answered (`llm_gateway`): each once, when the vendor's frames show its
//! final text.
//!
//! Knows no socket and no model: the call asks the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::frames;
use crate::analysis::Spoken;
use crate::session::command::OPEN_TURNS;
use crate::types::{Final, SttEvent};

/// Finds the turns to answer in the vendor's frames, each once.
#[derive(Debug)]
pub(super) struct Questions {
    /// Set if turns end twice; then the formatted end is used. The client may change it during the session.
    formats: Arc<AtomicBool>,
    /// The newest turn that has ended unformatted and whose formatted end is expected.
    unformatted: Option<Spoken>,
    seen: BTreeSet<i64>,
    /// Turns without an answer, with their text.
    open: BTreeMap<i64, String>,
}

fn spoken(turn: Final) -> Option<Spoken> {
    Some(Spoken { turn_order: frames::order(&turn.key)?, text: turn.text, speaker: turn.speaker })
}

impl Questions {
    pub(super) fn new(formats: bool) -> Self {
        let formats = Arc::new(AtomicBool::new(formats));
        Self { formats, unformatted: None, seen: BTreeSet::new(), open: BTreeMap::new() }
    }

    /// Shared with the relay, which sets it when the client turns formatting on: from then on each turn has a second,
    /// formatted final.
    pub(super) fn formats(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.formats)
    }

    /// The turns whose final text is first known with this frame. `last`: this is the session's last frame.
    pub(super) fn see(&mut self, frame: &str, last: bool) -> Vec<Spoken> {
        let mut known = Vec::new();
        let ended = if frame.contains(r#""Turn""#) { frames::events(frame) } else { Vec::new() };
        let ended = ended.into_iter().find_map(|event| match event {
            SttEvent::Final(turn) => Some((turn.formatted, spoken(*turn)?)),
            _ => None,
        });
        // A turn that was spoken while the client turned formatting on ends only once: the next end shows that.
        if let Some(held) = self.unformatted.take() {
            if last || ended.as_ref().is_some_and(|(_, turn)| turn.turn_order != held.turn_order) {
                known.extend(self.once(held));
            } else {
                self.unformatted = Some(held);
            }
        }
        let Some((formatted, turn)) = ended.filter(|(_, turn)| !turn.text.trim().is_empty()) else {
            return known;
        };
        if formatted || !self.formats.load(Ordering::Relaxed) {
            self.unformatted = None;
            known.extend(self.once(turn));
        } else {
            self.unformatted = Some(turn);
        }
        known
    }

    fn once(&mut self, turn: Spoken) -> Option<Spoken> {
        self.seen.insert(turn.turn_order).then_some(turn)
    }

    /// Records that a turn waits for its answer; returns false if too many turns do.
    pub(super) fn open(&mut self, turn: &Spoken) -> bool {
        let room = self.open.len() < OPEN_TURNS;
        if room {
            self.open.insert(turn.turn_order, turn.text.clone());
        }
        room
    }

    /// Records that a turn has its answer, and returns the turn's text; `None` if it already had one.
    pub(super) fn answered(&mut self, turn_order: i64) -> Option<String> {
        self.open.remove(&turn_order)
    }

    /// Returns true if every turn has its answer.
    pub(super) fn are_answered(&self) -> bool {
        self.open.is_empty()
    }

    /// Removes and returns the turns that will get no answer.
    pub(super) fn give_up(&mut self) -> BTreeMap<i64, String> {
        std::mem::take(&mut self.open)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn frame(order: i64, formatted: bool, end: bool, text: &str) -> String {
        json!({"type": "Turn", "turn_order": order, "turn_is_formatted": formatted, "end_of_turn": end,
            "transcript": text, "words": []})
        .to_string()
    }

    fn see(questions: &mut Questions, frame: &str, last: bool) -> Vec<(i64, String)> {
        questions.see(frame, last).into_iter().map(|turn| (turn.turn_order, turn.text)).collect()
    }

    fn orders(turns: Vec<(i64, String)>) -> Vec<i64> {
        turns.into_iter().map(|(order, _)| order).collect()
    }

    #[test]
    fn each_turn_is_asked_once_on_its_formatted_end() {
        let asked =
            |turns: &[(i64, &str)]| turns.iter().map(|&(order, text)| (order, text.to_owned())).collect::<Vec<_>>();
        let mut questions = Questions::new(true);
        for (frame, known) in [
            (frame(0, false, false, "a"), asked(&[])),
            (frame(0, false, true, "a b"), asked(&[])),
            (frame(1, false, false, "c"), asked(&[])),
            (frame(0, true, true, "A b."), asked(&[(0, "A b.")])),
            (frame(0, true, true, "A b."), asked(&[])),
            (frame(0, false, true, "a b"), asked(&[])),
            (frame(1, true, true, " "), asked(&[])),
        ] {
            assert_eq!(see(&mut questions, &frame, false), known, "{frame}");
        }
        let mut questions = Questions::new(false);
        assert_eq!(see(&mut questions, &frame(0, false, true, "a b"), false), asked(&[(0, "a b")]));
    }

    #[test]
    fn turn_that_ends_only_once_is_asked() {
        let frame = |order, formatted, text| frame(order, formatted, true, text);
        let mut questions = Questions::new(true);
        let see = |questions: &mut Questions, frame: &str, last| orders(self::see(questions, frame, last));
        assert_eq!(see(&mut questions, &frame(0, false, "a"), false), Vec::<i64>::new());
        assert_eq!(see(&mut questions, &frame(1, true, "B."), false), vec![0, 1], "its formatted end will not come");
        questions.formats().store(false, Ordering::Relaxed);
        assert_eq!(see(&mut questions, &frame(2, false, "c"), false), vec![2]);
        let late = see(&mut questions, &frame(2, true, "C."), false);
        assert_eq!(late, Vec::<i64>::new(), "in flight when it was turned off");
        questions.formats().store(true, Ordering::Relaxed);
        assert_eq!(see(&mut questions, &frame(3, false, "d"), false), Vec::<i64>::new());
        assert_eq!(see(&mut questions, &frame(4, false, ""), false), vec![3], "the empty end of a session");
        assert_eq!(see(&mut questions, &frame(5, false, "e"), false), Vec::<i64>::new());
        assert_eq!(see(&mut questions, r#"{"type":"Termination"}"#, true), vec![5]);
    }

    #[test]
    fn turns_beyond_the_bound_are_not_opened() {
        let mut questions = Questions::new(false);
        let turn = |turn_order| Spoken { turn_order, text: format!("turn {turn_order}"), speaker: None };
        let most = i64::try_from(OPEN_TURNS).expect("few");
        for order in 0..most {
            assert!(questions.open(&turn(order)));
        }
        assert!(!questions.open(&turn(most)));
        assert_eq!(questions.answered(3).as_deref(), Some("turn 3"));
        assert_eq!(questions.answered(3), None, "it has its answer");
        assert!(questions.open(&turn(most)) && !questions.are_answered());
        assert_eq!(questions.give_up().len(), OPEN_TURNS);
        assert!(questions.are_answered());
    }
}
