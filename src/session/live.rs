//! Partials and deltas: live frames that bypass the journal and go to the present subscribers of a call.
//!
//! Knows no sequence number. A frame that nobody wants is not encoded.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::analysis::Growing;
use crate::call::effects::Partial;
use crate::call::task::TaskKey;
use crate::gateway::Delta;
use crate::hub::{Hub, LiveFrame, LiveKind};
use crate::protocol::{self, InsightDelta, TurnPartial, tag};
use crate::types::{CallId, SttEvent};

/// Longest text of one `insight.delta`, bytes. Longer pieces are split.
const DELTA_BYTES: usize = 64 * 1024;

/// Returns true if a frame contains something that may become a partial.
pub(super) fn has_partial(events: &[SttEvent]) -> bool {
    events.iter().any(|event| matches!(event, SttEvent::Partial { .. }))
}

/// Returns true if a subscriber wants the partials of `call`.
pub(super) fn wants_partials(hub: &Hub, call: &CallId) -> bool {
    hub.wants(call, &LiveKind::Partial)
}

/// Sends a partial to subscribers.
pub(super) fn partial(hub: &Hub, call: &CallId, partial: &Partial) {
    if !wants_partials(hub, call) {
        return;
    }
    let frame = TurnPartial {
        tag: tag::TurnPartial,
        subscription: None,
        cursor: None,
        call_id: call.clone(),
        stream_id: partial.stream.clone(),
        turn_order: partial.turn_order,
        speaker: partial.speaker.as_deref().map(Cow::Borrowed),
        text: Cow::Borrowed(&partial.text),
    };
    hub.live(call, LiveFrame { kind: LiveKind::Partial, frame: Bytes::from(protocol::text(&frame)) });
}

/// Sends each piece of an answer with its offset in characters: a piece of its text if `growing` reads one, otherwise of
/// its JSON. `None` if no subscriber wants them.
pub(super) fn deltas(
    hub: &Hub,
    call: &CallId,
    key: &TaskKey,
    rev: u64,
    mut growing: Option<Growing>,
) -> Option<crate::gateway::Deltas> {
    let kind = LiveKind::Delta { analysis: Arc::clone(&key.analysis) };
    if !hub.wants(call, &kind) {
        return None;
    }
    let (hub, call, key) = (hub.clone(), call.clone(), key.clone());
    Some(Box::new(move |delta: Delta<'_>| {
        let (mut offset, text) = match &mut growing {
            Some(growing) => {
                let (offset, text) = growing.push(delta.offset, delta.text);
                if text.is_empty() {
                    return;
                }
                (offset, Cow::Owned(text))
            }
            None => (delta.offset, Cow::Borrowed(delta.text)),
        };
        let mut rest = text.as_ref();
        loop {
            let (text, after) = rest.split_at(rest.floor_char_boundary(DELTA_BYTES));
            let frame = InsightDelta {
                tag: tag::InsightDelta,
                subscription: None,
                cursor: None,
                call_id: call.clone(),
                analysis: Cow::Borrowed(&key.analysis),
                rev,
                offset,
                text: Cow::Borrowed(text),
                turn: key.turn,
            };
            hub.live(&call, LiveFrame { kind: kind.clone(), frame: Bytes::from(protocol::text(&frame)) });
            if after.is_empty() {
                return;
            }
            offset += text.chars().count() as u64;
            rest = after;
        }
    }))
}
