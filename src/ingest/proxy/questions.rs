//! Which turns of a proxied session are answered (`llm_gateway`): each once, where the vendor's frames say how it ends.
//!
//! Knows no socket and no model: who asks, and when, is the call's business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::frames;
use crate::analysis::Spoken;
use crate::session::command::OPEN_TURNS;
use crate::types::{Final, SttEvent};

/// Finds the turns that are to be answered, each once, among the vendor's frames.
#[derive(Debug)]
pub(super) struct Questions {
    /// Turns end twice; the formatted end counts. The client may turn it on and off.
    formats: Arc<AtomicBool>,
    /// The newest turn that has ended unformatted while turns were to end twice.
    unformatted: Option<Spoken>,
    seen: BTreeSet<i64>,
    /// Those without an answer yet, with their text.
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

    /// Set by the relay when the client turns formatting on: then each turn has a second final, the formatted one.
    pub(super) fn formats(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.formats)
    }

    /// The turns of which it is known with this frame, for the first time, how they end; `last`: it is the session's last.
    pub(super) fn see(&mut self, frame: &str, last: bool) -> Vec<Spoken> {
        let mut known = Vec::new();
        let ended = if frame.contains(r#""Turn""#) { frames::events(frame) } else { Vec::new() };
        let ended = ended.into_iter().find_map(|event| match event {
            SttEvent::Final(turn) => Some((turn.formatted, spoken(*turn)?)),
            _ => None,
        });
        // A turn that was spoken while the client turned formatting on ends but once: the next end tells.
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

    /// Waits for the answer to a turn; `false` if too many turns are without one.
    pub(super) fn open(&mut self, turn: &Spoken) -> bool {
        let room = self.open.len() < OPEN_TURNS;
        if room {
            self.open.insert(turn.turn_order, turn.text.clone());
        }
        room
    }

    /// The text of a turn that waits for its answer, which it has now. `None`: it has one.
    pub(super) fn answered(&mut self, turn_order: i64) -> Option<String> {
        self.open.remove(&turn_order)
    }

    /// Every turn has its answer.
    pub(super) fn are_answered(&self) -> bool {
        self.open.is_empty()
    }

    /// The turns that will have no answer any more.
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
    fn a_turn_that_ends_but_once_is_asked_all_the_same() {
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
