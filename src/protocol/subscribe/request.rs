//! Frames that a subscriber sends.
//!
//! Knows no subscription.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::tag;
use crate::types::{CallId, JsonMap, Seq};

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
    /// Repeated in the answer: a string of at most 256 characters, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    #[serde(rename = "type")]
    pub tag: tag::Subscribe,
    pub calls: Calls,
    /// Only calls whose `meta` has all these members.
    #[serde(default, rename = "match", skip_serializing_if = "JsonMap::is_empty")]
    pub matching: JsonMap,
    /// Allows calls that do not exist yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,
    /// Only insights of these analyses; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analyses: Option<Vec<String>>,
    /// `false`: no `alert.raised`, no `alert.cleared`, and no alerts in snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<bool>,
    /// Kinds of frames besides insights, alerts and call events; `["turns"]` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<Include>>,
    /// The position of an earlier subscription, to resume it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// Which insights of an analysis are sent; `all` if it is not listed.
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

/// A kind of frames that is sent only on request.
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

/// Which insights of an analysis are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// All of them.
    All,
    /// Superseded ones may be left out.
    Latest,
}

/// The position from which a subscription continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Resume {
    /// For all calls.
    Cursor {
        /// The newest cursor that was received.
        cursor: String,
    },
    /// For single calls: a position in each.
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
