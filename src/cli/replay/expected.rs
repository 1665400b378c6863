//! The final turns in a recording, read by the same decoder as the daemon's, so that the turns that the daemon lists at
//! the end can be compared with them. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::stt::{Decoder, Dialect};
use crate::types::{SttEvent, TurnKey};

/// The final turns of a recording, and whether it contains its own end.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Turns that the vendor names, with their session, and the index of the first frame that contained a final of the
    /// turn.
    named: BTreeMap<(usize, Named), usize>,
    /// The vendor's sessions, each a stream of the call: the first has the producer's stream id, the second has that id
    /// with `~2`, and so on.
    sessions: Vec<Option<String>>,
    /// Index of the session that is being read.
    session: usize,
    /// Finals without an id, in order, as (frame, text).
    unnamed: Vec<(usize, String)>,
    /// Indexes of the frames that contain a final.
    pub(crate) final_frames: Vec<usize>,
    /// Set if the frames contain the vendor's own end.
    pub(crate) ends: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Order(u64),
    Vendor(String),
}

/// The fields of a turn that matter here, as `GET …/turns` lists them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Listed {
    /// Ordinal in the call.
    pub(crate) turn: u64,
    /// The stream to which the turn belongs.
    pub(crate) stream_id: String,
    /// Ordinal in its stream.
    pub(crate) turn_order: u64,
    /// The vendor's id of the turn.
    #[serde(default)]
    pub(crate) vendor_turn: Option<String>,
    #[serde(default)]
    pub(crate) text: String,
}

/// Result of comparing the listed turns with the expected ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Number of finals for which no turn is listed.
    pub(crate) lost: usize,
    /// For each ordinal in the call, the frame that first contained the turn.
    pub(crate) frame_of: BTreeMap<u64, usize>,
}

impl Expected {
    /// Reads `frames` in order. A frame that the dialect refuses contains no final.
    pub(crate) fn read<'a>(dialect: &dyn Dialect, frames: impl Iterator<Item = &'a str>) -> Self {
        let mut expected = Self::default();
        let mut decoder: Box<dyn Decoder> = dialect.open();
        let mut events = Vec::new();
        let mut last = 0;
        for (index, frame) in frames.enumerate() {
            last = index;
            if decoder.decode(frame, &mut events).is_ok() {
                expected.take(index, &mut events);
            }
        }
        decoder.finish(&mut events);
        expected.take(last, &mut events);
        expected
    }

    fn take(&mut self, frame: usize, events: &mut Vec<SttEvent>) {
        for event in events.drain(..) {
            match event {
                SttEvent::End { .. } => self.ends = true,
                SttEvent::Begin { vendor_session } => self.begin(vendor_session),
                SttEvent::Restarted => {
                    if self.sessions.is_empty() {
                        self.begin(None);
                    }
                    self.begin(None);
                }
                SttEvent::Final(turn) if !turn.text.trim().is_empty() => {
                    match turn.key {
                        TurnKey::Order(order) => {
                            self.named.entry((self.session, Named::Order(order))).or_insert(frame);
                        }
                        TurnKey::Vendor(id) => {
                            self.named.entry((self.session, Named::Vendor(id))).or_insert(frame);
                        }
                        TurnKey::Next | TurnKey::Held(_) | TurnKey::Ended(_) => self.unnamed.push((frame, turn.text)),
                    }
                    if self.final_frames.last() != Some(&frame) {
                        self.final_frames.push(frame);
                    }
                }
                _ => {}
            }
        }
    }

    /// Begins a session, or returns to a known one that is sent again.
    fn begin(&mut self, id: Option<String>) {
        let known = self.sessions.iter().position(|session| session.is_some() && *session == id);
        self.session = known.unwrap_or_else(|| {
            // Everything before the first begin message belongs to the first session too.
            self.sessions.push(id);
            self.sessions.len() - 1
        });
    }

    /// Number of different turns that are expected.
    #[cfg(test)]
    pub(crate) fn turns(&self) -> usize {
        self.named.len() + self.unnamed.len()
    }

    /// Compares the listed turns of `stream` with those that were sent before frame `sent`.
    pub(crate) fn find(&self, listed: &[Listed], stream: &str, sent: usize) -> Found {
        let mut found = Found::default();
        let session = |turn: &Listed| match turn.stream_id.strip_prefix(stream)? {
            "" => Some(0),
            later => later.strip_prefix('~')?.parse::<usize>().ok()?.checked_sub(1),
        };
        let mine = || listed.iter().filter_map(|turn| Some((session(turn)?, turn)));
        let mut answered: BTreeMap<(usize, Named), bool> =
            self.named.iter().filter(|(_, frame)| **frame < sent).map(|(name, _)| (name.clone(), false)).collect();
        for (session, turn) in mine() {
            let by_order = (session, Named::Order(turn.turn_order));
            let name = turn.vendor_turn.clone().map(|id| (session, Named::Vendor(id)));
            let name = name.filter(|name| self.named.contains_key(name)).unwrap_or(by_order);
            if let Some(frame) = self.named.get(&name) {
                found.frame_of.insert(turn.turn, *frame);
                answered.insert(name, true);
            }
        }
        found.lost = answered.values().filter(|answered| !**answered).count();
        self.find_unnamed(mine().map(|(_, turn)| turn), sent, &mut found);
        found
    }

    /// Finds finals without ids by their words, in order: each is one turn, or the parts that it was split into.
    fn find_unnamed<'a>(&self, listed: impl Iterator<Item = &'a Listed>, sent: usize, found: &mut Found) {
        let mut turns = listed.filter(|turn| !turn.text.trim().is_empty()).peekable();
        for (frame, text) in self.unnamed.iter().filter(|(frame, _)| *frame < sent) {
            // White space is ignored: a split removes it, and some scripts have none to split at.
            let wanted = solid(text);
            let mut rest = wanted.as_str();
            while let Some(turn) = turns.peek() {
                let Some(after) = rest.strip_prefix(solid(&turn.text).as_str()) else { break };
                found.frame_of.insert(turn.turn, *frame);
                rest = after;
                turns.next();
                if rest.is_empty() {
                    break;
                }
            }
            if !rest.is_empty() {
                found.lost += 1;
            }
        }
    }
}

