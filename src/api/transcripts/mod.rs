//! `POST /v1/transcripts`: takes a whole recording, or a transcript file, in one request. It becomes a call like any
//! other, whose analyses run when it ends; the response contains their results.
//!
//! Knows no format of a file: what was posted is read by [`posted`].

mod posted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Request;
use serde_json::{Value, json};

pub(super) use self::posted::schema;

use self::posted::{Asked, read};
use super::body;
use super::calls::session_error;
use super::error::ApiError;
use super::route::BodyLimit;
use super::state::{Api, ConnectionGuard};
use crate::hub::{Frame, Interest, Item, Wants};
use crate::ingest::batch::BatchError;
use crate::protocol::event::Kind;
use crate::types::{CallId, Seq};

/// Bytes of events read at once.
const READ_BYTES: usize = 256 * 1024;
/// Time that a call may take in addition to its final runs.
const MARGIN: Duration = Duration::from_secs(30);
/// Bodies larger than this are parsed on a blocking thread, so that the runtime's thread can serve others, bytes.
const INLINE_BYTES: usize = 64 * 1024;

fn taken(call: &CallId) -> ApiError {
    ApiError::conflict("call_exists", format!("call {call} exists already; use another call_id, or leave it out"))
}

/// Takes a recording and answers with its insights.
///
/// # Cancel safety
/// If the client disconnects, the call still completes and can be read under `/v1/calls`.
pub(super) async fn post(
    State(api): State<Arc<Api>>,
    Extension(hold): Extension<ConnectionGuard>,
    Extension(BodyLimit(limit)): Extension<BodyLimit>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, limit, &hold.holder).await.map_err(ApiError::no_body)?;
    let (body, lease) = body.into_parts();
    let asked = if body.len() > INLINE_BYTES {
        let api = Arc::clone(&api);
        let reading = tokio::task::spawn_blocking(move || read(&api, &body, lease));
        reading.await.map_err(|_| ApiError::internal("the recording could not be read"))??
    } else {
        read(&api, &body, lease)?
    };
    let Asked { call, meta, analyses, whole, file, lease } = asked;
    let known = api.store.entry(&call).await;
    if known.map_err(|error| ApiError::unavailable("journal_unavailable", error.to_string()))?.is_some() {
        return Err(taken(&call));
    }
    let deps = Arc::clone(api.sessions.deps());
    let mut lost: Vec<Value> = whole
        .lost()
        .iter()
        .map(|(position, error)| json!({"recording": position, "code": error.code, "message": error.message}))
        .collect();
    let patience = deps.call.ingest.final_timeout + MARGIN;
    let answered = async {
        // Runs in a task of its own, so that the call is complete even if the client disconnects.
        let feeding = {
            let (api, call) = (Arc::clone(&api), call.clone());
            tokio::spawn(async move {
                let _lease = lease;
                whole.feed(&api.sessions, &call, &meta, analyses.as_deref()).await
            })
        };
        let (after, outlet) = match feeding.await {
            Ok(Ok(fed)) => fed,
            Ok(Err(BatchError::Taken)) => return Err(taken(&call)),
            Ok(Err(BatchError::Session(error))) => return Err(session_error(&error)),
            Err(_) => return Err(ApiError::internal("the task that sends the recording to its call failed")),
        };
        let (completed, of_turns) = completed(&api, &call, after).await?;
        // The call has completed, so the session has handled every frame.
        let refused = outlet.take().map(|outbound| outbound.errors).unwrap_or_default();
        let view = api.sessions.shown(&call, 0).await.map_err(|error| session_error(&error))?;
        let mut view = view.ok_or_else(|| ApiError::internal("the call no longer exists"))?;
        // The answer contains all insights, however many turns the call has.
        view.insights.extend(of_turns);
        let answer = json!({
            "call_id": call, "state": view.status, "turns": view.turn_count, "insights": view.insights,
            "alerts": view.alerts,
            "missing": completed.get("missing"), "cost_usd": completed.get("cost_usd"),
        });
        Ok((answer, refused))
    };
    let (mut answer, refused) =
        tokio::time::timeout(patience, answered).await.map_err(|_| late(&api, &call, patience))??;
    lost.extend(refused.iter().map(|error| json!({"code": error.code, "message": error.message})));
    if !lost.is_empty() {
        answer["errors"] = lost.into();
    }
    if let Some(file) = file {
        answer["transcript"] = file;
    }
    Ok(Json(answer).into_response())
}

/// The error for a call that did not complete in time, with the reason if it is known.
fn late(api: &Api, call: &CallId, patience: Duration) -> ApiError {
    let message =
        format!("call {call} is not complete after {} s; GET /v1/calls/{call} shows its state", patience.as_secs());
    match api.store.health() {
        Ok(()) => ApiError::unavailable("timeout", message),
        Err(error) => ApiError::unavailable("journal_unavailable", format!("{message}: {error}")),
    }
}

/// Waits for the call's end; returns its last event and the insights of its per-turn analyses.
async fn completed(api: &Api, call: &CallId, after: Seq) -> Result<(Value, BTreeMap<String, Value>), ApiError> {
    let mut reader = api.hub.reader(Interest::Calls(vec![(call.clone(), after)]), Wants::INSIGHTS.and(Wants::END));
    let mut of_turns: BTreeMap<String, Value> = BTreeMap::new();
    let event = |frame: &Frame| -> Value { serde_json::from_str(frame.text().as_str()).unwrap_or_default() };
    loop {
        let batch = reader.next(READ_BYTES).await;
        let batch = batch.map_err(|error| ApiError::unavailable("journal_unavailable", error.to_string()))?;
        for item in batch.items {
            let Item::Event(frame) = item else { continue };
            match (frame.kind(), frame.analysis(), frame.turn()) {
                (Kind::InsightUpdated, Some(analysis), Some(turn)) => {
                    let known = of_turns.entry(analysis.to_string()).or_insert_with(|| json!({"turns": {}}));
                    known["turns"][turn.to_string()] = event(&frame)["insight"].take();
                }
                (Kind::CallCompleted, ..) => return Ok((event(&frame), of_turns)),
                (Kind::CallFailed, ..) => {
                    return Err(ApiError::conflict("call_failed", format!("call {call} has failed")));
                }
                _ => {}
            }
        }
    }
}
