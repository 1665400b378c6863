//! Partials and deltas: frames that pass beside the journal, to whoever watches the call now.
//!
//! Knows no sequence number: a frame that nobody watches is not even written.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use crate::call::effects::Partial;
use crate::call::task::TaskKey;
use crate::gateway::Delta;
use crate::hub::{Hub, LiveFrame, LiveKind};
use crate::types::{CallId, SttEvent};

/// Longest text of one `insight.delta`, bytes. Longer pieces are split.
const DELTA_BYTES: usize = 64 * 1024;

/// Whether a frame says something that may become a partial.
pub(super) fn has_partial(events: &[SttEvent]) -> bool {
    events.iter().any(|event| matches!(event, SttEvent::Partial { .. }))
}

/// Whether somebody watches the partials of `call`.
pub(super) fn wants_partials(hub: &Hub, call: &CallId) -> bool {
    hub.wants(call, &LiveKind::Partial)
}

/// Passes a partial on.
pub(super) fn partial(hub: &Hub, call: &CallId, partial: &Partial) {
    if !wants_partials(hub, call) {
        return;
    }
    let mut frame = json!({
        "type": "turn.partial", "call_id": call, "stream_id": partial.stream, "turn_order": partial.turn_order,
    });
    if let Some(speaker) = &partial.speaker {
        frame["speaker"] = json!(speaker);
    }
    frame["text"] = json!(partial.text);
    hub.live(call, LiveFrame { kind: LiveKind::Partial, frame: Bytes::from(frame.to_string()) });
}

/// Passes on each piece of an answer with its offset in characters; `None` where nobody watches.
pub(super) fn deltas(hub: &Hub, call: &CallId, key: &TaskKey, rev: u64) -> Option<crate::gateway::Deltas> {
    let kind = LiveKind::Delta { analysis: Arc::clone(&key.analysis) };
    if !hub.wants(call, &kind) {
        return None;
    }
    let (hub, call, key) = (hub.clone(), call.clone(), key.clone());
    Some(Box::new(move |delta: Delta<'_>| {
        let (mut offset, mut rest) = (delta.offset, delta.text);
        loop {
            let (text, after) = rest.split_at(rest.floor_char_boundary(DELTA_BYTES));
            let mut frame = json!({
                "type": "insight.delta", "call_id": call, "analysis": &*key.analysis, "rev": rev,
                "offset": offset, "text": text,
            });
            if let Some(turn) = key.turn {
                frame["turn"] = json!(turn);
            }
            hub.live(&call, LiveFrame { kind: kind.clone(), frame: Bytes::from(frame.to_string()) });
            if after.is_empty() {
                return;
            }
            offset += text.chars().count() as u64;
            rest = after;
        }
    }))
}
