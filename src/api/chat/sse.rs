//! Streamed completions: OpenAI's chunks as they arrive. A chunk that is already in OpenAI's own format is passed on
//! unchanged, and no chunk is delayed by a timer. While a model thinks, comments keep the connection alive. A broken
//! stream ends with an error event and without `[DONE]`.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::{StreamExt as _, stream};
use serde_json::Value;

use super::answer::{mint_id, sidetone, unix_seconds, usage};
use crate::api::error::OpenAiError;
use crate::gateway::{Frame, Stream};
use crate::llm::json::{self, Object};
use crate::llm::{Finish, Piece, THINKING_BLOCKS};

/// A comment is sent after this long without a chunk, so that no proxy in between closes the connection.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(5);
const COMMENT: &[u8] = b": keep-alive\n\n";

/// The future of a stream that waits for its first token.
pub(super) type Opening = Pin<Box<dyn Future<Output = Result<Stream, OpenAiError>> + Send>>;

/// The body of a response that begins before its first token: it sends a comment at once and after every `pace`, then
/// continues as [`body`]. A failure is sent as an event, because the status was sent already. Dropping the body aborts
/// the request to the vendor.
pub(super) fn early(opening: Opening, include_usage: bool, pace: Duration) -> Body {
    let body = stream::once(async { Ok(Bytes::from_static(COMMENT)) });
    Body::from_stream(body.chain(stream::unfold(Line::Opening(opening), move |mut line| async move {
        let bytes = line.next(include_usage, pace).await?;
        Some((Ok::<_, Infallible>(bytes), line))
    })))
}

enum Line {
    Opening(Opening),
    Open(Box<Writer>),
    Over,
}

impl Line {
    async fn next(&mut self, include_usage: bool, pace: Duration) -> Option<Bytes> {
        if let Self::Opening(opening) = self {
            match tokio::time::timeout(pace, opening).await {
                Err(_) => return Some(Bytes::from_static(COMMENT)),
                Ok(Ok(stream)) => *self = Self::Open(Box::new(Writer::new(stream, include_usage))),
                Ok(Err(error)) => {
                    *self = Self::Over;
                    let mut out = Vec::new();
                    write_error(&mut out, &error);
                    return Some(Bytes::from(out));
                }
            }
        }
        match self {
            Self::Open(writer) => writer.next().await,
            Self::Opening(_) | Self::Over => None,
        }
    }
}

