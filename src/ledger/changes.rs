//! The history of the configuration: endpoints, models, routes, keys and prices by name, so that an old bill can be
//! read with the values of its time.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::LedgerError;

/// The detail of an item that was removed.
pub const GONE: &str = "gone";

/// An item that was added, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When the change was noticed, Unix ms.
    pub at_ms: i64,
    /// `endpoint`, `model`, `route`, `price`, `listed_price`, `key`.
    pub kind: String,
    pub name: String,
    /// The item's value after the change; [`GONE`] if it was removed. Contains no secret.
    pub detail: String,
}

/// Records `items`, each `(kind, name, detail)`, as the complete set of all `kinds`.
pub(super) fn note(
    store: &mut Connection,
    kinds: &[&str],
    items: &[(&str, &str, &str)],
    now_ms: i64,
) -> Result<(), LedgerError> {
    let transaction = store.transaction()?;
    let mut last: BTreeMap<(String, String), String> = BTreeMap::new();
    {
        let newest =
            "SELECT kind, name, detail FROM changes WHERE id IN (SELECT MAX(id) FROM changes GROUP BY kind, name)";
        let mut select = transaction.prepare_cached(newest)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            last.insert((row.get(0)?, row.get(1)?), row.get(2)?);
        }
        let mut insert =
            transaction.prepare_cached("INSERT INTO changes (at_ms, kind, name, detail) VALUES (?1, ?2, ?3, ?4)")?;
        let mut there = BTreeSet::new();
        for (kind, name, detail) in items {
            let key = ((*kind).to_owned(), (*name).to_owned());
            if last.get(&key).map(String::as_str) != Some(*detail) {
                insert.execute((now_ms, kind, name, detail))?;
            }
            there.insert(key);
        }
        for ((kind, name), detail) in &last {
            let key = (kind.clone(), name.clone());
            if kinds.contains(&kind.as_str()) && detail != GONE && !there.contains(&key) {
                insert.execute((now_ms, kind, name, GONE))?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// All changes in a period, oldest first.
pub(super) fn list(store: &Connection, from_ms: i64, to_ms: i64) -> Result<Vec<Change>, LedgerError> {
    let mut select = store
        .prepare_cached("SELECT at_ms, kind, name, detail FROM changes WHERE at_ms >= ?1 AND at_ms < ?2 ORDER BY id")?;
    let rows = select.query_map((from_ms, to_ms), |row| {
        Ok(Change { at_ms: row.get(0)?, kind: row.get(1)?, name: row.get(2)?, detail: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
