//! The store as the rest of the daemon has it: [`Journal`] and [`Directory`] over [`Shared`].

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::config::Config;
use super::locks::lock;
use super::metrics::Metrics;
use super::open::{Surroundings, open_in};
use super::state::State;
use super::store::Shared;
use super::sync::{start, sync_dirty};
use super::{
    CallState, CommitFuture, Directory, Entry, Journal, JournalError, NewRecord, OpenError, Record, Seq, Tail,
};
use crate::types::CallId;

/// The embedded store: files in one folder, one daemon at a time.
///
/// Appends run on the caller's thread and take microseconds. Dropped without [`Journal::close`], it leaves what a killed
/// daemon would.
pub struct Embedded {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Opens the journal in `dir`, making it if it is not there. Reads the directory, no call's log.
///
/// # Errors
/// What is wrong with the folder or its files, and what to do about it.
pub fn open(dir: &Path, config: &Config, metrics: Metrics) -> Result<Arc<Embedded>, OpenError> {
    Embedded::open_in(dir, config, metrics, Surroundings::real())
}

impl Embedded {
    pub(super) fn open_in(
        dir: &Path,
        config: &Config,
        metrics: Metrics,
        around: Surroundings,
    ) -> Result<Arc<Self>, OpenError> {
        let shared = Arc::new(open_in(dir, config, metrics, around)?);
        let started = start(&shared);
        let threads = started.map_err(|error| {
            shared.work.stop();
            OpenError::Threads(error)
        })?;
        Ok(Arc::new(Self { shared, threads: Mutex::new(threads) }))
    }

    /// Erases what is past its retention at `now_ms` (ms since 1970): what the store does by itself at its start and every
    /// hour.
    #[cfg(test)]
    pub(super) fn sweep(&self, now_ms: i64) {
        self.shared.sweep(now_ms);
    }

    /// Compacts the directory, if that is worth it.
    #[cfg(test)]
    pub(super) fn compact(&self) -> std::io::Result<bool> {
        self.shared.calls.compact_if_worth_it(&self.shared.ground.folder)
    }

    fn stop(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.work.stop();
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal has panicked");
            }
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Journal for Embedded {
    fn append(&self, call: &CallId, after: Seq, batch: Vec<NewRecord>, entry: Option<Entry>) -> CommitFuture {
        match self.shared.append(call, after, batch, entry) {
            Ok(future) => future,
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Result<Vec<Arc<Record>>, JournalError> {
        self.shared.read(call, after, max_bytes)
    }

    fn head(&self, call: &CallId) -> Result<Seq, JournalError> {
        self.shared.head(call)
    }

    fn since(&self, after: u64) -> Result<Vec<(CallId, Seq)>, JournalError> {
        self.shared.since(after)
    }

    fn order(&self) -> u64 {
        self.shared.sequencer.announced()
    }

    fn generation(&self) -> u64 {
        lock(&self.shared.state).generation
    }

    fn set_tail(&self, tail: Arc<dyn Tail>) {
        self.shared.sequencer.set_tail(tail);
    }

    fn health(&self) -> Result<(), JournalError> {
        self.shared.health.check()
    }

    fn close(&self) {
        self.stop();
        if !sync_dirty(&self.shared) {
            tracing::error!("the journal could not be synced: after a loss of power, events may be missing");
            return;
        }
        let mut state = lock(&self.shared.state);
        let directory_bytes = Some(self.shared.calls.len());
        let clean = State { clean: true, directory_bytes, ..state.clone() };
        match clean.write(&self.shared.ground) {
            Ok(()) => *state = clean,
            Err(error) => drop(self.shared.failed("note the shutdown", &error)),
        }
    }
}

impl Directory for Embedded {
    fn entry(&self, call: &CallId) -> Option<Entry> {
        self.shared.calls.with(call, |slot| slot.entry.clone())
    }

    fn page(&self, state: Option<CallState>, after: Option<&CallId>, limit: usize) -> Vec<Entry> {
        self.shared.calls.page(state, after, limit)
    }

    fn open_calls(&self) -> Vec<Entry> {
        self.shared.calls.page(Some(CallState::Open), None, usize::MAX)
    }

    fn open_count(&self) -> usize {
        self.shared.calls.open_count()
    }

    fn mark_failed(&self, call: &CallId) {
        self.shared.mark_failed(call);
    }

    fn erase(&self, call: &CallId) -> Result<bool, JournalError> {
        self.shared.erase(call)
    }
}
