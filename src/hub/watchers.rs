//! The watchers of one tail and the kinds that each wants. A frame that nobody wants costs only the check of a counter.

use std::sync::Arc;

use super::mailbox::Watch;
use super::wants::Wants;

/// A watcher. `wants` is kept beside the pointer, so that a publisher does not touch watchers that do not want the frame.
#[derive(Debug, Clone)]
pub(super) struct Watcher {
    pub(super) wants: Wants,
    pub(super) watch: Arc<Watch>,
}

/// Shared with a publisher while it wakes the watchers; a change meanwhile copies the list.
pub(super) type List = Arc<Vec<Watcher>>;

/// The watchers of one tail.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    list: List,
    /// Number of watchers of each kind.
    counts: [u32; Wants::KINDS],
}

impl Watchers {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn add(&mut self, watch: Arc<Watch>, wants: Wants) {
        for place in wants.places() {
            self.counts[place] += 1;
        }
        Arc::make_mut(&mut self.list).push(Watcher { wants, watch });
    }

    /// Removes a watcher. Returns true if it was registered.
    pub(super) fn remove(&mut self, watch: &Arc<Watch>) -> bool {
        let Some(index) = self.list.iter().position(|other| Arc::ptr_eq(&other.watch, watch)) else { return false };
        let gone = Arc::make_mut(&mut self.list).swap_remove(index);
        for place in gone.wants.places() {
            self.counts[place] -= 1;
        }
        true
    }

    /// True if a watcher wants one of these kinds.
    pub(super) fn want(&self, kinds: Wants) -> bool {
        kinds.places().any(|place| self.counts[place] > 0)
    }

    /// The list if a watcher in it wants one of these kinds, else an empty one.
    pub(super) fn wanting(&self, kinds: Wants) -> List {
        if self.want(kinds) { Arc::clone(&self.list) } else { List::default() }
    }

    /// All watchers.
    pub(super) fn all(&self) -> List {
        Arc::clone(&self.list)
    }
}

/// Wakes the watchers that want one of these kinds. Returns how many were woken, without those that were awake already.
pub(super) fn mark(list: &List, kinds: Wants) -> u64 {
    list.iter().filter(|watcher| watcher.wants.meets(kinds)).map(|watcher| u64::from(watcher.watch.mark())).sum()
}
