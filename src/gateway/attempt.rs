//! One attempt: one HTTP call to one endpoint, from the request to the end of its answer, with its clocks and its row.
//!
//! Knows nothing of other candidates. An attempt that is dropped is aborted, and its row says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use super::Recorder;
use super::budget::Reservation;
use super::catalogue::{Arm, Remote};
use super::error::Failure;
use super::http::{Http, Response};
use super::metrics::{AttemptLabels, Metrics};
use super::price::{self, Price};
use crate::llm::{
    Call, ChatRequest, ChatResponse, Finish, Piece, RetryAfter, SchemaMode, StreamDecoder, StreamError, Usage, sse,
};
use crate::types::{AttemptBegun, AttemptDone, Outcome};

/// Longest body of a plain answer.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Longest body of an error.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Longest wait for a free place at an endpoint.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// How long the end of a finished stream is waited for.
const AT_HAND: Duration = Duration::from_millis(2);
/// And how long beside the request.
const CLOSING: Duration = Duration::from_millis(250);

/// What an attempt needs to know.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) http: &'a Http,
    pub(super) arm: &'a Arm,
    pub(super) request: &'a ChatRequest,
    pub(super) schema_mode: SchemaMode,
    /// Of the whole request.
    pub(super) deadline: Instant,
    /// Until when a plain answer's header may take.
    pub(super) plain_header: Instant,
    /// Whether chunks are kept as they came.
    pub(super) keep_raw: bool,
}

/// What came of an attempt whose commit point is reached.
pub(super) enum Opened {
    /// A whole answer.
    Whole(Box<ChatResponse>, Box<Row>),
    /// A stream whose first token is there.
    Stream(Box<Live>),
}

/// One event of a stream.
#[derive(Debug, Default)]
pub struct Frame {
    /// What it says.
    pub pieces: Vec<Piece>,
    /// The chunk as it came, where it is OpenAI's own and was asked for.
    pub raw: Option<Box<[u8]>>,
}

/// The attempt's row: completed exactly once, as aborted if by nobody else.
pub(super) struct Row {
    done: Option<AttemptDone>,
    pub(super) started: Instant,
    recorder: Option<Arc<dyn Recorder>>,
    metrics: Metrics,
    labels: AttemptLabels,
    price: Option<Price>,
    reservation: Option<Reservation>,
    remote: Arc<Remote>,
}

impl Row {
    /// Writes the begun row.
    pub(super) fn begin(
        begun: AttemptBegun,
        remote: &Arc<Remote>,
        reservation: Option<Reservation>,
        recorder: Option<&Arc<dyn Recorder>>,
        metrics: &Metrics,
    ) -> Self {
        let labels = AttemptLabels::new(&begun);
        let price = remote.price(begun.at_ms);
        metrics.begun(&labels);
        let done = AttemptDone {
            id: begun.id,
            outcome: Outcome::Aborted,
            code: None,
            status: None,
            input: None,
            cached: None,
            cache_write: None,
            output: None,
            reasoning: None,
            cost_pico: None,
            first_token_us: None,
            total_us: 0,
        };
        if let Some(recorder) = recorder {
            recorder.begun(begun);
        }
        Self {
            done: Some(done),
            started: Instant::now(),
            recorder: recorder.map(Arc::clone),
            metrics: metrics.clone(),
            labels,
            price,
            reservation,
            remote: Arc::clone(remote),
        }
    }

    fn edit(&mut self, edit: impl FnOnce(&mut AttemptDone)) {
        if let Some(done) = &mut self.done {
            edit(done);
        }
    }

    /// Tokens so far, and what they cost.
    pub(super) fn usage(&mut self, usage: Usage) {
        let cost = self.price.and_then(|price| price::cost(price, usage));
        self.edit(|done| {
            done.cost_pico = cost;
            done.input = usage.input;
            done.cached = usage.cached;
            done.cache_write = usage.cache_write;
            done.output = usage.output;
            done.reasoning = usage.reasoning;
        });
    }

    fn first_token(&mut self, after: Duration) {
        self.edit(|done| done.first_token_us = Some(micros(after)));
    }

    /// What it cost, as far as is known.
    pub(super) fn cost(&self) -> Option<i64> {
        self.done.as_ref()?.cost_pico
    }

    /// It ended well.
    pub(super) fn succeed(mut self) {
        self.edit(|done| done.outcome = Outcome::Ok);
    }

