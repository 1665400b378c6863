//! The stream of an attempt: decodes bytes into frames up to its end, under its timeouts.
//!
//! Knows nothing of other attempts. Before the commit point its frames are held back; the attempt decides when that
//! point is reached.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::context::Context;
use super::decoding::{Decoding, Frame};
use super::record::AttemptRecord;
use crate::base::http::{HttpError, Response};
use crate::gateway::catalogue::endpoint::EndpointModel;
use crate::gateway::error::Failure;
use crate::gateway::transport::framing::{FramingError, Parser};
use crate::llm::{Piece, Usage};
use crate::types::Why;

/// Longest time that the request waits for the end of the body after the answer is complete.
const AT_HAND: Duration = Duration::from_millis(2);
/// If the body has not ended by then, a background task waits this long for its end.
const CLOSING: Duration = Duration::from_millis(250);
/// Reads that follow each other faster than this are a burst: data arrives faster than a model writes, so it was
/// waiting already, and it is passed on in one piece. One write costs more than everything else that is done for a
/// chunk.
const BURST: Duration = Duration::from_millis(1);
/// Maximum number of further reads in a burst.
const MOST_READS: usize = 16;

/// A stream; it has its record once it is past its commit point.
pub(in crate::gateway) struct AttemptStream {
    pub(in crate::gateway) remote: Arc<EndpointModel>,
    response: Option<Response>,
    /// The first bytes of the body, until they are decoded.
    head: Option<Bytes>,
    parser: Parser,
    decoding: Decoding,
    deadline: Instant,
    between: Duration,
    ended: bool,
    /// Since when the next token has been awaited, also over cancelled calls: comments and pings are not tokens.
    waiting: Option<Instant>,
    /// When the network last delivered data.
    came: Option<Instant>,
    pub(in crate::gateway) first_token: Option<Duration>,
    /// Time spent waiting for the network and the vendor since the commit point.
    pub(in crate::gateway) waited: Duration,
    pub(in crate::gateway) record: Option<Box<AttemptRecord>>,
}

impl Drop for AttemptStream {
    /// A stream that is dropped before its end records the tokens so far.
    fn drop(&mut self) {
        if let Some(record) = &mut self.record {
            record.usage(self.decoding.usage);
        }
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
        let decoding = Decoding::new(context, remote, keep_raw);
        Self {
            remote: Arc::clone(remote),
            response: Some(response),
            head: Some(head),
            parser: Parser::new(remote.endpoint.config.provider.framing()),
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

    /// Appends the next frames to `out`; returns false after the last. Everything that arrived in one read is returned
    /// at once, and in a burst also what can be read without waiting.
    ///
    /// # Errors
    /// The stream was cut, stalled, or ended with an error of the vendor.
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
            // The answer is complete; only the end of the body is missing.
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
            // The task of the connection passes on one piece each time it runs.
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
                self.parser.push(&bytes)?;
                self.drain_parser().await
            }
            Ok(None) => self.end_of_body(),
            Err(_) if self.decoding.complete() => self.finish().await,
            Err(error) => Err(error.into()),
        }
    }

    async fn drain_parser(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.parser.next()? {
            if self.decoding.take(event)? {
                self.decoding.conclude()?;
                return self.finish().await;
            }
        }
        Ok(())
    }

    fn end_of_body(&mut self) -> Result<(), Failure> {
        if let Some(event) = self.parser.finish()? {
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

/// Lets the ready tasks run once. Awaiting a spawned task shows that they did; a plain yield would not, because the
/// caller's future may be polled more than once per turn.
async fn give_turn() {
    let _ = tokio::spawn(std::future::ready(())).await;
}

impl From<FramingError> for Failure {
    fn from(error: FramingError) -> Self {
        Self::malformed(error.to_string())
    }
}
