//! A subscriber's position: what it has seen of each call, and the frame that requests the rest (DESIGN 5.2). Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The calls that are requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All calls, including later ones.
    All,
    /// These calls, whether they exist yet or not.
    Calls(Vec<String>),
}

/// A subscriber's request, and how far it has read.
#[derive(Debug)]
pub(crate) struct Positions {
    selection: Selection,
    analyses: Vec<String>,
    include: Vec<&'static str>,
    seen: BTreeMap<String, Seen>,
    /// Newest cursor of a subscription to all calls.
    cursor: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    epoch: String,
    seq: u64,
}

impl Positions {
    /// A position from which nothing was seen yet. No `analyses` = all of them.
    pub(crate) fn new(selection: Selection, analyses: Vec<String>, include: Vec<&'static str>) -> Self {
        Self { selection, analyses, include, seen: BTreeMap::new(), cursor: None }
    }

    /// The `subscribe` frame that continues at this position.
    pub(crate) fn subscribe(&self) -> Value {
        let mut frame = json!({ "id": "1", "type": "subscribe", "include": self.include });
        if !self.analyses.is_empty() {
            frame["analyses"] = json!(self.analyses);
        }
        match &self.selection {
            Selection::All => {
                frame["calls"] = json!("*");
                if let Some(cursor) = &self.cursor {
                    frame["resume"] = json!({ "cursor": cursor });
                }
            }
            Selection::Calls(calls) => {
                frame["calls"] = json!(calls);
                frame["wait"] = json!(true);
                if !self.seen.is_empty() {
                    let resume: Map<String, Value> = self
                        .seen
                        .iter()
                        .map(|(call, seen)| (call.clone(), json!({ "epoch": seen.epoch, "seq": seen.seq })))
                        .collect();
                    frame["resume"] = resume.into();
                }
            }
        }
        frame
    }

    /// Records a frame. Returns false if it is an event that was seen before.
    pub(crate) fn accept(&mut self, frame: &Value) -> bool {
        if let Some(cursor) = frame["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        match frame["type"].as_str().unwrap_or_default() {
            "subscribed" => {
                for (call, state) in frame["calls"].as_object().into_iter().flatten() {
                    let (Some(epoch), false) = (state["epoch"].as_str(), state["recovered"] == true) else { continue };
                    // Our history of this call is void; a snapshot follows.
                    self.seen.insert(call.clone(), Seen { epoch: epoch.to_owned(), seq: 0 });
                }
                true
            }
            "snapshot" => {
                if let (Some(call), Some(epoch), Some(seq)) =
                    (frame["call_id"].as_str(), frame["epoch"].as_str(), frame["seq"].as_u64())
                {
                    self.seen.insert(call.to_owned(), Seen { epoch: epoch.to_owned(), seq });
                }
                true
            }
            _ => self.event(frame),
        }
    }

    fn event(&mut self, frame: &Value) -> bool {
        let (Some(call), Some(seq)) = (frame["call_id"].as_str(), frame["seq"].as_u64()) else { return true };
        let epoch = frame["epoch"].as_str();
        let Some(seen) = self.seen.get_mut(call) else {
            // A call that began while we listened names its epoch. For any other call, every event is new.
            if let Some(epoch) = epoch {
                self.seen.insert(call.to_owned(), Seen { epoch: epoch.to_owned(), seq });
            }
            return true;
        };
        let same_history = epoch.is_none_or(|epoch| epoch == seen.epoch);
        if same_history && seq <= seen.seq {
            return false;
        }
        if let Some(epoch) = epoch {
            epoch.clone_into(&mut seen.epoch);
        }
        seen.seq = seq;
        // With a cursor, nothing needs to be known of a call that is over.
        if self.selection == Selection::All && frame["type"] == "call.completed" {
            self.seen.remove(call);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_call() -> Positions {
        Positions::new(Selection::Calls(vec!["c".into()]), vec![], vec!["turns"])
    }

    #[test]
    fn each_event_is_taken_once_and_resumed_after() {
        let mut positions = of_call();
        assert_eq!(
            positions.subscribe(),
            json!({"id":"1","type":"subscribe","include":["turns"],"calls":["c"],"wait":true})
        );
        assert!(positions.accept(&json!({"type":"subscribed","calls":{}})));
        assert!(positions.accept(&json!({"type":"call.started","call_id":"c","epoch":"e","seq":1})));
        assert!(positions.accept(&json!({"type":"turn.final","call_id":"c","seq":2})));
        assert!(positions.accept(&json!({"type":"turn.partial","call_id":"c","text":"x"})));
        assert!(!positions.accept(&json!({"type":"turn.final","call_id":"c","seq":2})));
        assert_eq!(positions.subscribe()["resume"], json!({"c":{"epoch":"e","seq":2}}));
        assert!(positions.accept(&json!({"type":"subscribed","calls":{"c":{"epoch":"e","seq":9,"recovered":true}}})));
        assert!(!positions.accept(&json!({"type":"turn.final","call_id":"c","seq":1})));
        assert!(positions.accept(&json!({"type":"turn.final","call_id":"c","seq":3})));
    }

    #[test]
    fn another_history_starts_over() {
        let mut positions = of_call();
        positions.accept(&json!({"type":"snapshot","call_id":"c","epoch":"e","seq":40,"state":{}}));
        assert!(!positions.accept(&json!({"type":"turn.final","call_id":"c","seq":40})));
        positions.accept(&json!({"type":"subscribed","calls":{"c":{"epoch":"f","seq":7,"recovered":false}}}));
        positions.accept(&json!({"type":"snapshot","call_id":"c","epoch":"f","seq":7,"state":{}}));
        assert!(positions.accept(&json!({"type":"turn.final","call_id":"c","seq":8})));
        assert_eq!(positions.subscribe()["resume"], json!({"c":{"epoch":"f","seq":8}}));
    }

    #[test]
    fn all_calls_resume_by_cursor() {
        let mut positions = Positions::new(Selection::All, vec!["summary".into()], vec!["turns"]);
        assert_eq!(positions.subscribe()["resume"], Value::Null);
        positions.accept(&json!({"type":"call.started","call_id":"c","epoch":"e","seq":1,"cursor":"1:5"}));
        assert!(!positions.accept(&json!({"type":"call.started","call_id":"c","epoch":"e","seq":1,"cursor":"1:5"})));
        positions.accept(&json!({"type":"call.completed","call_id":"c","seq":2,"cursor":"1:9"}));
        let frame = positions.subscribe();
        assert_eq!((&frame["calls"], &frame["resume"]), (&json!("*"), &json!({"cursor":"1:9"})));
        assert_eq!(frame["analyses"], json!(["summary"]));
        assert!(positions.seen.is_empty());
    }
}
