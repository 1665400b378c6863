//! The `transcript` extension: which turns of a conversation a request wants, how they are rendered, and where they are
//! inserted.
//!
//! Knows no call: the caller passes the turns. Spoken text is data: one turn is one line, and no text can look like the
//! start of another turn ([`escape`]).

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;

use crate::base::escape;
use crate::base::tokens::{self, Fit};
use crate::llm::{ChatRequest, Content, Message, RequestError, Role, Text};
use crate::types::{CallId, StreamId, Transcript, Turn};

/// Tokens between two turns, and of the brackets around a list.
const BETWEEN: u64 = 2;

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
    /// The newest turns that take at most about this many tokens, as the model counts them.
    Tokens(u64),
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
    tokens: Option<u64>,
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

    /// Maximum number of estimated tokens of the conversation; `None`: no maximum. If the request has no window, the
    /// conversation is limited to what fits the model's context.
    fn limit(&self, fit: Fit) -> Option<u64> {
        match self.window {
            Window::All => fit.room(),
            Window::Tokens(tokens) => Some(fit.within(tokens)),
            Window::Turns(_) | Window::Span { .. } => None,
        }
    }

    /// Selects the turns of the window: the newest ones that have at most `limit` estimated tokens.
    fn select(&self, turns: &[Arc<Turn>], limit: Option<u64>) -> Transcript {
        let spoken = turns.iter().filter(|turn| !turn.text.trim().is_empty());
        let newest = match self.window {
            Window::Turns(newest) => newest,
            _ => usize::MAX,
        };
        let mut left = limit.unwrap_or(u64::MAX);
        let fits = |turn: &&Arc<Turn>| {
            // Counted only if there is a limit, because counting takes a pass over the text.
            let taken = limit.map_or(0, |_| tokens::estimate(&self.shown(turn)) + BETWEEN);
            let fits = taken <= left;
            left = left.saturating_sub(taken);
            fits
        };
        let mut turns: Vec<Arc<Turn>> = match self.window {
            Window::Span { from_ms, to_ms } => spoken
                .rev()
                .filter(|turn| turn.start_ms < to_ms && turn.end_ms.max(turn.start_ms + 1) > from_ms)
                .map(Arc::clone)
                .collect(),
            _ => spoken.rev().take(newest).take_while(fits).map(Arc::clone).collect(),
        };
        turns.reverse();
        Transcript { turns }
    }

    /// Renders the turns.
    fn render(&self, transcript: &Transcript) -> String {
        let shown: Vec<String> = transcript.turns.iter().map(|turn| self.shown(turn)).collect();
        if self.render == Render::Json { format!("[{}]", shown.join(",")) } else { shown.join("\n") }
    }

    /// One turn in the form that is asked for.
    fn shown(&self, turn: &Turn) -> String {
        if self.render == Render::Json {
            return escape::json(&serde_json::json!({
                "speaker": turn.speaker, "text": turn.text, "start_ms": turn.start_ms, "end_ms": turn.end_ms,
            }));
        }
        let mut out = String::new();
        if self.render == Render::Timed {
            let seconds = turn.start_ms / 1000;
            // Writing to a String cannot fail.
            let _ = write!(out, "[{}:{:02}] ", seconds / 60, seconds % 60);
        }
        if let (Some(speaker), Render::Dialogue | Render::Timed) = (&turn.speaker, self.render) {
            out.push_str(&escape::line_label(speaker));
            out.push_str(": ");
        }
        out.push_str(&escape::text(turn.text.trim()));
        out
    }
}

/// The end of a text that has at most `limit` estimated tokens, starting at the beginning of a line where possible.
fn cut(text: &str, limit: u64) -> &str {
    let tail = tokens::tail(text, limit);
    let before = &text[..text.len() - tail.len()];
    match tail.split_once('\n') {
        Some((_, lines)) if !before.is_empty() && !before.ends_with('\n') && !lines.is_empty() => lines,
        _ => tail,
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

    /// Selects and renders the turns that fit a model.
    pub fn render(&self, fit: Fit) -> (Arc<Transcript>, String) {
        let limit = self.spec.limit(fit);
        if let Source::Text(text) = &self.spec.source {
            return (Arc::default(), limit.map_or(text.as_str(), |limit| cut(text, limit)).to_owned());
        }
        let selected = self.spec.select(&self.turns, limit);
        let text = self.spec.render(&selected);
        (Arc::new(selected), text)
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
