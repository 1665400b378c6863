//! The stream of an attempt: decodes bytes into frames up to its end, under its timeouts.
//!
//! Knows nothing of other attempts. Before the commit point its frames are held back; the attempt decides when that
//! point is reached.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::context::Context;
use super::record::AttemptRecord;
use crate::base::http::{HttpError, Response};
use crate::gateway::catalogue::endpoint::EndpointModel;
use crate::gateway::error::Failure;
use crate::llm::complete::Progress;
use crate::llm::{Piece, StreamDecoder, StreamError, Thinking, Usage, failure, sse};
use crate::types::Why;

/// How long the request waits for the end of a finished stream.
const AT_HAND: Duration = Duration::from_millis(2);
/// How long a background task waits for it after that.
const CLOSING: Duration = Duration::from_millis(250);
/// Reads that follow each other faster than this are a burst: more data is ready than a model's speed explains, and
/// what has arrived already is passed on in one piece. A write costs more than everything else done for a chunk.
const BURST: Duration = Duration::from_millis(1);
/// Maximum number of further reads in a burst.
const MOST_READS: usize = 16;

/// One event of a stream.
#[derive(Debug, Default)]
pub struct Frame {
    /// The decoded content.
    pub pieces: Vec<Piece>,
    /// The chunk as it arrived, if it is in OpenAI's own format and was requested.
    pub raw: Option<Box<[u8]>>,
}

/// A stream; it has its record once it is past its commit point.
pub(in crate::gateway) struct AttemptStream {
    pub(in crate::gateway) remote: Arc<EndpointModel>,
    response: Option<Response>,
    /// The first bytes of the body, until they are decoded.
    head: Option<Bytes>,
    parser: sse::Parser,
    decoding: Decoding,
    deadline: Instant,
    between: Duration,
    ended: bool,
    /// Since when the next token has been awaited, also over cancelled calls: comments and pings are not tokens.
    waiting: Option<Instant>,
    /// When the network last delivered something.
    came: Option<Instant>,
    pub(in crate::gateway) first_token: Option<Duration>,
    /// Time spent waiting for the network and the vendor since the commit point.
    pub(in crate::gateway) waited: Duration,
    pub(in crate::gateway) record: Option<Box<AttemptRecord>>,
}

impl Drop for AttemptStream {
    /// A stream dropped in the middle: the tokens so far go into the record.
    fn drop(&mut self) {
        if let Some(record) = &mut self.record {
            record.usage(self.decoding.usage);
        }
    }
}

/// The decoded part of a stream.
struct Decoding {
    decoder: Box<dyn StreamDecoder>,
    thinking: Thinking,
    /// Set if the model said something since this was last read, even if that is held back.
    spoke: bool,
    keep_raw: bool,
    /// Set if tool calls after an answer's first are left out.
    one_call: bool,
    /// The first tool call of each answer, as (choice, index).
    first_calls: Vec<(u32, u32)>,
    held: VecDeque<Frame>,
    /// The vendor's raw counts, so that the record can count the implausible ones.
    usage: Usage,
    /// Number of answers requested.
    asked: u32,
    progress: Progress,
}

impl Decoding {
    /// Decodes one event into a frame. Returns true if the vendor marked the end of the answer.
    fn take(&mut self, event: sse::Event<'_>) -> Result<bool, Failure> {
        let mut frame = Frame::default();
        match self.decoder.decode(event, &mut frame.pieces) {
            Ok(()) => {}
            // One malformed event does not end a stream that otherwise works.
            Err(StreamError::Malformed(_)) => {
                if let Some(error) = failure::reported(event.name, event.data) {
                    return Err(error.into());
                }
                // Data that is not an object was not part of an answer.
                if event.data.trim_ascii_start().starts_with(b"{") {
                    self.progress.unread();
                }
                return Ok(false);
            }
            Err(StreamError::Vendor(error)) => {
                // The tokens of a failed answer are billed too.
                self.count(&mut frame.pieces);
                return Err(error.into());
            }
            Err(StreamError::Incomplete { why, .. }) => return Err(Failure::from(&why)),
        }
        let silent = frame.pieces.is_empty();
        self.spoke |= frame.pieces.iter().any(Piece::is_semantic);
        let set_aside = self.thinking.pieces(&mut frame.pieces);
        let left_out = self.one_call && self.leave_calls_out(&mut frame.pieces);
        self.count(&mut frame.pieces);
        let mut done = false;
        for piece in &frame.pieces {
            self.progress.piece(piece);
            done |= *piece == Piece::Done;
        }
        if silent && let Some(error) = failure::reported(event.name, event.data) {
            return Err(error.into());
        }
        if self.keep_raw && !set_aside && !left_out && !done && self.decoder.as_openai(event.data) {
            frame.raw = Some(one_line(event.data));
        }
        if !frame.pieces.is_empty() || frame.raw.is_some() {
            self.held.push_back(frame);
        }
        Ok(done)
    }

