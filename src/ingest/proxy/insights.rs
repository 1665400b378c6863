//! Sends insights to the client's socket in the form of in-stream answers, and errors in the parameter that asked for
//! them.
//!
//! Knows no socket and asks no model: frames go into the queue that the relay sends between the vendor's frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::response::response;
use super::{Deps, Found};
use crate::base::ws::Utf8Bytes;
use crate::hub::{Filter, Include, Interest, Item, Wants};
use crate::protocol::ErrorFrame;
use crate::types::{CallId, StreamId};

/// Bytes of events taken from the hub at once.
const READ_BYTES: usize = 64 << 10;

/// Sends errors in the `sidetone` parameter once the session has begun, in the same form as insights.
pub(super) async fn tell(
    errors: Vec<ErrorFrame>,
    mut found: watch::Receiver<Found>,
    injections: mpsc::Sender<Utf8Bytes>,
) {
    if found.wait_for(Option::is_some).await.is_err() {
        return;
    }
    for error in &errors {
        let error = serde_json::to_value(error).unwrap_or_default();
        let frame = response(0, "", &error);
        if injections.send(frame).await.is_err() {
            return;
        }
    }
}

/// Sends the call's insights to the client: an insight about one turn of `stream` as the answer to that turn, any other
/// as the answer to the newest turn.
pub(super) async fn send(
    stream: StreamId,
    mut found: watch::Receiver<Found>,
    newest: Arc<AtomicI64>,
    injections: mpsc::Sender<Utf8Bytes>,
    deps: Deps,
) {
    let Ok((call, after)) = found.wait_for(Option::is_some).await.map(|found| found.clone().unzip()) else { return };
    let (Some(call), Some(after)) = (call, after) else { return };
    let mut reader = deps.hub.reader(Interest::Calls(vec![(call.clone(), after)]), Wants::INSIGHTS.and(Wants::END));
    let filter = Filter {
        analyses: None,
        no_alerts: true,
        include: Include { turns: false, words: false, partials: false, deltas: false },
        latest: Vec::new(),
    };
    while let Ok(batch) = reader.next(READ_BYTES).await {
        for item in filter.pick(&batch.items, &deps.hub) {
            let Item::Event(frame) = item else { continue };
            if frame.kind().ends_call() {
                return;
            }
            if !frame.kind().is_insight() {
                continue;
            }
            let event: Value = serde_json::from_str(frame.text()).unwrap_or(Value::Null);
            let (turn_order, transcript) = match of_turn(&event, &stream, &call, &deps).await {
                Some((turn_order, transcript)) => (turn_order, transcript),
                None => (newest.load(Ordering::Relaxed).max(0), String::new()),
            };
            let frame = response(turn_order, &transcript, &event);
            if injections.send(frame).await.is_err() {
                return;
            }
        }
    }
}

/// The vendor's number and the text of the turn that a per-turn insight is about, if the turn belongs to `stream`.
async fn of_turn(event: &Value, stream: &StreamId, call: &CallId, deps: &Deps) -> Option<(i64, String)> {
    let ordinal = event.pointer("/insight/turn").or_else(|| event.get("turn"))?.as_u64()?;
    let view = deps.sessions.view(call).await.ok()??;
    let turn = view.turns.get(usize::try_from(ordinal).ok()?).filter(|turn| turn.stream_id == *stream)?;
    Some((turn.vendor_turn.as_deref()?.parse().ok()?, turn.text.to_string()))
}
