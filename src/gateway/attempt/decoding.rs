//! Decodes the events of a stream into frames, up to the end of the answer.
//!
//! Knows no socket, no clock and no record.

use std::collections::VecDeque;

use super::context::Context;
use crate::gateway::catalogue::endpoint::EndpointModel;
use crate::gateway::error::Failure;
use crate::llm::complete::Progress;
use crate::llm::sse::Event;
use crate::llm::{Piece, StreamDecoder, StreamError, Thinking, Usage, failure};

/// One event of a stream.
#[derive(Debug, Default)]
pub struct Frame {
    /// The decoded content.
    pub pieces: Vec<Piece>,
    /// The chunk as it arrived, if it is in OpenAI's own format and was requested.
    pub raw: Option<Box<[u8]>>,
}

/// The decoder of one stream.
pub(super) struct Decoding {
    decoder: Box<dyn StreamDecoder>,
    pub(super) thinking: Thinking,
    /// Set if the model produced output since this was last read, even if that output is held back.
    pub(super) spoke: bool,
    keep_raw: bool,
    /// Set if tool calls after an answer's first are left out.
    one_call: bool,
    /// The first tool call of each answer, as (choice, index).
    first_calls: Vec<(u32, u32)>,
    pub(super) held: VecDeque<Frame>,
    /// The vendor's raw counts, so that the record can count the implausible ones.
    pub(super) usage: Usage,
    /// Number of answers requested.
    asked: u32,
    progress: Progress,
}

impl Decoding {
    /// `keep_raw`: chunks that are in OpenAI's own format are kept as they arrived.
    pub(super) fn new(context: Context<'_>, remote: &EndpointModel, keep_raw: bool) -> Self {
        Self {
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
        }
    }

    /// Decodes one event into a frame. Returns true if the vendor marked the end of the answer.
    pub(super) fn take(&mut self, event: Event<'_>) -> Result<bool, Failure> {
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

    /// Ends the stream and releases the content that was held back.
    pub(super) fn end(&mut self) {
        let mut pieces = Vec::new();
        self.thinking.end(&mut pieces);
        if !pieces.is_empty() {
            pieces.iter().for_each(|piece| self.progress.piece(piece));
            self.held.push_back(Frame { pieces, raw: None });
        }
    }

    /// Returns true if every answer is complete, although the stream was cut or has stalled.
    pub(super) fn complete(&self) -> bool {
        self.progress.end(self.asked, false).is_ok()
    }

    /// Judges the stream at its end. Adds a finish to answers for which the vendor sent only the end mark.
    pub(super) fn conclude(&mut self) -> Result<(), Failure> {
        let finishes = self.progress.end(self.asked, true).map_err(|why| Failure::from(&why))?;
        let finishes = finishes.into_iter().map(|(choice, reason)| Piece::Finish { choice, reason });
        self.held.push_back(Frame { pieces: finishes.collect(), raw: None });
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
