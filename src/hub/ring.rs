//! The newest frames, by call, and of all calls in commit order.
//!
//! Knows no journal: a reader whose position is before the start of a ring reads there. Calls are spread over shards,
//! each with its own lock; the frames of all calls have another lock. No two locks are ever held together, and readers
//! are woken outside of them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mailbox::{Waiting, Watch};
use super::{Config, Frame, Kind, Live, LiveFrame, LiveKind};
use crate::base::ws::Utf8Bytes;
use crate::journal::Record;
use crate::types::{CallId, Seq};

const SHARDS: usize = 64;
/// Number of frames that a call keeps whatever their size, as long as the ring of all calls holds them.
const NEWEST: usize = 4;

/// Watchers of a tail. A publisher that is waking them shares the list; only then does a change copy it.
type Watchers = Arc<Vec<Arc<Watch>>>;

#[derive(Default)]
struct CallTail {
    /// Consecutive in `seq`.
    ring: VecDeque<Arc<Frame>>,
    bytes: usize,
    /// Newest `seq` published; 0 = none yet.
    head: Seq,
    watchers: Watchers,
    /// Newest `insight.updated` by rolling analysis.
    insights: Vec<(Arc<str>, Seq)>,
}

impl CallTail {
    fn is_idle(&self) -> bool {
        self.ring.is_empty() && self.watchers.is_empty()
    }

    fn push(&mut self, frame: &Arc<Frame>) {
        if self.ring.back().is_some_and(|newest| newest.seq() + 1 != frame.seq()) {
            // A gap: the frames before it are read from the journal.
            self.ring.clear();
            self.bytes = 0;
        }
        self.head = self.head.max(frame.seq());
        self.bytes += frame.bytes();
        self.ring.push_back(Arc::clone(frame));
        if let (Kind::InsightUpdated, Some(analysis), None) = (frame.kind(), frame.analysis(), frame.turn()) {
            match self.insights.iter_mut().find(|(name, _)| name == analysis) {
                Some((_, seq)) => *seq = frame.seq(),
                None => self.insights.push((Arc::clone(analysis), frame.seq())),
            }
        }
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.ring.pop_front() {
            self.bytes -= oldest.bytes();
        }
    }
}

struct AllTail {
    /// In the order of `order`.
    ring: VecDeque<Arc<Frame>>,
    bytes: usize,
    /// Every frame of a higher `order` is in `ring`.
    floor: u64,
    /// Newest `order` published.
    newest: u64,
    watchers: Watchers,
}

/// Result of a read in memory.
pub(super) enum Found {
    /// The frames after the position, and whether there are more.
    Frames(Vec<Arc<Frame>>, bool),
    /// The position is before the ring's start, or the call is not in memory: the journal must be read.
    NotHere,
}

pub(super) struct Rings {
    config: Config,
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<CallId, CallTail>>>,
    all: Mutex<AllTail>,
    /// Number of watchers of all calls, so that a live frame need not take the lock to find that there is none.
    all_watchers: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mark(watchers: &Watchers) {
    for watch in watchers.iter() {
        watch.mark();
    }
}

impl Rings {
    /// Empty rings; everything up to `order` is only in the journal.
    pub(super) fn new(config: Config, order: u64) -> Self {
        Self {
            config,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            all: Mutex::new(AllTail {
                ring: VecDeque::new(),
                bytes: 0,
                floor: order,
                newest: order,
                watchers: Watchers::default(),
            }),
            all_watchers: AtomicUsize::new(0),
        }
    }

    fn shard(&self, call: &CallId) -> MutexGuard<'_, HashMap<CallId, CallTail>> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let index = self.hasher.hash_one(call) as usize % SHARDS;
        lock(&self.shards[index])
    }

    /// Adds durable records and wakes their readers. Returns the number of bytes kept now.
    pub(super) fn publish(&self, call: &CallId, records: &[Arc<Record>]) -> usize {
        let frames: Vec<Arc<Frame>> =
            records.iter().filter_map(|record| Frame::new(call, Arc::clone(record))).collect();
        let watchers = {
            let mut shard = self.shard(call);
            let tail = match shard.get_mut(call) {
                Some(tail) => tail,
                None => shard.entry(call.clone()).or_default(),
            };
            for frame in &frames {
                tail.push(frame);
            }
            while tail.bytes > self.config.call_bytes && tail.ring.len() > NEWEST {
                tail.pop();
            }
            Arc::clone(&tail.watchers)
        };
        let (all_watchers, evicted, bytes) = {
            let mut all = lock(&self.all);
            for frame in &frames {
                all.bytes += frame.bytes();
                all.newest = all.newest.max(frame.order());
                all.ring.push_back(Arc::clone(frame));
            }
            let mut evicted = Vec::new();
            while all.bytes > self.config.ring_bytes {
                let Some(oldest) = all.ring.pop_front() else { break };
                all.bytes -= oldest.bytes();
                all.floor = all.floor.max(oldest.order());
                evicted.push(oldest);
            }
            (Arc::clone(&all.watchers), evicted, all.bytes)
        };
        mark(&watchers);
        mark(&all_watchers);
        for frame in evicted {
            self.evict(&frame);
        }
        bytes
    }

    fn evict(&self, frame: &Frame) {
        let mut shard = self.shard(frame.call());
        let Some(tail) = shard.get_mut(frame.call()) else { return };
        while tail.ring.front().is_some_and(|oldest| oldest.seq() <= frame.seq()) {
            tail.pop();
        }
        if tail.is_idle() {
            shard.remove(frame.call());
        }
    }

