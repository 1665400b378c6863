//! `POST /v1/transcripts`: takes a whole recording, or a transcript file, in one request. It becomes a call like any
//! other, whose analyses run when it ends; the response contains their results.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Request;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::calls::session_error;
use super::error::ApiError;
use super::routes::BodyLimit;
use super::{Api, Hold, body, items};
use crate::base::inflight::Lease;
use crate::base::{names, surrogates};
use crate::call::config::LimitsConfig;
use crate::hub::{Frame, Interest, Item, Wants};
use crate::ingest::whole::{Whole, WholeError};
use crate::llm::RequestError;
use crate::protocol::event::Kind;
use crate::stt;
use crate::transcript::{self, Format, Transcript};
use crate::types::{CallId, JsonMap, Seq};

/// Bytes of events read at once.
const READ_BYTES: usize = 256 * 1024;
/// Time that a call may take in addition to its final runs.
const MARGIN: Duration = Duration::from_secs(30);

/// Bodies larger than this are parsed on a blocking thread, so that the runtime's thread can serve others, bytes.
const INLINE_BYTES: usize = 64 * 1024;
/// Estimated memory of a frame until it is fed to the call: this many bytes, and [`KEPT_TIMES`] times its text.
const KEPT_BYTES: usize = 128;
/// See [`KEPT_BYTES`]. Covers the text itself and its decoded events.
const KEPT_TIMES: usize = 4;
/// Estimated memory of a transcript file while it is read: this many times its text, and [`LINE_BYTES`] for each line.
const FILE_TIMES: usize = 4;
/// See [`FILE_TIMES`].
const LINE_BYTES: usize = 96;

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Posted<'a> {
    #[serde(default)]
    call_id: Option<String>,
    #[serde(default, borrow)]
    meta: Option<&'a RawValue>,
    #[serde(default, borrow)]
    analyses: Option<&'a RawValue>,
    /// Turns in the `sidetone` dialect, numbered by their position in the list.
    #[serde(default, borrow)]
    turns: Option<&'a RawValue>,
    /// Lines of a recording, or a vendor's frames unchanged.
    #[serde(default, borrow)]
    recording: Option<&'a RawValue>,
    #[serde(default)]
    dialect: Option<String>,
    /// The text of a transcript file.
    #[serde(default, borrow)]
    text: Option<&'a RawValue>,
    /// Name of the transcript file's format.
    #[serde(default)]
    format: Option<String>,
}

/// The schema of a body, for `/openapi.json`.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "description": "Exactly one of turns, recording, text.",
        "properties": {
            "turns": {"type": "array", "items": {"type": "object", "required": ["text"], "properties": {
                "speaker": {"type": "string"}, "text": {"type": "string"},
                "start_ms": {"type": "integer", "minimum": 0}, "end_ms": {"type": "integer", "minimum": 0},
            }}},
            "recording": {"type": "array", "items": {"type": "object"}},
            "dialect": {"type": "string", "description": "Of the recording."},
            "text": {"type": "string", "description": "A transcript file, with its format."},
            "format": {"type": "string", "enum": transcript::names()},
            "call_id": {"type": "string"},
            "meta": {"type": "object"},
            "analyses": {"type": "array", "items": {"type": "string"}},
        },
    })
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::bad_request("bad_field", message)
}

/// Parses `json`, the value of the field `under` (empty: the whole body).
fn parse<'a, T: Deserialize<'a>>(under: &str, json: &'a str) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| bad(RequestError::read(under, error.path(), error.inner()).message))
}

/// As [`parse`], for a value that may be large; counts its memory while it is parsed.
fn parse_counted<'a, T: Deserialize<'a>>(under: &str, json: &'a RawValue, lease: &mut Lease) -> Result<T, ApiError> {
    let bytes = body::json_bytes(json.get().as_bytes());
    lease.grow(bytes).map_err(ApiError::in_flight)?;
    let value = parse(under, json.get());
    lease.shrink(bytes);
    value
}

