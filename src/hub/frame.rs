//! A frame: a journal record, shared by every reader.
//!
//! Readers select by the record's header; the event itself is read only where its `meta`, epoch or words are asked for.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::Cursor;
use crate::base::ws::Utf8Bytes;
use crate::journal::Record;
use crate::protocol::event::{Kind, turn_members};
use crate::protocol::push::{Members, Words};
use crate::protocol::{self, ErrorCode, ErrorFrame, tag};
use crate::types::{CallId, JsonMap, MAX_FRAME_BYTES, Seq, TurnNo, Word};

fn too_large(call: &CallId, seq: Seq, bytes: usize) -> Utf8Bytes {
    let message = format!(
        "event {seq} of this call has {bytes} bytes, more than a frame may have; GET /v1/calls/{call}/events?after={} \
         returns it",
        seq.saturating_sub(1)
    );
    let error = ErrorFrame::new(ErrorCode::EventTooLarge, message).in_place_of(call.clone(), seq);
    protocol::text(&error).into()
}

/// One event, as readers share it.
#[derive(Debug)]
pub struct Frame {
    call: CallId,
    record: Arc<Record>,
    text: Utf8Bytes,
    kind: Kind,
    /// The `type` of `text`.
    tag: &'static str,
}

#[derive(Deserialize)]
struct WithMeta {
    meta: JsonMap,
}

#[derive(Deserialize)]
struct WithEpoch {
    epoch: String,
}

#[derive(Deserialize)]
struct Private {
    #[serde(default)]
    turn: Option<TurnWords>,
}

/// The only private field that may be sent.
#[derive(Deserialize)]
struct TurnWords {
    #[serde(default, rename = "w", with = "crate::types::words")]
    words: Vec<Word>,
}

impl Frame {
    /// The frame of `record`. `None` if it is not UTF-8, which the daemon never writes.
    pub fn new(call: &CallId, record: Arc<Record>) -> Option<Arc<Self>> {
        let text = Utf8Bytes::try_from(record.frame.clone()).ok()?;
        let kind = Kind::from_code(record.header.kind);
        // Only journals of versions without limits on content have such events. A client with a 1 MiB limit would fail on
        // it again after each reconnect.
        let (text, tag) = if text.len() > MAX_FRAME_BYTES {
            (too_large(call, record.seq, text.len()), tag::Error::TEXT)
        } else {
            (text, kind.as_str())
        };
        Some(Arc::new(Self { call: call.clone(), record, text, kind, tag }))
    }

    pub fn call(&self) -> &CallId {
        &self.call
    }

    /// Position in the call.
    pub fn seq(&self) -> Seq {
        self.record.seq
    }

    /// Position among all commits of this daemon.
    pub fn order(&self) -> u64 {
        self.record.order
    }

