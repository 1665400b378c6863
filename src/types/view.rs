//! The state of a call at one position, as snapshots and `GET /v1/calls/{id}` show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CallId, JsonMap, OpenAlert, Seq, StreamId, Turn};

/// The state of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamView {
    pub stream_id: StreamId,
    /// Wire format of its frames.
    pub dialect: String,
    /// The vendor's session id.
    pub vendor_session: Option<String>,
    /// Call time of stream time 0, in ms.
    pub offset_ms: u64,
    /// Set once the stream has ended.
    pub ended: bool,
}

/// The state of a call after event `seq`.
#[derive(Debug, Clone)]
pub struct View {
    pub call_id: CallId,
    /// Identifies this history of the call.
    pub epoch: String,
    /// Position of the newest event included.
    pub seq: Seq,
    /// `open`, `completed` or `failed`.
    pub status: &'static str,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// The complete metadata.
    pub meta: JsonMap,
    /// How many turns there are.
    pub turn_count: u64,
    /// The newest turns, as many as were requested, in ordinal order.
    pub turns: Vec<Arc<Turn>>,
    /// The streams in the order in which they began.
    pub streams: Vec<StreamView>,
    /// Complete insights by analysis; those of a per-turn analysis as `{"turns":{"57":{…}}}`, of the newest 200 turns at
    /// least.
    pub insights: BTreeMap<String, Value>,
    /// Alerts that are open, oldest first.
    pub alerts: Vec<OpenAlert>,
}