impl<'a> Posted<'a> {
    /// The checked frames, and what was recognised in a transcript file.
    fn whole(&self, limits: &LimitsConfig, lease: &mut Lease) -> Result<(Whole, Option<Value>), ApiError> {
        let (name, default, list) = match (self.turns, self.recording, self.text) {
            (Some(turns), None, None) => ("turns", "sidetone", turns),
            (None, Some(lines), None) => ("recording", "assemblyai", lines),
            (None, None, Some(text)) => {
                let (whole, read) = self.file(text, limits, lease)?;
                return Ok((whole, Some(read)));
            }
            _ => return Err(bad("expected exactly one of turns, recording, text")),
        };
        if self.format.is_some() {
            return Err(bad(format!("format: it is that of a text; {name} have a dialect")));
        }
        let dialect = self.dialect.as_deref().unwrap_or(default);
        if name == "turns" && dialect != "sidetone" {
            return Err(bad(format!("dialect: turns are in the dialect sidetone, not {dialect:?}; give a recording")));
        }
        let dialect = stt::dialect(dialect).ok_or_else(|| {
            let known: Vec<&str> = stt::DIALECTS.iter().map(|dialect| dialect.name()).collect();
            bad(format!("dialect: {}", names::unknown("dialect", dialect, &known)))
        })?;
        let frames = frames(name, list, lease)?;
        let whole = Whole::read(dialect, frames.iter().map(|frame| &**frame), limits)
            .map_err(|(position, complaint)| bad(format!("{name}[{position}]: {}", complaint.message)))?;
        if whole.has_turns() {
            return Ok((whole, None));
        }
        let why = whole
            .not_understood()
            .map_or_else(|| "no turn is in it".to_owned(), |why| format!("no turn is in it: {why}"));
        Err(bad(format!("{name}: {why}")))
    }

    /// The checked frames of a transcript file, and what was recognised in it.
    fn file(&self, text: &RawValue, limits: &LimitsConfig, lease: &mut Lease) -> Result<(Whole, Value), ApiError> {
        if self.dialect.is_some() {
            return Err(bad("dialect: it is that of a recording; a text has a format"));
        }
        let format = self
            .format
            .as_deref()
            .ok_or_else(|| bad(format!("format: required with text; one of {}", names::list(&transcript::names()))))?;
        let format = transcript::format(format).map_err(|message| bad(format!("format: {message}")))?;
        let text: String = parse_counted("text", text, lease)?;
        let lines = text.bytes().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
        let bytes = text.len() * FILE_TIMES + lines * LINE_BYTES;
        lease.grow(bytes).map_err(ApiError::in_flight)?;
        let (format, file) =
            transcript::read(text.as_bytes(), Some(format)).map_err(|error| bad(format!("text: {error}")))?;
        drop(text);
        lease.shrink(bytes);
        let dialect = stt::dialect("sidetone").ok_or_else(|| ApiError::internal("a dialect is missing"))?;
        let frames: Vec<String> = transcript::frames(&file.turns).map(|(_, frame)| frame).collect();
        let kept = frames.iter().map(|frame| KEPT_BYTES + KEPT_TIMES * frame.len()).sum();
        lease.grow(kept).map_err(ApiError::in_flight)?;
        let whole =
            Whole::read(dialect, frames.iter().map(String::as_str), limits).map_err(|(position, complaint)| {
                let line = file.turns.get(position).map_or(1, |turn| turn.line);
                bad(format!("text: line {line}: {}", complaint.message))
            })?;
        Ok((whole, read_of(format, &file)))
    }

    fn call(&self) -> Result<CallId, ApiError> {
        let Some(name) = &self.call_id else { return Ok(CallId::mint()) };
        CallId::parse(name).map_err(|error| bad(format!("call_id: {error}")))
    }
}

/// What the response says about a transcript file.
fn read_of(format: &dyn Format, file: &Transcript) -> Value {
    let mut read = json!({"format": format.name(), "times": file.times.as_str()});
    if !file.left_out.is_empty() {
        let left_out = file.left_out.iter().map(|part| json!({"line": part.line, "message": part.message}));
        read["left_out"] = left_out.collect();
    }
    read
}

