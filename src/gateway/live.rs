//! The stream of an attempt: bytes decoded into frames, to its end, by its clocks.
//!
//! Knows nothing of other attempts. Before the commit point its frames are held; the attempt decides when that is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::attempt::{Context, malformed, redact};
use super::endpoint::Remote;
use super::error::Failure;
use super::rate::from_now;
use super::row::Row;
use crate::base::http::{HttpError, Response};
use crate::llm::{Piece, StreamDecoder, StreamError, Usage, sse};

/// How long the end of a finished stream is waited for.
const AT_HAND: Duration = Duration::from_millis(2);
/// And how long beside the request.
const CLOSING: Duration = Duration::from_millis(250);
/// Reads that follow each other sooner than this are a burst: the vendor has more at hand than a model says, and what is
/// there already goes on in one piece. A write costs more than all else of a chunk.
const BURST: Duration = Duration::from_millis(1);
/// Reads that a burst goes on with at most.
const MOST_READS: usize = 16;

/// One event of a stream.
#[derive(Debug, Default)]
pub struct Frame {
    /// What it says.
    pub pieces: Vec<Piece>,
    /// The chunk as it came, where it is OpenAI's own and was asked for.
    pub raw: Option<Box<[u8]>>,
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
    /// Since when the next token is waited for, over calls that were given up: comments and pings are no tokens.
    waiting: Option<Instant>,
    /// When the network gave something last.
    came: Option<Instant>,
    pub(super) first_token: Option<Duration>,
    /// How long the network and the vendor were waited for, beyond the commit point.
    pub(super) waited: Duration,
    pub(super) row: Option<Box<Row>>,
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
    /// Calls beyond an answer's first are left out.
    one_call: bool,
    /// The first call of each answer, by their numbers.
    first_calls: Vec<(u32, u32)>,
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
        let left_out = self.one_call && self.leave_calls_out(&mut frame.pieces);
        let mut done = false;
        for piece in &frame.pieces {
            match piece {
                Piece::Usage(now) => self.usage.update(*now),
                Piece::Finish { .. } => self.finished += 1,
                Piece::Done => done = true,
                _ => {}
            }
        }
        if self.keep_raw && !left_out && !done && self.decoder.as_openai() {
            frame.raw = Some(event.data.into());
        }
        if !frame.pieces.is_empty() || frame.raw.is_some() {
            self.held.push_back(frame);
        }
        Ok(done)
    }

    /// Leaves out all calls but an answer's first; whether there were others.
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

    /// Whether every answer has ended.
    fn complete(&self) -> bool {
        self.finished >= self.expected
    }
}

impl Live {
    pub(super) fn new(context: Context<'_>, remote: &Arc<Remote>, response: Response, keep_raw: bool) -> Self {
        let tape = Tape {
            decoder: remote.endpoint.config.provider.stream(),
            keep_raw,
            one_call: context.one_call,
            first_calls: Vec::new(),
            held: VecDeque::new(),
            usage: Usage::default(),
            expected: context.request.n.unwrap_or(1),
            finished: 0,
            malformed: 0,
        };
        Self {
            remote: Arc::clone(remote),
            response: Some(response),
            parser: sse::Parser::default(),
            tape,
            deadline: context.deadline,
            between: context.arm.clocks.between_tokens,
            ended: false,
            waiting: None,
            came: None,
            first_token: None,
            waited: Duration::ZERO,
            row: None,
        }
    }

    /// Whether the commit point is reached: the first token is there, or the end.
    pub(super) fn committed(&self) -> bool {
        self.ended || self.tape.held.iter().flat_map(|frame| &frame.pieces).any(Piece::is_semantic)
    }

    /// The next frames; `false` after the last. Whatever came in one read comes at once, and of a burst what is at hand.
    ///
    /// # Errors
    /// The stream was cut, stalled, or broke off with an error of the vendor's.
    ///
    /// # Cancel safety
    /// Safe: no frame is lost. Dropping the stream aborts the request.
    pub(super) async fn next(&mut self, out: &mut Vec<Frame>) -> Result<bool, Failure> {
        let from = out.len();
        let mut came = Ok(());
        while came.is_ok() && self.tape.held.is_empty() && !self.ended {
            let since = *self.waiting.get_or_insert_with(Instant::now);
            let before = self.came;
            came = self.read(self.deadline.min(since + self.between)).await;
            let now = Instant::now();
            self.came = Some(now);
            if came.is_ok() && before.is_some_and(|before| now - before < BURST) {
                came = self.read_at_hand().await;
            }
        }
        self.waiting = None;
        // What came before a failure is not lost with it.
        out.extend(self.tape.held.drain(..));
        came.map_err(|failure| redact(failure, &self.remote))?;
        Ok(out.len() > from)
    }

    /// Tokens as far as the vendor told.
    pub(super) fn usage(&self) -> Usage {
        self.tape.usage
    }

    /// Why the attempt was made.
    pub(super) fn why(&self) -> Option<&'static str> {
        self.row.as_ref().map(|row| row.why)
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

    /// Reads once more from the network.
    pub(super) async fn read(&mut self, until: Instant) -> Result<(), Failure> {
        let Some(response) = &mut self.response else {
            self.ended = true;
            return Ok(());
        };
        let now = Instant::now();
        let came = timeout_at(until, response.chunk()).await;
        self.waited += now.elapsed();
        match came {
            Ok(came) => self.took(came).await,
            // All was said; only the end of the body is missing.
            Err(_) if self.tape.complete() => self.finish().await,
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

    /// Reads what has come already, and waits for nothing.
    async fn read_at_hand(&mut self) -> Result<(), Failure> {
        for _ in 0..MOST_READS {
            // The connection's own task hands on one piece each time that it is given a turn.
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
                self.parser.push(&bytes).map_err(|error| malformed(error.to_string()))?;
                self.drain_parser().await
            }
            Ok(None) => self.end_of_body(),
            Err(_) if self.tape.complete() => self.finish().await,
            Err(error) => Err(error.into()),
        }
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

/// Lets the tasks that are ready run once. A task of its own tells that they did: whoever polls this may do so more than
/// once a turn.
async fn give_turn() {
    let _ = tokio::spawn(std::future::ready(())).await;
}
