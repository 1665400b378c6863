//! Frames of `GET /v1/ingest` (DESIGN 5.1): those that the daemon sends to a producer, and those that a producer sends
//! in the `sidetone` dialect.
//!
//! Does not contain vendors' frames, which a producer sends with another dialect.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ErrorFrame, Reconnect, Sequenced, tag};
use crate::types::{CallId, EndScope, JsonMap, StreamId, Word};

/// A frame from the daemon, as a producer reads it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(untagged))]
pub enum ServerFrame {
    Welcome(Box<Welcome<'static>>),
    Ack(Ack),
    Error(#[cfg_attr(test, schemars(with = "ErrorFrame"))] ErrorFrame<String>),
    Reconnect(Reconnect),
    /// An event of the call: those that `results` asks for, and the call's last event.
    Event(Box<Sequenced>),
    /// A frame of a later version. Ignore it.
    #[cfg_attr(test, schemars(skip))]
    Unknown,
}

impl ServerFrame {
    /// Reads a frame.
    ///
    /// # Errors
    /// The text is not a JSON object with a `type`, or a member of a known frame is missing or wrong.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        Ok(match &*tag::of(text)? {
            tag::Welcome::TEXT => Self::Welcome(serde_json::from_str(text)?),
            tag::Ack::TEXT => Self::Ack(serde_json::from_str(text)?),
            tag::Error::TEXT => Self::Error(serde_json::from_str(text)?),
            tag::Reconnect::TEXT => Self::Reconnect(serde_json::from_str(text)?),
            other => Sequenced::read_kind(other, text)?.map_or(Self::Unknown, |event| Self::Event(Box::new(event))),
        })
    }
}

/// `welcome`: the first frame of a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Welcome<'a> {
    #[serde(rename = "type")]
    pub tag: tag::Welcome,
    /// Version of the protocol.
    pub version: u32,
    pub call_id: CallId,
    /// Identifies this history of the call.
    pub epoch: Cow<'a, str>,
    pub stream_id: StreamId,
    /// Highest durable `turn_order` of the stream; `null` if there is none.
    pub acked: Option<u64>,
    /// Frames of the stream's previous connection that are covered: resend from here. `null` if there was none.
    pub frames: Option<u64>,
    /// Latest insights by analysis; those of a per-turn analysis as `{"turns":{"57":{…}}}`.
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, super::schema::Latest>"))]
    pub insights: Cow<'a, JsonMap>,
    /// Analyses with insights that did not fit into the frame. `GET /v1/calls/{id}` has all of them.
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    pub insights_omitted: Cow<'a, [String]>,
}

/// `ack`: everything up to here is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ack {
    #[serde(rename = "type")]
    pub tag: tag::Ack,
    /// The stream that the connection feeds: the one that it named, or the one that its vendor's newest session is.
    pub stream_id: StreamId,
    /// Text messages of the connection that are covered.
    pub frames: u64,
    /// Highest durable turn of the stream; `null` while it has none.
    pub turn_order: Option<u64>,
}

/// A frame that a producer sends in the `sidetone` dialect. `meta` and `end` are understood on every dialect.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum ClientFrame<'a> {
    Turn(Turn<'a>),
    Partial(Partial<'a>),
    Revise(Revise<'a>),
    Meta(Meta<'a>),
    End(End<'a>),
}

/// `turn`: a final turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Turn<'a> {
    #[serde(rename = "type")]
    pub tag: tag::Turn,
    /// Comes back on the error that the frame causes: a string of at most 256 bytes, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// The producer's number of the turn in its stream.
    pub turn_order: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<Cow<'a, str>>,
    pub text: Cow<'a, str>,
    /// Start, ms of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<u64>,
    /// End, ms of the stream; never before the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ms: Option<u64>,
    /// BCP 47 language tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Cow<'a, str>>,
    /// 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    #[serde(default, skip_serializing_if = "<[Word]>::is_empty")]
    pub words: Cow<'a, [Word]>,
}

/// `partial`: the text so far of a turn that is not final.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Partial<'a> {
    #[serde(rename = "type")]
    pub tag: tag::Partial,
    /// Comes back on the error that the frame causes: a string of at most 256 bytes, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    pub turn_order: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<Cow<'a, str>>,
    /// `""` removes the partial.
    pub text: Cow<'a, str>,
}

/// `revise`: a correction of an earlier turn; at least one of `speaker`, `text` and `words`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Revise<'a> {
    #[serde(rename = "type")]
    pub tag: tag::Revise,
    /// Comes back on the error that the frame causes: a string of at most 256 bytes, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    pub turn_order: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "<[Word]>::is_empty")]
    pub words: Cow<'a, [Word]>,
}

/// `meta`: members to merge into the call's metadata.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Meta<'a> {
    #[serde(rename = "type")]
    pub tag: tag::Meta,
    /// Comes back on the error that the frame causes: a string of at most 256 bytes, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    pub meta: Cow<'a, JsonMap>,
}

