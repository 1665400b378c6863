//! The state of a call, for a subscriber that is new or that cannot resume its position. Knows no call: the state is
//! made from a view of the call.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::protocol::tag;
use crate::types::{CallId, JsonMap, OpenAlert, Seq, Turn, TurnNo, Word};

/// `snapshot`: the state of a call; the call's next event has the `seq` after this one.
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
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, crate::protocol::schema::Latest>"))]
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
    /// Set if the turn's words are written.
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