    /// Records the vendor's raw token counts, and removes implausible ones from the pieces that are passed on.
    fn count(&mut self, pieces: &mut [Piece]) {
        for piece in pieces {
            if let Piece::Usage(now) = piece {
                self.usage.update(*now);
                *now = now.plausible().0;
            }
        }
    }

    /// Leaves out all tool calls but an answer's first; returns true if there were others.
    fn leave_calls_out(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let all = pieces.len();
        pieces.retain(|piece| {
            let Piece::ToolCall { choice, index, .. } = piece else { return true };
            match self.first_calls.iter().find(|(of, _)| of == choice) {
                Some((_, first)) => first == index,
                None => {
                    self.first_calls.push((*choice, *index));
                    true
                }
            }
        });
        pieces.len() < all
    }

    /// Ends the stream: releases what was held back.
    fn end(&mut self) {
        let mut pieces = Vec::new();
        self.thinking.end(&mut pieces);
        if !pieces.is_empty() {
            pieces.iter().for_each(|piece| self.progress.piece(piece));
            self.held.push_back(Frame { pieces, raw: None });
        }
    }

    /// Returns true if every answer is complete, although the stream was cut or has stalled.
    fn complete(&self) -> bool {
        self.progress.end(self.asked, false).is_ok()
    }

    /// Judges the stream at its end. Adds a finish to answers for which the vendor sent only the end mark.
    fn conclude(&mut self) -> Result<(), Failure> {
        let finishes = self.progress.end(self.asked, true).map_err(|why| Failure::from(&why))?;
        let finishes = finishes.into_iter().map(|(choice, reason)| Piece::Finish { choice, reason });
        self.held.push_back(Frame { pieces: finishes.collect(), raw: None });
        Ok(())
    }
}

impl AttemptStream {
    /// `head` is the part of the body that was already read.
    pub(in crate::gateway) fn new(
        context: Context<'_>,
        remote: &Arc<EndpointModel>,
        response: Response,
        head: Bytes,
        keep_raw: bool,
    ) -> Self {
        let decoding = Decoding {
            decoder: remote.endpoint.config.provider.stream(),
            thinking: Thinking::new(
                remote.endpoint.config.think_tags,
                context.request.wants_json() || remote.thinks_unmarked(),
            ),
            spoke: false,
            keep_raw,
            one_call: context.one_call,
            first_calls: Vec::new(),
            held: VecDeque::new(),
            usage: Usage::default(),
            asked: context.request.n.unwrap_or(1),
            progress: Progress::default(),
        };
        Self {
            remote: Arc::clone(remote),
            response: Some(response),
            head: Some(head),
            parser: sse::Parser::default(),
            decoding,
            deadline: context.deadline,
            between: context.timeouts.between_tokens,
            ended: false,
            waiting: None,
            came: None,
            first_token: None,
            waited: Duration::ZERO,
            record: None,
        }
    }

    /// Returns true if the commit point is reached: the first token or the end has arrived. Thinking that is held back
    /// counts as a token.
    pub(in crate::gateway) fn committed(&self) -> bool {
        self.ended
            || self.decoding.thinking.withholds()
            || self.decoding.held.iter().flat_map(|frame| &frame.pieces).any(Piece::is_semantic)
    }

