//! Reads older events of all calls in commit order: merges their logs by `order`.
//!
//! Memory is bounded: one position per call, and a shared budget of frames read ahead. Works in small steps, so that a
//! reader that must catch up with 10,000 calls does not block its thread. If a step needs a read that is not answered
//! yet, it ends, and the next step continues there.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use super::{Frame, HubError};
use crate::journal::{Answer, JournalError, Record, Store};
use crate::types::{CallId, Seq};

/// Budget for frames read ahead, over all calls, bytes.
const AHEAD_BYTES: usize = 256 * 1024;
/// Maximum size of frames read ahead at once for one call, bytes.
const CHUNK_BYTES: usize = 16 * 1024;
/// Number of calls opened in one step, and of reads in flight.
const OPEN_AT_ONCE: usize = 64;

struct Source {
    call: CallId,
    /// Last `seq` that was merged or read ahead.
    read_to: Seq,
    ahead: VecDeque<Arc<Frame>>,
    /// A read of the following records, if one is in flight.
    reading: Option<Answer<Vec<Arc<Record>>>>,
}

/// Result of a step.
pub(super) enum Step {
    /// The next frames, in order.
    Frames(Vec<Arc<Frame>>),
    /// No frames yet: further steps are needed.
    Working,
    /// No frames yet: a read is in flight, and its waker will be woken.
    Waiting,
    /// Everything up to `upto` has been returned.
    Done,
}

/// Merges the frames after one `order` and up to another.
pub(super) struct Merge {
    upto: u64,
    unopened: std::vec::IntoIter<(CallId, Seq)>,
    sources: Vec<Source>,
    /// Sources whose first frame is not known yet.
    opening: Vec<usize>,
    /// The source whose next frame is not known yet; no frame is returned before it is.
    unknown: Option<usize>,
    /// `order` of the next frame, by source.
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    ahead_bytes: usize,
    chunk: usize,
}

impl Merge {
    /// Merges all frames with `order <= upto` of `calls`, each from its `seq` on. Each frame must be readable in the
    /// journal now.
    pub(super) fn new(calls: Vec<(CallId, Seq)>, upto: u64) -> Self {
        let chunk = (AHEAD_BYTES / calls.len().max(1)).clamp(1, CHUNK_BYTES);
        Self {
            upto,
            sources: Vec::with_capacity(calls.len()),
            unopened: calls.into_iter(),
            opening: Vec::new(),
            unknown: None,
            heap: BinaryHeap::new(),
            ahead_bytes: 0,
            chunk,
        }
    }

    /// The `order` at which the merge ends.
    pub(super) fn upto(&self) -> u64 {
        self.upto
    }

    /// Does the next step. A call that cannot be read is left out and reported in `failed`. `waker` is woken when a read
    /// that was in flight is answered.
    ///
    /// # Errors
    /// `Unavailable`: nothing is lost, the step can be tried again.
    pub(super) fn step(
        &mut self,
        store: &dyn Store,
        waker: &Waker,
        max_bytes: usize,
        failed: &mut VecDeque<HubError>,
    ) -> Result<Step, HubError> {
        if let Some(unfinished) = self.open(store, waker, failed)? {
            return Ok(unfinished);
        }
        if let Some(index) = self.unknown {
            if !self.fill(store, waker, index, failed)? {
                return Ok(Step::Waiting);
            }
            self.unknown = None;
            self.queue(index);
        }
        let mut frames = Vec::new();
        let mut bytes = 0;
        let mut waiting = false;
        while bytes < max_bytes {
            let Some(Reverse((_, index))) = self.heap.peek().copied() else { break };
            if self.sources[index].ahead.is_empty() {
                // The frame was read to learn its order, and dropped because there was no room.
                match self.fill(store, waker, index, failed) {
                    Ok(true) => {}
                    Ok(false) => {
                        waiting = true;
                        break;
                    }
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
            if self.sources[index].ahead.is_empty() {
                match self.fill(store, waker, index, failed) {
                    Ok(true) => {}
                    Ok(false) => {
                        self.unknown = Some(index);
                        break;
                    }
                    Err(error) => {
                        self.unknown = Some(index);
                        failed.push_back(error);
                        break;
                    }
                }
            }
            self.queue(index);
        }
        Ok(if !frames.is_empty() {
            Step::Frames(frames)
        } else if waiting {
            Step::Waiting
        } else {
            Step::Done
        })
    }

    /// Opens some more calls; `None` once all are open.
    fn open(
        &mut self,
        store: &dyn Store,
        waker: &Waker,
        failed: &mut VecDeque<HubError>,
    ) -> Result<Option<Step>, HubError> {
        if self.opening.is_empty() {
            for (call, first) in self.unopened.by_ref().take(OPEN_AT_ONCE) {
                self.opening.push(self.sources.len());
                let read_to = first.saturating_sub(1);
                self.sources.push(Source { call, read_to, ahead: VecDeque::new(), reading: None });
            }
        }
        let mut position = 0;
        while let Some(index) = self.opening.get(position).copied() {
            if !self.fill(store, waker, index, failed)? {
                position += 1;
                continue;
            }
            self.opening.swap_remove(position);
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
        Ok(match (self.opening.is_empty(), self.unopened.as_slice().is_empty()) {
            (false, _) => Some(Step::Waiting),
            (true, false) => Some(Step::Working),
            (true, true) => None,
        })
    }

    fn queue(&mut self, index: usize) {
        if let Some(next) = self.sources[index].ahead.front() {
            self.heap.push(Reverse((next.order(), index)));
        }
    }

    /// Reads a chunk of a call ahead; returns false while that read is in flight. If it adds nothing, the call has no
    /// more frames up to `upto`.
    fn fill(
        &mut self,
        store: &dyn Store,
        waker: &Waker,
        index: usize,
        failed: &mut VecDeque<HubError>,
    ) -> Result<bool, HubError> {
        let source = &mut self.sources[index];
        let reading = source.reading.get_or_insert_with(|| store.read(&source.call, source.read_to, self.chunk));
        let Some(result) = reading.poll_with(waker) else { return Ok(false) };
        source.reading = None;
        match result {
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
        Ok(true)
    }
}
