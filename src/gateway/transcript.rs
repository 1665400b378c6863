//! The `transcript` extension: which turns of a conversation a request wants, how they are rendered, and where they are
//! inserted.
//!
//! Knows no call: the caller passes the turns. Spoken text is data: one turn is one line, and no text can look like the
//! start of another turn.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;

use crate::llm::{ChatRequest, Content, Message, RequestError, Role, Text};
use crate::types::{CallId, StreamId, Transcript, Turn};

/// Assumed number of bytes per token.
const BYTES_PER_TOKEN: usize = 4;

/// The `transcript` field of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Where the turns come from.
    pub source: Source,
    /// Which turns are included.
    pub window: Window,
    /// How the turns are rendered.
    pub render: Render,
}

/// Where the turns come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A call, live or recorded.
    Call(CallId),
    /// Turns in the request itself.
    Turns(Transcript),
    /// Text in the request itself, rendered already.
    Text(String),
}

/// Which turns are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Window {
    /// All turns.
    #[default]
    All,
    /// The newest turns, this many.
    Turns(usize),
    /// The newest turns that take at most about this many tokens (four bytes count as one token).
    Tokens(usize),
    /// Turns that overlap a span of call time, ms, its end excluded.
    Span {
        /// Start.
        from_ms: u64,
        /// End, excluded.
        to_ms: u64,
    },
}

/// How turns are rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Render {
    /// `speaker: text`, one line per turn.
    #[default]
    Dialogue,
    /// Like [`Render::Dialogue`], after `[m:ss]`.
    Timed,
    /// A JSON array of `{speaker, text, start_ms, end_ms}`.
    Json,
    /// Only the texts, one line per turn.
    Plain,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct WireSpec {
    #[serde(default)]
    call_id: Option<String>,
    #[serde(default)]
    turns: Option<Vec<WireTurn>>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    window: Option<WireWindow>,
    #[serde(default)]
    render: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct WireTurn {
    #[serde(default)]
    speaker: Option<String>,
    text: String,
    #[serde(default)]
    start_ms: u64,
    #[serde(default)]
    end_ms: u64,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct WireWindow {
    #[serde(default)]
    turns: Option<usize>,
    #[serde(default)]
    tokens: Option<usize>,
    #[serde(default)]
    from_ms: Option<u64>,
    #[serde(default)]
    to_ms: Option<u64>,
}

impl Spec {
    /// Reads the value of the `transcript` field.
    ///
    /// # Errors
    /// The field that is invalid, and what is allowed.
    pub fn read(value: serde_json::Value) -> Result<Self, RequestError> {
        let wire: WireSpec = serde_path_to_error::deserialize(value)
            .map_err(|error| RequestError::read("transcript", error.path(), error.inner()))?;
        let source = match (wire.call_id, wire.turns, wire.text) {
            (Some(call), None, None) => Source::Call(
                CallId::parse(&call).map_err(|error| RequestError::field("transcript.call_id", error.to_string()))?,
            ),
            (None, Some(turns), None) => Source::Turns(read_turns(turns)),
            (None, None, Some(text)) => Source::Text(text),
            _ => return Err(RequestError::field("transcript", "expected exactly one of call_id, turns, text")),
        };
        let window = match wire.window {
            None => Window::All,
            Some(WireWindow { turns: Some(turns), tokens: None, from_ms: None, to_ms: None }) => Window::Turns(turns),
            Some(WireWindow { turns: None, tokens: Some(tokens), from_ms: None, to_ms: None }) => {
                Window::Tokens(tokens)
            }
            Some(WireWindow { turns: None, tokens: None, from_ms, to_ms }) if from_ms.is_some() || to_ms.is_some() => {
                Window::Span { from_ms: from_ms.unwrap_or(0), to_ms: to_ms.unwrap_or(u64::MAX) }
            }
            Some(_) => {
                let allowed = "expected {\"turns\":N}, {\"tokens\":N} or {\"from_ms\":N,\"to_ms\":N}";
                return Err(RequestError::field("transcript.window", allowed));
            }
        };
        if matches!((&source, window), (Source::Text(_), Window::Turns(_) | Window::Span { .. })) {
            let message =
                "a text has no turns and no times: expected {\"tokens\":N}, or \"turns\" in place of \"text\"";
            return Err(RequestError::field("transcript.window", message));
        }
        let render = match wire.render.as_deref() {
            None | Some("dialogue") => Render::Dialogue,
            Some("timed") => Render::Timed,
            Some("json") => Render::Json,
            Some("plain") => Render::Plain,
            Some(other) => {
                let message = format!("expected dialogue, timed, json or plain, found {other:?}");
                return Err(RequestError::field("transcript.render", message));
            }
        };
        Ok(Self { source, window, render })
    }

    /// This specification for a model with room for `room` tokens: if no window is named, the oldest turns that do not
    /// fit are left out.
    #[must_use]
    pub fn fitting(&self, room: Option<usize>) -> Self {
        let window = match (self.window, room) {
            (Window::All, Some(room)) => Window::Tokens(room),
            (window, _) => window,
        };
        Self { window, ..self.clone() }
    }

    /// The part of a text that is in the window: its end, starting at the beginning of a line where possible.
    pub fn cut<'a>(&self, text: &'a str) -> &'a str {
        let Window::Tokens(tokens) = self.window else { return text };
        let Some(mut from) = text.len().checked_sub(tokens.saturating_mul(BYTES_PER_TOKEN)).filter(|from| *from > 0)
        else {
            return text;
        };
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let tail = &text[from..];
        match tail.split_once('\n') {
            Some((_, lines)) if !text[..from].ends_with('\n') && !lines.is_empty() => lines,
            _ => tail,
        }
    }

    /// Selects the turns of the window.
    pub fn select(&self, turns: &[Arc<Turn>]) -> Transcript {
        let spoken = turns.iter().filter(|turn| !turn.text.is_empty());
        let turns: Vec<Arc<Turn>> = match self.window {
            Window::All => spoken.map(Arc::clone).collect(),
            Window::Turns(newest) => {
                let all: Vec<_> = spoken.map(Arc::clone).collect();
                all[all.len().saturating_sub(newest)..].to_vec()
            }
            Window::Tokens(tokens) => {
                let mut left = tokens.saturating_mul(BYTES_PER_TOKEN);
                let mut picked = Vec::new();
                for turn in spoken.rev() {
                    let bytes = turn.text.len() + turn.speaker.as_ref().map_or(0, String::len) + 3;
                    let Some(rest) = left.checked_sub(bytes) else { break };
                    left = rest;
                    picked.push(Arc::clone(turn));
                }
                picked.reverse();
                picked
            }
            Window::Span { from_ms, to_ms } => spoken
                .filter(|turn| turn.start_ms < to_ms && turn.end_ms.max(turn.start_ms + 1) > from_ms)
                .map(Arc::clone)
                .collect(),
        };
        Transcript { turns }
    }

    /// Renders the turns.
    pub fn render(&self, transcript: &Transcript) -> String {
        let mut out = String::new();
        if self.render == Render::Json {
            let turns: Vec<serde_json::Value> = transcript
                .turns
                .iter()
                .map(|turn| {
                    serde_json::json!({
                        "speaker": turn.speaker, "text": turn.text, "start_ms": turn.start_ms, "end_ms": turn.end_ms,
                    })
                })
                .collect();
            return serde_json::Value::Array(turns).to_string();
        }
        for turn in &transcript.turns {
            if !out.is_empty() {
                out.push('\n');
            }
            if self.render == Render::Timed {
                let seconds = turn.start_ms / 1000;
                // Writing to a String cannot fail.
                let _ = write!(out, "[{}:{:02}] ", seconds / 60, seconds % 60);
            }
            if let (Some(speaker), Render::Dialogue | Render::Timed) = (&turn.speaker, self.render) {
                line(&mut out, speaker, true);
                out.push_str(": ");
            }
            line(&mut out, &turn.text, false);
        }
        out
    }
}

