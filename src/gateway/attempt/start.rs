//! Starts an attempt: one HTTP call to one endpoint, from the request to the commit point, with its timeouts.
//!
//! Knows nothing of other candidates. A dropped attempt is aborted, and its record says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::time::{Instant, timeout_at};

use super::context::Context;
use super::record::AttemptRecord;
use super::stream::AttemptStream;
use crate::base::http::Response;
use crate::gateway::catalogue::endpoint::EndpointModel;
use crate::gateway::code::Code;
use crate::gateway::error::Failure;
use crate::gateway::transport::framing;
use crate::llm::form::Form;
use crate::llm::{ChatResponse, Framing, StreamError, Thinking, Wire, failure, limits};

/// Maximum size of the body of a plain (not streamed) answer.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Maximum size of an error's body; the rest is not read.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Result of an attempt that reached its commit point.
pub(in crate::gateway) enum Start {
    /// A whole answer.
    Whole(Box<ChatResponse>),
    /// A stream whose first token has arrived.
    Stream(Box<AttemptStream>),
}

/// Sends the request and reads up to the commit point.
///
/// # Cancel safety
/// Dropping the future aborts the request. The record belongs to the caller and is not completed here.
pub(in crate::gateway) async fn start(
    context: Context<'_>,
    wire: Wire,
    remote: &Arc<EndpointModel>,
    record: &mut AttemptRecord,
) -> Result<Start, Failure> {
    start_unredacted(context, wire, remote, record).await.map_err(|failure| remote.redact(failure))
}

async fn start_unredacted(
    context: Context<'_>,
    wire: Wire,
    remote: &Arc<EndpointModel>,
    record: &mut AttemptRecord,
) -> Result<Start, Failure> {
    let provider = remote.endpoint.config.provider;
    let timeouts = context.timeouts;
    let header_until = if context.request.stream {
        context.deadline.min(record.started + timeouts.header)
    } else {
        context.plain_header
    };
    let posted =
        timeout_at(header_until, context.client.post(&remote.endpoint.destination, wire, timeouts.connect)).await;
    let mut response = posted.map_err(|_| Failure::timeout("no response header", header_until - record.started))??;
    record.edit(|done| done.status = Some(response.status));
    remote.vendor_limits.learn(&limits::read(&response.headers), Instant::now());
    if !(200..300).contains(&response.status) {
        let until = context.deadline.min(Instant::now() + timeouts.between_tokens);
        let mut body = Vec::new();
        // A truncated or stalled body is enough: the status already tells what failed.
        let _ = read_body(&mut response, &mut body, MAX_ERROR_BYTES, until).await;
        return Err(provider.error(response.status, &response.headers, &body).into());
    }
    if let Some(answering) = context.answering {
        answering.store(true, Ordering::Relaxed);
    }
    let framing = provider.framing();
    let events = framing::is_stream(framing, response.media_type());
    let until = if context.request.stream || events {
        context.deadline.min(Instant::now() + timeouts.first_token)
    } else {
        context.plain_header
    };
    let (form, head) = begin(&mut response, framing, events, until).await.map_err(|failure| match failure {
        Failure { code: Code::Timeout, .. } if events => Failure::timeout("no token", timeouts.first_token),
        other => other,
    })?;
    if form == Form::Document {
        let mut body = Vec::from(head);
        if !read_body(&mut response, &mut body, MAX_BODY_BYTES, until).await? {
            return Err(Failure::malformed(too_long()));
        }
        let mut answer = provider.answer(&body).map_err(|error| match error {
            StreamError::Vendor(error) => Failure::from(error),
            StreamError::Incomplete { why, usage } => {
                record.usage(usage);
                Failure::from(&why)
            }
            StreamError::Malformed(_) if body.trim_ascii_start().starts_with(b"<") => {
                Failure::malformed("an HTML page instead of an answer")
            }
            StreamError::Malformed(message) => match failure::reported("", &body) {
                Some(error) => Failure::from(error),
                None => Failure::malformed(message),
            },
        })?;
        if Thinking::whole(remote.endpoint.config.think_tags, &mut answer) {
            remote.learn_thinking(true);
        }
        if context.one_call {
            answer.choices.iter_mut().for_each(|choice| choice.tool_calls.truncate(1));
        }
        record.usage(answer.usage);
        answer.usage = answer.usage.plausible().0;
        record.first_token(record.started.elapsed());
        return Ok(Start::Whole(Box::new(answer)));
    }
    let keep_raw = context.keep_raw && provider.speaks_openai();
    let mut stream = Box::new(AttemptStream::new(context, remote, response, head, keep_raw));
    let until = context.deadline.min(Instant::now() + timeouts.first_token);
    while !stream.committed() {
        let read = stream.read(until).await;
        // Some vendors report the prompt's tokens before the first token; they are billed even if the attempt fails.
        record.usage(stream.usage());
        read.map_err(|failure| match failure {
            // `read` reports the timeout between tokens, but before the first token the timeout of the first token
            // applies.
            Failure { code: Code::Timeout, .. } => Failure::timeout("no token", timeouts.first_token),
            other => other,
        })?;
    }
    let after = record.started.elapsed();
    stream.first_token = Some(after);
    // The run counts the wait up to here.
    stream.waited = Duration::ZERO;
    record.first_token(after);
    Ok(Start::Stream(stream))
}

fn too_long() -> String {
    format!("the answer has more than {MAX_BODY_BYTES} bytes (answer_bytes)")
}

/// Reads until the bytes show the form of the body, which nearly always takes one read. Returns the form and the bytes
/// read so far, without leading whitespace. `events`: the media type is that of a stream in this framing.
async fn begin(
    response: &mut Response,
    framing: Framing,
    events: bool,
    until: Instant,
) -> Result<(Form, Bytes), Failure> {
    let started = Instant::now();
    let mut head = Bytes::new();
    let mut blanks = 0;
    loop {
        let chunk = timeout_at(until, response.chunk()).await;
        let Some(bytes) = chunk.map_err(|_| Failure::timeout("no complete body", until - started))?? else {
            return Ok((if events { Form::Events } else { Form::Document }, head));
        };
        head = if head.is_empty() { bytes } else { [head, bytes].concat().into() };
        let blank = framing::blank(framing, &head);
        head.advance(blank);
        blanks += blank;
        if blanks > MAX_BODY_BYTES {
            return Err(Failure::malformed(too_long()));
        }
        if let Some(form) = framing::form(framing, &head, events) {
            return Ok((form, head));
        }
    }
}

/// Reads a body up to `limit` bytes; returns true if that was the whole body.
async fn read_body(response: &mut Response, body: &mut Vec<u8>, limit: usize, until: Instant) -> Result<bool, Failure> {
    let started = Instant::now();
    loop {
        let chunk = timeout_at(until, response.chunk()).await;
        match chunk.map_err(|_| Failure::timeout("no complete body", until - started))?? {
            None => return Ok(true),
            Some(bytes) if body.len() + bytes.len() > limit => {
                body.extend_from_slice(&bytes[..limit - body.len()]);
                return Ok(false);
            }
            Some(bytes) => body.extend_from_slice(&bytes),
        }
    }
}