    /// It ended by a failure, before or after the first token.
    pub(super) fn fail(mut self, failure: &Failure) {
        self.edit(|done| {
            done.outcome = if done.first_token_us.is_some() { Outcome::Partial } else { Outcome::Failed };
            done.code = Some(failure.code);
            done.status = failure.status.or(done.status);
        });
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let Some(mut done) = self.done.take() else { return };
        done.total_us = micros(self.started.elapsed());
        if let Some(cost) = done.cost_pico {
            self.remote.learn_cost(cost);
        }
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(done.cost_pico, done.first_token_us.is_some());
        }
        self.metrics.done(&self.labels, &done);
        if let Some(recorder) = &self.recorder {
            recorder.done(done);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Waits for a place at the endpoint.
pub(super) async fn admit(remote: &Remote, deadline: Instant) -> Result<Option<OwnedSemaphorePermit>, Failure> {
    let Some(permits) = &remote.endpoint.permits else { return Ok(None) };
    let until = deadline.min(Instant::now() + MAX_WAIT);
    match timeout_at(until, Arc::clone(permits).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(Some(permit)),
        _ => {
            let limit = remote.endpoint.config.max_concurrency.unwrap_or_default();
            let name = &remote.endpoint.name;
            Err(Failure::busy(
                "overloaded",
                format!("no place within 2 s: endpoints.{name}.max_concurrency is {limit}"),
            ))
        }
    }
}

/// Makes the call and goes on to its commit point: a whole answer, or the first token of a stream.
///
/// # Cancel safety
/// Dropped, the request is aborted and its row completed.
pub(super) async fn open(
    context: Context<'_>,
    remote: &Arc<Remote>,
    permit: Option<OwnedSemaphorePermit>,
    mut row: Row,
) -> Result<Opened, (Failure, Row)> {
    match open_inner(context, remote, permit, &mut row).await {
        Ok(Start::Whole(response)) => Ok(Opened::Whole(response, Box::new(row))),
        Ok(Start::Stream(mut live)) => {
            live.row = Some(row);
            Ok(Opened::Stream(live))
        }
        Err(failure) => Err((redact(failure, remote), row)),
    }
}

enum Start {
    Whole(Box<ChatResponse>),
    Stream(Box<Live>),
}

async fn open_inner(
    context: Context<'_>,
    remote: &Arc<Remote>,
    permit: Option<OwnedSemaphorePermit>,
    row: &mut Row,
) -> Result<Start, Failure> {
    let provider = remote.endpoint.config.provider;
    let clocks = context.arm.clocks;
    let call = Call {
        model: &remote.vendor_model,
        key: remote.endpoint.key(),
        stream: context.request.stream,
        schema_mode: context.schema_mode,
        api_version: remote.endpoint.config.api_version.as_deref(),
    };
    let wire =
        provider.encode(context.request, &call).map_err(|error| Failure::request("unsupported", error.to_string()))?;
    let header_until =
        if context.request.stream { context.deadline.min(row.started + clocks.header) } else { context.plain_header };
    let posted = timeout_at(header_until, context.http.post(&remote.endpoint, wire, clocks.connect)).await;
    let mut response = posted.map_err(|_| Failure::timeout("no response header", header_until - row.started))??;
    row.edit(|done| done.status = Some(response.status));
    if response.status != 200 {
        let until = context.deadline.min(Instant::now() + clocks.between_tokens);
        let (body, _) = read_body(&mut response, MAX_ERROR_BYTES, until).await?;
        let error = provider.error(response.status, &response.headers, &body);
        let retry_after = error.retry_after.map(from_now);
        return Err(Failure::vendor(error, retry_after));
    }
    if response.media_type() != "text/event-stream" {
        let until = if context.request.stream {
            context.deadline.min(Instant::now() + clocks.first_token)
        } else {
            context.plain_header
        };
        let (body, whole) = read_body(&mut response, MAX_BODY_BYTES, until).await?;
        if !whole {
            return Err(malformed(format!("an answer of more than {MAX_BODY_BYTES} bytes")));
        }
        let answer = provider.answer(&body).map_err(|error| match error {
            StreamError::Vendor(error) => Failure::vendor(error, None),
            StreamError::Malformed(_) if body.trim_ascii_start().starts_with(b"<") => {
                malformed("an HTML page instead of an answer".to_owned())
            }
            StreamError::Malformed(message) => malformed(message),
        })?;
        row.usage(answer.usage);
        row.first_token(row.started.elapsed());
        return Ok(Start::Whole(Box::new(answer)));
    }
    let tape = Tape {
        decoder: provider.stream(),
        keep_raw: context.keep_raw && provider.speaks_openai(),
        held: VecDeque::new(),
        usage: Usage::default(),
        expected: context.request.n.unwrap_or(1),
        finished: 0,
        malformed: 0,
    };
    let mut live = Box::new(Live {
        remote: Arc::clone(remote),
        response: Some(response),
        parser: sse::Parser::default(),
        tape,
        deadline: context.deadline,
        between: clocks.between_tokens,
        ended: false,
        first_token: None,
        waited: Duration::ZERO,
        row: None,
        _permit: permit,
    });
    let until = context.deadline.min(Instant::now() + clocks.first_token);
    while !live.committed() {
        live.read(until).await.map_err(|failure| match failure {
            // The clock of this phase is another.
            Failure { code: "timeout", .. } => Failure::timeout("no token", clocks.first_token),
            other => other,
        })?;
    }
    let after = row.started.elapsed();
    live.first_token = Some(after);
    row.first_token(after);
    row.usage(live.usage());
    Ok(Start::Stream(live))
}

fn malformed(message: String) -> Failure {
    Failure::transport("malformed", message)
}

fn from_now(after: RetryAfter) -> Duration {
    match after {
        RetryAfter::In(duration) => duration,
        RetryAfter::At(time) => time.duration_since(SystemTime::now()).unwrap_or_default(),
    }
}

/// A vendor's words may repeat our key, in whole or in part.
fn redact(mut failure: Failure, remote: &Remote) -> Failure {
    if let Some(key) = remote.endpoint.key()
        && let Some(head) = key.get(..key.len().min(8))
        && failure.message.contains(head)
    {
        failure.message = "(the vendor's message is withheld: it repeats the key)".to_owned();
    }
    failure
}

/// Reads a body up to `limit`; the second value says whether it is all.
async fn read_body(response: &mut Response, limit: usize, until: Instant) -> Result<(Vec<u8>, bool), Failure> {
    let mut body = Vec::new();
    let started = Instant::now();
    loop {
        let chunk = timeout_at(until, response.chunk()).await;
        match chunk.map_err(|_| Failure::timeout("no whole body", until - started))?? {
            None => return Ok((body, true)),
            Some(bytes) if body.len() + bytes.len() > limit => {
                body.extend_from_slice(&bytes[..limit - body.len()]);
                return Ok((body, false));
            }
            Some(bytes) => body.extend_from_slice(&bytes),
        }
    }
}

/// A stream beyond its commit point.
pub(super) struct Live {
    pub(super) remote: Arc<Remote>,
    response: Option<Response>,
    parser: sse::Parser,
    tape: Tape,
    deadline: Instant,
    between: Duration,
    ended: bool,
    pub(super) first_token: Option<Duration>,
    /// How long the network and the vendor were waited for, beyond the commit point.
    pub(super) waited: Duration,
    row: Option<Row>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Live {
    /// Given up in the middle: the tokens so far are in the row.
    fn drop(&mut self) {
        if let Some(row) = &mut self.row {
            row.usage(self.tape.usage);
        }
    }
}

/// What has been decoded of a stream.
struct Tape {
    decoder: Box<dyn StreamDecoder>,
    keep_raw: bool,
    held: VecDeque<Frame>,
    usage: Usage,
    /// Answers asked for, and those that ended.
    expected: u32,
    finished: u32,
    malformed: u32,
}

impl Tape {
    /// Decodes one event into a frame. Gives whether the vendor said that this was all.
    fn take(&mut self, event: sse::Event<'_>) -> Result<bool, Failure> {
        let mut frame = Frame::default();
        match self.decoder.decode(event, &mut frame.pieces) {
            Ok(()) => {}
            // One bad line does not kill a stream that goes on well.
            Err(StreamError::Malformed(_)) => {
                self.malformed += 1;
                return Ok(false);
            }
            Err(StreamError::Vendor(error)) => {
                let retry_after = error.retry_after.map(from_now);
                return Err(Failure::vendor(error, retry_after));
            }
        }
        let mut done = false;
        for piece in &frame.pieces {
            match piece {
                Piece::Usage(now) => self.usage.update(*now),
                Piece::Finish { .. } => self.finished += 1,
                Piece::Done => done = true,
                _ => {}
            }
        }
        if self.keep_raw && !done && self.decoder.as_openai() {
            frame.raw = Some(event.data.into());
        }
        if !frame.pieces.is_empty() || frame.raw.is_some() {
            self.held.push_back(frame);
        }
        Ok(done)
    }

    /// Whether every answer has ended.
    fn complete(&self) -> bool {
        self.finished >= self.expected
    }
}

impl Live {
    fn committed(&self) -> bool {
        self.ended || self.tape.held.iter().flat_map(|frame| &frame.pieces).any(Piece::is_semantic)
    }

    /// The next frames; `None` after the last. Whatever came in one read comes at once.
    ///
    /// # Errors
    /// The stream was cut, stalled, or broke off with an error of the vendor's.
    ///
    /// # Cancel safety
    /// Safe: no frame is lost. Dropping the stream aborts the request.
    pub(super) async fn next(&mut self, out: &mut Vec<Frame>) -> Result<bool, Failure> {
        loop {
            if !self.tape.held.is_empty() {
                out.extend(self.tape.held.drain(..));
                return Ok(true);
            }
            if self.ended {
                return Ok(false);
            }
            let until = self.deadline.min(Instant::now() + self.between);
            if let Err(failure) = self.read(until).await {
                return Err(redact(failure, &self.remote));
            }
        }
    }

    /// Tokens as far as the vendor told.
    pub(super) fn usage(&self) -> Usage {
        self.tape.usage
    }

    /// Completes the row. Gives what the attempt cost, as far as is known.
    pub(super) fn close(&mut self, failure: Option<&Failure>) -> Option<i64> {
        let mut row = self.row.take()?;
        row.usage(self.tape.usage);
        let cost = row.cost();
        match failure {
            None => row.succeed(),
            Some(failure) => row.fail(failure),
        }
        cost
    }

    async fn read(&mut self, until: Instant) -> Result<(), Failure> {
        let Some(response) = &mut self.response else {
            self.ended = true;
            return Ok(());
        };
        let now = Instant::now();
        let came = timeout_at(until, response.chunk()).await;
        self.waited += now.elapsed();
        let bytes = match came {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => return self.end_of_body(),
            Ok(Err(failure)) => {
                return if self.tape.complete() { self.finish().await } else { Err(failure) };
            }
            // All was said; only the end of the body is missing.
            Err(_) if self.tape.complete() => return self.finish().await,
            Err(_) => {
                let what = if until == self.deadline { "no end of the answer" } else { "no further token" };
                return Err(Failure::timeout(what, until - now));
            }
        };
        self.parser.push(&bytes).map_err(|error| malformed(error.to_string()))?;
        self.drain_parser().await
    }

    async fn drain_parser(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.parser.next() {
            if self.tape.take(event)? {
                return self.finish().await;
            }
        }
        Ok(())
    }

    fn end_of_body(&mut self) -> Result<(), Failure> {
        if let Some(event) = self.parser.finish() {
            self.tape.take(event)?;
        }
        self.response = None;
        if self.tape.complete() {
            self.ended = true;
            return Ok(());
        }
        if self.tape.malformed > 0 {
            let count = self.tape.malformed;
            return Err(malformed(format!("the stream ended without an answer; {count} events made no sense")));
        }
        Err(Failure::transport("interrupted", "the stream ended in the middle of the answer"))
    }

    /// The answer is complete: lets the body end by itself, so that its connection can serve again. Its end is nearly
    /// always there already and needs only to be seen; what takes longer is waited for beside.
    async fn finish(&mut self) -> Result<(), Failure> {
        self.ended = true;
        let Some(mut response) = self.response.take() else { return Ok(()) };
        if let Ok(Ok(None) | Err(_)) = timeout(AT_HAND, response.chunk()).await {
            return Ok(());
        }
        tokio::spawn(async move {
            let drained = async { while let Ok(Some(_)) = response.chunk().await {} };
            let _ = timeout(CLOSING, drained).await;
        });
        Ok(())
    }
}

/// Whether an answer that ended is one: a vendor that withheld everything has a reason that is its own.
pub(super) fn withheld(response: &ChatResponse) -> bool {
    response.choices.first().is_some_and(|choice| {
        choice.finish == Some(Finish::ContentFilter)
            && choice.text.as_deref().unwrap_or_default().is_empty()
            && choice.refusal.is_none()
            && choice.tool_calls.is_empty()
    })
}
