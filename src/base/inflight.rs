//! Accounting of bytes in flight: request bodies, unread responses, socket buffers.
//!
//! Knows no connection and no request. A [`Holder`] is one party that makes the process hold bytes, such as a connection. A
//! [`Lease`] is some of its bytes; dropping it returns them. Taking and returning are a few atomic additions. The list of
//! holders is read only when the limit is reached: then the largest holders are evicted.

use std::cmp::Reverse;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::metric::Register as _;

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
            closed: registry
                .metric("sidetone_inflight_closed", "Connections closed because they had the most bytes in flight"),
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
    #[error("{wanted} bytes in flight for one connection are over its share, half of {name} ({limit} bytes)")]
    PerHolder {
        /// Bytes that the holder would have had.
        wanted: usize,
        /// Configuration key of the limit.
        name: &'static str,
        /// The limit on all bytes in flight.
        limit: usize,
    },
    /// All holders together would exceed the limit.
    #[error("{name} ({limit} bytes) is used up by what is in flight; try again soon")]
    Total {
        /// Configuration key of the limit.
        name: &'static str,
        /// The limit on all bytes in flight.
        limit: usize,
    },
}

fn lock(holders: &Mutex<Holders>) -> MutexGuard<'_, Holders> {
    holders.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Its bytes in flight.
    pub fn held(&self) -> usize {
        self.0.state.held.load(Ordering::Relaxed)
    }

    /// Returns true once it was evicted: its connection must be closed.
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
mod tests {
    use super::*;

    fn account(limit: usize) -> Account {
        Account::new("limits.inflight_bytes", limit, Metrics::default())
    }

    #[test]
    fn lease_counts_until_it_is_dropped() {
        let account = account(100);
        let holder = account.holder();
        let mut lease = holder.take(30).expect("room");
        lease.grow(20).expect("room");
        lease.shrink(5);
        assert_eq!((lease.bytes(), holder.held(), account.used()), (45, 45, 45));
        lease.set(10);
        let other = holder.charge(7);
        assert_eq!((holder.held(), account.used()), (17, 17));
        // A lease still counts after its holder is dropped.
        drop(holder);
        drop(lease);
        assert_eq!(account.used(), 7);
        drop(other);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn take_over_the_share_is_refused_and_evicts_nobody() {
        let account = account(100);
        let (greedy, other) = (account.holder(), account.holder());
        let _other = other.take(50).expect("its share");
        let error = greedy.take(51).expect_err("over its share");
        assert_eq!(error, Exceeded::PerHolder { wanted: 51, name: "limits.inflight_bytes", limit: 100 });
        assert!(error.to_string().contains("limits.inflight_bytes"));
        assert_eq!((account.used(), greedy.is_evicted(), other.is_evicted()), (50, false, false));
    }

    #[test]
    fn take_over_the_total_is_refused_and_evicts_the_largest() {
        let account = account(100);
        let holders: Vec<Holder> = (0..4).map(|_| account.holder()).collect();
        let leases: Vec<Lease> =
            holders.iter().zip([20, 40, 30, 10]).map(|(holder, bytes)| holder.take(bytes).expect("room")).collect();
        let evicted = || holders.iter().map(Holder::is_evicted).collect::<Vec<_>>();
        let newcomer = account.holder();
        let error = newcomer.take(5).expect_err("nothing is left");
        assert!(
            matches!(error, Exceeded::Total { .. }) && error.to_string().contains("limits.inflight_bytes"),
            "{error}"
        );
        assert_eq!(evicted(), [false, true, false, false], "the largest, which is enough");
        // The evicted holder's bytes count as free already, so no second holder is evicted.
        assert!(newcomer.take(35).is_err());
        assert_eq!(evicted(), [false, true, false, false]);
        drop(leases);
        assert!(newcomer.take(35).is_ok(), "there is room once they are released");
    }

    #[test]
    fn take_of_more_than_anybody_has_evicts_nobody() {
        let account = account(100);
        let (small, large) = (account.holder(), account.holder());
        let _leases = [small.take(40).expect("room"), large.take(40).expect("room")];
        let greedy = account.holder();
        assert!(greedy.take(45).is_err());
        assert!(!small.is_evicted() && !large.is_evicted());
    }

    #[test]
    fn charge_over_the_total_evicts_the_largest_even_itself() {
        let account = account(100);
        let (small, large) = (account.holder(), account.holder());
        let _lease = small.take(45).expect("room");
        let mut growing = large.charge(50);
        growing.set(50);
        assert!(!small.is_evicted() && !large.is_evicted());
        let more = account.holder().charge(10);
        assert_eq!((small.is_evicted(), large.is_evicted(), account.used()), (false, true, 105));
        drop((more, growing));
        let mut alone = small.charge(0);
        alone.set(6);
        assert!(small.is_evicted(), "over its own share");
    }

    #[tokio::test]
    async fn eviction_wakes_the_holder() {
        let account = account(100);
        let holder = account.holder();
        let _lease = holder.take(50).expect("room");
        let waiting = tokio::spawn({
            let holder = holder.clone();
            async move { holder.evicted().await }
        });
        tokio::task::yield_now().await;
        let other = account.holder();
        let _rest = other.take(40).expect("room");
        assert!(account.holder().take(11).is_err());
        tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("woken").expect("no panic");
    }
}
