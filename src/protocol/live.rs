//! Live frames: partials and insight deltas. They have no `seq` and are not stored; a slow reader loses the oldest
//! ones.
//!
//! The daemon encodes a live frame once for all readers; `subscription` and `cursor` are added for each of them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::tag;
use crate::types::{CallId, StreamId, TurnNo};

/// `turn.partial`: the text so far of a turn that is not final. Void once a final of this `turn_order` or above comes, or
/// the text is empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TurnPartial<'a> {
    #[serde(rename = "type")]
    pub tag: tag::TurnPartial,
    /// The subscription that it comes for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// Where a subscription to all calls can be resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    pub call_id: CallId,
    pub stream_id: StreamId,
    /// Number within its stream that the turn will have.
    pub turn_order: u64,
    /// The vendor's speaker label, if it gives one before the turn is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<Cow<'a, str>>,
    pub text: Cow<'a, str>,
}

/// `insight.delta`: the next piece of an answer that is being written. `insight.updated` or `insight.failed` ends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InsightDelta<'a> {
    #[serde(rename = "type")]
    pub tag: tag::InsightDelta,
    /// The subscription that it comes for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// Where a subscription to all calls can be resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    pub call_id: CallId,
    pub analysis: Cow<'a, str>,
    /// The revision that the insight will have.
    pub rev: u64,
    /// Position of the text in the answer, in characters. 0 starts the answer over.
    pub offset: u64,
    pub text: Cow<'a, str>,
    /// The turn, if the analysis is per turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<TurnNo>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::text;

    #[test]
    fn live_frames_are_written_in_the_order_of_the_contract() {
        let (call_id, stream_id) = (CallId::parse("c").expect("id"), StreamId::parse("s").expect("id"));
        let partial = TurnPartial {
            tag: tag::TurnPartial,
            subscription: None,
            cursor: None,
            call_id: call_id.clone(),
            stream_id,
            turn_order: 3,
            speaker: None,
            text: "so \"far\"".into(),
        };
        assert_eq!(
            text(&partial),
            r#"{"type":"turn.partial","call_id":"c","stream_id":"s","turn_order":3,"text":"so \"far\""}"#
        );
        let named = TurnPartial { speaker: Some("A".into()), text: "x".into(), ..partial };
        assert_eq!(
            text(&named),
            r#"{"type":"turn.partial","call_id":"c","stream_id":"s","turn_order":3,"speaker":"A","text":"x"}"#
        );
        let delta = InsightDelta {
            tag: tag::InsightDelta,
            subscription: None,
            cursor: None,
            call_id,
            analysis: "summary".into(),
            rev: 2,
            offset: 10,
            text: "ab".into(),
            turn: Some(7),
        };
        let written = text(&delta);
        assert_eq!(
            written,
            r#"{"type":"insight.delta","call_id":"c","analysis":"summary","rev":2,"offset":10,"text":"ab","turn":7}"#
        );
        assert_eq!(serde_json::from_str::<InsightDelta<'_>>(&written).expect("a delta"), delta);
    }
}
