//! Metrics of the journal.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::base::metric::Register as _;

/// Metrics of one store. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Number of appended batches, without fenced and failed ones and without changes of an entry alone.
    pub appends: Counter,
    /// Bytes of these batches as written, including their framing.
    pub appended_bytes: Counter,
    /// Duration of an append on the caller's thread, in seconds; with `"machine"`, without the wait for the sync.
    pub append_seconds: Histogram,
    /// Duration of one sync, of one log or of all logs at once, in seconds.
    pub sync_seconds: Histogram,
    /// Writes, syncs and truncations that failed.
    pub failures: Counter,
    /// Logs that are open as files now.
    pub open_files: Gauge,
    /// Number of calls in the directory, all of which are in memory.
    pub calls: Gauge,
    /// Damaged files found since the start.
    pub damaged: Counter,
    /// Torn ends that were truncated since the start.
    pub cut_tails: Counter,
    /// Number of checks for calls whose retention is over.
    pub sweeps: Counter,
    /// Calls erased, by retention or on request.
    pub erased: Counter,
}

/// Metrics that are not registered.
impl Default for Metrics {
    fn default() -> Self {
        Self::register(&mut Registry::default())
    }
}

impl Metrics {
    /// Registers all metrics as `sidetone_journal_*`.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            appends: registry.metric("sidetone_journal_appends", "Batches appended to the journal"),
            appended_bytes: registry.metric("sidetone_journal_appended_bytes", "Bytes appended to the journal"),
            append_seconds: registry.add(
                "sidetone_journal_append_seconds",
                "Time of an append on the caller's thread, without the wait for a sync",
                // 1 us to 4 s.
                Histogram::new(exponential_buckets(0.000_001, 4.0, 12)),
            ),
            sync_seconds: registry.add(
                "sidetone_journal_sync_seconds",
                "Time of one sync of a call log, or of all at once",
                // 50 us to 3 s.
                Histogram::new(exponential_buckets(0.000_05, 3.0, 11)),
            ),
            failures: registry.metric("sidetone_journal_failures", "Writes and syncs of the journal that failed"),
            open_files: registry.metric("sidetone_journal_open_files", "Call logs open as files"),
            calls: registry.metric("sidetone_journal_calls", "Calls in the directory, open or not"),
            damaged: registry.metric("sidetone_journal_damaged_files", "Damaged journal files found"),
            cut_tails: registry.metric("sidetone_journal_cut_tails", "Torn ends of journal files removed"),
            sweeps: registry.metric("sidetone_journal_sweeps", "Checks for calls whose retention is over"),
            erased: registry.metric("sidetone_journal_erased_calls", "Calls erased from the journal"),
        }
    }
}
