//! The ledger's files, read while the daemon runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::PATIENCE;

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub id: i64,
    pub request: i64,
    pub key: Option<String>,
    pub call: Option<String>,
    pub analysis: Option<String>,
    pub model: String,
    pub endpoint: String,
    pub vendor_model: String,
    pub why: String,
    pub outcome: String,
    pub code: Option<String>,
    pub status: Option<u16>,
    pub input: Option<u64>,
    pub cached: Option<u64>,
    pub output: Option<u64>,
    pub cost_pico: Option<i64>,
}

/// Path of the ledger of a daemon in `folder`.
pub fn path(folder: &Path) -> PathBuf {
    folder.join("journal/ledger/ledger.sqlite")
}

/// All rows, in order. The log is copied into the database every two seconds, so the newest rows may be missing.
pub fn rows(folder: &Path) -> Vec<Row> {
    let read = || -> rusqlite::Result<Vec<Row>> {
        let store = Connection::open_with_flags(path(folder), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        store.busy_timeout(PATIENCE)?;
        let mut statement = store.prepare(
            "SELECT id, request, key, call, analysis, model, endpoint, vendor_model, why, outcome, code, status, input, \
             cached, output, cost_pico FROM attempts ORDER BY id",
        )?;
        let rows = statement.query_map([], |row| {
            let tokens = |at: usize| row.get::<_, Option<i64>>(at).map(|count| count.map(|count| count as u64));
            Ok(Row {
                id: row.get(0)?,
                request: row.get(1)?,
                key: row.get(2)?,
                call: row.get(3)?,
                analysis: row.get(4)?,
                model: row.get(5)?,
                endpoint: row.get(6)?,
                vendor_model: row.get(7)?,
                why: row.get(8)?,
                outcome: row.get(9)?,
                code: row.get(10)?,
                status: row.get(11)?,
                input: tokens(12)?,
                cached: tokens(13)?,
                output: tokens(14)?,
                cost_pico: row.get(15)?,
            })
        })?;
        rows.collect()
    };
    read().expect("the ledger can be read")
}

/// The rows for which `wanted` returns true, once there are `count` and all are complete; after a timeout, the rows so
/// far.
pub async fn settled(folder: &Path, count: usize, wanted: impl Fn(&Row) -> bool) -> Vec<Row> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows: Vec<Row> = rows(folder).into_iter().filter(|row| wanted(row)).collect();
        let complete = rows.len() >= count && rows.iter().all(|row| row.outcome != "begun");
        if complete || Instant::now() > deadline {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
