//! The ledger: a permanent record of every HTTP request to an LLM: tokens, cost, latency, outcome.
//!
//! Knows no gateway and no price. Start and end of an attempt are appended to a log file (which takes a few
//! microseconds and survives a kill of the process once the call returns). A little later, they are copied from the log
//! into SQLite in batches, outside of the request path. An attempt that at a start has no end gets the outcome
//! `unknown`. Money is in whole pico-dollars.
//!
//! If the database is locked or the disk is full at the start, entries are kept in memory until it can be opened, and
//! requests for sums get the reason.

mod changes;
mod entry;
mod log;
mod share;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rusqlite::Connection;

pub use changes::{Change, GONE};
pub use usage::{GROUPS, UsageQuery, UsageRow};

use crate::base::metric::Register as _;
use crate::base::sync::{entered, lock};
use crate::types::attempt::first_id;
use crate::types::{AttemptBegun, AttemptDone};

/// Interval at which the log is copied into the database, unless sums are requested earlier. A transaction costs about
/// a millisecond, however little it contains.
const TAKE_OVER: Duration = Duration::from_secs(2);
/// Interval of attempts to open the database after a failure.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// How long an attempt waits for another process's lock.
const LOCK_WAIT: Duration = Duration::from_millis(200);
/// How long a query waits for a lock, once the database is open.
const BUSY_WAIT: Duration = Duration::from_secs(5);
const LOG: &str = "attempts.log";
/// A log of this size begins again after it was copied.
const ROTATE_BYTES: u64 = 8 * 1024 * 1024;

/// Why the ledger does not work.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A file cannot be used.
    #[error("{path}: {error}")]
    File {
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// SQLite reports an error.
    #[error("ledger: {0}")]
    Store(#[from] rusqlite::Error),
    /// The query is invalid.
    #[error("{0}")]
    Query(String),
    /// The database could not be opened yet.
    #[error("the ledger cannot be opened yet (retrying): {0}")]
    Waiting(String),
}

impl LedgerError {
    /// Returns true if the error may pass by itself: another process uses the database, or the disk is full.
    fn passes(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::File { error, .. } => matches!(error.kind(), StorageFull | QuotaExceeded),
            Self::Store(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    rusqlite::ErrorCode::DatabaseBusy
                        | rusqlite::ErrorCode::DatabaseLocked
                        | rusqlite::ErrorCode::DiskFull
                        | rusqlite::ErrorCode::SystemIoFailure
                )
            ),
            Self::Query(_) | Self::Waiting(_) => false,
        }
    }
}

/// The ledger. Clones share it.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    log: Mutex<log::Log>,
    /// The database, or the reason why it is not open yet.
    store: Mutex<Result<Connection, String>>,
    is_open: AtomicBool,
    keeper: Mutex<Option<Keeper>>,
    metrics: Metrics,
}

/// `sidetone_ledger_skipped_bytes_total`.
#[derive(Debug, Clone)]
pub struct Metrics {
    skipped_bytes: Counter,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "Damaged bytes of the ledger's log that were left out: rows of the bill were lost";
        Self { skipped_bytes: registry.metric("sidetone_ledger_skipped_bytes", help) }
    }

    fn skipped(&self, skipped: Option<log::Skipped>) {
        if let Some(log::Skipped { offset, bytes }) = skipped {
            tracing::warn!(offset, bytes, "the ledger's log is damaged; these bytes are left out, the rest is read");
            self.skipped_bytes.inc_by(bytes);
        }
    }
}

