//! A call as it stands at one position: what snapshots and `GET /v1/calls/{id}` show.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{CallId, JsonMap, Seq, StreamId, Turn};

/// A stream as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamView {
    /// The stream.
    pub stream_id: StreamId,
    /// Its wire format.
    pub dialect: String,
    /// The vendor's session id.
    pub vendor_session: Option<String>,
    /// Call time of stream time 0.
    pub offset_ms: u64,
    /// Whether it has ended.
    pub ended: bool,
}

/// A call as it stands after event `seq`.
#[derive(Debug, Clone)]
pub struct View {
    /// The call.
    pub call_id: CallId,
    /// Names its history.
    pub epoch: String,
    /// Head.
    pub seq: Seq,
    /// `open`, `completed` or `failed`.
    pub status: &'static str,
    /// RFC 3339.
    pub started_at: String,
    /// All of it.
    pub meta: JsonMap,
    /// In ordinal order.
    pub turns: Vec<Arc<Turn>>,
    /// In order of their beginning.
    pub streams: Vec<StreamView>,
    /// Whole insights by analysis; per-turn ones as `{"turns":{"57":{…}}}`.
    pub insights: BTreeMap<String, Value>,
}
