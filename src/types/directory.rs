//! The directory's entry of a call: what is known of it without reading its log.
//!
//! Knows no store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CallId, JsonMap};

/// The state of a call in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallState {
    /// The call may still grow.
    Open,
    /// The call has had its `call.completed`.
    Completed,
    /// The call cannot continue.
    Failed,
}

impl CallState {
    /// The state's name.
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
    /// Identifies the call's history. The writer makes it with the first event; the journal replaces it if the log may
    /// have lost published events (see DESIGN "Durable").
    pub epoch: String,
    /// Open, completed or failed.
    pub state: CallState,
    /// The call's `meta`.
    pub meta: JsonMap,
    /// Start, ms since 1970.
    pub started_at_ms: i64,
    /// Time of the last change that made it completed or failed, ms since 1970.
    pub ended_at_ms: Option<i64>,
    /// Number of streams that have begun and not ended.
    pub open_streams: u32,
    /// Number of turns at the last change of the entry.
    pub turns: u64,
    /// Number of the newest connection of each stream. Distinguishes a repeated frame count of that connection from one
    /// of an earlier connection, even if the newer one has not led to a record yet.
    #[serde(default)]
    pub connections: BTreeMap<String, u64>,
    /// Positions of streams' producers between two records, which the writer stores; opaque to the journal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub positions: BTreeMap<String, serde_json::Value>,
    /// What the writer shows of an ended call without reading its log; opaque to the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outline: Option<Box<str>>,
    /// When a timer of the call is due that runs whether or not the call is in memory, ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at_ms: Option<i64>,
}
