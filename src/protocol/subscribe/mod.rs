//! Frames of `GET /v1/subscribe` (DESIGN 5.2): those that the daemon sends to a subscriber, and those that a subscriber
//! sends.
//!
//! Knows no subscription: `api::subscribe` decides which frames are sent, and when.

mod request;
mod snapshot;
#[cfg(test)]
mod tests;

pub use self::request::{Calls, ClientFrame, Delivery, Include, Ping, Position, Resume, Subscribe, Unsubscribe};
pub use self::snapshot::{ShownTurn, Snapshot, State};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ErrorFrame, InsightDelta, Reconnect, Sequenced, TurnPartial, pairs, tag};
use crate::types::{CallId, Seq};

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
    /// Set if the requested position of the call can be resumed: no snapshot is sent.
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
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<CallId, SubscribedCall>"))]
    pub calls: Vec<(CallId, SubscribedCall)>,
    /// For all calls: set if the requested cursor can be resumed.
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

/// `lagged`: live frames were dropped, because the client read too slowly.
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

#[derive(Deserialize)]
struct Push {
    #[serde(default)]
    subscription: Option<String>,
    #[serde(default)]
    cursor: Option<String>,
}

/// An event of a call, as it is sent to a subscription.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pushed {
    /// The subscription that the event is sent for; a sink's frames have none.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    pub subscription: Option<String>,
    /// Where a subscription to all calls can be resumed.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    pub cursor: Option<String>,
    #[cfg_attr(test, schemars(flatten))]
    pub event: Sequenced,
}
