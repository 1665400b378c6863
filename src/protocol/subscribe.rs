//! Frames of `GET /v1/subscribe` (DESIGN 5.2): those that the daemon sends to a subscriber, and those that a subscriber
//! sends.
//!
//! Knows no subscription: `api::subscribe` decides which frames are sent, and when.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{ErrorFrame, InsightDelta, Reconnect, Sequenced, TurnPartial, pairs, tag};
use crate::types::{CallId, JsonMap, OpenAlert, Seq, Turn, TurnNo, Word};

/// A frame from the daemon, as a subscriber reads it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(untagged))]
pub enum ServerFrame {
    Welcome(Welcome),
    Subscribed(Subscribed),
    Unsubscribed(Unsubscribed),
    Pong(Pong),
    Error(#[cfg_attr(test, schemars(with = "ErrorFrame"))] ErrorFrame<String>),
    Reconnect(Reconnect),
    Lagged(Lagged),
    Snapshot(Box<Snapshot<'static>>),
    TurnPartial(TurnPartial<'static>),
    InsightDelta(InsightDelta<'static>),
    Event(Box<Pushed>),
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
            tag::Subscribed::TEXT => Self::Subscribed(serde_json::from_str(text)?),
            tag::Unsubscribed::TEXT => Self::Unsubscribed(serde_json::from_str(text)?),
            tag::Pong::TEXT => Self::Pong(serde_json::from_str(text)?),
            tag::Error::TEXT => Self::Error(serde_json::from_str(text)?),
            tag::Reconnect::TEXT => Self::Reconnect(serde_json::from_str(text)?),
            tag::Lagged::TEXT => Self::Lagged(serde_json::from_str(text)?),
            tag::Snapshot::TEXT => Self::Snapshot(serde_json::from_str(text)?),
            tag::TurnPartial::TEXT => Self::TurnPartial(serde_json::from_str(text)?),
            tag::InsightDelta::TEXT => Self::InsightDelta(serde_json::from_str(text)?),
            other => match Sequenced::read_kind(other, text)? {
                Some(event) => {
                    let Push { subscription, cursor } = serde_json::from_str(text)?;
                    Self::Event(Box::new(Pushed { subscription, cursor, event }))
                }
                None => Self::Unknown,
            },
        })
    }
}

/// `welcome`: the first frame of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Welcome {
    #[serde(rename = "type")]
    pub tag: tag::Welcome,
    /// Version of the protocol.
    pub version: u32,
    /// Time between the daemon's pings, ms; after two without an answer it closes.
    pub ping_interval_ms: u64,
}

/// Position of a call when a subscription was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SubscribedCall {
    /// Identifies the call's history; `null` if the call does not exist yet.
    pub epoch: Option<String>,
    /// Position of its newest event.
    pub seq: Seq,
    /// Set if `resume` is met for it: no snapshot comes.
    pub recovered: bool,
}

/// `subscribed`: the answer to `subscribe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Subscribed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    #[serde(rename = "type")]
    pub tag: tag::Subscribed,
    /// Name of the subscription, in each of its frames.
    pub subscription: String,
    /// The calls that the request names, if they match.
    #[serde(with = "pairs")]
    #[cfg_attr(test, schemars(with = "BTreeMap<CallId, SubscribedCall>"))]
    pub calls: Vec<(CallId, SubscribedCall)>,
    /// For all calls: set if the cursor that the request has is met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// For all calls: where the subscription can be resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `unsubscribed`: the answer to `unsubscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Unsubscribed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    #[serde(rename = "type")]
    pub tag: tag::Unsubscribed,
    pub subscription: String,
}

/// `pong`: the answer to `ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pong {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    #[serde(rename = "type")]
    pub tag: tag::Pong,
}

/// Numbers of live frames that a slow reader did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Dropped {
    pub partials: u64,
    pub deltas: u64,
}

/// `lagged`: live frames were dropped, because the socket took them too slowly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lagged {
    #[serde(rename = "type")]
    pub tag: tag::Lagged,
    pub subscription: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    pub dropped: Dropped,
}

/// `snapshot`: the state of a call; the next event of it has the `seq` after this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Snapshot<'a> {
    #[serde(rename = "type")]
    pub tag: tag::Snapshot,
    pub subscription: Cow<'a, str>,
    /// Where a subscription to all calls can be resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    pub call_id: CallId,
    /// Identifies this history of the call.
    pub epoch: Cow<'a, str>,
    /// Position of the newest event included.
    pub seq: Seq,
    pub state: State<'a>,
}

/// The state of a call in a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct State<'a> {
    /// `open`, `completed` or `failed`.
    pub status: Cow<'a, str>,
    /// The complete metadata.
    pub meta: Cow<'a, JsonMap>,
    /// Ordinal of the first of `turns`; with `turns` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns_from: Option<TurnNo>,
    /// The newest turns, if the subscription includes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Vec<Turn>>"))]
    pub turns: Option<Vec<ShownTurn<'a>>>,
    /// Latest insights by analysis; those of a per-turn analysis as `{"turns":{"57":{…}}}`.
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, super::schema::Latest>"))]
    pub insights: JsonMap,
    /// Analyses with insights that did not fit into the frame. `GET /v1/calls/{id}` has all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub insights_omitted: Vec<String>,
    /// Alerts that are open, oldest first; absent if the subscription wants none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Vec<OpenAlert>>"))]
    pub alerts: Option<Cow<'a, [OpenAlert]>>,
}

