//! One attempt: one HTTP call to one endpoint, from the request to the end of its answer, with its timeouts and its
//! ledger row.
//!
//! Knows nothing of other candidates. A dropped attempt is aborted, and its row records that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::time::{Instant, timeout_at};

use super::catalogue::Arm;
use super::endpoint::Remote;
use super::error::Failure;
use super::http::Http;
use super::live::Live;
use super::rate::from_now;
use super::row::Row;
use crate::base::http::Response;
use crate::base::secret;
use crate::llm::complete::Incomplete;
use crate::llm::form::{self, Form};
use crate::llm::{ChatRequest, ChatResponse, Finish, StreamError, Thinking, VendorError, Wire, failure, limits};

/// Maximum size of the body of a plain (not streamed) answer.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Maximum size of an error's body; the rest is not read.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Parameters of an attempt.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) http: &'a Http,
    pub(super) arm: &'a Arm,
    pub(super) request: &'a ChatRequest,
    /// Deadline of the whole request.
    pub(super) deadline: Instant,
    /// Deadline for the header of a plain answer.
    pub(super) plain_header: Instant,
    /// Set if vendor chunks are kept as they arrived.
    pub(super) keep_raw: bool,
    /// Set if the request allows at most one tool call. Not every vendor has such a parameter: of several calls, only
    /// the first is passed on.
    pub(super) one_call: bool,
    /// Set to true once a vendor has begun to answer.
    pub(super) answering: Option<&'a AtomicBool>,
}

/// Result of an attempt that reached its commit point.
pub(super) enum Start {
    /// A whole answer.
    Whole(Box<ChatResponse>),
    /// A stream whose first token has arrived.
    Stream(Box<Live>),
}

/// An attempt past its commit point, with its row.
pub(super) enum Opened {
    /// A whole answer.
    Whole(Box<ChatResponse>, Box<Row>),
    /// A stream whose first token has arrived; it holds the row.
    Stream(Box<Live>),
}

impl Opened {
    pub(super) fn new(start: Start, row: Box<Row>) -> Self {
        match start {
            Start::Whole(response) => Self::Whole(response, row),
            Start::Stream(mut live) => {
                live.row = Some(row);
                Self::Stream(live)
            }
        }
    }
}

/// Sends the request and reads up to the commit point.
///
/// # Cancel safety
/// Dropping the future aborts the request. The row belongs to the caller and is not completed here.
pub(super) async fn open(
    context: Context<'_>,
    wire: Wire,
    remote: &Arc<Remote>,
    row: &mut Row,
) -> Result<Start, Failure> {
    open_inner(context, wire, remote, row).await.map_err(|failure| redact(failure, remote))
}

async fn open_inner(context: Context<'_>, wire: Wire, remote: &Arc<Remote>, row: &mut Row) -> Result<Start, Failure> {
    let provider = remote.endpoint.config.provider;
    let clocks = context.arm.clocks;
    let header_until =
        if context.request.stream { context.deadline.min(row.started + clocks.header) } else { context.plain_header };
    let posted = timeout_at(header_until, context.http.post(&remote.endpoint, wire, clocks.connect)).await;
    let mut response = posted.map_err(|_| Failure::timeout("no response header", header_until - row.started))??;
    row.edit(|done| done.status = Some(response.status));
    remote.told.learn(&limits::read(&response.headers), Instant::now());
    if !(200..300).contains(&response.status) {
        let until = context.deadline.min(Instant::now() + clocks.between_tokens);
        let mut body = Vec::new();
        // A truncated or stalled body is enough: the status already tells what failed.
        let _ = read_body(&mut response, &mut body, MAX_ERROR_BYTES, until).await;
        return Err(vendor(provider.error(response.status, &response.headers, &body)));
    }
    if let Some(answering) = context.answering {
        answering.store(true, Ordering::Relaxed);
    }
    let events = response.media_type().eq_ignore_ascii_case("text/event-stream");
    let until = if context.request.stream || events {
        context.deadline.min(Instant::now() + clocks.first_token)
    } else {
        context.plain_header
    };
    let (form, head) = begin(&mut response, events, until).await.map_err(|failure| match failure {
        Failure { code: "timeout", .. } if events => Failure::timeout("no token", clocks.first_token),
        other => other,
    })?;
    if form == Form::Document {
        let mut body = Vec::from(head);
        if !read_body(&mut response, &mut body, MAX_BODY_BYTES, until).await? {
            return Err(malformed(too_long()));
        }
        let mut answer = provider.answer(&body).map_err(|error| match error {
            StreamError::Vendor(error) => vendor(error),
            StreamError::Incomplete { why, usage } => {
                row.usage(usage);
                incomplete(&why)
            }
            StreamError::Malformed(_) if body.trim_ascii_start().starts_with(b"<") => {
                malformed("an HTML page instead of an answer".to_owned())
            }
            StreamError::Malformed(message) => failure::reported("", &body).map_or_else(|| malformed(message), vendor),
        })?;
        if Thinking::whole(remote.endpoint.config.think_tags, &mut answer) {
            remote.learn_thinking(true);
        }
        if context.one_call {
            answer.choices.iter_mut().for_each(|choice| choice.tool_calls.truncate(1));
        }
        row.usage(answer.usage);
        answer.usage = answer.usage.plausible().0;
        row.first_token(row.started.elapsed());
        return Ok(Start::Whole(Box::new(answer)));
    }
    let keep_raw = context.keep_raw && provider.speaks_openai();
    let mut live = Box::new(Live::new(context, remote, response, head, keep_raw));
    let until = context.deadline.min(Instant::now() + clocks.first_token);
    while !live.committed() {
        let read = live.read(until).await;
        // Some vendors report the prompt's tokens before the first token; they are billed even if the attempt fails.
        row.usage(live.usage());
        read.map_err(|failure| match failure {
            // `read` reports the timeout between tokens; before the first token another one applies.
            Failure { code: "timeout", .. } => Failure::timeout("no token", clocks.first_token),
            other => other,
        })?;
    }
    let after = row.started.elapsed();
    live.first_token = Some(after);
    // The run counts the wait up to here.
    live.waited = Duration::ZERO;
    row.first_token(after);
    Ok(Start::Stream(live))
}

