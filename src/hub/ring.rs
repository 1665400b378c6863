//! The newest frames, by call, and of all calls in commit order.
//!
//! Knows no journal: a reader whose position is before the start of a ring reads there. Calls are spread over shards,
//! each with its own lock; the frames of all calls have another lock. No two locks are ever held together, and readers
//! are woken outside of them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::mailbox::{Waiting, Watch};
use super::wants::Wants;
use super::watchers::{List, Watchers, mark};
use super::{Config, Frame, Live, LiveFrame, LiveKind};
use crate::base::sync::lock;
use crate::base::ws::Utf8Bytes;
use crate::journal::Record;
use crate::protocol::event::Kind;
use crate::types::{CallId, Seq};

const SHARDS: usize = 64;
/// Number of frames that a call keeps whatever their size, as long as the ring of all calls holds them.
const NEWEST: usize = 4;

#[derive(Default)]
struct CallTail {
    /// Consecutive in `seq`.
    ring: VecDeque<Arc<Frame>>,
    bytes: usize,
    /// Newest `seq` published; 0 = none yet.
    head: Seq,
    /// `seq` of the newest frame published; 0 = none yet, or the log was erased.
    last: Seq,
    /// Every frame from this `seq` to `last` was published here.
    known_from: Seq,
    /// By kind: the highest `seq` that is no longer in `ring`.
    gone: [Seq; Wants::SEQUENCED],
    watchers: Watchers,
    /// Newest `insight.updated` by rolling analysis.
    insights: Vec<(Arc<str>, Seq)>,
}

impl CallTail {
    fn is_idle(&self) -> bool {
        self.ring.is_empty() && self.watchers.is_empty()
    }

    fn push(&mut self, frame: &Arc<Frame>) {
        if self.last + 1 != frame.seq() || self.last == 0 {
            // After a hole, or at the first frame: earlier frames are read from the journal.
            self.ring.clear();
            self.bytes = 0;
            (self.known_from, self.gone) = (frame.seq(), Default::default());
        }
        self.last = frame.seq();
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
            for place in Wants::from(oldest.kind()).places() {
                self.gone[place] = oldest.seq();
            }
        }
    }

    /// True if `ring` has every wanted frame after `after`.
    fn has(&self, after: Seq, wants: Wants) -> bool {
        let gone = || wants.places().filter_map(|place| self.gone.get(place)).all(|gone| *gone <= after);
        self.last > 0 && after.saturating_add(1) >= self.known_from && gone()
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
    /// The wanted frames after its position.
    Frames {
        /// In `seq` order.
        frames: Vec<Arc<Frame>>,
        /// True if more are in memory.
        more: bool,
        /// New position: every wanted frame up to it was returned.
        upto: Seq,
    },
    /// The position is before the ring's start, or nothing is known of the call: the journal must be read.
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
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash serve")]
        let index = self.hasher.hash_one(call) as usize % SHARDS;
        lock(&self.shards[index])
    }

    /// Adds durable records and wakes the readers that want them. Returns the bytes kept and the number of readers woken.
    pub(super) fn publish(&self, call: &CallId, records: &[Arc<Record>]) -> (usize, u64) {
        let frames: Vec<Arc<Frame>> =
            records.iter().filter_map(|record| Frame::new(call, Arc::clone(record))).collect();
        let kinds = frames.iter().fold(Wants::NONE, |kinds, frame| kinds.and(frame.kind().into()));
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
            tail.watchers.wanting(kinds)
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
            (all.watchers.wanting(kinds), evicted, all.bytes)
        };
        let woken = mark(&watchers, kinds) + mark(&all_watchers, kinds);
        for frame in evicted {
            self.evict(&frame);
        }
        (bytes, woken)
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
            tail.last = 0;
            let watchers = tail.watchers.all();
            if tail.is_idle() {
                shard.remove(call);
            }
            watchers
        };
        mark(&watchers, Wants::EVENTS);
    }

    /// Passes a live frame to the readers that want it. Returns their number.
    pub(super) fn live(&self, call: &CallId, frame: LiveFrame) -> u64 {
        let kind = Wants::from(&frame.kind);
        let (watchers, after) = match self.shard(call).get(call) {
            Some(tail) => (tail.watchers.wanting(kind), tail.head),
            None => (List::default(), 0),
        };
        let (all_watchers, after_order) = if self.all_watchers.load(Ordering::Relaxed) == 0 {
            (List::default(), 0)
        } else {
            let all = lock(&self.all);
            (all.watchers.wanting(kind), all.newest)
        };
        let mut wanted =
            watchers.iter().chain(all_watchers.iter()).filter(|watcher| watcher.wants.meets(kind)).peekable();
        if wanted.peek().is_none() {
            return 0;
        }
        let Ok(text) = Utf8Bytes::try_from(frame.frame) else { return 0 };
        let live = Arc::new(Live { call: call.clone(), kind: frame.kind.clone(), text });
        let mut count = 0;
        for watcher in wanted {
            watcher.watch.mailbox.push_live(Waiting { live: Arc::clone(&live), after, after_order });
            count += 1;
        }
        count
    }

    /// Returns true if any reader wants live frames of `kind` from `call`.
    pub(super) fn wants(&self, call: &CallId, kind: &LiveKind) -> bool {
        let kind = Wants::from(kind);
        let here = self.shard(call).get(call).is_some_and(|tail| tail.watchers.want(kind));
        here || (self.all_watchers.load(Ordering::Relaxed) > 0 && lock(&self.all).watchers.want(kind))
    }

    /// Registers `watch` for `call`: every frame published from now on that it wants marks it.
    pub(super) fn watch(&self, call: &CallId, watch: Arc<Watch>, wants: Wants) {
        self.shard(call).entry(call.clone()).or_default().watchers.add(watch, wants);
    }

    /// Removes a registration of [`Rings::watch`].
    pub(super) fn unwatch(&self, call: &CallId, watch: &Arc<Watch>) {
        let mut shard = self.shard(call);
        let Some(tail) = shard.get_mut(call) else { return };
        tail.watchers.remove(watch);
        if tail.is_idle() {
            shard.remove(call);
        }
    }

    /// Registers `watch` for all calls.
    pub(super) fn watch_all(&self, watch: Arc<Watch>, wants: Wants) {
        lock(&self.all).watchers.add(watch, wants);
        self.all_watchers.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes a registration of [`Rings::watch_all`].
    pub(super) fn unwatch_all(&self, watch: &Arc<Watch>) {
        if lock(&self.all).watchers.remove(watch) {
            self.all_watchers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The wanted frames of `call` after `after`, at most about `max_bytes`, at least one if there is one.
    pub(super) fn read(&self, call: &CallId, after: Seq, wants: Wants, max_bytes: usize) -> Found {
        let shard = self.shard(call);
        let Some(tail) = shard.get(call).filter(|tail| tail.has(after, wants)) else { return Found::NotHere };
        let start = tail.ring.partition_point(|frame| frame.seq() <= after);
        let wanted = tail.ring.range(start..).filter(|frame| wants.meets(frame.kind().into()));
        let (frames, more) = take(wanted, max_bytes);
        let newest = frames.last().map_or(after, |frame| frame.seq());
        Found::Frames { frames, more, upto: if more { newest } else { tail.last.max(after) } }
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
