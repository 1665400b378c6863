//! `/v1/calls…`: lists calls, shows their turns and events, runs an analysis on request, and erases calls.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::error::{ApiError, accepted, no_content};
use super::query::Query;
use super::state::{Api, ConnectionGuard};
use crate::hub::{Interest, Item, Wants};
use crate::journal::{CallState, Entry, JournalError};
use crate::protocol::{Event, Sequenced};
use crate::session::SessionError;
use crate::session::command::RunRefusal;
use crate::types::view::View;
use crate::types::{CallId, Seq, Trigger};

const CALLS_LIMIT: usize = 200;
const TURNS_LIMIT: usize = 5_000;
const EVENTS_LIMIT: usize = 5_000;
/// Longest time that a request may wait for an insight, ms.
const WAIT_LIMIT_MS: u64 = 120_000;
/// Approximate size of a page of calls, turns or events, bytes. An element larger than this gets a page of its own.
const PAGE_BYTES: usize = 1024 * 1024;
/// Bytes of events read at once.
const READ_BYTES: usize = 256 * 1024;

type Answer = Result<Response, ApiError>;

fn bad(name: &str, what: &dyn std::fmt::Display) -> ApiError {
    ApiError::bad_request("bad_parameter", format!("{name}: {what}"))
}

fn call_id(text: &str) -> Result<CallId, ApiError> {
    CallId::parse(text).map_err(|error| bad("call_id", &error))
}

fn unknown(call: &CallId) -> ApiError {
    ApiError::not_found("unknown_call", format!("no call {call}; GET /v1/calls lists those there are"))
}

fn journal_error(call: &CallId, error: &JournalError) -> ApiError {
    match error {
        JournalError::UnknownCall => unknown(call),
        JournalError::Gone { .. } => ApiError::gone("gone", error.to_string()),
        JournalError::Damaged { .. } => ApiError::internal(error.to_string()),
        _ => ApiError::unavailable("journal_unavailable", error.to_string()),
    }
}

async fn entry(api: &Api, call: &CallId) -> Result<Option<Entry>, ApiError> {
    api.store.entry(call).await.map_err(|error| journal_error(call, &error))
}

pub(super) fn session_error(error: &SessionError) -> ApiError {
    match error {
        SessionError::UnknownCall(call) => unknown(call),
        SessionError::Failed(_) => ApiError::conflict("call_failed", error.to_string()),
        SessionError::Journal(_) => ApiError::unavailable("journal_unavailable", error.to_string()),
        SessionError::Limit { .. } => ApiError::unavailable("rate_limited", error.to_string()),
        SessionError::Stopping => ApiError::unavailable("stopping", error.to_string()),
        SessionError::Elsewhere { .. } => ApiError::unavailable("unavailable", error.to_string()),
    }
}

fn summary(view: &View) -> Value {
    json!({
        "call_id": view.call_id, "state": view.status, "started_at": view.started_at, "turns": view.turn_count,
        "meta": view.meta, "insights": view.insights, "alerts": view.alerts,
    })
}

/// `GET /v1/calls?state=&limit=&after=`
pub(super) async fn list(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::new(query.as_deref());
    let state = match query.text("state") {
        None => None,
        Some("open") => Some(CallState::Open),
        Some("completed") => Some(CallState::Completed),
        Some("failed") => Some(CallState::Failed),
        Some(other) => {
            return Err(ApiError::bad_request(
                "bad_parameter",
                format!("state: expected open, completed or failed, found {other:?}"),
            ));
        }
    };
    let limit = query.limit(50, CALLS_LIMIT)?;
    let after =
        query.text("after").map(|after| CallId::parse(after).map_err(|error| bad("after", &error))).transpose()?;
    let unreadable = |error: JournalError| ApiError::unavailable("journal_unavailable", error.to_string());
    let entries = api.store.page(state, after.as_ref(), limit + 1).await.map_err(unreadable)?;
    let mut more = entries.len() > limit;
    let mut calls: Vec<String> = Vec::new();
    let mut bytes = 0;
    let mut last = None;
    for entry in entries.into_iter().take(limit) {
        // The call may have been erased since the page was made; then it is left out.
        if let Ok(Some(view)) = api.sessions.shown(&entry.call_id, 0).await {
            let text = summary(&view).to_string();
            bytes += text.len();
            if bytes > PAGE_BYTES && !calls.is_empty() {
                more = true;
                break;
            }
            calls.push(text);
        }
        last = Some(entry.call_id);
    }
    let next = json!(last.filter(|_| more));
    let body = format!("{{\"calls\":[{}],\"next\":{next}}}", calls.join(","));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// `GET /v1/calls/{id}`
pub(super) async fn show(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer {
    let call = call_id(&id)?;
    let view = api.sessions.shown(&call, 0).await.map_err(|error| session_error(&error))?;
    let view = view.ok_or_else(|| unknown(&call))?;
    let mut shown = summary(&view);
    shown["epoch"] = json!(view.epoch);
    shown["seq"] = json!(view.seq);
    shown["streams"] = view
        .streams
        .iter()
        .map(|stream| {
            json!({
                "stream_id": stream.stream_id, "dialect": stream.dialect, "vendor_session": stream.vendor_session,
                "offset_ms": stream.offset_ms, "state": if stream.ended { "ended" } else { "open" },
            })
        })
        .collect();
    Ok(Json(shown).into_response())
}

/// `GET /v1/calls/{id}/turns?from=&to=&after=&limit=`
pub(super) async fn turns(State(api): State<Arc<Api>>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::new(query.as_deref());
    let from = query.number::<u64>("from")?.unwrap_or(0);
    let to = query.number::<u64>("to")?.unwrap_or(u64::MAX);
    let after = query.number::<u64>("after")?;
    let limit = query.limit(1_000, TURNS_LIMIT)?;
    let call = call_id(&id)?;
    let from = after.map_or(from, |after| from.max(after.saturating_add(1)));
    let page = api.sessions.turns(&call, (from, to), limit, PAGE_BYTES).await.map_err(|error| session_error(&error))?;
    let (turns, more) = page.ok_or_else(|| unknown(&call))?;
    let next = turns.last().map(|turn| turn.turn).filter(|_| more);
    Ok(Json(json!({"turns": turns, "next": next})).into_response())
}

/// `GET /v1/calls/{id}/events?after=SEQ&limit=`
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Extension(hold): Extension<ConnectionGuard>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::new(query.as_deref());
    let call = call_id(&id)?;
    let mut after: Seq = query.number("after")?.unwrap_or(0);
    let limit = query.limit(1_000, EVENTS_LIMIT)?;
    if entry(&api, &call).await?.is_none() {
        return Err(unknown(&call));
    }
    // The limit is checked before anything is read.
    let _lease = hold.holder.take(PAGE_BYTES).map_err(ApiError::in_flight)?;
    // Events are joined as bytes: each was encoded once, when it was written.
    let mut body = b"{\"events\":[".to_vec();
    let mut given = 0;
    let mut more = false;
    'reading: loop {
        let records = api.store.read(&call, after, READ_BYTES).await.map_err(|error| journal_error(&call, &error))?;
        if records.is_empty() {
            break;
        }
        for record in records {
            if given == limit || (given > 0 && body.len() + record.frame.len() >= PAGE_BYTES) {
                more = true;
                break 'reading;
            }
            if given > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&record.frame);
            given += 1;
            after = record.seq;
        }
        // Lets the other tasks of this thread run, so that a client with many pages does not delay them.
        tokio::task::yield_now().await;
    }
    let next = if more { after.to_string() } else { "null".to_owned() };
    body.extend_from_slice(format!("],\"next_after\":{next}}}").as_bytes());
    Ok(([(CONTENT_TYPE, "application/json")], Body::from(body)).into_response())
}

