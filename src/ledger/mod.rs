//! The ledger: every HTTP call made to an LLM, for good: tokens, cost, latency, outcome.
//!
//! Knows no gateway and no price. A row is written twice, begun and done, by an append to a log file (durable over a kill
//! when the call returns, a few microseconds); SQLite takes the log over a little later, in batches, off the request's
//! way. A row found begun at start-up is `unknown`. Money is whole pico-dollars.

mod changes;
mod entry;
mod log;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rusqlite::Connection;

pub use changes::{Change, GONE};
pub use usage::{GROUPS, UsageQuery, UsageRow};

use crate::base::metric::Register as _;
use crate::types::attempt::first_id;
use crate::types::{AttemptBegun, AttemptDone};

/// How often the log is taken over, unless somebody asks for sums first. A transaction costs about a millisecond, however
/// little it holds.
const TAKE_OVER: Duration = Duration::from_secs(2);
/// From this size on, a log that is taken over is begun anew.
const ROTATE_BYTES: u64 = 8 * 1024 * 1024;

/// Why the ledger does not work.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A file cannot be used.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// SQLite refuses.
    #[error("ledger: {0}")]
    Store(#[from] rusqlite::Error),
    /// A query is none.
    #[error("{0}")]
    Query(String),
}

/// The ledger. Clones are the same ledger.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    log: Mutex<log::Log>,
    store: Mutex<Connection>,
    keeper: Mutex<Option<Keeper>>,
    metrics: Metrics,
}

/// `sidetone_ledger_skipped_bytes_total`.
#[derive(Debug, Clone)]
pub struct Metrics {
    skipped_bytes: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let help = "Damaged bytes of the ledger's log that were left out: rows of the bill are lost";
        Self { skipped_bytes: registry.metric("sidetone_ledger_skipped_bytes", help) }
    }

    fn skipped(&self, skipped: Option<log::Skipped>) {
        if let Some(log::Skipped { offset, bytes }) = skipped {
            tracing::warn!(
                offset,
                bytes,
                "the ledger's log is damaged; these bytes are left out, what follows is taken"
            );
            self.skipped_bytes.inc_by(bytes);
        }
    }
}