/// The frames of a list; adds their memory to `lease`.
fn frames<'a>(name: &str, list: &'a RawValue, lease: &mut Lease) -> Result<Vec<Cow<'a, str>>, ApiError> {
    let mut frames = Vec::new();
    let read = items::each(list, |position, item| {
        let frame = if name == "turns" {
            Cow::Owned(turn(position, parse_counted(&format!("turns[{position}]"), item, lease)?))
        } else {
            Cow::Borrowed(frame(item))
        };
        lease.grow(KEPT_BYTES + KEPT_TIMES * frame.len()).map_err(ApiError::in_flight)?;
        frames.push(frame);
        Ok(())
    });
    read.map_err(|error: Option<ApiError>| error.unwrap_or_else(|| bad(format!("{name}: expected a list"))))?;
    Ok(frames)
}

/// A line of a recording, `{"at_ms":N,"message":{…}}`, or the message alone.
fn frame(line: &RawValue) -> &str {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(default, borrow)]
        message: Option<&'a RawValue>,
        r#type: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_str(line.get()) {
        Ok(Line { message: Some(message), r#type: None }) if message.get().starts_with('{') => message.get(),
        _ => line.get(),
    }
}

fn turn(number: usize, mut turn: JsonMap) -> String {
    turn.insert("type".to_owned(), json!("turn"));
    turn.insert("turn_order".to_owned(), json!(number));
    Value::Object(turn).to_string()
}

fn taken(call: &CallId) -> ApiError {
    ApiError::conflict("call_exists", format!("call {call} is there already; give another call_id, or none"))
}

/// A parsed and checked body.
struct Asked {
    call: CallId,
    meta: JsonMap,
    analyses: Option<Vec<String>>,
    whole: Whole,
    /// What was recognised in a transcript file.
    file: Option<Value>,
    lease: Lease,
}

/// Parses a body. `lease` counts its memory until it is fed to the call.
fn read(api: &Api, body: &[u8], mut lease: Lease) -> Result<Asked, ApiError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| bad(format!("expected JSON in UTF-8; it is none from byte {} on", error.valid_up_to())))?;
    let text = surrogates::repaired(text);
    let posted: Posted<'_> = parse("", &text)?;
    let deps = api.sessions.deps();
    let meta = match posted.meta {
        Some(meta) if meta.get().len() > deps.call.limits.meta_bytes => {
            let (bytes, limit) = (meta.get().len(), deps.call.limits.meta_bytes);
            return Err(bad(format!("meta: {bytes} bytes are over the limit of {limit} (limits.meta_bytes)")));
        }
        Some(meta) => parse("meta", meta.get())?,
        None => JsonMap::new(),
    };
    let analyses: Option<Vec<String>> = match posted.analyses {
        Some(names) => parse_counted("analyses", names, &mut lease)?,
        None => None,
    };
    if let Some(name) = analyses.iter().flatten().find(|name| deps.call.analyses.get(name).is_none()) {
        let message = deps.call.analyses.unknown(name);
        return Err(ApiError::bad_request("unknown_analysis", message));
    }
    let (whole, file) = posted.whole(&deps.call.limits, &mut lease)?;
    Ok(Asked { call: posted.call()?, meta, analyses, whole, file, lease })
}

/// Takes a recording and answers with its insights.
///
/// # Cancel safety
/// If the client disconnects, the call still completes and can be read under `/v1/calls`.
pub(super) async fn post(
    State(api): State<Arc<Api>>,
    Extension(hold): Extension<Hold>,
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
            Ok(Err(WholeError::Taken)) => return Err(taken(&call)),
            Ok(Err(WholeError::Session(error))) => return Err(session_error(&error)),
            Err(_) => return Err(ApiError::internal("the recording could not be fed")),
        };
        let (completed, of_turns) = completed(&api, &call, after).await?;
        // The call has completed, so the session has handled every frame.
        let refused = outlet.take().map(|outbound| outbound.complaints).unwrap_or_default();
        let view = api.sessions.shown(&call, 0).await.map_err(|error| session_error(&error))?;
        let mut view = view.ok_or_else(|| ApiError::internal("the call is gone"))?;
        // Includes all of them, however many turns the call has.
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
    let message = format!("call {call} is not complete after {} s; GET /v1/calls/{call}", patience.as_secs());
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
