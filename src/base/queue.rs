//! A bounded queue with metrics: each has a capacity, a depth gauge, a wait histogram and a drop counter.
//!
//! Does not know what it carries. The caller chooses the behaviour of a full queue: [`Sender::send`] waits (meanwhile
//! its socket is not read), [`Sender::try_send`] refuses and counts a drop.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use super::metric::Register as _;

/// The label of every queue metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueueLabel {
    /// Name of the queue.
    pub queue: &'static str,
}

/// `sidetone_queue_depth`, `sidetone_queue_wait_seconds`, `sidetone_queue_dropped_total`, by queue.
#[derive(Debug, Clone)]
pub struct QueueMetrics {
    depth: Family<QueueLabel, Gauge>,
    wait: Family<QueueLabel, Histogram, fn() -> Histogram>,
    dropped: Family<QueueLabel, Counter<u64, AtomicU64>>,
}

fn wait_histogram() -> Histogram {
    // 10 us to 10 s.
    Histogram::new(exponential_buckets(0.000_01, 4.0, 11))
}

impl QueueMetrics {
    /// Registers the three metrics.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            depth: registry.metric("sidetone_queue_depth", "Items waiting in a bounded queue"),
            wait: registry.add(
                "sidetone_queue_wait_seconds",
                "Time that an item waited in a bounded queue",
                Family::new_with_constructor(wait_histogram as fn() -> Histogram),
            ),
            dropped: registry.metric("sidetone_queue_dropped", "Items that a full queue refused"),
        }
    }

    /// The gauges of one queue, shared by all its instances.
    pub fn queue(&self, queue: &'static str) -> QueueGauges {
        let label = QueueLabel { queue };
        QueueGauges {
            depth: self.depth.get_or_create(&label).clone(),
            wait: self.wait.get_or_create(&label).clone(),
            dropped: self.dropped.get_or_create(&label).clone(),
        }
    }
}

/// The gauges of one named queue.
#[derive(Debug, Clone)]
pub struct QueueGauges {
    /// Number of waiting items, over all instances.
    pub depth: Gauge,
    /// Seconds that items waited.
    pub wait: Histogram,
    /// Items refused because the queue was full.
    pub dropped: Counter<u64, AtomicU64>,
}

struct Item<T> {
    value: T,
    since: Instant,
}

/// The producing end.
pub struct Sender<T> {
    inner: mpsc::Sender<Item<T>>,
    gauges: Arc<QueueGauges>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), gauges: Arc::clone(&self.gauges) }
    }
}

/// Counts an item that waits for room; dropping it ends the count.
struct Waiting<'a>(Option<&'a Gauge>);

impl<'a> Waiting<'a> {
    fn begin(depth: &'a Gauge) -> Self {
        depth.inc();
        Self(Some(depth))
    }

    /// Keeps counting the item, which is now queued.
    fn queued(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(depth) = self.0 {
            depth.dec();
        }
    }
}

/// The consuming end.
pub struct Receiver<T> {
    inner: mpsc::Receiver<Item<T>>,
    gauges: Arc<QueueGauges>,
}

/// Why a value could not be queued.
#[derive(Debug)]
pub enum SendError<T> {
    /// The queue is full; the drop was counted.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// Makes a queue of `capacity` items.
pub fn bounded<T>(capacity: usize, gauges: &Arc<QueueGauges>) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (Sender { inner: sender, gauges: Arc::clone(gauges) }, Receiver { inner: receiver, gauges: Arc::clone(gauges) })
}

impl<T> Sender<T> {
    /// Waits for room.
    ///
    /// # Errors
    /// The value, if the receiver is gone.
    ///
    /// # Cancel safety
    /// If this future is dropped, the value is lost; it was not queued.
    pub async fn send(&self, value: T) -> Result<(), T> {
        let since = Instant::now();
        // Also counted while it waits for room; dropping the future ends the count.
        let waiting = Waiting::begin(&self.gauges.depth);
        match self.inner.reserve().await {
            Ok(room) => {
                waiting.queued();
                room.send(Item { value, since });
                Ok(())
            }
            Err(_) => Err(value),
        }
    }

    /// Queues the value at once, or refuses it.
    ///
    /// # Errors
    /// [`SendError::Full`] (counted) or [`SendError::Closed`].
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        match self.inner.try_send(Item { value, since: Instant::now() }) {
            Ok(()) => {
                self.gauges.depth.inc();
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(item)) => {
                self.gauges.dropped.inc();
                Err(SendError::Full(item.value))
            }
            Err(mpsc::error::TrySendError::Closed(item)) => Err(SendError::Closed(item.value)),
        }
    }

    /// Queues the value at once, or returns it, so that the caller can keep it until there is room. Counts no drop.
    ///
    /// # Errors
    /// The value, in [`SendError::Full`] or [`SendError::Closed`].
    pub fn offer(&self, value: T) -> Result<(), SendError<T>> {
        match self.inner.try_send(Item { value, since: Instant::now() }) {
            Ok(()) => {
                self.gauges.depth.inc();
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(item)) => Err(SendError::Full(item.value)),
            Err(mpsc::error::TrySendError::Closed(item)) => Err(SendError::Closed(item.value)),
        }
    }

    /// Waits until there is room, without using it; returns false once the receiver is gone.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn room(&self) -> bool {
        self.inner.reserve().await.is_ok()
    }

    /// Returns true if the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Returns true if both ends belong to the same queue.
    pub fn same_queue(&self, other: &Self) -> bool {
        self.inner.same_channel(&other.inner)
    }
}

impl<T> Receiver<T> {
    /// The next item; `None` once all senders are gone and the queue is empty.
    ///
    /// # Cancel safety
    /// Safe: an item is either returned or still queued.
    pub async fn recv(&mut self) -> Option<T> {
        let item = self.inner.recv().await?;
        Some(self.account(item))
    }

    /// The next item, if one is there now.
    pub fn try_recv(&mut self) -> Option<T> {
        let item = self.inner.try_recv().ok()?;
        Some(self.account(item))
    }

    /// Returns true if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    fn account(&self, item: Item<T>) -> T {
        self.gauges.depth.dec();
        self.gauges.wait.observe(item.since.elapsed().as_secs_f64());
        item.value
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.inner.close();
        while self.inner.try_recv().is_ok() {
            self.gauges.depth.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn depth_after_a_cancelled_send_counts_only_queued_items() {
        let gauges = Arc::new(QueueMetrics::register(&mut Registry::default()).queue("q"));
        let (sender, mut receiver) = bounded(1, &gauges);
        sender.send(1).await.expect("room");
        let mut waiting = Box::pin(sender.send(2));
        assert!(waiting.as_mut().now_or_never().is_none(), "full");
        assert_eq!(gauges.depth.get(), 2);
        drop(waiting);
        assert_eq!(gauges.depth.get(), 1, "it was given up");
        let (sent, got) = tokio::join!(sender.send(3), receiver.recv());
        assert_eq!((sent, got, gauges.depth.get()), (Ok(()), Some(1), 1));
        let mut waiting = Box::pin(sender.send(4));
        assert!(waiting.as_mut().now_or_never().is_none(), "full");
        drop(receiver);
        assert_eq!((waiting.await, sender.send(5).await), (Err(4), Err(5)));
        assert_eq!(gauges.depth.get(), 0);
    }
}