/// A turn in a snapshot, with its words if the subscription includes them.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownTurn<'a> {
    pub turn: Cow<'a, Turn>,
    /// Set if its words are written.
    pub with_words: bool,
}

impl Serialize for ShownTurn<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct WithWords<'a> {
            words: &'a [Word],
            #[serde(flatten)]
            turn: &'a Turn,
        }
        if self.with_words && !self.turn.words.is_empty() {
            WithWords { words: &self.turn.words, turn: &self.turn }.serialize(serializer)
        } else {
            self.turn.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for ShownTurn<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let turn = Turn::deserialize(deserializer)?;
        Ok(Self { with_words: !turn.words.is_empty(), turn: Cow::Owned(turn) })
    }
}

#[derive(Deserialize)]
struct Push {
    #[serde(default)]
    subscription: Option<String>,
    #[serde(default)]
    cursor: Option<String>,
}

/// An event of a call, as a subscription brings it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pushed {
    /// The subscription that it comes for; a sink's frames have none.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    pub subscription: Option<String>,
    /// Where a subscription to all calls can be resumed.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    pub cursor: Option<String>,
    #[cfg_attr(test, schemars(flatten))]
    pub event: Sequenced,
}

/// A frame that a subscriber sends.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum ClientFrame {
    Subscribe(Box<Subscribe>),
    Unsubscribe(Unsubscribe),
    Ping(Ping),
}

/// `subscribe`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Subscribe {
    /// Comes back on the answer: a string of at most 256 characters, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    #[serde(rename = "type")]
    pub tag: tag::Subscribe,
    pub calls: Calls,
    /// Only calls whose `meta` has all these members.
    #[serde(default, rename = "match", skip_serializing_if = "JsonMap::is_empty")]
    pub matching: JsonMap,
    /// Takes calls that do not exist yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,
    /// Only insights of these analyses; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analyses: Option<Vec<String>>,
    /// `false`: no `alert.raised`, no `alert.cleared`, and no alerts in snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<bool>,
    /// Kinds of frames beside insights, alerts and call events; `["turns"]` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<Include>>,
    /// Where an earlier subscription was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// By analysis; `all` where nothing is said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub delivery: BTreeMap<String, Delivery>,
}

impl Subscribe {
    /// A subscription to `calls` that begins with new events and has the default filters.
    pub fn new(calls: Calls) -> Self {
        Self {
            id: None,
            tag: tag::Subscribe,
            calls,
            matching: JsonMap::new(),
            wait: false,
            analyses: None,
            alerts: None,
            include: None,
            resume: None,
            delivery: BTreeMap::new(),
        }
    }
}

/// The calls of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Calls {
    /// `"*"`: all of them, later ones too.
    All(tag::All),
    /// At least one.
    These(Vec<CallId>),
}

/// A kind of frames that comes only if it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Include {
    /// `turn.final`, `turn.revised`, and turns in snapshots.
    Turns,
    /// Words in turns.
    Words,
    /// `turn.partial`.
    Partials,
    /// `insight.delta`.
    Deltas,
}

/// Which insights of an analysis come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// Each of them.
    All,
    /// Those that are superseded may be left out.
    Latest,
}

/// Where a subscription goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Resume {
    /// For all calls.
    Cursor {
        /// The newest one that came.
        cursor: String,
    },
    /// By call.
    Positions(BTreeMap<CallId, Position>),
}

/// How far a subscriber has read a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Position {
    /// The history that it has read.
    pub epoch: String,
    /// The newest event that it has read.
    pub seq: Seq,
}

/// `unsubscribe`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Unsubscribe {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    #[serde(rename = "type")]
    pub tag: tag::Unsubscribe,
    /// The name that `subscribed` gave.
    pub subscription: String,
}