    /// Forgets a call whose log was erased, and wakes its readers so that they notice.
    pub(super) fn erase(&self, call: &CallId) {
        let watchers = {
            let mut shard = self.shard(call);
            let Some(tail) = shard.get_mut(call) else { return };
            tail.ring.clear();
            tail.bytes = 0;
            tail.insights.clear();
            let watchers = Arc::clone(&tail.watchers);
            if tail.is_idle() {
                shard.remove(call);
            }
            watchers
        };
        mark(&watchers);
    }

    /// Passes a live frame to the readers that want it.
    pub(super) fn live(&self, call: &CallId, frame: LiveFrame) {
        let (watchers, after) = match self.shard(call).get(call) {
            Some(tail) => (Arc::clone(&tail.watchers), tail.head),
            None => (Watchers::default(), 0),
        };
        let (all_watchers, after_order) = if self.all_watchers.load(Ordering::Relaxed) == 0 {
            (Watchers::default(), 0)
        } else {
            let all = lock(&self.all);
            (Arc::clone(&all.watchers), all.newest)
        };
        let mut wanted =
            watchers.iter().chain(all_watchers.iter()).filter(|watch| watch.mailbox.wants(&frame.kind)).peekable();
        if wanted.peek().is_none() {
            return;
        }
        let Ok(text) = Utf8Bytes::try_from(frame.frame) else { return };
        let live = Arc::new(Live { call: call.clone(), kind: frame.kind.clone(), text });
        for watch in wanted {
            watch.mailbox.push_live(Waiting { live: Arc::clone(&live), after, after_order });
        }
    }

    /// Returns true if any reader wants live frames of `kind` from `call`.
    pub(super) fn wants(&self, call: &CallId, kind: &LiveKind) -> bool {
        let wanted = |watchers: &Watchers| watchers.iter().any(|watch| watch.mailbox.wants(kind));
        let here = self.shard(call).get(call).is_some_and(|tail| wanted(&tail.watchers));
        here || (self.all_watchers.load(Ordering::Relaxed) > 0 && wanted(&lock(&self.all).watchers))
    }

    /// Registers `watch` for `call`. Everything published from now on marks it.
    pub(super) fn watch(&self, call: &CallId, watch: Arc<Watch>) {
        let mut shard = self.shard(call);
        Arc::make_mut(&mut shard.entry(call.clone()).or_default().watchers).push(watch);
    }

    /// Removes a registration of [`Rings::watch`].
    pub(super) fn unwatch(&self, call: &CallId, watch: &Arc<Watch>) {
        let mut shard = self.shard(call);
        let Some(tail) = shard.get_mut(call) else { return };
        let watchers = Arc::make_mut(&mut tail.watchers);
        if let Some(index) = watchers.iter().position(|other| Arc::ptr_eq(other, watch)) {
            watchers.swap_remove(index);
        }
        if tail.is_idle() {
            shard.remove(call);
        }
    }

    /// Registers `watch` for all calls.
    pub(super) fn watch_all(&self, watch: Arc<Watch>) {
        Arc::make_mut(&mut lock(&self.all).watchers).push(watch);
        self.all_watchers.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes a registration of [`Rings::watch_all`].
    pub(super) fn unwatch_all(&self, watch: &Arc<Watch>) {
        let mut all = lock(&self.all);
        let watchers = Arc::make_mut(&mut all.watchers);
        if let Some(index) = watchers.iter().position(|other| Arc::ptr_eq(other, watch)) {
            watchers.swap_remove(index);
            self.all_watchers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Frames of `call` after `after`: about `max_bytes` at most, but at least one if there is one.
    pub(super) fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Found {
        let shard = self.shard(call);
        let Some(tail) = shard.get(call) else { return Found::NotHere };
        let (Some(oldest), Some(newest)) = (tail.ring.front(), tail.ring.back()) else { return Found::NotHere };
        if after >= newest.seq() {
            return Found::Frames(Vec::new(), false);
        }
        let Some(skip) = (after + 1).checked_sub(oldest.seq()) else { return Found::NotHere };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let (frames, more) = take(tail.ring.range(skip.min(tail.ring.len())..), max_bytes);
        Found::Frames(frames, more)
    }

    /// Frames of all calls after `after`, about `max_bytes` at most, but at least one if there is one.
    ///
    /// # Errors
    /// The floor up to which the journal must be read, if the position is below it.
    pub(super) fn read_all(&self, after: u64, max_bytes: usize) -> Result<Vec<Arc<Frame>>, u64> {
        let all = lock(&self.all);
        if after < all.floor {
            return Err(all.floor);
        }
        let start = all.ring.partition_point(|frame| frame.order() <= after);
        Ok(take(all.ring.range(start..), max_bytes).0)
    }

    /// The newest `seq` of `call` that was published; 0 = none.
    pub(super) fn head(&self, call: &CallId) -> Seq {
        self.shard(call).get(call).map_or(0, |tail| tail.head)
    }

    /// The newest `order` that was published.
    pub(super) fn newest(&self) -> u64 {
        lock(&self.all).newest
    }

    pub(super) fn newest_insight(&self, call: &CallId, analysis: &str) -> Option<Seq> {
        let shard = self.shard(call);
        let tail = shard.get(call)?;
        tail.insights.iter().find(|(name, _)| name.as_ref() == analysis).map(|(_, seq)| *seq)
    }

    /// Number of calls with something in memory or with a watcher, for tests of leaks.
    #[cfg(test)]
    pub(super) fn calls(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}

/// At most `max_bytes` of frames, but at least one, and whether there are more.
fn take<'a>(frames: impl Iterator<Item = &'a Arc<Frame>>, max_bytes: usize) -> (Vec<Arc<Frame>>, bool) {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for frame in frames {
        bytes += frame.text().len();
        if !taken.is_empty() && bytes > max_bytes {
            return (taken, true);
        }
        taken.push(Arc::clone(frame));
    }
    (taken, false)
}
