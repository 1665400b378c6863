//! `POST /v1/transcripts`: a whole recording at once. It becomes a call like any other, whose analyses run when it ends;
//! the answer is what they came to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Request;
use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::session_error;
use super::error::ApiError;
use super::{Api, body};
use crate::base::{measure, names, surrogates};
use crate::hub::{Frame, Interest, Item, Kind};
use crate::ingest::whole::{Whole, WholeError};
use crate::llm::RequestError;
use crate::session::config::LimitsConfig;
use crate::stt;
use crate::types::{CallId, JsonMap, Seq};

/// Longest body.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of events read at once.
const READ_BYTES: usize = 256 * 1024;
/// What a call takes beyond its final runs.
const MARGIN: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Posted {
    #[serde(default)]
    call_id: Option<String>,
    #[serde(default)]
    meta: JsonMap,
    #[serde(default)]
    analyses: Option<Vec<String>>,
    /// Turns as in our own dialect; their numbers are their places.
    #[serde(default)]
    turns: Option<Vec<JsonMap>>,
    /// Lines of a recording, or a vendor's frames as they are.
    #[serde(default)]
    recording: Option<Vec<Value>>,
    #[serde(default)]
    dialect: Option<String>,
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::bad_request("bad_field", message)
}

impl Posted {
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        let body = std::str::from_utf8(body)
            .map_err(|error| bad(format!("expected JSON in UTF-8; it is none from byte {} on", error.valid_up_to())))?;
        let body = surrogates::repaired(body);
        let mut reader = serde_json::Deserializer::from_str(&body);
        serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| bad(RequestError::read("", error.path(), error.inner()).message))
    }

    /// The frames, checked.
    fn whole(&mut self, limits: &LimitsConfig) -> Result<Whole, ApiError> {
        let (name, default, frames): (&str, &str, Vec<String>) = match (self.turns.take(), self.recording.take()) {
            (Some(turns), None) => ("turns", "sidetone", turns.into_iter().enumerate().map(turn).collect()),
            (None, Some(lines)) => {
                // A line of a recording, `{"at_ms":N,"message":{…}}`, or the message alone.
                let text = |line: Value| {
                    let inner = line.get("message").filter(|inner| inner.is_object() && line.get("type").is_none());
                    inner.unwrap_or(&line).to_string()
                };
                ("recording", "assemblyai", lines.into_iter().map(text).collect())
            }
            _ => return Err(bad("expected exactly one of turns, recording")),
        };
        let dialect = self.dialect.as_deref().unwrap_or(default);
        if name == "turns" && dialect != "sidetone" {
            return Err(bad(format!("dialect: turns are in the dialect sidetone, not {dialect:?}; give a recording")));
        }
        let dialect = stt::dialect(dialect).ok_or_else(|| {
            let known: Vec<&str> = stt::DIALECTS.iter().map(|dialect| dialect.name()).collect();
            bad(format!("dialect: {}", names::unknown("dialect", dialect, &known)))
        })?;
        let whole = Whole::read(dialect, frames.iter().map(String::as_str), limits)
            .map_err(|(position, complaint)| bad(format!("{name}[{position}]: {}", complaint.message)))?;
        if whole.has_turns() {
            return Ok(whole);
        }
        let why = whole
            .not_understood()
            .map_or_else(|| "no turn is in it".to_owned(), |why| format!("no turn is in it: {why}"));
        Err(bad(format!("{name}: {why}")))
    }

    fn call(&self, api: &Api) -> Result<CallId, ApiError> {
        let Some(name) = &self.call_id else { return Ok(CallId::mint()) };
        let call = CallId::parse(name).map_err(|error| bad(format!("call_id: {error}")))?;
        if api.store.entry(&call).is_some() { Err(taken(&call)) } else { Ok(call) }
    }
}

fn turn((number, mut turn): (usize, JsonMap)) -> String {
    turn.insert("type".to_owned(), json!("turn"));
    turn.insert("turn_order".to_owned(), json!(number));
    Value::Object(turn).to_string()
}

fn taken(call: &CallId) -> ApiError {
    ApiError::conflict("call_exists", format!("call {call} is there already; give another call_id, or none"))
}

/// Takes a recording and answers with its insights.
///
/// # Cancel safety
/// A client that goes away leaves the call: it completes, and can be read under `/v1/calls`.
pub(super) async fn post(State(api): State<Arc<Api>>, request: Request<Body>) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, MAX_BODY_BYTES).await.map_err(ApiError::no_body)?;
    let mut posted = Posted::read(&body)?;
    drop(body);
    let deps = Arc::clone(api.sessions.deps());
    if let Some(name) = posted.analyses.iter().flatten().find(|name| deps.analyses.get(name).is_none()) {
        let message = names::unknown("analysis", name, deps.analyses.names());
        return Err(ApiError::bad_request("unknown_analysis", message));
    }
    let (bytes, limit) = (measure::value(&posted.meta), deps.limits.meta_bytes);
    if bytes > limit {
        return Err(bad(format!("meta: {bytes} bytes as JSON are over the limit of {limit} (limits.meta_bytes)")));
    }
    let whole = posted.whole(&deps.limits)?;
    let mut lost: Vec<Value> = whole
        .lost()
        .iter()
        .map(|(position, error)| json!({"recording": position, "code": error.code, "message": error.message}))
        .collect();
    let call = posted.call(&api)?;
    let Posted { meta, analyses, .. } = posted;
    let patience = deps.ingest.final_timeout + MARGIN;
    let answered = async {
        // On a task of its own: a client that goes away does not leave half a call.
        let feeding = {
            let (api, call) = (Arc::clone(&api), call.clone());
            tokio::spawn(async move { whole.feed(&api.sessions, &call, &meta, analyses.as_deref()).await })
        };
        let (after, outlet) = match feeding.await {
            Ok(Ok(fed)) => fed,
            Ok(Err(WholeError::Taken)) => return Err(taken(&call)),
            Ok(Err(WholeError::Session(error))) => return Err(session_error(&error)),
            Err(_) => return Err(ApiError::internal("the recording could not be fed")),
        };
        let (completed, of_turns) = completed(&api, &call, after).await?;
        // The call has completed, so the session has handled every frame.
        let refused = outlet.take().map(|outbound| outbound.complaints).unwrap_or_default();
        let view = api.sessions.shown(&call, 0).await.map_err(|error| session_error(&error))?;
        let mut view = view.ok_or_else(|| ApiError::internal("the call is gone"))?;
        // All of them, however many turns there are.
        view.insights.extend(of_turns);
        let answer = json!({
            "call_id": call, "state": view.status, "turns": view.turn_count, "insights": view.insights,
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
    Ok(Json(answer).into_response())
}

/// The call has not come to its end in time; why, where that is known.
fn late(api: &Api, call: &CallId, patience: Duration) -> ApiError {
    let message = format!("call {call} is not complete after {} s; GET /v1/calls/{call}", patience.as_secs());
    match api.store.health() {
        Ok(()) => ApiError::unavailable("timeout", message),
        Err(error) => ApiError::unavailable("journal_unavailable", format!("{message}: {error}")),
    }
}

/// Waits for the call's end, and gives its last event, and the insights of its per-turn analyses.
async fn completed(api: &Api, call: &CallId, after: Seq) -> Result<(Value, BTreeMap<String, Value>), ApiError> {
    let mut reader = api.hub.reader(Interest::Calls(vec![(call.clone(), after)]));
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
