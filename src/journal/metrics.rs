//! What the journal counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters of one store. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Batches appended. Not counted: fenced and failed ones, changes of an entry alone.
    pub appends: Counter,
    /// Bytes of these batches as written, framing included.
    pub appended_bytes: Counter,
    /// Seconds of an append on the caller's thread; with `"machine"`, without the wait for the sync.
    pub append_seconds: Histogram,
    /// Seconds of one sync, of a log or of all of them at once.
    pub sync_seconds: Histogram,
    /// Writes, syncs and truncations that failed.
    pub failures: Counter,
    /// Logs that are open as files now.
    pub open_files: Gauge,
    /// Damaged files found since the start.
    pub damaged: Counter,
    /// Torn tails cut since the start.
    pub cut_tails: Counter,
    /// Calls erased, by retention or on request.
    pub erased: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            appends: Counter::default(),
            appended_bytes: Counter::default(),
            // 1 us to 4 s.
            append_seconds: Histogram::new(exponential_buckets(0.000_001, 4.0, 12)),
            // 50 us to 3 s.
            sync_seconds: Histogram::new(exponential_buckets(0.000_05, 3.0, 11)),
            failures: Counter::default(),
            open_files: Gauge::default(),
            damaged: Counter::default(),
            cut_tails: Counter::default(),
            erased: Counter::default(),
        }
    }
}

impl Metrics {
    /// Registers all of them as `sidetone_journal_*`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("sidetone_journal_{name}"), help, counter.clone());
        };
        counter("appends", "Batches appended to the journal", &metrics.appends);
        counter("appended_bytes", "Bytes appended to the journal", &metrics.appended_bytes);
        counter("failures", "Writes and syncs of the journal that failed", &metrics.failures);
        counter("damaged_files", "Damaged journal files found", &metrics.damaged);
        counter("cut_tails", "Torn tails of journal files cut", &metrics.cut_tails);
        counter("erased_calls", "Calls erased from the journal", &metrics.erased);
        registry.register(
            "sidetone_journal_append_seconds",
            "Time of an append on the caller's thread, without the wait for a sync",
            metrics.append_seconds.clone(),
        );
        registry.register(
            "sidetone_journal_sync_seconds",
            "Time of one sync of a call log, or of all at once",
            metrics.sync_seconds.clone(),
        );
        registry.register("sidetone_journal_open_files", "Call logs open as files", metrics.open_files.clone());
        metrics
    }
}
