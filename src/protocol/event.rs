//! Sequenced events: the facts of a call, as they are stored in the journal and sent to subscribers.
//!
//! On the wire an event is one JSON object whose first fields are `type`, `call_id`, `seq` and `at`. [`encode`] writes
//! it once per event, and every reader shares the bytes. Knows no journal and no subscriber.

use std::io::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::GapCause;
use crate::types::{
    Alert, CallId, ClearedAlert, Header, Insight, InsightFailure, JsonMap, Seq, StreamId, Turn, TurnNo,
};

pub use super::kind::Kind;

/// An event's call, position and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stamp {
    pub call_id: CallId,
    /// Position in the call.
    pub seq: Seq,
    /// RFC 3339, UTC, with milliseconds.
    pub at: String,
}

/// Bytes of an event's time, such as `2026-01-01T00:00:00.000Z`.
const AT_BYTES: usize = 24;

/// A fact of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type")]
pub enum Event {
    /// The call began. Always the first event.
    #[serde(rename = "call.started")]
    CallStarted {
        /// Identifies this history of the call.
        epoch: String,
        /// Metadata that the producer gave at the start.
        meta: JsonMap,
    },
    /// The call's metadata changed.
    #[serde(rename = "call.updated")]
    CallUpdated {
        /// The complete metadata after the change.
        meta: JsonMap,
    },
    /// A stream began, or resumed after a gap.
    #[serde(rename = "stream.started")]
    StreamStarted {
        stream_id: StreamId,
        /// Wire format of its frames.
        dialect: String,
        /// The vendor's session id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vendor_session: Option<String>,
        /// Call time of stream time 0, in ms.
        offset_ms: u64,
    },
    /// A stream ended.
    #[serde(rename = "stream.ended")]
    StreamEnded {
        stream_id: StreamId,
        /// Why it ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A turn became final.
    #[serde(rename = "turn.final")]
    TurnFinal {
        /// The turn's current state.
        turn: Turn,
    },
    /// A turn was corrected.
    #[serde(rename = "turn.revised")]
    TurnRevised {
        /// The turn's state after the correction.
        turn: Turn,
        /// Which of `text`, `speaker`, `times`, `language` changed.
        changed: Vec<String>,
    },
    /// A hole in the speech: nothing is known of it.
    #[serde(rename = "gap")]
    Gap {
        /// The stream that started after the hole.
        stream_id: StreamId,
        /// `stt_disconnect`, `tap_overrun`, …
        #[cfg_attr(test, schemars(with = "String"))]
        cause: GapCause,
        /// Start of the hole, call time in ms.
        from_ms: u64,
        /// End of the hole, call time in ms.
        to_ms: u64,
    },
    /// An analysis has a new result.
    #[serde(rename = "insight.updated")]
    InsightUpdated {
        /// The result.
        insight: Arc<Insight>,
    },
    /// A run of an analysis failed.
    #[serde(rename = "insight.failed")]
    InsightFailed {
        /// The analysis, the error and the reason.
        #[serde(flatten)]
        failure: InsightFailure,
    },
    /// The condition of a rule holds.
    #[serde(rename = "alert.raised")]
    AlertRaised {
        /// What is to be said about it.
        alert: Alert,
    },
    /// The condition of an alert no longer holds.
    #[serde(rename = "alert.cleared")]
    AlertCleared {
        /// The alert that is over.
        alert: ClearedAlert,
    },
    /// The call ended normally. Always the last event.
    #[serde(rename = "call.completed")]
    CallCompleted {
        /// Final insight revision by rolling analysis.
        #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, u64>"))]
        r#final: JsonMap,
        /// Reason by analysis, for each one without a final insight.
        #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, String>"))]
        missing: JsonMap,
        /// Cost of the call in US dollars; `null` if a price is unknown.
        cost_usd: Option<f64>,
    },
    /// The call cannot continue; its data so far stays readable.
    #[serde(rename = "call.failed")]
    CallFailed {
        /// Why, for people.
        reason: String,
    },
}

impl Event {
    pub fn kind(&self) -> Kind {
        match self {
            Self::CallStarted { .. } => Kind::CallStarted,
            Self::CallUpdated { .. } => Kind::CallUpdated,
            Self::StreamStarted { .. } => Kind::StreamStarted,
            Self::StreamEnded { .. } => Kind::StreamEnded,
            Self::TurnFinal { .. } => Kind::TurnFinal,
            Self::TurnRevised { .. } => Kind::TurnRevised,
            Self::Gap { .. } => Kind::Gap,
            Self::InsightUpdated { .. } => Kind::InsightUpdated,
            Self::InsightFailed { .. } => Kind::InsightFailed,
            Self::AlertRaised { .. } => Kind::AlertRaised,
            Self::AlertCleared { .. } => Kind::AlertCleared,
            Self::CallCompleted { .. } => Kind::CallCompleted,
            Self::CallFailed { .. } => Kind::CallFailed,
        }
    }

    /// The analysis that the event is about, for filters.
    pub fn analysis(&self) -> Option<&str> {
        match self {
            Self::InsightUpdated { insight } => Some(&insight.analysis),
            Self::InsightFailed { failure } => Some(&failure.analysis),
            _ => None,
        }
    }

    /// The turn that the event is about: a turn's own number, or that of a per-turn analysis or an alert.
    pub fn turn(&self) -> Option<TurnNo> {
        match self {
            Self::TurnFinal { turn } | Self::TurnRevised { turn, .. } => Some(turn.turn),
            Self::InsightUpdated { insight } => insight.turn,
            Self::InsightFailed { failure } => failure.turn,
            Self::AlertRaised { alert } => alert.turn,
            _ => None,
        }
    }