/// The conversation of a request: which of its turns the request wants, and the turns.
#[derive(Debug, Clone)]
pub struct Conversation {
    pub spec: Spec,
    /// Empty if the specification has a text.
    pub turns: Vec<Arc<Turn>>,
}

impl Conversation {
    /// Estimated memory of the rendered conversation and its copy in the request, bytes.
    pub fn bytes(&self) -> usize {
        let turns: usize = self.turns.iter().map(|turn| turn.text.len()).sum();
        2 * turns
    }

    /// Selects and renders what a model with room for `room` tokens can take.
    pub fn render(&self, room: Option<usize>) -> (Arc<Transcript>, String) {
        let spec = self.spec.fitting(room);
        if let Source::Text(text) = &spec.source {
            return (Arc::default(), spec.cut(text).to_owned());
        }
        let selected = spec.select(&self.turns);
        let text = spec.render(&selected);
        (Arc::new(selected), text)
    }
}

/// Appends text as part of one line: a line break is written as `\n`, and in a label a colon is written as `\:`.
fn line(out: &mut String, text: &str, label: bool) {
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => out.push_str("\\n"),
            ':' if label => out.push_str("\\:"),
            other => out.push(other),
        }
    }
}

fn read_turns(turns: Vec<WireTurn>) -> Transcript {
    let Ok(stream_id) = StreamId::parse("request") else { return Transcript::default() };
    let turns = (0..)
        .zip(turns)
        .map(|(number, turn)| {
            Arc::new(Turn {
                turn: number,
                stream_id: stream_id.clone(),
                turn_order: number,
                vendor_turn: None,
                rev: 0,
                speaker: turn.speaker,
                text: turn.text,
                start_ms: turn.start_ms,
                end_ms: turn.end_ms.max(turn.start_ms),
                language: None,
                confidence: None,
                words: Vec::new(),
            })
        })
        .collect();
    Transcript { turns }
}

/// Inserts a rendered transcript where the first system, developer or user message says `{{ transcript }}`; without
/// such a message, appends it as a user message. Inserted text is never searched for the placeholder.
pub fn insert(request: &mut ChatRequest, written: &str) {
    let written: Arc<str> = Arc::from(written);
    for message in &mut request.messages {
        if matches!(message.role, Role::Assistant | Role::Tool) {
            continue;
        }
        match &mut message.content {
            Content::None | Content::Blocks(_) => {}
            Content::Text(text) => {
                let whole = text.to_string();
                if let Some((before, after)) = split(&whole) {
                    *text = Text::from(vec![Arc::from(before), written, Arc::from(after)]);
                    return;
                }
            }
            Content::Parts(parts) => {
                for part in parts {
                    let Some(text) = part.get("text").and_then(serde_json::Value::as_str) else { continue };
                    if let Some((before, after)) = split(text) {
                        let whole = format!("{before}{written}{after}");
                        part["text"] = serde_json::Value::String(whole);
                        return;
                    }
                }
            }
        }
    }
    request.messages.push(Message::text(Role::User, written));
}

/// The text before and after the placeholder, which may be written with or without its spaces.
fn split(text: &str) -> Option<(&str, &str)> {
    let start =
        ["{{ transcript }}", "{{transcript}}"].iter().filter_map(|tag| Some((text.find(tag)?, tag.len()))).min();
    let (start, length) = start?;
    Some((&text[..start], &text[start + length..]))
}

#[cfg(test)]
mod tests;
