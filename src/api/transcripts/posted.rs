//! The body of `POST /v1/transcripts`: turns, a recording, or a transcript file, checked and made into frames.
//!
//! Knows no answer.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::state::Api;
use crate::api::{body, items};
use crate::base::inflight::Lease;
use crate::base::{names, surrogates};
use crate::call::config::LimitsConfig;
use crate::ingest::batch::BatchRecording;
use crate::llm::RequestError;
use crate::protocol::tag;
use crate::stt::{self, Dialect};
use crate::transcript::{self, Format, Transcript};
use crate::types::{CallId, JsonMap};

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
pub(in crate::api) fn schema() -> Value {
    json!({
        "type": "object",
        "description": "Exactly one of turns, recording, text.",
        "properties": {
            "turns": {"type": "array", "items": {"type": "object", "required": ["text"], "properties": {
                "speaker": {"type": "string"}, "text": {"type": "string"},
                "start_ms": {"type": "integer", "minimum": 0}, "end_ms": {"type": "integer", "minimum": 0},
            }}},
            "recording": {"type": "array", "items": {"type": "object"}},
            "dialect": {"type": "string", "description": "Dialect of the recording."},
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

/// A list of frames in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Turns,
    Recording,
}

impl Part {
    /// The name of the body's field.
    fn name(self) -> &'static str {
        match self {
            Self::Turns => "turns",
            Self::Recording => "recording",
        }
    }

    /// The dialect of the part's frames, if the body names none.
    fn dialect(self) -> &'static str {
        match self {
            Self::Turns => "sidetone",
            Self::Recording => "assemblyai",
        }
    }
}

impl<'a> Posted<'a> {
    /// The checked frames, and what was recognised in a transcript file.
    fn whole(&self, limits: &LimitsConfig, lease: &mut Lease) -> Result<(BatchRecording, Option<Value>), ApiError> {
        let (part, list) = match (self.turns, self.recording, self.text) {
            (Some(turns), None, None) => (Part::Turns, turns),
            (None, Some(lines), None) => (Part::Recording, lines),
            (None, None, Some(text)) => {
                let (whole, read) = self.file(text, limits, lease)?;
                return Ok((whole, Some(read)));
            }
            _ => return Err(bad("expected exactly one of turns, recording, text")),
        };
        let name = part.name();
        if self.format.is_some() {
            return Err(bad(format!("format: only text has a format; {name} have a dialect")));
        }
        let dialect = self.dialect.as_deref().unwrap_or(part.dialect());
        let known = stt::dialect(dialect);
        if part == Part::Turns && !known.is_some_and(Dialect::is_own) {
            return Err(bad(format!("dialect: turns are in the dialect sidetone, not {dialect:?}; give a recording")));
        }
        let dialect = known.ok_or_else(|| {
            let known: Vec<&str> = stt::DIALECTS.iter().map(|dialect| dialect.name()).collect();
            bad(format!("dialect: {}", names::unknown("dialect", dialect, &known)))
        })?;
        let frames = frames(part, list, lease)?;
        let whole = BatchRecording::read(dialect, frames.iter().map(|frame| &**frame), limits)
            .map_err(|(position, error)| bad(format!("{name}[{position}]: {}", error.message)))?;
        if whole.has_turns() {
            return Ok((whole, None));
        }
        let why = whole
            .not_understood()
            .map_or_else(|| "it contains no turn".to_owned(), |why| format!("it contains no turn: {why}"));
        Err(bad(format!("{name}: {why}")))
    }

    /// The checked frames of a transcript file, and what was recognised in it.
    fn file(
        &self,
        text: &RawValue,
        limits: &LimitsConfig,
        lease: &mut Lease,
    ) -> Result<(BatchRecording, Value), ApiError> {
        if self.dialect.is_some() {
            return Err(bad("dialect: only a recording has a dialect; text has a format"));
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
            BatchRecording::read(dialect, frames.iter().map(String::as_str), limits).map_err(|(position, error)| {
                let line = file.turns.get(position).map_or(1, |turn| turn.line);
                bad(format!("text: line {line}: {}", error.message))
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
fn frames<'a>(part: Part, list: &'a RawValue, lease: &mut Lease) -> Result<Vec<Cow<'a, str>>, ApiError> {
    let mut frames = Vec::new();
    let read = items::each(list, |position, item| {
        let frame = match part {
            Part::Turns => Cow::Owned(turn(position, parse_counted(&format!("turns[{position}]"), item, lease)?)),
            Part::Recording => Cow::Borrowed(frame(item)),
        };
        lease.grow(KEPT_BYTES + KEPT_TIMES * frame.len()).map_err(ApiError::in_flight)?;
        frames.push(frame);
        Ok(())
    });
    read.map_err(|error: Option<ApiError>| error.unwrap_or_else(|| bad(format!("{}: expected a list", part.name()))))?;
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
    turn.insert("type".to_owned(), json!(tag::Turn::TEXT));
    turn.insert("turn_order".to_owned(), json!(number));
    Value::Object(turn).to_string()
}

/// A parsed and checked body.
pub(super) struct Asked {
    pub(super) call: CallId,
    pub(super) meta: JsonMap,
    pub(super) analyses: Option<Vec<String>>,
    pub(super) whole: BatchRecording,
    /// What was recognised in a transcript file.
    pub(super) file: Option<Value>,
    pub(super) lease: Lease,
}

/// Parses a body. `lease` counts its memory until it is fed to the call.
pub(super) fn read(api: &Api, body: &[u8], mut lease: Lease) -> Result<Asked, ApiError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        bad(format!("expected JSON in UTF-8; the body is not UTF-8 from byte {} on", error.valid_up_to()))
    })?;
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
