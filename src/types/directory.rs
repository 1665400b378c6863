//! What is known of a call without its log: its entry in the directory.
//!
//! Knows no store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CallId, JsonMap};

/// State of a call as the directory knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallState {
    /// May still grow.
    Open,
    /// Had its `call.completed`.
    Completed,
    /// Cannot go on.
    Failed,
}

impl CallState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// What the directory knows of a call without reading its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The call.
    pub call_id: CallId,
    /// Names its history. Minted by the writer with the first event; the journal replaces it when the log may have
    /// lost published events (see DESIGN "Durable").
    pub epoch: String,
    /// Open, completed or failed.
    pub state: CallState,
    /// The call's `meta`.
    pub meta: JsonMap,
    /// ms since 1970.
    pub started_at_ms: i64,
    /// ms since 1970 of the last entry change that made it completed or failed.
    pub ended_at_ms: Option<i64>,
    /// Streams that have begun and not ended.
    pub open_streams: u32,
    /// Turns so far, as of the last entry change.
    pub turns: u64,
    /// Number of the newest connection of each stream: tells a resent frame count of that connection from one of
    /// an earlier connection, although the newer one may not have led to a record yet.
    #[serde(default)]
    pub connections: BTreeMap<String, u64>,
    /// What the writer notes of a stream's producer between two records; opaque to the journal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub positions: BTreeMap<String, serde_json::Value>,
    /// What the writer shows of a call that is over without reading its log; opaque to the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outline: Option<Box<str>>,
    /// When a timer of the call runs out that runs whether or not the call is in memory, ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at_ms: Option<i64>,
}