/// `end`: the stream ends, or the whole call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct End<'a> {
    #[serde(rename = "type")]
    pub tag: tag::End,
    /// Comes back on the error that the frame causes: a string of at most 256 bytes, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    /// `stream` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<EndScope>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::text;

    fn stream() -> StreamId {
        StreamId::parse("s_1").expect("id")
    }

    #[test]
    fn server_frames_are_written_in_the_order_of_the_contract_and_read_back() {
        let insights: JsonMap = serde_json::from_str(r#"{"summary":{"rev":1}}"#).expect("json");
        let omitted = ["report".to_owned()];
        let mut welcome = Welcome {
            tag: tag::Welcome,
            version: 1,
            call_id: CallId::parse("c_1").expect("id"),
            epoch: "e7".into(),
            stream_id: stream(),
            acked: None,
            frames: Some(4),
            insights: Cow::Borrowed(&insights),
            insights_omitted: Cow::Borrowed(&[]),
        };
        assert_eq!(
            text(&welcome),
            r#"{"type":"welcome","version":1,"call_id":"c_1","epoch":"e7","stream_id":"s_1","acked":null,"frames":4,"insights":{"summary":{"rev":1}}}"#
        );
        welcome.insights_omitted = Cow::Borrowed(&omitted);
        let written = text(&welcome);
        assert!(written.ends_with(r#","insights_omitted":["report"]}"#), "{written}");
        let ServerFrame::Welcome(read) = ServerFrame::read(&written).expect("a frame") else { panic!("{written}") };
        assert_eq!(*read, welcome);
        let ack = Ack { tag: tag::Ack, stream_id: stream(), frames: 14, turn_order: None };
        assert_eq!(text(&ack), r#"{"type":"ack","stream_id":"s_1","frames":14,"turn_order":null}"#);
        assert_eq!(ServerFrame::read(&text(&ack)).expect("a frame"), ServerFrame::Ack(ack));
        let reconnect = Reconnect { tag: tag::Reconnect, after_ms: 1500, grace_ms: 0 };
        assert_eq!(text(&reconnect), r#"{"type":"reconnect","after_ms":1500,"grace_ms":0}"#);
        assert_eq!(ServerFrame::read(&text(&reconnect)).expect("a frame"), ServerFrame::Reconnect(reconnect));
    }

    #[test]
    fn frame_of_a_later_version_is_unknown_and_a_broken_one_an_error() {
        assert_eq!(ServerFrame::read(r#"{"type":"of.a.later.version","x":1}"#).expect("a frame"), ServerFrame::Unknown);
        for bad in ["", "[]", "{}", r#"{"type":"ack"}"#, r#"{"type":"call.completed","call_id":"c"}"#] {
            assert!(ServerFrame::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn client_frames_have_no_member_that_is_not_set() {
        let turn = Turn { turn_order: 1, text: "Hello.".into(), ..Turn::default() };
        assert_eq!(text(&ClientFrame::Turn(turn)), r#"{"type":"turn","turn_order":1,"text":"Hello."}"#);
        let end = End { scope: Some(EndScope::Call), ..End::default() };
        assert_eq!(text(&ClientFrame::End(end)), r#"{"type":"end","scope":"call"}"#);
        assert_eq!(text(&ClientFrame::End(End::default())), r#"{"type":"end"}"#);
    }
}