    /// Appends the next frames to `out`; `false` after the last. Everything that arrived in one read comes at once, and
    /// in a burst also what is ready.
    ///
    /// # Errors
    /// The stream was cut, stalled, or ended with an error of the vendor's.
    ///
    /// # Cancel safety
    /// Safe: no frame is lost. Dropping the stream aborts the request.
    pub(in crate::gateway) async fn next(&mut self, out: &mut Vec<Frame>) -> Result<bool, Failure> {
        let from = out.len();
        let mut came = Ok(());
        while came.is_ok() && self.decoding.held.is_empty() && !self.ended {
            let since = *self.waiting.get_or_insert_with(Instant::now);
            let before = self.came;
            came = self.read(self.deadline.min(since + self.between)).await;
            let now = Instant::now();
            self.came = Some(now);
            if came.is_ok() && before.is_some_and(|before| now - before < BURST) {
                came = self.read_at_hand().await;
            }
            if std::mem::take(&mut self.decoding.spoke) {
                self.waiting = None;
            }
        }
        if let Some(unmarked) = self.decoding.thinking.unmarked().filter(|_| self.ended) {
            self.remote.learn_thinking(unmarked);
        }
        self.waiting = None;
        if came.is_err() {
            self.decoding.end();
        }
        // Frames that arrived before a failure are delivered too.
        out.extend(self.decoding.held.drain(..));
        came.map_err(|failure| self.remote.redact(failure))?;
        Ok(out.len() > from)
    }

    /// Plausible token counts so far.
    pub(in crate::gateway) fn usage(&self) -> Usage {
        self.decoding.usage.plausible().0
    }

    /// Why the attempt was made.
    pub(in crate::gateway) fn why(&self) -> Option<Why> {
        self.record.as_ref().map(|record| record.why)
    }

    /// Completes the record. Returns the cost of the attempt in pico-dollars, as far as it is known.
    pub(in crate::gateway) fn close(&mut self, failure: Option<&Failure>) -> Option<i64> {
        let mut record = self.record.take()?;
        record.usage(self.decoding.usage);
        let cost = record.cost();
        match failure {
            None => record.succeed(),
            Some(failure) => record.fail(failure),
        }
        cost
    }

    /// Reads once from the network.
    pub(in crate::gateway) async fn read(&mut self, until: Instant) -> Result<(), Failure> {
        if let Some(head) = self.head.take() {
            return self.took(Ok(Some(head))).await;
        }
        let Some(response) = &mut self.response else {
            self.ended = true;
            return Ok(());
        };
        let now = Instant::now();
        let came = timeout_at(until, response.chunk()).await;
        self.waited += now.elapsed();
        match came {
            Ok(came) => self.took(came).await,
            // Everything was said; only the end of the body is missing.
            Err(_) if self.decoding.complete() => self.finish().await,
            Err(_) => {
                let mut failure = Failure::timeout("no further token", self.between);
                if until == self.deadline {
                    "the time for the whole request ran out in the middle of the answer"
                        .clone_into(&mut failure.message);
                }
                Err(failure)
            }
        }
    }

    /// Reads what has already arrived, without waiting.
    async fn read_at_hand(&mut self) -> Result<(), Failure> {
        for _ in 0..MOST_READS {
            // The connection's own task passes on one piece each time it runs.
            give_turn().await;
            let Some(response) = &mut self.response else { break };
            match response.chunk().now_or_never() {
                Some(came) => self.took(came).await?,
                None => break,
            }
        }
        Ok(())
    }

    async fn took(&mut self, came: Result<Option<Bytes>, HttpError>) -> Result<(), Failure> {
        match came {
            Ok(Some(bytes)) => {
                self.parser.push(&bytes).map_err(|error| Failure::malformed(error.to_string()))?;
                self.drain_parser().await
            }
            Ok(None) => self.end_of_body(),
            Err(_) if self.decoding.complete() => self.finish().await,
            Err(error) => Err(error.into()),
        }
    }

    async fn drain_parser(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.parser.next() {
            if self.decoding.take(event)? {
                self.decoding.conclude()?;
                return self.finish().await;
            }
        }
        Ok(())
    }

    fn end_of_body(&mut self) -> Result<(), Failure> {
        if let Some(event) = self.parser.finish() {
            self.decoding.take(event)?;
        }
        self.decoding.end();
        self.response = None;
        self.decoding.conclude()?;
        self.ended = true;
        Ok(())
    }

    /// The answer is complete: lets the body end by itself, so that its connection can be reused. The end has nearly
    /// always arrived already; a later one is awaited in a background task.
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

/// Joins JSON that came in several `data` lines into one line: line breaks occur only between its tokens.
fn one_line(data: &[u8]) -> Box<[u8]> {
    let mut line: Box<[u8]> = data.into();
    if line.contains(&b'\n') {
        line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    }
    line
}

/// Lets the ready tasks run once. Awaiting a spawned task shows that they did; a plain yield would not, because the
/// caller's future may be polled more than once per turn.
async fn give_turn() {
    let _ = tokio::spawn(std::future::ready(())).await;
}