struct Keeper {
    stop: std::sync::mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Ledger {
    /// Opens the ledger in `folder`, which is created if it does not exist. Copies what the last run left in the log,
    /// and marks attempts that never ended. If the database is locked or the disk is full, that is done later: see
    /// [`Ledger::health`].
    ///
    /// # Errors
    /// The folder or the database cannot be used.
    pub fn open(folder: &Path, metrics: Metrics) -> Result<Self, LedgerError> {
        let ledger = Self(Arc::new(Shared {
            folder: folder.to_owned(),
            log: Mutex::new(log::Log::to_be_opened(&folder.join(LOG))),
            store: Mutex::new(Err("it has not been tried yet".to_owned())),
            is_open: AtomicBool::new(false),
            keeper: Mutex::new(None),
            metrics,
        }));
        match ledger.try_open() {
            Err(error) if error.passes() => tracing::error!(%error, "the ledger cannot be opened; retrying"),
            opened => opened?,
        }
        ledger.start_keeper()?;
        Ok(ledger)
    }

    /// Checks that the database is open. Once open, it stays open.
    ///
    /// # Errors
    /// Why it is not open.
    pub fn health(&self) -> Result<(), LedgerError> {
        // A request for sums locks the database as long as it runs, so the flag is checked first.
        if self.0.is_open.load(Ordering::Acquire) { Ok(()) } else { self.with_store(|_| Ok(())) }
    }

    fn with_store<T>(&self, work: impl FnOnce(&mut Connection) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        match &mut *lock(&self.0.store) {
            Ok(store) => work(store),
            Err(reason) => Err(LedgerError::Waiting(reason.clone())),
        }
    }

    /// Opens the database and the log, unless they are open.
    fn try_open(&self) -> Result<(), LedgerError> {
        if self.0.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.open_all() {
            Ok(store) => {
                *lock(&self.0.store) = Ok(store);
                self.0.is_open.store(true, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                *lock(&self.0.store) = Err(error.to_string());
                Err(error)
            }
        }
    }

    fn open_all(&self) -> Result<Connection, LedgerError> {
        let folder = &self.0.folder;
        let file_error = |error| LedgerError::File { path: folder.clone(), error };
        std::fs::create_dir_all(folder).map_err(file_error)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(file_error)?;
        }
        let mut store = Connection::open(folder.join("ledger.sqlite"))?;
        store.busy_timeout(LOCK_WAIT)?;
        store.pragma_update(None, "journal_mode", "WAL")?;
        store.pragma_update(None, "synchronous", "NORMAL")?;
        // Entries are appended, and sums read all of them: a larger cache would help neither.
        store.pragma_update(None, "cache_size", -512)?;
        store.execute_batch(SCHEMA)?;
        if !lock(&self.0.log).is_open() {
            let (log, skipped) = log::Log::open(&folder.join(LOG), taken(&store)?)?;
            self.0.metrics.skipped(skipped);
            lock(&self.0.log).go_on_as(log);
        }
        self.take_all(&mut store)?;
        // An attempt that began since this start and still runs is corrected when it ends.
        store.execute("UPDATE attempts SET outcome = 'unknown' WHERE outcome = 'begun'", [])?;
        store.busy_timeout(BUSY_WAIT)?;
        Ok(store)
    }

    fn start_keeper(&self) -> Result<(), LedgerError> {
        let (stop, stopped) = std::sync::mpsc::channel();
        // The thread holds no reference to the ledger between its rounds, so that dropping the last clone ends it.
        let shared = Arc::downgrade(&self.0);
        let run = move || {
            let mut every = TRY_AGAIN;
            while stopped.recv_timeout(every) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let Some(shared) = shared.upgrade() else { return };
                let ledger = Self(shared);
                if every == TRY_AGAIN {
                    match ledger.try_open() {
                        Ok(()) => every = TAKE_OVER,
                        Err(_) => continue,
                    }
                }
                if let Err(error) = ledger.take_over() {
                    tracing::error!(%error, "the ledger's log cannot be copied into the database; retrying");
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(run)
            .map_err(|error| LedgerError::File { path: PathBuf::from("the ledger's thread"), error })?;
        *lock(&self.0.keeper) = Some(Keeper { stop, thread });
        Ok(())
    }

    /// Records the start of an attempt. It survives a kill of the process once this returns.
    pub fn begun(&self, attempt: &AttemptBegun) {
        lock(&self.0.log).append(&entry::begun(attempt));
    }

    /// Records the end of an attempt.
    pub fn done(&self, attempt: &AttemptDone) {
        lock(&self.0.log).append(&entry::done(attempt));
    }

    /// Records the present configuration: `items`, each `(kind, name, detail)`, are the complete set of all `kinds`.
    /// Only changes are stored; a removed item is stored as [`GONE`].
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn configured(&self, kinds: &[&str], items: &[(&str, &str, &str)], now_ms: i64) -> Result<(), LedgerError> {
        self.with_store(|store| changes::note(store, kinds, items, now_ms))
    }

    /// The changes of the configuration from `from_ms` on and before `to_ms`, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn changes(&self, from_ms: Option<i64>, to_ms: Option<i64>) -> Result<Vec<Change>, LedgerError> {
        self.with_store(|store| changes::list(store, from_ms.unwrap_or(i64::MIN), to_ms.unwrap_or(i64::MAX)))
    }

    /// Sums of the ledger. Blocks on the database, so it must be called outside of async code.
    ///
    /// # Errors
    /// The query is invalid, or the database cannot be read.
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, LedgerError> {
        self.take_over()?;
        self.with_store(|store| usage::run(store, query))
    }

    /// The amount spent since a time, in total and by call; attempts without a known cost do not count.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn spent_since(&self, from_ms: i64) -> Result<i64, LedgerError> {
        self.take_over()?;
        self.with_store(|store| usage::spent(store, "id >= ?1 AND at_ms >= ?2", [first_id(from_ms), from_ms]))
    }

    /// The amount spent by a call.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn spent_by_call(&self, call: &str) -> Result<i64, LedgerError> {
        self.take_over()?;
        self.with_store(|store| usage::spent(store, "call = ?1", [call]))
    }

