//! A frame: a journal record, inspected once and shared by every reader.
//!
//! Knows the few fields of an event by which readers select; not what the event means.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use crate::base::ws::Utf8Bytes;
use crate::journal::Record;
use crate::protocol::event::Kind;
use crate::protocol::{self, ErrorCode, ErrorFrame};
use crate::types::{CallId, JsonMap, MAX_FRAME_BYTES, Seq, TurnNo, Word};

fn too_large(call: &CallId, seq: Seq, bytes: usize) -> Utf8Bytes {
    let message = format!(
        "event {seq} of this call has {bytes} bytes, more than a frame may have; GET /v1/calls/{call}/events?after={} has it",
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
    analysis: Option<Arc<str>>,
    turn: Option<TurnNo>,
}

#[derive(Deserialize)]
struct Subject<'a> {
    #[serde(borrow)]
    analysis: Cow<'a, str>,
    #[serde(default)]
    turn: Option<TurnNo>,
}

#[derive(Deserialize)]
struct Updated<'a> {
    #[serde(borrow)]
    insight: Subject<'a>,
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
    /// Inspects `record`. `None` if its frame is not UTF-8, which our own code never writes.
    pub fn new(call: &CallId, record: Arc<Record>) -> Option<Arc<Self>> {
        let text = Utf8Bytes::try_from(record.frame.clone()).ok()?;
        let kind = Kind::of(&text);
        let subject = match kind {
            Kind::InsightUpdated => serde_json::from_str::<Updated<'_>>(&text).ok().map(|updated| updated.insight),
            Kind::InsightFailed => serde_json::from_str::<Subject<'_>>(&text).ok(),
            _ => None,
        };
        let (analysis, turn) =
            subject.map_or((None, None), |subject| (Some(Arc::from(subject.analysis.as_ref())), subject.turn));
        // Only journals of versions without limits on content have such events. A client with a 1 MiB limit would fail on
        // it again after each reconnect.
        let text = if text.len() > MAX_FRAME_BYTES { too_large(call, record.seq, text.len()) } else { text };
        Some(Arc::new(Self { call: call.clone(), record, text, kind, analysis, turn }))
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

    /// The analysis that an insight event is about.
    pub fn analysis(&self) -> Option<&Arc<str>> {
        self.analysis.as_ref()
    }

    /// The turn that a per-turn insight event is about.
    pub fn turn(&self) -> Option<TurnNo> {
        self.turn
    }

    /// Private fields as JSON, or empty. They must never be sent as they are.
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
            frame: encode(&stamp, event).into(),
            private: Bytes::from_static(private.as_bytes()),
        };
        Frame::new(&call, Arc::new(record)).expect("frame")
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
        let shown: serde_json::Value = serde_json::from_str(frame.text()).expect("json");
        assert_eq!((shown["code"].as_str(), shown["seq"].as_u64()), (Some("event_too_large"), Some(3)), "{shown}");
        assert!(shown["message"].as_str().is_some_and(|message| message.contains("events?after=2")), "{shown}");
    }
}
