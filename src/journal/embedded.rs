//! The embedded store: implements [`Store`] over [`Shared`].
//!
//! Decides which operations run on the caller's thread and which on a thread for blocking work. Knows no file.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::runtime::Handle;

use super::config::Config;
use super::metrics::Metrics;
use super::open::{Surroundings, open_in};
use super::state::State;
use super::store::Shared;
use super::sync::sync_dirty;
use super::threads::start;
use super::{Answer, CallState, Commit, Entry, HeaderOf, JournalError, NewRecord, OpenError, Record, Seq, Store, Tail};
use crate::base::sync::lock;
use crate::types::CallId;

/// Longest read on the caller's thread, bytes: it takes well under a millisecond.
const INLINE_BYTES: usize = 64 * 1024;

/// The embedded store: files in one folder, used by one daemon at a time.
///
/// Appends run on the caller's thread and take microseconds, as do short reads of logs that were read before. Other
/// reads run on a thread for blocking work if the caller is on a runtime. Dropping it without [`Store::close`] leaves
/// the files as a killed daemon would.
pub struct Embedded {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Opens the journal in `dir`, which is created if it does not exist. Reads the directory but no call's log. If the
/// journal has the previous format, every log is migrated first, with headers that `header_of` makes.
///
/// # Errors
/// What is wrong with the folder or its files, and what to do about it.
pub fn open(dir: &Path, config: &Config, metrics: Metrics, header_of: HeaderOf) -> Result<Arc<Embedded>, OpenError> {
    Embedded::open_in(dir, config, metrics, Surroundings::real(header_of))
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

    /// Erases the calls whose retention is over at `now_ms` (ms since 1970). The store also does this by itself at its
    /// start and every hour.
    #[cfg(test)]
    pub(super) fn sweep(&self, now_ms: i64) {
        self.shared.sweep(now_ms);
    }

    /// Compacts the directory if that is worthwhile.
    #[cfg(test)]
    pub(super) fn compact(&self) -> std::io::Result<bool> {
        self.shared.calls.compact_if_worth_it(&self.shared.storage.folder)
    }

    /// Runs `work` on a thread for blocking work; without a runtime, on the caller's thread.
    fn elsewhere<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, JournalError> + Send + 'static,
    ) -> Answer<T> {
        let Ok(runtime) = Handle::try_current() else { return Answer::ready(work(&self.shared)) };
        let shared = Arc::clone(&self.shared);
        let done = runtime.spawn_blocking(move || work(&shared));
        let ended = |_| Err(JournalError::Unavailable("the read was not finished".to_owned()));
        Answer::later(async move { done.await.unwrap_or_else(ended) })
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

impl Store for Embedded {
    fn append(&self, call: &CallId, after: Seq, batch: Vec<NewRecord>, entry: Option<Entry>) -> Answer<Commit> {
        self.shared.append(call, after, batch, entry).unwrap_or_else(|error| Answer::ready(Err(error)))
    }

    fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Answer<Vec<Arc<Record>>> {
        if max_bytes <= INLINE_BYTES && self.shared.is_at_hand(call) {
            return Answer::ready(self.shared.read(call, after, max_bytes));
        }
        let call = call.clone();
        self.elsewhere(move |shared| shared.read(&call, after, max_bytes))
    }

    fn head(&self, call: &CallId) -> Answer<Seq> {
        if self.shared.is_at_hand(call) {
            return Answer::ready(self.shared.head(call));
        }
        let call = call.clone();
        self.elsewhere(move |shared| shared.head(&call))
    }

    fn since(&self, after: u64) -> Answer<Vec<(CallId, Seq)>> {
        self.elsewhere(move |shared| shared.since(after))
    }

    fn entry(&self, call: &CallId) -> Answer<Option<Entry>> {
        Answer::ready(Ok(self.shared.calls.with(call, |slot| slot.entry.clone())))
    }

    fn page(&self, state: Option<CallState>, after: Option<&CallId>, limit: usize) -> Answer<Vec<Entry>> {
        Answer::ready(Ok(self.shared.calls.page(state, after, limit)))
    }

    fn open_calls(&self) -> Answer<Vec<Entry>> {
        Store::page(self, Some(CallState::Open), None, usize::MAX)
    }

    fn open_count(&self) -> usize {
        self.shared.calls.open_count()
    }

    fn mark_failed(&self, call: &CallId) -> Answer<()> {
        let call = call.clone();
        self.elsewhere(move |shared| {
            shared.mark_failed(&call);
            Ok(())
        })
    }

    fn erase(&self, call: &CallId) -> Answer<bool> {
        Answer::ready(self.shared.erase(call))
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

    fn close(&self) -> Answer<()> {
        self.stop();
        if !sync_dirty(&self.shared) {
            tracing::error!("the journal could not be synced: after a power loss, events may be missing");
            return Answer::ready(self.health());
        }
        let mut state = lock(&self.shared.state);
        let directory_bytes = Some(self.shared.calls.len());
        let clean = State { clean: true, directory_bytes, ..state.clone() };
        Answer::ready(match clean.write(&self.shared.storage) {
            Ok(()) => {
                *state = clean;
                Ok(())
            }
            Err(error) => Err(self.shared.failed("note the shutdown", &error)),
        })
    }
}

/// Returns answers as plain results, for tests, which run on no runtime.
#[cfg(test)]
impl Embedded {
    pub(super) fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Result<Vec<Arc<Record>>, JournalError> {
        self.shared.read(call, after, max_bytes)
    }

    pub(super) fn head(&self, call: &CallId) -> Result<Seq, JournalError> {
        self.shared.head(call)
    }

    pub(super) fn since(&self, after: u64) -> Result<Vec<(CallId, Seq)>, JournalError> {
        self.shared.since(after)
    }

    pub(super) fn entry(&self, call: &CallId) -> Option<Entry> {
        self.shared.calls.with(call, |slot| slot.entry.clone())
    }

    pub(super) fn page(&self, state: Option<CallState>, after: Option<&CallId>, limit: usize) -> Vec<Entry> {
        self.shared.calls.page(state, after, limit)
    }

    pub(super) fn open_calls(&self) -> Vec<Entry> {
        self.shared.calls.page(Some(CallState::Open), None, usize::MAX)
    }

    pub(super) fn mark_failed(&self, call: &CallId) {
        self.shared.mark_failed(call);
    }

    pub(super) fn erase(&self, call: &CallId) -> Result<bool, JournalError> {
        self.shared.erase(call)
    }

    pub(super) fn close(&self) {
        drop(Store::close(self));
    }
}