pub(super) fn malformed(message: String) -> Failure {
    Failure::transport("malformed", message)
}

/// Converts a vendor's error, with the retry time that it may carry.
pub(super) fn vendor(error: VendorError) -> Failure {
    let retry_after = error.retry_after.map(from_now);
    Failure::vendor(error, retry_after)
}

/// Converts the error of an answer that its vendor did not complete.
pub(super) fn incomplete(why: &Incomplete) -> Failure {
    let code = if matches!(why, Incomplete::Unread(_)) { "malformed" } else { "interrupted" };
    Failure::transport(code, why.to_string())
}

/// Withholds a message that repeats our key, in whole or in part, plain or encoded: vendors may echo it.
pub(super) fn redact(mut failure: Failure, remote: &Remote) -> Failure {
    if remote.endpoint.key().is_some_and(|key| secret::repeats(&failure.message, key)) {
        failure.message = "(the vendor's message is withheld: it repeats the key)".to_owned();
    }
    failure
}

fn too_long() -> String {
    format!("an answer of more than {MAX_BODY_BYTES} bytes")
}

/// Reads until the bytes show the form of the body, which nearly always takes one read. Returns the form and the bytes
/// read so far, without leading whitespace. `events`: the media type is that of an event stream.
async fn begin(response: &mut Response, events: bool, until: Instant) -> Result<(Form, Bytes), Failure> {
    let started = Instant::now();
    let mut head = Bytes::new();
    let mut blanks = 0;
    loop {
        let chunk = timeout_at(until, response.chunk()).await;
        let Some(bytes) = chunk.map_err(|_| Failure::timeout("no whole body", until - started))?? else {
            return Ok((if events { Form::Events } else { Form::Document }, head));
        };
        head = if head.is_empty() { bytes } else { [head, bytes].concat().into() };
        let blank = form::blank(&head);
        head.advance(blank);
        blanks += blank;
        if blanks > MAX_BODY_BYTES {
            return Err(malformed(too_long()));
        }
        if let Some(form) = form::of(&head, events) {
            return Ok((form, head));
        }
    }
}

/// Reads a body up to `limit` bytes; returns true if that was the whole body.
async fn read_body(response: &mut Response, body: &mut Vec<u8>, limit: usize, until: Instant) -> Result<bool, Failure> {
    let started = Instant::now();
    loop {
        let chunk = timeout_at(until, response.chunk()).await;
        match chunk.map_err(|_| Failure::timeout("no whole body", until - started))?? {
            None => return Ok(true),
            Some(bytes) if body.len() + bytes.len() > limit => {
                body.extend_from_slice(&bytes[..limit - body.len()]);
                return Ok(false);
            }
            Some(bytes) => body.extend_from_slice(&bytes),
        }
    }
}

/// Returns true if the vendor's content filter withheld the answer or the rest of it; false for a refusal or a tool
/// call.
pub(super) fn withheld(response: &ChatResponse) -> bool {
    response.choices.first().is_some_and(|choice| {
        choice.finish == Some(Finish::ContentFilter) && choice.refusal.is_none() && choice.tool_calls.is_empty()
    })
}