struct Keeper {
    stop: std::sync::mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Opens the ledger in `folder`, making it where it is missing; takes over what the last run left in the log, and
    /// marks rows that never ended.
    ///
    /// # Errors
    /// The folder or the database cannot be used.
    pub fn open(folder: &Path, metrics: Metrics) -> Result<Self, LedgerError> {
        let file_error = |error| LedgerError::File { path: folder.to_owned(), error };
        std::fs::create_dir_all(folder).map_err(file_error)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(file_error)?;
        }
        let store = Connection::open(folder.join("ledger.sqlite"))?;
        store.pragma_update(None, "journal_mode", "WAL")?;
        store.pragma_update(None, "synchronous", "NORMAL")?;
        // Rows are appended, and the sums read them through: more of a cache would serve neither.
        store.pragma_update(None, "cache_size", -512)?;
        store.execute_batch(SCHEMA)?;
        let (log, skipped) = log::Log::open(&folder.join("attempts.log"), taken(&store)?)?;
        metrics.skipped(skipped);
        let ledger = Self(Arc::new(Shared {
            log: Mutex::new(log),
            store: Mutex::new(store),
            keeper: Mutex::new(None),
            metrics,
        }));
        ledger.take_over()?;
        locked(&ledger.0.store).execute("UPDATE attempts SET outcome = 'unknown' WHERE outcome = 'begun'", [])?;
        ledger.start_keeper()?;
        Ok(ledger)
    }

    fn start_keeper(&self) -> Result<(), LedgerError> {
        let (stop, stopped) = std::sync::mpsc::channel();
        // The thread holds no ledger between its rounds, so that the last clone's end is its own.
        let shared = Arc::downgrade(&self.0);
        let run = move || {
            while stopped.recv_timeout(TAKE_OVER) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let Some(shared) = shared.upgrade() else { return };
                if let Err(error) = Self(shared).take_over() {
                    tracing::error!(%error, "the ledger's log waits: its database cannot be written");
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(run)
            .map_err(|error| LedgerError::File { path: PathBuf::from("thread ledger"), error })?;
        *locked(&self.0.keeper) = Some(Keeper { stop, thread });
        Ok(())
    }

    /// Keeps a call that is about to be made. Durable over a kill of the process when it returns.
    pub fn begun(&self, attempt: &AttemptBegun) {
        locked(&self.0.log).append(&entry::begun(attempt));
    }

    /// Keeps a call's end.
    pub fn done(&self, attempt: &AttemptDone) {
        locked(&self.0.log).append(&entry::done(attempt));
    }

    /// Keeps what is configured now: `items`, as `(kind, name, detail)`, are all that there is of `kinds`. What is as it
    /// was last is not kept again; what is no more is kept as [`GONE`].
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn configured(&self, kinds: &[&str], items: &[(&str, &str, &str)], now_ms: i64) -> Result<(), LedgerError> {
        changes::note(&mut locked(&self.0.store), kinds, items, now_ms)
    }

    /// What was configured from `from_ms` on and before `to_ms`, the oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn changes(&self, from_ms: Option<i64>, to_ms: Option<i64>) -> Result<Vec<Change>, LedgerError> {
        changes::list(&locked(&self.0.store), from_ms.unwrap_or(i64::MIN), to_ms.unwrap_or(i64::MAX))
    }

    /// Sums up. Blocks for the database: call it off the async threads.
    ///
    /// # Errors
    /// The query is none, or the database cannot be read.
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, LedgerError> {
        self.take_over()?;
        usage::run(&locked(&self.0.store), query)
    }

    /// What was spent since a time, in all and by call; attempts without a known cost count nothing.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn spent_since(&self, from_ms: i64) -> Result<i64, LedgerError> {
        self.take_over()?;
        usage::spent(&locked(&self.0.store), "id >= ?1 AND at_ms >= ?2", [first_id(from_ms), from_ms])
    }

    /// What a call has spent.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn spent_by_call(&self, call: &str) -> Result<i64, LedgerError> {
        self.take_over()?;
        usage::spent(&locked(&self.0.store), "call = ?1", [call])
    }

    /// Takes the log over into the database, each entry once, whatever happens in between.
    fn take_over(&self) -> Result<(), LedgerError> {
        let mut store = locked(&self.0.store);
        let mut skipped = None;
        let taken = loop {
            match self.take_part(&mut store, &mut skipped) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.0.metrics.skipped(skipped);
        taken
    }

    /// Takes the next stretch of the log over; `false` where there is none.
    fn take_part(&self, store: &mut Connection, skipped: &mut Option<log::Skipped>) -> Result<bool, LedgerError> {
        let (generation, position) = taken(store)?;
        let part = locked(&self.0.log).read_from(generation, position)?;
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
            // Appends are whole when they are read: this is no entry that is still being written.
            entries.skip_rest();
        }
        let end = part.from + entries.position() as u64;
        let position = i64::try_from(end).unwrap_or(i64::MAX);
        transaction.execute("UPDATE taken SET generation = ?1, position = ?2", (part.generation, position))?;
        transaction.commit()?;
        *skipped = log::Skipped::and(*skipped, &entries, part.from);
        locked(&self.0.log).rotate(end, ROTATE_BYTES)?;
        Ok(entries.position() > 0)
    }
}

/// The log's generation that was taken over last, and up to where.
fn taken(store: &Connection) -> Result<(i64, u64), LedgerError> {
    let row: (i64, i64) =
        store.query_row("SELECT generation, position FROM taken", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((row.0, u64::try_from(row.1).unwrap_or(0)))
}

impl Drop for Shared {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Keeper { stop, thread }) = keeper {
            drop(stop);
            // Its own upgrade may have been the last: then it is this very thread.
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
