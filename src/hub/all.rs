//! A reader's position in the stream of all events: the newest frames come from memory, older ones are merged from the
//! journal.
//!
//! Knows no live frame.

use std::collections::VecDeque;
use std::sync::Arc;

use super::mailbox::{Mailbox, Watch};
use super::merge::{Merge, Step};
use super::wants::Wants;
use super::{Frame, HubError, Inner};
use crate::journal::Answer;
use crate::types::{CallId, Seq};

/// The position in the stream of all events.
pub(super) struct All {
    watch: Arc<Watch>,
    after: u64,
    catch_up: Option<CatchUp>,
}

/// How a reader of all calls gets the frames that are no longer in memory.
enum CatchUp {
    /// The calls with frames after the position are being looked up; the merge will end at `upto`.
    Listing { calls: Answer<Vec<(CallId, Seq)>>, upto: u64 },
    /// The logs of the calls are merged.
    Merging(Box<Merge>),
}

impl All {
    /// Begins after `after`; the reader is woken for what it `wants`.
    pub(super) fn new(after: u64, hub: &Inner, mailbox: &Arc<Mailbox>, wants: Wants) -> Self {
        let watch = Watch::new(mailbox, 0);
        // Its position moves with every event, wanted or not.
        hub.rings.watch_all(Arc::clone(&watch), wants.and(Wants::EVENTS));
        Self { watch, after, catch_up: None }
    }

    /// Stops being woken.
    pub(super) fn unwatch(&self, hub: &Inner) {
        hub.rings.unwatch_all(&self.watch);
    }

    /// Every event up to this `order` was returned.
    pub(super) fn order(&self) -> u64 {
        self.after
    }

    /// Returns true while it reads frames from the journal.
    pub(super) fn is_catching_up(&self) -> bool {
        self.catch_up.is_some()
    }

    /// Reads the frames after the position, and moves it. Also returns whether there is more to do without any news.
    pub(super) fn read(
        &mut self,
        hub: &Inner,
        mailbox: &Mailbox,
        max_bytes: usize,
        failed: &mut VecDeque<HubError>,
    ) -> (Vec<Arc<Frame>>, bool) {
        self.watch.clear();
        loop {
            match &mut self.catch_up {
                None => match hub.rings.read_all(self.after, max_bytes) {
                    Ok(frames) => {
                        hub.metrics.from_memory.inc_by(frames.len() as u64);
                        self.after = frames.last().map_or(self.after, |frame| frame.order());
                        return (frames, false);
                    }
                    Err(upto) => {
                        self.catch_up = Some(CatchUp::Listing { calls: hub.journal.since(self.after), upto });
                    }
                },
                Some(CatchUp::Listing { calls, upto }) => {
                    let upto = *upto;
                    match calls.poll_with(&mailbox.waker()) {
                        None => return (Vec::new(), false),
                        Some(Ok(calls)) => {
                            self.catch_up = Some(CatchUp::Merging(Box::new(Merge::new(calls, upto))));
                        }
                        Some(Err(error)) => {
                            self.catch_up = None;
                            failed.push_back(HubError::Unavailable(error.to_string()));
                            return (Vec::new(), false);
                        }
                    }
                }
                Some(CatchUp::Merging(merge)) => {
                    match merge.step(hub.journal.as_ref(), &mailbox.waker(), max_bytes, failed) {
                        Ok(Step::Frames(frames)) => {
                            hub.metrics.from_journal.inc_by(frames.len() as u64);
                            self.after = frames.last().map_or(self.after, |frame| frame.order());
                            return (frames, false);
                        }
                        Ok(Step::Working) => return (Vec::new(), true),
                        Ok(Step::Waiting) => return (Vec::new(), false),
                        Ok(Step::Done) => {
                            self.after = self.after.max(merge.upto());
                            self.catch_up = None;
                        }
                        Err(error) => {
                            failed.push_back(error);
                            return (Vec::new(), false);
                        }
                    }
                }
            }
        }
    }
}