fn write_error(out: &mut Vec<u8>, error: &OpenAiError) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(error.body().as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// The body of a streamed answer.
pub(super) fn body(stream: Stream, include_usage: bool) -> Body {
    let writer = Writer::new(stream, include_usage);
    Body::from_stream(stream::unfold(writer, |mut writer| async move {
        let bytes = writer.next().await?;
        Some((Ok::<_, Infallible>(bytes), writer))
    }))
}

struct Writer {
    stream: Stream,
    include_usage: bool,
    frames: Vec<Frame>,
    id: String,
    model: String,
    created: u64,
    /// Number of blocks of thinking that were sent. OpenAI's clients tell the blocks apart by their `index`.
    thinking: u64,
    /// The finish reasons, kept until the end of the stream, because the last chunk carries them with the provenance.
    finishes: Vec<(u32, Finish)>,
    over: bool,
}

impl Writer {
    fn new(stream: Stream, include_usage: bool) -> Self {
        Self {
            stream,
            include_usage,
            frames: Vec::new(),
            id: String::new(),
            model: String::new(),
            created: 0,
            thinking: 0,
            finishes: Vec::new(),
            over: false,
        }
    }

    /// Returns everything that can be sent now, in one piece.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        loop {
            let mut out = Vec::new();
            match tokio::time::timeout(KEEP_ALIVE, self.stream.next(&mut self.frames)).await {
                Err(_) => out.extend_from_slice(COMMENT),
                Ok(Ok(more)) => {
                    for frame in std::mem::take(&mut self.frames) {
                        self.frame(&mut out, &frame);
                    }
                    if !more {
                        self.end(&mut out);
                    }
                }
                Ok(Err(error)) => {
                    for frame in std::mem::take(&mut self.frames) {
                        self.frame(&mut out, &frame);
                    }
                    self.over = true;
                    write_error(&mut out, &OpenAiError::gateway(&error));
                }
            }
            if !out.is_empty() {
                return Some(Bytes::from(out));
            }
        }
    }

    fn frame(&mut self, out: &mut Vec<u8>, frame: &Frame) {
        for piece in &frame.pieces {
            if let Piece::Start { id, model, created } = piece {
                self.id = if id.is_empty() { mint_id() } else { id.clone() };
                self.model = if model.is_empty() { self.stream.provenance.model.to_string() } else { model.clone() };
                self.created = created.unwrap_or_else(unix_seconds);
            }
        }
        let rewrite = |piece: &Piece| {
            matches!(piece, Piece::Finish { .. } | Piece::UnknownFinish { .. } | Piece::Usage(_) | Piece::Done)
        };
        if let Some(raw) = &frame.raw
            && !frame.pieces.iter().any(rewrite)
        {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(raw);
            out.extend_from_slice(b"\n\n");
            return;
        }
        for piece in &frame.pieces {
            self.piece(out, piece);
        }
    }

    fn piece(&mut self, out: &mut Vec<u8>, piece: &Piece) {
        match piece {
            Piece::Start { .. } => self.delta(out, 0, |delta| {
                delta.string("role", "assistant");
                delta.string("content", "");
            }),
            Piece::Text { choice, text } => self.delta(out, *choice, |delta| delta.string("content", text)),
            Piece::Reasoning { choice, text } => {
                self.delta(out, *choice, |delta| delta.string("reasoning_content", text));
            }
            Piece::Refusal { choice, text } => self.delta(out, *choice, |delta| delta.string("refusal", text)),
            Piece::ToolCall { choice, index, id, name, arguments } => self.delta(out, *choice, |delta| {
                json::list(delta.key("tool_calls"), [()], |out, ()| {
                    let mut call = Object::new(out);
                    call.value("index", index);
                    if let Some(id) = id {
                        call.string("id", id);
                        call.string("type", "function");
                    }
                    let mut function = Object::new(call.key("function"));
                    function.option("name", name.as_ref());
                    function.string("arguments", arguments);
                    function.end();
                    call.end();
                });
            }),
            Piece::Thinking { choice, block } => {
                let mut block = block.clone();
                if let Value::Object(fields) = &mut block {
                    fields.insert("index".to_owned(), self.thinking.into());
                    self.thinking += 1;
                }
                self.delta(out, *choice, |delta| delta.value(THINKING_BLOCKS, &[&block]));
            }
            Piece::Logprobs { choice, value } => self.choice(out, *choice, |object| {
                object.key("delta").extend_from_slice(b"{}");
                object.value("logprobs", value);
            }),
            Piece::Finish { choice, reason } => {
                self.finishes.retain(|(ended, _)| ended != choice);
                self.finishes.push((*choice, *reason));
            }
            Piece::UnknownFinish { .. } | Piece::Usage(_) | Piece::Done => {}
        }
    }

    fn delta(&self, out: &mut Vec<u8>, choice: u32, write: impl Fn(&mut Object<'_>)) {
        self.choice(out, choice, |object| {
            let mut delta = Object::new(object.key("delta"));
            write(&mut delta);
            delta.end();
        });
    }

    /// Writes a chunk of one choice that is not finished.
    fn choice(&self, out: &mut Vec<u8>, choice: u32, write: impl Fn(&mut Object<'_>)) {
        self.chunk(out, |chunk| {
            json::list(chunk.key("choices"), [()], |out, ()| {
                let mut object = Object::new(out);
                object.value("index", &choice);
                write(&mut object);
                object.key("finish_reason").extend_from_slice(b"null");
                object.end();
            });
        });
    }

    fn chunk(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        out.extend_from_slice(b"data: ");
        let mut chunk = Object::new(out);
        chunk.string("id", &self.id);
        chunk.string("object", "chat.completion.chunk");
        chunk.value("created", &self.created);
        chunk.string("model", &self.model);
        write(&mut chunk);
        chunk.end();
        out.extend_from_slice(b"\n\n");
    }

    /// Writes the finish reasons, the usage if it was requested, the provenance in the last chunk, and `[DONE]`.
    fn end(&mut self, out: &mut Vec<u8>) {
        self.over = true;
        let finishes = std::mem::take(&mut self.finishes);
        let last = finishes.len().saturating_sub(1);
        for (position, (choice, reason)) in finishes.into_iter().enumerate() {
            let with_facts = position == last && !self.include_usage;
            self.chunk(out, |chunk| {
                json::list(chunk.key("choices"), [()], |out, ()| {
                    let mut object = Object::new(out);
                    object.value("index", &choice);
                    object.key("delta").extend_from_slice(b"{}");
                    object.string("finish_reason", reason.as_str());
                    object.end();
                });
                if with_facts {
                    self.facts(chunk);
                }
            });
        }
        if self.include_usage {
            self.chunk(out, |chunk| {
                chunk.key("choices").extend_from_slice(b"[]");
                usage(chunk.key("usage"), self.stream.usage());
                self.facts(chunk);
            });
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn facts(&self, chunk: &mut Object<'_>) {
        sidetone(chunk.key("sidetone"), &self.stream.provenance, self.stream.cost_usd());
    }
}