    /// Copies the log into the database. Each entry is stored once, even after a crash in between.
    fn take_over(&self) -> Result<(), LedgerError> {
        self.with_store(|store| self.take_all(store))
    }

    fn take_all(&self, store: &mut Connection) -> Result<(), LedgerError> {
        let mut skipped = None;
        let taken = loop {
            match self.take_part(store, &mut skipped) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.0.metrics.skipped(skipped);
        taken
    }

    /// Copies the next part of the log; returns false if there is none.
    fn take_part(&self, store: &mut Connection, skipped: &mut Option<log::Skipped>) -> Result<bool, LedgerError> {
        let (generation, position) = taken(store)?;
        let part = lock(&self.0.log).read_from(generation, position)?;
        if part.bytes.is_empty() && (part.generation, part.from) == (generation, position) {
            return Ok(false);
        }
        let transaction = store.transaction()?;
        let mut intake = entry::Intake::new(&transaction)?;
        let mut entries = entry::Entries::new(&part.bytes, part.is_last);
        for (entry, _) in entries.by_ref() {
            intake.take(entry)?;
        }
        intake.finish()?;
        if part.is_last {
            // Appends are complete when they are read, so these bytes are not an entry that is still being written.
            entries.skip_rest();
        }
        let end = part.from + entries.position() as u64;
        let position = i64::try_from(end).unwrap_or(i64::MAX);
        transaction.execute("UPDATE taken SET generation = ?1, position = ?2", (part.generation, position))?;
        transaction.commit()?;
        *skipped = log::Skipped::and(*skipped, &entries, part.from);
        lock(&self.0.log).rotate(end, ROTATE_BYTES)?;
        Ok(entries.position() > 0)
    }
}

/// The generation of the log that was copied last, and the offset up to which.
fn taken(store: &Connection) -> Result<(i64, u64), LedgerError> {
    let row: (i64, i64) =
        store.query_row("SELECT generation, position FROM taken", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((row.0, u64::try_from(row.1).unwrap_or(0)))
}

impl Drop for Shared {
    fn drop(&mut self) {
        let keeper = entered(self.keeper.get_mut()).take();
        if let Some(Keeper { stop, thread }) = keeper {
            drop(stop);
            // The thread's own upgraded reference may have been the last; then this code runs on that thread.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY, request INTEGER NOT NULL, at_ms INTEGER NOT NULL, key TEXT, call TEXT, analysis TEXT,
    route TEXT NOT NULL, variant TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL, vendor_model TEXT NOT NULL,
    number INTEGER NOT NULL, why TEXT NOT NULL, outcome TEXT NOT NULL, code TEXT, status INTEGER,
    input INTEGER, cached INTEGER, cache_write INTEGER, output INTEGER, reasoning INTEGER, cost_pico INTEGER,
    first_token_us INTEGER, total_us INTEGER
) STRICT;
-- Of an earlier version; ids find a time as well.
DROP INDEX IF EXISTS attempts_at;
-- Of attempts that asked several analyses: what each of them has of it.
CREATE TABLE IF NOT EXISTS shares (
    attempt INTEGER NOT NULL, analysis TEXT NOT NULL, attempts INTEGER NOT NULL, input INTEGER, cached INTEGER,
    cache_write INTEGER, output INTEGER, reasoning INTEGER, cost_pico INTEGER, PRIMARY KEY (attempt, analysis)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attempts_call ON attempts (call) WHERE call IS NOT NULL;
CREATE TABLE IF NOT EXISTS changes (
    id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, detail TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS taken (
    only INTEGER PRIMARY KEY CHECK (only = 1), generation INTEGER NOT NULL, position INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO taken VALUES (1, 0, 0);
";

#[cfg(test)]
mod tests;