    /// The header of the event's record in the journal.
    pub fn header(&self) -> Header {
        Header { kind: self.kind().code(), analysis: self.analysis().map(Arc::from), turn: self.turn() }
    }
}

/// Number of bytes of `{"type":…,"call_id":…,"seq":…,"at":…`.
fn head_bytes(kind: Kind, call_id: &CallId, seq: Seq, at_bytes: usize) -> usize {
    let digits = seq.checked_ilog10().map_or(1, |log| log as usize + 1);
    let marks = br#"{"type":"","call_id":"","seq":,"at":"""#.len();
    marks + kind.as_str().len() + call_id.as_str().len() + digits + at_bytes
}

/// Writes the wire form: `{"type":…,"call_id":…,"seq":…,"at":…, …}`.
///
/// Every event carries its own fields after the stamp. A turn's `words` are left out: they are stored as a private
/// field of the record (see `call::record`).
pub fn encode(stamp: &Stamp, event: &Event) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    let encoded = serde_json::to_writer(&mut body, event);
    debug_assert!(encoded.is_ok(), "plain data into memory cannot fail");
    let kind = event.kind();
    // `body` is `{"type":"…",…}`: the stamp is written between the type and the rest.
    let rest = body.get(br#"{"type":"""#.len() + kind.as_str().len()..).unwrap_or_default();
    // The exact final length, because the buffer is kept without shrinking it.
    let head = head_bytes(kind, &stamp.call_id, stamp.seq, stamp.at.len());
    let mut out = Vec::with_capacity(head + rest.len());
    // Kind, id and time contain no character that JSON would escape.
    let written = write!(
        out,
        "{{\"type\":\"{}\",\"call_id\":\"{}\",\"seq\":{},\"at\":\"{}\"",
        kind.as_str(),
        stamp.call_id,
        stamp.seq,
        stamp.at
    );
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
    out.extend_from_slice(rest);
    out
}

/// Offset of the members of `turn` in an event about a turn that [`encode`] has written; `None` for any other frame.
pub fn turn_members(frame: &str, kind: Kind, call_id: &CallId, seq: Seq) -> Option<usize> {
    const TURN: &str = r#","turn":{"#;
    let head = head_bytes(kind, call_id, seq, AT_BYTES);
    frame.get(head..)?.starts_with(TURN).then_some(head + TURN.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Sequenced;
    use crate::types::Severity;

    #[test]
    fn members_of_a_turn_are_found_with_any_text() {
        let stamp =
            Stamp { call_id: CallId::parse("c_1").expect("id"), seq: 10, at: "2026-01-01T00:00:00.000Z".into() };
        let mut turn: Turn = serde_json::from_str(
            r#"{"turn":12,"stream_id":"s_1","turn_order":0,"rev":0,"text":"","start_ms":0,"end_ms":1}"#,
        )
        .expect("a turn");
        turn.text = r#"","turn":{"turn":9"#.into();
        for event in [Event::TurnFinal { turn: turn.clone() }, Event::TurnRevised { turn, changed: Vec::new() }] {
            let frame = String::from_utf8(encode(&stamp, &event)).expect("text");
            let at = turn_members(&frame, event.kind(), &stamp.call_id, stamp.seq).expect("a turn event");
            assert!(frame[..at].ends_with(r#""at":"2026-01-01T00:00:00.000Z","turn":{"#), "{}", &frame[..at]);
            assert!(frame[at..].starts_with(r#""turn":12,"#), "{}", &frame[at..]);
            assert_eq!((event.header().turn, event.header().analysis), (Some(12), None));
        }
        let gap = r#"{"type":"gap","call_id":"c_1","seq":10,"at":"2026-01-01T00:00:00.000Z","stream_id":"s"}"#;
        for frame in [gap, "{}", ""] {
            assert_eq!(turn_members(frame, Kind::Gap, &stamp.call_id, 10), None, "{frame}");
        }
    }

    #[test]
    fn encoding_is_valid_json_and_reads_back() {
        let stamp = Stamp { call_id: CallId::parse("c_1").expect("id"), seq: 7, at: "2026-01-01T00:00:00.000Z".into() };
        let events = [
            Event::CallStarted { epoch: "e".into(), meta: JsonMap::new() },
            Event::StreamEnded { stream_id: StreamId::parse("s_1").expect("id"), reason: None },
            Event::InsightFailed {
                failure: InsightFailure {
                    analysis: "summary".into(),
                    turn: None,
                    code: "timeout".into(),
                    message: "m".into(),
                    temporary: true,
                    last_good_rev: None,
                },
            },
            Event::AlertRaised {
                alert: Alert {
                    id: "a_3".into(),
                    rule: "disclosure".into(),
                    severity: Severity::Critical,
                    message: "m".into(),
                    turn: Some(12),
                    quote: Some("cancel".into()),
                },
            },
            Event::AlertCleared { alert: ClearedAlert { id: "a_3".into(), rule: "disclosure".into() } },
        ];
        for event in events {
            let bytes = encode(&stamp, &event);
            assert_eq!(serde_json::from_slice::<Stamp>(&bytes).expect("stamp"), stamp);
            assert_eq!(serde_json::from_slice::<Event>(&bytes).expect("event"), event);
            assert_eq!(bytes.len(), bytes.capacity());
            let text = String::from_utf8(bytes).expect("text");
            assert!(text.starts_with(&format!("{{\"type\":\"{}\",\"call_id\":", event.kind().as_str())), "{text}");
            assert_eq!(Sequenced::read(&text).expect("event"), Sequenced { stamp: stamp.clone(), event });
        }
    }
}
