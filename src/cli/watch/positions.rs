//! A subscriber's position: how far it has read each call, and the frame that requests the rest (DESIGN 5.2). Pure.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::Value;

use crate::protocol::event::Kind;
use crate::protocol::subscribe::{Calls, Include, Position, Resume, Subscribe, Subscribed, SubscribedCall};
use crate::protocol::tag;
use crate::types::CallId;

/// `id` of the `subscribe` frame, by which its answer is known.
pub(super) const ID: &str = "1";

/// The calls that are requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All calls, including later ones.
    All,
    /// The named calls, whether they exist yet or not.
    Calls(Vec<CallId>),
}

/// A subscriber's request, and how far it has read.
#[derive(Debug)]
pub(crate) struct Positions {
    selection: Selection,
    analyses: Vec<String>,
    include: Vec<Include>,
    seen: BTreeMap<CallId, Position>,
    /// Newest cursor of a subscription to all calls.
    cursor: Option<String>,
}

impl Positions {
    /// A position before any event. Without `analyses`, all of them are requested.
    pub(crate) fn new(selection: Selection, analyses: Vec<String>, include: Vec<Include>) -> Self {
        Self { selection, analyses, include, seen: BTreeMap::new(), cursor: None }
    }

    /// The `subscribe` frame that continues at this position.
    pub(crate) fn subscribe(&self) -> Subscribe {
        let (calls, resume) = match &self.selection {
            Selection::All => {
                let resume = self.cursor.clone().map(|cursor| Resume::Cursor { cursor });
                (Calls::All(tag::All), resume)
            }
            Selection::Calls(calls) => {
                let resume = (!self.seen.is_empty()).then(|| Resume::Positions(self.seen.clone()));
                (Calls::These(calls.clone()), resume)
            }
        };
        Subscribe {
            id: Some(ID.into()),
            wait: self.selection != Selection::All,
            analyses: (!self.analyses.is_empty()).then(|| self.analyses.clone()),
            include: Some(self.include.clone()),
            resume,
            ..Subscribe::new(calls)
        }
    }

    /// Records a frame. Returns false if it is an event that was seen before. An event of a later version counts too, so
    /// nothing but its position is read.
    pub(crate) fn accept(&mut self, frame: &Value) -> bool {
        if let Some(cursor) = frame["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        match frame["type"].as_str().unwrap_or_default() {
            tag::Subscribed::TEXT => {
                let calls = Subscribed::deserialize(frame).map(|subscribed| subscribed.calls).unwrap_or_default();
                for (call, SubscribedCall { epoch, recovered, .. }) in calls {
                    // The known history of this call is invalid; a snapshot follows.
                    if let (Some(epoch), false) = (epoch, recovered) {
                        self.seen.insert(call, Position { epoch, seq: 0 });
                    }
                }
                true
            }
            tag::Snapshot::TEXT => {
                if let (Some(call), Some(epoch), Some(seq)) =
                    (call_of(frame), frame["epoch"].as_str(), frame["seq"].as_u64())
                {
                    self.seen.insert(call, Position { epoch: epoch.to_owned(), seq });
                }
                true
            }
            _ => self.event(frame),
        }
    }

    fn event(&mut self, frame: &Value) -> bool {
        let (Some(call), Some(seq)) = (call_of(frame), frame["seq"].as_u64()) else { return true };
        let epoch = frame["epoch"].as_str();
        let Some(seen) = self.seen.get_mut(&call) else {
            // A call that began during this subscription names its epoch. For any other call, every event is new.
            if let Some(epoch) = epoch {
                self.seen.insert(call, Position { epoch: epoch.to_owned(), seq });
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
        if self.selection == Selection::All && frame["type"] == Kind::CallCompleted.as_str() {
            self.seen.remove(&call);
        }
        true
    }
}

fn call_of(frame: &Value) -> Option<CallId> {
    CallId::parse(frame["call_id"].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subscribed(positions: &Positions) -> Value {
        serde_json::to_value(positions.subscribe()).expect("json")
    }

    fn of_call() -> Positions {
        Positions::new(Selection::Calls(vec![CallId::parse("c").expect("id")]), vec![], vec![Include::Turns])
    }

    #[test]
    fn each_event_is_taken_once_and_resumed_after() {
        let mut positions = of_call();
        assert_eq!(
            subscribed(&positions),
            json!({"id":"1","type":"subscribe","include":["turns"],"calls":["c"],"wait":true})
        );
        assert!(positions.accept(&json!({"type":"subscribed","subscription":"sub_1","calls":{}})));
        assert!(positions.accept(&json!({"type":"call.started","call_id":"c","epoch":"e","seq":1})));
        assert!(positions.accept(&json!({"type":"turn.final","call_id":"c","seq":2})));
        assert!(positions.accept(&json!({"type":"turn.partial","call_id":"c","text":"x"})));
        assert!(!positions.accept(&json!({"type":"turn.final","call_id":"c","seq":2})));
        assert_eq!(subscribed(&positions)["resume"], json!({"c":{"epoch":"e","seq":2}}));
        assert!(positions.accept(
            &json!({"type":"subscribed","subscription":"sub_1","calls":{"c":{"epoch":"e","seq":9,"recovered":true}}})
        ));
        assert!(!positions.accept(&json!({"type":"turn.final","call_id":"c","seq":1})));
        assert!(positions.accept(&json!({"type":"turn.final","call_id":"c","seq":3})));
    }

    #[test]
    fn another_history_starts_over() {
        let mut positions = of_call();
        positions.accept(&json!({"type":"snapshot","call_id":"c","epoch":"e","seq":40,"state":{}}));
        assert!(!positions.accept(&json!({"type":"turn.final","call_id":"c","seq":40})));
        positions.accept(
            &json!({"type":"subscribed","subscription":"sub_1","calls":{"c":{"epoch":"f","seq":7,"recovered":false}}}),
        );
        positions.accept(&json!({"type":"snapshot","call_id":"c","epoch":"f","seq":7,"state":{}}));
        assert!(positions.accept(&json!({"type":"turn.final","call_id":"c","seq":8})));
        assert_eq!(subscribed(&positions)["resume"], json!({"c":{"epoch":"f","seq":8}}));
    }

    #[test]
    fn all_calls_resume_by_cursor() {
        let mut positions = Positions::new(Selection::All, vec!["summary".into()], vec![Include::Turns]);
        assert_eq!(subscribed(&positions)["resume"], Value::Null);
        positions.accept(&json!({"type":"call.started","call_id":"c","epoch":"e","seq":1,"cursor":"1:5"}));
        assert!(!positions.accept(&json!({"type":"call.started","call_id":"c","epoch":"e","seq":1,"cursor":"1:5"})));
        positions.accept(&json!({"type":"call.completed","call_id":"c","seq":2,"cursor":"1:9"}));
        let frame = subscribed(&positions);
        assert_eq!((&frame["calls"], &frame["resume"]), (&json!("*"), &json!({"cursor":"1:9"})));
        assert_eq!(frame["analyses"], json!(["summary"]));
        assert!(positions.seen.is_empty());
    }
}