/// `ping`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ping {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    #[serde(rename = "type")]
    pub tag: tag::Ping,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::text;
    use crate::types::StreamId;

    fn call(name: &str) -> CallId {
        CallId::parse(name).expect("id")
    }

    fn turn(words: Vec<Word>) -> Turn {
        Turn {
            turn: 0,
            stream_id: StreamId::parse("s").expect("id"),
            turn_order: 0,
            vendor_turn: None,
            rev: 0,
            speaker: None,
            text: "Hi.".into(),
            start_ms: 1,
            end_ms: 2,
            language: None,
            confidence: None,
            words,
        }
    }

    #[test]
    fn replies_begin_with_the_id_and_read_back() {
        let standing = SubscribedCall { epoch: None, seq: 0, recovered: false };
        let mut subscribed = Subscribed {
            id: Some("1".into()),
            tag: tag::Subscribed,
            subscription: "sub_1".into(),
            calls: vec![(call("z"), standing.clone()), (call("a"), standing)],
            recovered: None,
            cursor: None,
        };
        assert_eq!(
            text(&subscribed),
            r#"{"id":"1","type":"subscribed","subscription":"sub_1","calls":{"z":{"epoch":null,"seq":0,"recovered":false},"a":{"epoch":null,"seq":0,"recovered":false}}}"#
        );
        subscribed.recovered = Some(true);
        subscribed.cursor = Some("1.ff".into());
        let written = text(&subscribed);
        assert!(written.ends_with(r#"},"recovered":true,"cursor":"1.ff"}"#), "{written}");
        assert_eq!(ServerFrame::read(&written).expect("a frame"), ServerFrame::Subscribed(subscribed));
        assert_eq!(text(&Pong { id: Some(7.into()), tag: tag::Pong }), r#"{"id":7,"type":"pong"}"#);
        let unsubscribed = Unsubscribed { id: None, tag: tag::Unsubscribed, subscription: "sub_1".into() };
        assert_eq!(text(&unsubscribed), r#"{"type":"unsubscribed","subscription":"sub_1"}"#);
    }

    #[test]
    fn snapshot_has_words_first_in_a_turn_and_reads_back() {
        let meta: JsonMap = serde_json::from_str(r#"{"team":"billing"}"#).expect("json");
        let word = Word { text: "Hi.".into(), start_ms: 1, end_ms: 2, speaker: None, confidence: None };
        let turn = turn(vec![word]);
        let shown = |with_words| ShownTurn { turn: Cow::Borrowed(&turn), with_words };
        let plain = r#"{"turn":0,"stream_id":"s","turn_order":0,"rev":0,"text":"Hi.","start_ms":1,"end_ms":2}"#;
        assert_eq!(text(&shown(false)), plain);
        let words = r#"{"words":[{"text":"Hi.","start_ms":1,"end_ms":2}],"#;
        assert_eq!(text(&shown(true)), format!("{words}{}", &plain[1..]));
        let state = State {
            status: "open".into(),
            meta: Cow::Borrowed(&meta),
            turns_from: Some(0),
            turns: Some(vec![shown(true)]),
            insights: JsonMap::new(),
            insights_omitted: Vec::new(),
            alerts: Some(Cow::Borrowed(&[])),
        };
        let snapshot = Snapshot {
            tag: tag::Snapshot,
            subscription: "sub_1".into(),
            cursor: None,
            call_id: call("c"),
            epoch: "e".into(),
            seq: 4,
            state,
        };
        let written = text(&snapshot);
        let head = r#"{"type":"snapshot","subscription":"sub_1","call_id":"c","epoch":"e","seq":4,"state":{"status":"open","meta":{"team":"billing"},"turns_from":0,"turns":["#;
        assert!(written.starts_with(head) && written.ends_with(r#"],"insights":{},"alerts":[]}}"#), "{written}");
        let ServerFrame::Snapshot(read) = ServerFrame::read(&written).expect("a frame") else { panic!("{written}") };
        assert_eq!(*read, snapshot);
    }

    #[test]
    fn pushed_event_has_its_subscription_and_cursor() {
        let text = r#"{"type":"call.failed","subscription":"sub_1","cursor":"1.2","call_id":"c","seq":3,"at":"t","reason":"r"}"#;
        let ServerFrame::Event(pushed) = ServerFrame::read(text).expect("a frame") else { panic!("no event") };
        assert_eq!((pushed.subscription.as_deref(), pushed.cursor.as_deref()), (Some("sub_1"), Some("1.2")));
        assert_eq!((pushed.event.stamp.seq, pushed.event.event.kind().as_str()), (3, "call.failed"));
    }

    #[test]
    fn subscribe_has_no_member_that_is_not_set_and_reads_back() {
        let all = Subscribe::new(Calls::All(tag::All));
        assert_eq!(text(&all), r#"{"type":"subscribe","calls":"*"}"#);
        let position = Position { epoch: "e".into(), seq: 2 };
        let named = Subscribe {
            id: Some("1".into()),
            wait: true,
            include: Some(vec![Include::Turns, Include::Deltas]),
            resume: Some(Resume::Positions([(call("c"), position)].into_iter().collect())),
            delivery: [("summary".to_owned(), Delivery::Latest)].into_iter().collect(),
            ..Subscribe::new(Calls::These(vec![call("c")]))
        };
        let written = text(&named);
        assert_eq!(
            written,
            r#"{"id":"1","type":"subscribe","calls":["c"],"wait":true,"include":["turns","deltas"],"resume":{"c":{"epoch":"e","seq":2}},"delivery":{"summary":"latest"}}"#
        );
        assert_eq!(serde_json::from_str::<Subscribe>(&written).expect("a subscribe"), named);
        let resumed: Subscribe =
            serde_json::from_str(r#"{"type":"subscribe","calls":"*","resume":{"cursor":"1.5"}}"#).expect("a subscribe");
        assert_eq!(resumed.resume, Some(Resume::Cursor { cursor: "1.5".into() }));
    }
}
