//! Makes the header of a record from its event's frame, for journals whose records have no header (format 1).
//!
//! Parses the frame's JSON, so it is too slow for live calls. Knows no journal.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

use super::event::Kind;
use crate::types::{Header, TurnNo};

#[derive(Deserialize)]
struct Tagged<'a> {
    #[serde(borrow, rename = "type")]
    tag: Cow<'a, str>,
}

/// The analysis and the turn that an event is about.
#[derive(Default, Deserialize)]
struct Subject {
    #[serde(default)]
    analysis: Option<Arc<str>>,
    #[serde(default)]
    turn: Option<TurnNo>,
}

#[derive(Deserialize)]
struct AboutTurn {
    turn: Subject,
}

#[derive(Deserialize)]
struct AboutInsight {
    insight: Subject,
}

/// The header of the event in `frame`; the header of an unknown event if the frame cannot be read.
pub fn header(frame: &[u8]) -> Header {
    let Ok(Tagged { tag }) = serde_json::from_slice(frame) else { return Header::default() };
    let kind = Kind::from_type(&tag);
    let subject = match kind {
        Kind::TurnFinal | Kind::TurnRevised => serde_json::from_slice(frame).map(|AboutTurn { turn }| turn),
        Kind::InsightUpdated => serde_json::from_slice(frame).map(|AboutInsight { insight }| insight),
        Kind::InsightFailed => serde_json::from_slice(frame),
        _ => Ok(Subject::default()),
    };
    let Subject { analysis, turn } = subject.unwrap_or_default();
    Header { kind: kind.code(), analysis, turn }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Event;
    use crate::protocol::event::{Stamp, encode};
    use crate::types::{CallId, JsonMap, KindCode};

    #[test]
    fn header_of_a_frame_is_that_of_its_event() {
        let events = [
            r#"{"type":"call.started","epoch":"e","meta":{"turn":3,"analysis":"x"}}"#,
            r#"{"type":"call.updated","meta":{}}"#,
            r#"{"type":"stream.started","stream_id":"s_1","dialect":"sidetone","offset_ms":0}"#,
            r#"{"type":"stream.ended","stream_id":"s_1"}"#,
            r#"{"type":"turn.final","turn":{"turn":12,"stream_id":"s_1","turn_order":0,"rev":0,"text":"a \"turn\":{\"turn\":9","start_ms":0,"end_ms":1}}"#,
            r#"{"type":"turn.revised","turn":{"turn":7,"stream_id":"s_1","turn_order":0,"rev":1,"text":"","start_ms":0,"end_ms":1},"changed":["text"]}"#,
            r#"{"type":"gap","stream_id":"s_1","cause":"stt_disconnect","from_ms":0,"to_ms":9}"#,
            r#"{"type":"insight.failed","analysis":"tone","turn":4,"code":"timeout","message":"m","temporary":true,"last_good_rev":null}"#,
            r#"{"type":"insight.failed","analysis":"summary","code":"timeout","message":"m","temporary":true,"last_good_rev":null}"#,
            r#"{"type":"call.failed","reason":"r"}"#,
        ];
        let stamp = Stamp { call_id: CallId::parse("c_1").expect("id"), seq: 7, at: "2026-01-01T00:00:00.000Z".into() };
        let mut events: Vec<Event> = events.iter().map(|text| serde_json::from_str(text).expect("an event")).collect();
        events.push(crate::hub::testing::insight("summary", 3, None));
        events.push(crate::hub::testing::insight("sentiment_turn", 1, Some(5)));
        events.push(Event::CallCompleted { r#final: JsonMap::new(), missing: JsonMap::new(), cost_usd: None });
        let mut kinds: Vec<KindCode> = Vec::new();
        for event in &events {
            let found = header(&encode(&stamp, event));
            assert_eq!(found, event.header(), "{event:?}");
            kinds.push(found.kind);
        }
        // Format 1 never had alerts.
        for kind in Kind::ALL.iter().filter(|kind| !kind.is_alert()) {
            assert!(kinds.contains(&kind.code()), "{} is not tried here", kind.as_str());
        }
    }

    #[test]
    fn header_of_what_is_no_event_is_that_of_an_unknown_one() {
        for frame in ["", "{", "[]", r#"{"type":7}"#, r#"{"type":"call.moved","turn":{"turn":1}}"#] {
            assert_eq!(header(frame.as_bytes()), Header::default(), "{frame}");
        }
        let strange = header(br#"{"type":"turn.final","turn":7}"#);
        assert_eq!(strange, Header { kind: Kind::TurnFinal.code(), ..Header::default() });
    }
}
