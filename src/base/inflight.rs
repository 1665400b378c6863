//! Accounting of bytes in flight: request bodies, unread responses, socket buffers.
//!
//! Knows no connection and no request. A [`Holder`] is one party that makes the process hold bytes, such as a connection. A
//! [`Lease`] is some of its bytes; dropping it returns them. Taking and returning are a few atomic additions. The list of
//! holders is read only when the limit is reached: then the largest holders are evicted.

use std::cmp::Reverse;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::metric::Register as _;
use super::sync::lock;

/// One holder may have at most the limit divided by this.
const SHARE: usize = 2;
/// After a scan of the holders that took longer than this, no scan starts for ten times its duration, so that a flood
/// of refused requests spends at most a tenth of a core on scans.
const LOOK: Duration = Duration::from_micros(100);

/// `sidetone_inflight_refused_total`, `sidetone_inflight_closed_total`. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    refused: Counter,
    closed: Counter,
}

impl Metrics {
    /// Registers both.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            refused: registry
                .metric("sidetone_inflight_refused", "Requests refused because too many bytes are in flight"),
            closed: registry.metric(
                "sidetone_inflight_closed",
                "Connections closed because they had the most bytes in flight \
                    when the limit was reached",
            ),
        }
    }
}

/// The budget of all bytes in flight. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Account(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Configuration key of the limit.
    name: &'static str,
    limit: usize,
    used: AtomicUsize,
    holders: Mutex<Holders>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Holders {
    slots: Vec<Option<Arc<State>>>,
    free: Vec<usize>,
    /// No scan before this time.
    next_look: Option<Instant>,
}

/// State of a holder, shared with its leases.
#[derive(Debug)]
struct State {
    inner: Arc<Inner>,
    held: AtomicUsize,
    evicted: AtomicBool,
    waker: AtomicWaker,
}

/// A party that has bytes in flight. Clones are the same holder. After the last clone is dropped it cannot be evicted;
/// leases that are left still count.
#[derive(Debug, Clone)]
pub struct Holder(Arc<Listed>);

/// Removes the holder from the list on drop.
#[derive(Debug)]
struct Listed {
    state: Arc<State>,
    slot: usize,
}

/// Bytes in flight of one holder, returned on drop.
#[derive(Debug)]
pub struct Lease {
    state: Arc<State>,
    bytes: usize,
}

/// Why bytes were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// The holder would have more than its share.
    #[error("{wanted} bytes in flight for one connection exceed its share, half of {name} ({limit} bytes)")]
    PerHolder {
        /// Bytes that the holder would have had.
        wanted: usize,
        /// Configuration key of the limit.
        name: &'static str,
        /// The limit on all bytes in flight.
        limit: usize,
    },
    /// All holders together would exceed the limit.
    #[error("{name} ({limit} bytes) is reached: too many bytes are in flight; try again soon")]
    Total {
        /// Configuration key of the limit.
        name: &'static str,
        /// The limit on all bytes in flight.
        limit: usize,
    },
}

impl Account {
    /// A budget of `limit` bytes, of which one holder may have half. `name` is the configuration key of the limit.
    pub fn new(name: &'static str, limit: usize, metrics: Metrics) -> Self {
        let (used, holders) = (AtomicUsize::new(0), Mutex::default());
        Self(Arc::new(Inner { name, limit, used, holders, metrics }))
    }

