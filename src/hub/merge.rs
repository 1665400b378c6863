//! Reads the past of all calls in commit order: merges their logs by `order`.
//!
//! Memory is bounded: one position per call, and a shared budget of frames read ahead. Works in small steps, so that a
//! reader that must catch up with 10,000 calls does not block its thread.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use super::{Frame, HubError};
use crate::journal::{Journal, JournalError};
use crate::types::{CallId, Seq};

/// Budget for frames read ahead, over all calls, bytes.
const AHEAD_BYTES: usize = 256 * 1024;
/// Maximum size of frames read ahead at once for one call, bytes.
const CHUNK_BYTES: usize = 16 * 1024;
/// Number of calls opened in one step.
const OPEN_AT_ONCE: usize = 64;

struct Source {
    call: CallId,
    /// Last `seq` that was merged or read ahead.
    read_to: Seq,
    ahead: VecDeque<Arc<Frame>>,
}

/// Result of a step.
pub(super) enum Step {
    /// The next frames, in order.
    Frames(Vec<Arc<Frame>>),
    /// No frames yet: further steps are needed.
    Working,
    /// Everything up to `upto` has been returned.
    Done,
}

/// Merges the frames after one `order` and up to another.
pub(super) struct Merge {
    upto: u64,
    unopened: std::vec::IntoIter<(CallId, Seq)>,
    sources: Vec<Source>,
    /// `order` of the next frame, by source.
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    ahead_bytes: usize,
    chunk: usize,
}

impl Merge {
    /// Merges all frames with `after < order <= upto`. Each of them must be readable in `journal` now.
    ///
    /// # Errors
    /// The journal cannot list the calls with such frames.
    pub(super) fn new(journal: &dyn Journal, after: u64, upto: u64) -> Result<Self, JournalError> {
        let calls = journal.since(after)?;
        let chunk = (AHEAD_BYTES / calls.len().max(1)).clamp(1, CHUNK_BYTES);
        Ok(Self {
            upto,
            sources: Vec::with_capacity(calls.len()),
            unopened: calls.into_iter(),
            heap: BinaryHeap::new(),
            ahead_bytes: 0,
            chunk,
        })
    }

    /// The `order` at which the merge ends.
    pub(super) fn upto(&self) -> u64 {
        self.upto
    }

    /// Does the next step. A call that cannot be read is left out and reported in `failed`.
    ///
    /// # Errors
    /// `Unavailable`: nothing is lost, the step can be tried again.
    pub(super) fn step(
        &mut self,
        journal: &dyn Journal,
        max_bytes: usize,
        failed: &mut VecDeque<HubError>,
    ) -> Result<Step, HubError> {
        if !self.open(journal, failed)? {
            return Ok(Step::Working);
        }
        let mut frames = Vec::new();
        let mut bytes = 0;
        while bytes < max_bytes {
            let Some(Reverse((_, index))) = self.heap.peek().copied() else { break };
            if self.sources[index].ahead.is_empty() {
                // It was read to learn its order, and dropped because there was no room.
                match self.fill(journal, index, failed) {
                    Ok(()) => {}
                    Err(_) if !frames.is_empty() => break,
                    Err(error) => return Err(error),
                }
            }
            let Some(frame) = self.sources[index].ahead.pop_front() else {
                self.heap.pop();
                continue;
            };
            self.ahead_bytes = self.ahead_bytes.saturating_sub(frame.bytes());
            if bytes > 0 && bytes + frame.text().len() > max_bytes {
                self.ahead_bytes += frame.bytes();
                self.sources[index].ahead.push_front(frame);
                break;
            }
            bytes += frame.text().len();
            frames.push(frame);
            self.heap.pop();
            // The order of the call's next frame must be known before any later frame is returned.
            if self.sources[index].ahead.is_empty()
                && let Err(error) = self.fill(journal, index, failed)
            {
                // The frames collected so far are returned; the call keeps its place, so that it is read again first.
                self.heap.push(Reverse((0, index)));
                failed.push_back(error);
                break;
            }
            self.queue(index);
        }
        Ok(if frames.is_empty() { Step::Done } else { Step::Frames(frames) })
    }

    /// Opens some more calls; returns true once all are open.
    fn open(&mut self, journal: &dyn Journal, failed: &mut VecDeque<HubError>) -> Result<bool, HubError> {
        for _ in 0..OPEN_AT_ONCE {
            let Some((call, first)) = self.unopened.as_slice().first().cloned() else { return Ok(true) };
            let index = self.sources.len();
            self.sources.push(Source { call, read_to: first.saturating_sub(1), ahead: VecDeque::new() });
            if let Err(error) = self.fill(journal, index, failed) {
                self.sources.pop();
                return Err(error);
            }
            self.unopened.next();
            self.queue(index);
            if self.ahead_bytes > AHEAD_BYTES {
                let source = &mut self.sources[index];
                if let Some(first) = source.ahead.front() {
                    source.read_to = first.seq() - 1;
                }
                for frame in source.ahead.drain(..) {
                    self.ahead_bytes = self.ahead_bytes.saturating_sub(frame.bytes());
                }
            }
        }
        Ok(self.unopened.as_slice().is_empty())
    }

    fn queue(&mut self, index: usize) {
        if let Some(next) = self.sources[index].ahead.front() {
            self.heap.push(Reverse((next.order(), index)));
        }
    }

    /// Reads a chunk of a call ahead. If it adds nothing, the call has no more frames up to `upto`.
    fn fill(&mut self, journal: &dyn Journal, index: usize, failed: &mut VecDeque<HubError>) -> Result<(), HubError> {
        let source = &mut self.sources[index];
        match journal.read(&source.call, source.read_to, self.chunk) {
            Ok(records) => {
                for record in records {
                    if record.order > self.upto {
                        break;
                    }
                    source.read_to = record.seq;
                    if let Some(frame) = Frame::new(&source.call, record) {
                        self.ahead_bytes += frame.bytes();
                        source.ahead.push_back(frame);
                    }
                }
            }
            // The call was erased: there is nothing left to deliver.
            Err(JournalError::UnknownCall) => {}
            Err(JournalError::Gone { .. }) => {
                failed.push_back(HubError::Gone { call: source.call.clone(), after: source.read_to });
            }
            Err(error @ JournalError::Damaged { .. }) => {
                failed.push_back(HubError::Damaged { call: source.call.clone(), message: error.to_string() });
            }
            Err(error @ (JournalError::Unavailable(_) | JournalError::Fenced { .. })) => {
                return Err(HubError::Unavailable(error.to_string()));
            }
        }
        Ok(())
    }
}