/// A text without white space.
fn solid(text: &str) -> String {
    text.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stt;

    fn listed(turn: u64, vendor_turn: Option<&str>, text: &str) -> Listed {
        Listed {
            turn,
            stream_id: "s".into(),
            turn_order: turn,
            vendor_turn: vendor_turn.map(str::to_owned),
            text: text.into(),
        }
    }

    fn turn(order: u64, formatted: bool, text: &str) -> String {
        let end = order * 1000 + 900;
        format!(
            r#"{{"type":"Turn","turn_order":{order},"turn_is_formatted":{formatted},"end_of_turn":true,"transcript":"{text}","end_of_turn_confidence":1,"words":[{{"start":{},"end":{end},"text":"{text}","confidence":1,"word_is_final":true}}]}}"#,
            order * 1000
        )
    }

    #[test]
    fn double_finals_are_one_turn_and_cut_ones_are_found_by_any_part() {
        let frames = [
            r#"{"type":"Begin","id":"b","expires_at":1}"#.to_owned(),
            turn(0, false, "hi"),
            turn(0, true, "Hi."),
            turn(1, true, "Yes."),
            turn(2, true, ""),
            r#"{"type":"Termination","audio_duration_seconds":1,"session_duration_seconds":1}"#.to_owned(),
        ];
        let dialect = stt::dialect("assemblyai").expect("dialect");
        let expected = Expected::read(dialect, frames.iter().map(String::as_str));
        assert!(expected.ends);
        assert_eq!((expected.turns(), expected.final_frames.clone()), (2, vec![1, 2, 3]));

        let all = [listed(0, Some("0"), "Hi."), listed(1, Some("1"), "Y"), listed(2, Some("1"), "es.")];
        let found = expected.find(&all, "s", frames.len());
        assert_eq!(found.lost, 0);
        assert_eq!(found.frame_of, BTreeMap::from([(0, 1), (1, 3), (2, 3)]));
        assert_eq!(expected.find(&all[..1], "s", frames.len()).lost, 1);
        // A turn that was never sent does not count as lost, and turns of other streams do not count.
        assert_eq!(expected.find(&[], "s", 2).lost, 1);
        assert_eq!(expected.find(&all, "other", frames.len()).lost, 2);
    }

    #[test]
    fn turns_of_a_restarted_session_are_found_in_its_own_stream() {
        let begin = |id: &str| format!(r#"{{"type":"Begin","id":"{id}","expires_at":1}}"#);
        let frames = [begin("a"), turn(0, true, "One."), begin("b"), turn(0, true, "Two.")];
        let dialect = stt::dialect("assemblyai").expect("dialect");
        let expected = Expected::read(dialect, frames.iter().map(String::as_str));
        assert_eq!(expected.turns(), 2);
        let later = Listed { stream_id: "s~2".into(), turn_order: 0, ..listed(1, Some("0"), "Two.") };
        let all = [listed(0, Some("0"), "One."), later];
        assert_eq!(expected.find(&all, "s", frames.len()).frame_of, BTreeMap::from([(0, 1), (1, 3)]));
        assert_eq!(expected.find(&all[..1], "s", frames.len()).lost, 1);
    }

    #[test]
    fn finals_without_ids_are_found_by_their_words_in_order() {
        let expected = Expected {
            unnamed: vec![(0, "one two".into()), (1, "three".into()), (2, "one two".into())],
            ..Expected::default()
        };
        let texts = |texts: &[&str]| -> Vec<Listed> {
            texts.iter().enumerate().map(|(index, text)| listed(index as u64, None, text)).collect()
        };
        assert_eq!(expected.find(&texts(&["one", "two", "three", "one  two"]), "s", 3).lost, 0);
        assert_eq!(expected.find(&texts(&["one two", "one two"]), "s", 3).lost, 1);
        assert_eq!(expected.find(&texts(&["one", "three", "one two"]), "s", 3).lost, 1);
        let unspaced = Expected { unnamed: vec![(0, "解約したい。".into())], ..Expected::default() };
        assert_eq!(unspaced.find(&texts(&["解約", "したい。"]), "s", 1).lost, 0);
        assert_eq!(unspaced.find(&texts(&["解約"]), "s", 1).lost, 1);
    }

    #[test]
    fn a_producers_own_numbers_are_found_by_turn_order() {
        let dialect = stt::dialect("sidetone").expect("dialect");
        let frames = [
            r#"{"type":"turn","turn_order":5,"speaker":"a","text":"Hello.","start_ms":0,"end_ms":10}"#,
            r#"{"type":"partial","turn_order":6,"text":"I"}"#,
        ];
        let expected = Expected::read(dialect, frames.into_iter());
        assert!(!expected.ends);
        let mut turn = listed(0, None, "Hello.");
        turn.turn_order = 5;
        assert_eq!(expected.find(&[turn], "s", 2).lost, 0);
        assert_eq!(expected.find(&[], "s", 2).lost, 1);
    }
}