    /// Bytes in flight now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Registers a holder.
    pub fn holder(&self) -> Holder {
        let state = Arc::new(State {
            inner: Arc::clone(&self.0),
            held: AtomicUsize::new(0),
            evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let mut holders = lock(&self.0.holders);
        let slot = holders.free.pop().unwrap_or_else(|| {
            holders.slots.push(None);
            holders.slots.len() - 1
        });
        holders.slots[slot] = Some(Arc::clone(&state));
        drop(holders);
        Holder(Arc::new(Listed { state, slot }))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut holders = lock(&self.state.inner.holders);
        holders.slots[self.slot] = None;
        holders.free.push(self.slot);
    }
}

impl Holder {
    /// Takes bytes for new work.
    ///
    /// # Errors
    /// [`Exceeded`]. If the total would be exceeded, holders with more bytes than this one would have are evicted, the
    /// largest first, until enough bytes will be free.
    pub fn take(&self, bytes: usize) -> Result<Lease, Exceeded> {
        let mut lease = Lease { state: Arc::clone(&self.0.state), bytes: 0 };
        lease.grow(bytes)?;
        Ok(lease)
    }

    /// Counts bytes that are allocated already and cannot be refused. If that exceeds the limit, the largest holders
    /// are evicted, possibly this one.
    pub fn charge(&self, bytes: usize) -> Lease {
        let state = Arc::clone(&self.0.state);
        state.charge(bytes);
        Lease { state, bytes }
    }

    /// The holder's bytes in flight.
    pub fn held(&self) -> usize {
        self.0.state.held.load(Ordering::Relaxed)
    }

    /// Returns true once the holder was evicted: its connection must be closed.
    pub fn is_evicted(&self) -> bool {
        self.0.state.evicted.load(Ordering::Acquire)
    }

    /// Returns ready once it was evicted. Wakes only the task that polled last.
    pub fn poll_evicted(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_evicted() {
            return Poll::Ready(());
        }
        self.0.state.waker.register(context.waker());
        // The eviction may have come between the first check and the registration.
        if self.is_evicted() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits for the eviction.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn evicted(&self) {
        poll_fn(|context| self.poll_evicted(context)).await;
    }
}

impl Lease {
    /// Number of bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more bytes, as [`Holder::take`].
    ///
    /// # Errors
    /// As [`Holder::take`]; the bytes taken before are kept.
    pub fn grow(&mut self, more: usize) -> Result<(), Exceeded> {
        self.state.take(more)?;
        self.bytes += more;
        Ok(())
    }

    /// Returns some of its bytes.
    pub fn shrink(&mut self, less: usize) {
        let less = less.min(self.bytes);
        self.state.release(less);
        self.bytes -= less;
    }

    /// Changes the number of bytes, as [`Holder::charge`].
    pub fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => {
                self.state.charge(more);
                self.bytes = bytes;
            }
            None => self.shrink(self.bytes - bytes),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.state.release(self.bytes);
    }
}

impl State {
    fn take(&self, bytes: usize) -> Result<(), Exceeded> {
        let Inner { name, limit, .. } = *self.inner;
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let used = self.inner.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held <= limit / SHARE && used <= limit {
            return Ok(());
        }
        self.release(bytes);
        self.inner.metrics.refused.inc();
        if held > limit / SHARE {
            return Err(Exceeded::PerHolder { wanted: held, name, limit });
        }
        self.inner.make_room(bytes, |other| other > held);
        Err(Exceeded::Total { name, limit })
    }

    fn charge(&self, bytes: usize) {
        let limit = self.inner.limit;
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let used = self.inner.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held > limit / SHARE {
            self.evict(held);
        }
        if used > limit {
            self.inner.make_room(0, |other| other >= held);
        }
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.inner.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn evict(&self, held: usize) {
        if !self.evicted.swap(true, Ordering::AcqRel) {
            self.inner.metrics.closed.inc();
            tracing::warn!(
                bytes = held,
                limit = self.inner.name,
                "connection evicted: it has the most bytes in flight"
            );
            self.waker.wake();
        }
    }
}

impl Inner {
    /// Evicts holders whose number of bytes satisfies `large`, the largest first, until `more` bytes will be free.
    /// Bytes of holders that were evicted before and are not released yet count as free.
    #[cold]
    fn make_room(&self, more: usize, large: impl Fn(usize) -> bool) {
        let mut holders = lock(&self.holders);
        let began = Instant::now();
        if holders.next_look.is_some_and(|next| began < next) {
            return;
        }
        let (mut going, mut staying) = (0, Vec::new());
        for state in holders.slots.iter().flatten() {
            let held = state.held.load(Ordering::Relaxed);
            if state.evicted.load(Ordering::Relaxed) {
                going += held;
            } else if held > 0 && large(held) {
                staying.push((held, Arc::clone(state)));
            }
        }
        let took = began.elapsed();
        holders.next_look = (took > LOOK).then(|| began + took * 10);
        // Evicting wakes a task, whose waker may drop a holder, which takes this lock.
        drop(holders);
        staying.sort_unstable_by_key(|(held, _)| Reverse(*held));
        let mut missing = (self.used.load(Ordering::Relaxed) + more).saturating_sub(self.limit).saturating_sub(going);
        for (held, state) in staying {
            if missing == 0 {
                return;
            }
            missing = missing.saturating_sub(held);
            state.evict(held);
        }
    }
}

#[cfg(test)]
mod tests;
