//! Sequenced events: the facts of a call, as they are journaled and sent to subscribers.
//!
//! The wire form is one JSON object whose first fields are `type`, `call_id`, `seq` and `at`; [`encode`] writes it once
//! per event, and every reader shares the bytes.

use std::io::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CallId, Insight, InsightFailure, JsonMap, Seq, StreamId, Turn};

/// An event's call, position and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    pub call_id: CallId,
    /// Position in the call.
    pub seq: Seq,
    /// RFC 3339, UTC, with milliseconds.
    pub at: String,
}

/// A fact of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
        cause: String,
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
    /// The call ended normally. Always the last event.
    #[serde(rename = "call.completed")]
    CallCompleted {
        /// Final insight revision by rolling analysis.
        r#final: JsonMap,
        /// Reason by analysis, for each one without a final insight.
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
    /// The `type` field on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CallStarted { .. } => "call.started",
            Self::CallUpdated { .. } => "call.updated",
            Self::StreamStarted { .. } => "stream.started",
            Self::StreamEnded { .. } => "stream.ended",
            Self::TurnFinal { .. } => "turn.final",
            Self::TurnRevised { .. } => "turn.revised",
            Self::Gap { .. } => "gap",
            Self::InsightUpdated { .. } => "insight.updated",
            Self::InsightFailed { .. } => "insight.failed",
            Self::CallCompleted { .. } => "call.completed",
            Self::CallFailed { .. } => "call.failed",
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
}

/// Writes the wire form: `{"type":…,"call_id":…,"seq":…,"at":…, …}`.
///
/// Every event carries its own fields after the stamp. A turn's `words` are left out: they are stored as a private
/// field of the record (see `call::record`).
pub fn encode(stamp: &Stamp, event: &Event) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    let encoded = serde_json::to_writer(&mut body, event);
    debug_assert!(encoded.is_ok(), "plain data into memory cannot fail");
    // `body` is `{"type":"…",…}`: the stamp goes between the tag and the rest.
    let tag_len = br#"{"type":"""#.len() + event.kind().len();
    let rest = body.get(tag_len..).unwrap_or_default();
    // The exact final length, because the buffer is kept as it is.
    let digits = stamp.seq.checked_ilog10().map_or(1, |log| log as usize + 1);
    let stamp_len = br#","call_id":"","seq":,"at":"""#.len() + stamp.call_id.as_str().len() + digits + stamp.at.len();
    let mut out = Vec::with_capacity(tag_len + stamp_len + rest.len());
    // Kind, id and time contain no character that JSON would escape.
    let head = write!(
        out,
        "{{\"type\":\"{}\",\"call_id\":\"{}\",\"seq\":{},\"at\":\"{}\"",
        event.kind(),
        stamp.call_id,
        stamp.seq,
        stamp.at
    );
    debug_assert!(head.is_ok(), "writing to memory cannot fail");
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ];
        for event in events {
            let bytes = encode(&stamp, &event);
            assert_eq!(serde_json::from_slice::<Stamp>(&bytes).expect("stamp"), stamp);
            assert_eq!(serde_json::from_slice::<Event>(&bytes).expect("event"), event);
            assert_eq!(bytes.len(), bytes.capacity());
            assert!(bytes.starts_with(br#"{"type":""#));
        }
    }
}