    /// The wire form, one JSON object. Clones share the bytes. For an event over [`MAX_FRAME_BYTES`] it is an `error` frame
    /// with the position of the event.
    pub fn text(&self) -> &Utf8Bytes {
        &self.text
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The analysis that the event is about.
    pub fn analysis(&self) -> Option<&Arc<str>> {
        self.record.header.analysis.as_ref()
    }

    /// The turn that the event is about: a turn's own, or that of a per-turn analysis.
    pub fn turn(&self) -> Option<TurnNo> {
        self.record.header.turn
    }

    /// The frame as it goes to one reader, with the turn's words if they are wanted.
    pub fn push(&self, members: &Members, cursor: Option<Cursor>, words: bool) -> Utf8Bytes {
        let words = if words { self.words() } else { None };
        // A journal of an older version, which had no limits on words, may contain longer ones.
        let words = words.filter(|words| self.text.len() + words.len() < MAX_FRAME_BYTES);
        let words = words.as_deref().and_then(|json| {
            let at = turn_members(&self.text, self.kind, &self.call, self.seq())?;
            Some(Words { at, json })
        });
        members.write(self.tag, &self.text, cursor, words).map_or_else(|| self.text.clone(), Utf8Bytes::from)
    }

    /// Private fields as JSON, or empty. They must never be sent to clients.
    pub fn private(&self) -> &Bytes {
        &self.record.private
    }

    /// The turn's words as a JSON array, if the record has any.
    pub fn words(&self) -> Option<String> {
        if !self.kind.is_turn() || self.record.private.is_empty() {
            return None;
        }
        let private: Private = serde_json::from_slice(&self.record.private).ok()?;
        let words = private.turn?.words;
        if words.is_empty() { None } else { serde_json::to_string(&words).ok() }
    }

    /// The whole `meta` of a `call.started` or `call.updated`.
    pub fn meta(&self) -> Option<JsonMap> {
        if !matches!(self.kind, Kind::CallStarted | Kind::CallUpdated) {
            return None;
        }
        serde_json::from_str::<WithMeta>(&self.text).ok().map(|event| event.meta)
    }

    /// The epoch of a `call.started`.
    pub fn epoch(&self) -> Option<String> {
        if self.kind != Kind::CallStarted {
            return None;
        }
        serde_json::from_str::<WithEpoch>(&self.text).ok().map(|event| event.epoch)
    }

    /// Approximate size in memory, bytes.
    pub(super) fn bytes(&self) -> usize {
        const OVERHEAD: usize = 256;
        self.record.frame.len() + self.record.private.len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::event::encode;
    use crate::protocol::{Event, Stamp};
    use crate::types::InsightFailure;

    fn frame(event: &Event, private: &'static str) -> Arc<Frame> {
        let call = CallId::parse("c_1").expect("id");
        let stamp = Stamp { call_id: call.clone(), seq: 3, at: "2026-01-01T00:00:00.000Z".into() };
        let record = Record {
            seq: 3,
            order: 9,
            header: event.header(),
            frame: encode(&stamp, event).into(),
            private: Bytes::from_static(private.as_bytes()),
        };
        Frame::new(&call, Arc::new(record)).expect("frame")
    }

    #[test]
    fn frame_goes_to_a_reader_with_its_own_members_and_words() {
        const WORDS: &str = r#"{"turn":{"w":[["hi",0,5,null,null]]}}"#;
        let turn = crate::hub::testing::turn(0, r#"hi ","turn":{"#);
        let revised = frame(&Event::TurnRevised { turn, changed: vec!["text".into()] }, WORDS);
        let members = Members::subscription("sub_1");
        let cursor = Cursor { generation: 1, order: Some(9) };
        let plain = revised.push(&Members::default(), None, false);
        assert_eq!(plain.as_ptr(), revised.text().as_ptr(), "the bytes are shared");
        let pushed = revised.push(&members, Some(cursor), true);
        assert!(
            pushed.starts_with(r#"{"type":"turn.revised","subscription":"sub_1","cursor":"1.9","call_id""#),
            "{pushed}"
        );
        let mut shown: serde_json::Value = serde_json::from_str(&pushed).expect("json");
        assert_eq!(shown["turn"]["words"][0]["text"], "hi", "{pushed}");
        assert!(pushed.contains(r#""turn":{"words":["#), "{pushed}");
        for (object, added) in [("", "subscription"), ("", "cursor"), ("/turn", "words")] {
            let object = shown.pointer_mut(object).and_then(serde_json::Value::as_object_mut).expect("an object");
            object.remove(added).expect("it was added");
        }
        assert_eq!(shown, serde_json::from_str::<serde_json::Value>(&plain).expect("json"));
        let failed = frame(&Event::CallFailed { reason: "r".into() }, WORDS);
        let pushed = failed.push(&members, None, true);
        let expected = r#"{"type":"call.failed","subscription":"sub_1","call_id":"c_1","seq":3,"at":"2026-01-01T00:00:00.000Z","reason":"r"}"#;
        assert_eq!(pushed.as_str(), expected);
    }

    #[test]
    fn an_insight_event_tells_its_analysis_and_turn() {
        let failure = InsightFailure {
            analysis: "tone".into(),
            turn: Some(7),
            code: "timeout".into(),
            message: String::new(),
            temporary: true,
            last_good_rev: None,
        };
        let frame = frame(&Event::InsightFailed { failure }, "");
        assert_eq!(frame.kind(), Kind::InsightFailed);
        assert_eq!(frame.analysis().map(AsRef::as_ref), Some("tone"));
        assert_eq!(frame.turn(), Some(7));
        assert_eq!((frame.seq(), frame.order()), (3, 9));
    }

    #[test]
    fn meta_and_epoch_are_read_where_an_event_has_them() {
        let meta: JsonMap = serde_json::from_str(r#"{"team":"billing"}"#).expect("json");
        let started = frame(&Event::CallStarted { epoch: "e7".into(), meta: meta.clone() }, "");
        assert_eq!(started.meta(), Some(meta));
        assert_eq!(started.epoch().as_deref(), Some("e7"));
        assert_eq!(started.words(), None);
        let failed = frame(&Event::CallFailed { reason: "r".into() }, r#"{"turn":{"w":[["hi",0,5]]}}"#);
        assert_eq!((failed.meta(), failed.epoch(), failed.words()), (None, None, None));
        assert!(failed.kind().ends_call());
    }

    #[test]
    fn event_over_the_frame_limit_becomes_an_error_with_its_position() {
        let meta: JsonMap = [("note".to_owned(), "x".repeat(MAX_FRAME_BYTES).into())].into_iter().collect();
        let frame = frame(&Event::CallUpdated { meta }, "");
        assert_eq!((frame.kind(), frame.seq()), (Kind::CallUpdated, 3));
        assert!(frame.text().len() < 500, "{}", frame.text().len());
        let pushed = frame.push(&Members::subscription("s"), None, true);
        assert!(pushed.starts_with(r#"{"type":"error","subscription":"s","call_id":"c_1","seq":3,"#), "{pushed}");
        let shown: serde_json::Value = serde_json::from_str(frame.text()).expect("json");
        assert_eq!((shown["code"].as_str(), shown["seq"].as_u64()), (Some("event_too_large"), Some(3)), "{shown}");
        assert!(shown["message"].as_str().is_some_and(|message| message.contains("events?after=2")), "{shown}");
    }
}
