//! One entry of the log: a begun or a done row, packed, under its length and a checksum.

use std::collections::HashMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::types::{AttemptBegun, AttemptDone};

/// Length and checksum of what follows, each four bytes, little end first.
const HEAD_BYTES: usize = 8;

#[derive(Serialize, Deserialize)]
enum Entry<'a> {
    #[serde(borrow)]
    Begun(Begun<'a>),
    #[serde(borrow)]
    Done(Done<'a>),
}

#[derive(Serialize, Deserialize)]
struct Begun<'a> {
    id: i64,
    request: i64,
    at_ms: i64,
    #[serde(borrow)]
    key: Option<&'a str>,
    call: Option<&'a str>,
    analysis: Option<&'a str>,
    route: &'a str,
    variant: &'a str,
    model: &'a str,
    endpoint: &'a str,
    vendor_model: &'a str,
    number: u32,
    why: &'a str,
}

#[derive(Serialize, Deserialize)]
struct Done<'a> {
    id: i64,
    outcome: &'a str,
    #[serde(borrow)]
    code: Option<&'a str>,
    status: Option<u16>,
    input: Option<i64>,
    cached: Option<i64>,
    cache_write: Option<i64>,
    output: Option<i64>,
    reasoning: Option<i64>,
    cost_pico: Option<i64>,
    first_token_us: Option<i64>,
    total_us: i64,
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn pack(entry: &Entry<'_>) -> Vec<u8> {
    let mut packed = Vec::with_capacity(256);
    packed.resize(HEAD_BYTES, 0);
    // Plain structs of text and numbers always serialise.
    let mut packed = postcard::to_extend(entry, packed).unwrap_or_default();
    if let Some((head, body)) = packed.split_at_mut_checked(HEAD_BYTES) {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    }
    packed
}

/// The first entry of a stretch, with its head, and what follows it; `None` where it is not there whole. None is empty.
pub(super) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, _) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length > 0)?;
    bytes.split_at_checked(HEAD_BYTES.checked_add(length)?)
}

fn unpack(entry: &[u8]) -> Option<Entry<'_>> {
    let (head, body) = entry.split_at_checked(HEAD_BYTES)?;
    let sum = head[4..].try_into().ok().map(u32::from_le_bytes)?;
    if sum != crc32fast::hash(body) {
        return None;
    }
    postcard::from_bytes(body).ok()
}

/// A begun row.
pub(super) fn begun(attempt: &AttemptBegun) -> Vec<u8> {
    pack(&Entry::Begun(Begun {
        id: attempt.id,
        request: attempt.request,
        at_ms: attempt.at_ms,
        key: attempt.key.as_deref(),
        call: attempt.call.as_ref().map(|call| call.as_str()),
        analysis: attempt.analysis.as_deref(),
        route: &attempt.route,
        variant: &attempt.variant,
        model: &attempt.model,
        endpoint: &attempt.endpoint,
        vendor_model: &attempt.vendor_model,
        number: attempt.number,
        why: attempt.why,
    }))
}

/// A done row.
pub(super) fn done(attempt: &AttemptDone) -> Vec<u8> {
    pack(&Entry::Done(Done {
        id: attempt.id,
        outcome: attempt.outcome.as_str(),
        code: attempt.code,
        status: attempt.status,
        input: attempt.input.map(signed),
        cached: attempt.cached.map(signed),
        cache_write: attempt.cache_write.map(signed),
        output: attempt.output.map(signed),
        reasoning: attempt.reasoning.map(signed),
        cost_pico: attempt.cost_pico,
        first_token_us: attempt.first_token_us.map(signed),
        total_us: signed(attempt.total_us),
    }))
}

/// Entries on their way into the database: a row that began and ended in one batch of them, as nearly all do, is one insert.
pub(super) struct Intake<'a> {
    connection: &'a Connection,
    begun: HashMap<i64, Begun<'a>>,
}

impl<'a> Intake<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, begun: HashMap::new() }
    }

    /// Takes the next entry. One that is damaged is told and left out: nothing else hangs on it.
    pub(super) fn take(&mut self, entry: &'a [u8]) -> rusqlite::Result<()> {
        match unpack(entry) {
            Some(Entry::Begun(row)) => {
                self.begun.insert(row.id, row);
                Ok(())
            }
            Some(Entry::Done(row)) => match self.begun.remove(&row.id) {
                Some(begun) => insert(self.connection, &begun, Some(&row)),
                None => complete(self.connection, &row),
            },
            None => {
                tracing::error!(bytes = entry.len(), "a damaged entry of the ledger's log is left out");
                Ok(())
            }
        }
    }

    /// Keeps those that have only begun.
    pub(super) fn finish(self) -> rusqlite::Result<()> {
        self.begun.values().try_for_each(|begun| insert(self.connection, begun, None))
    }
}

/// A row, whole or as it began. A log that is read a second time changes nothing.
fn insert(connection: &Connection, begun: &Begun<'_>, done: Option<&Done<'_>>) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO attempts (id, request, at_ms, key, call, analysis, route, variant, model, endpoint, \
         vendor_model, number, why, outcome, code, status, input, cached, cache_write, output, reasoning, cost_pico, \
         first_token_us, total_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, \
         ?18, ?19, ?20, ?21, ?22, ?23, ?24)",
    )?;
    let inserted = insert.execute(rusqlite::params![
        begun.id,
        begun.request,
        begun.at_ms,
        begun.key,
        begun.call,
        begun.analysis,
        begun.route,
        begun.variant,
        begun.model,
        begun.endpoint,
        begun.vendor_model,
        begun.number,
        begun.why,
        done.map_or("begun", |done| done.outcome),
        done.and_then(|done| done.code),
        done.and_then(|done| done.status),
        done.and_then(|done| done.input),
        done.and_then(|done| done.cached),
        done.and_then(|done| done.cache_write),
        done.and_then(|done| done.output),
        done.and_then(|done| done.reasoning),
        done.and_then(|done| done.cost_pico),
        done.and_then(|done| done.first_token_us),
        done.map(|done| done.total_us),
    ])?;
    match done {
        // It was there already, as it began.
        Some(done) if inserted == 0 => complete(connection, done),
        _ => Ok(()),
    }
}

/// The end of a row that is in the database.
fn complete(connection: &Connection, done: &Done<'_>) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached(
        "UPDATE attempts SET outcome = ?2, code = ?3, status = ?4, input = ?5, cached = ?6, cache_write = ?7, \
         output = ?8, reasoning = ?9, cost_pico = ?10, first_token_us = ?11, total_us = ?12 WHERE id = ?1",
    )?;
    update.execute(rusqlite::params![
        done.id,
        done.outcome,
        done.code,
        done.status,
        done.input,
        done.cached,
        done.cache_write,
        done.output,
        done.reasoning,
        done.cost_pico,
        done.first_token_us,
        done.total_us
    ])?;
    Ok(())
}