/// `POST /v1/calls/{id}/analyses/{name}?wait_ms=`
pub(super) async fn run(
    State(api): State<Arc<Api>>,
    Path((id, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::new(query.as_deref());
    let call = call_id(&id)?;
    let wait_ms = query.number::<u64>("wait_ms")?.unwrap_or(0);
    if wait_ms > WAIT_LIMIT_MS {
        return Err(ApiError::bad_request(
            "bad_parameter",
            format!("wait_ms: expected 0 to {WAIT_LIMIT_MS}, found {wait_ms}"),
        ));
    }
    let asked = api.sessions.run(&call, &name).await.map_err(|error| session_error(&error))?;
    let after_seq = asked.map_err(|refusal| match &refusal {
        RunRefusal::Unknown(..) => ApiError::not_found("unknown_analysis", refusal.to_string()),
        RunRefusal::PerTurn(_) | RunRefusal::NoTurns => ApiError::conflict("cannot_run", refusal.to_string()),
        RunRefusal::Unavailable(_) => ApiError::unavailable("unavailable", refusal.to_string()),
    })?;
    let later = || Ok(accepted(Json(json!({"analysis": name, "after_seq": after_seq}))));
    if wait_ms == 0 {
        return later();
    }
    match tokio::time::timeout(Duration::from_millis(wait_ms), outcome(&api, &call, &name, after_seq)).await {
        Ok(answer) => answer,
        Err(_) => later(),
    }
}

/// The result of a manual run that was requested after the event `after_seq`.
async fn outcome(api: &Api, call: &CallId, name: &str, after_seq: Seq) -> Answer {
    let mut reader = api.hub.reader(Interest::Calls(vec![(call.clone(), after_seq)]), Wants::INSIGHTS);
    loop {
        let batch = reader
            .next(READ_BYTES)
            .await
            .map_err(|error| ApiError::unavailable("journal_unavailable", error.to_string()))?;
        for item in batch.items {
            let Item::Event(frame) = item else { continue };
            if frame.analysis().is_none_or(|analysis| &**analysis != name) {
                continue;
            }
            match Sequenced::read(frame.text().as_str()).map(|read| read.event) {
                // An insight of an earlier run is not the answer to this request.
                Ok(Event::InsightUpdated { insight }) if insight.trigger == Trigger::Manual => {
                    return Ok(Json(insight).into_response());
                }
                Ok(Event::InsightFailed { failure }) => {
                    let message = format!("{}: {}", failure.code, failure.message);
                    return Err(ApiError::upstream("insight_failed", message));
                }
                _ => {}
            }
        }
    }
}

/// `DELETE /v1/calls/{id}`
pub(super) async fn erase(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer {
    let call = call_id(&id)?;
    let Some(entry) = entry(&api, &call).await? else { return Err(unknown(&call)) };
    if entry.state == CallState::Open {
        return Err(ApiError::conflict(
            "call_open",
            format!("call {call} is open; only completed calls can be erased"),
        ));
    }
    match api.store.erase(&call).await {
        Ok(true) => {
            api.sessions.forget(&call);
            Ok(no_content())
        }
        Ok(false) => Err(unknown(&call)),
        Err(error) => Err(journal_error(&call, &error)),
    }
}
