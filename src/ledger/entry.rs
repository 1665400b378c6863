//! One entry of the log: the start or the end of an attempt, encoded, with its length and a checksum before it. Also
//! finds entries among damaged data.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection};
use serde::{Deserialize, Serialize};

use super::share::Shares;
use crate::types::{AttemptBegun, AttemptDone};

/// Length and checksum of the body, each four bytes, little-endian.
const HEAD_BYTES: usize = 8;
/// Longest body of an entry; a greater length shows damage. An entry contains names and numbers only: a few hundred
/// bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Maximum size of an entry, bytes.
pub(super) const MAX_BYTES: usize = HEAD_BYTES + MAX_BODY_BYTES;

#[derive(Serialize, Deserialize)]
pub(super) enum Entry<'a> {
    #[serde(borrow)]
    Begun(Begun<'a>),
    #[serde(borrow)]
    Done(Done<'a>),
    /// Comes directly before the `Done` of a bundle's attempt.
    #[serde(borrow)]
    Shares(Shares<'a>),
}

#[derive(Serialize, Deserialize)]
pub(super) struct Begun<'a> {
    pub(super) id: i64,
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
pub(super) struct Done<'a> {
    pub(super) id: i64,
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

const INSERT: &str = "
    INSERT OR IGNORE INTO attempts (id, request, at_ms, key, call, analysis, route, variant, model, endpoint,
        vendor_model, number, why, outcome, code, status, input, cached, cache_write, output, reasoning, cost_pico,
        first_token_us, total_us)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)
";

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn pack(entry: &Entry<'_>) -> Vec<u8> {
    let mut packed = Vec::with_capacity(256);
    packed.resize(HEAD_BYTES, 0);
    // Plain structs of text and numbers can always be serialised.
    let mut packed = postcard::to_extend(entry, packed).unwrap_or_default();
    if let Some((head, body)) = packed.split_at_mut_checked(HEAD_BYTES) {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    }
    packed
}

/// The beginning of some bytes.
enum Front<'a> {
    /// An entry with a valid checksum, and its bytes.
    Entry(Entry<'a>, &'a [u8]),
    /// Not an entry, whatever follows.
    Nothing,
    /// Too few bytes to decide.
    Short,
}

fn front(bytes: &[u8]) -> Front<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Front::Short };
    let [a, b, c, d, sum @ ..] = *head;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    // No entry is empty, so zeros, which some file systems leave behind, are not entries.
    if length == 0 || length > MAX_BODY_BYTES {
        return Front::Nothing;
    }
    let Some((body, _)) = rest.split_at_checked(length) else { return Front::Short };
    if u32::from_le_bytes(sum) != crc32fast::hash(body) {
        return Front::Nothing;
    }
    match postcard::take_from_bytes(body) {
        Ok((entry, [])) => Front::Entry(entry, &bytes[..HEAD_BYTES + length]),
        _ => Front::Nothing,
    }
}

/// The entries in a part of the log, each with its bytes. Damaged data, including a damaged length, is skipped up to
/// the next entry with a valid checksum.
pub(super) struct Entries<'a> {
    bytes: &'a [u8],
    /// Set if the log ends here: an incomplete entry then has no rest.
    last: bool,
    at: usize,
    /// Damage between entries: where it first begins, and its total size in bytes.
    pub(super) skipped: Option<(usize, usize)>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(bytes: &'a [u8], last: bool) -> Self {
        Self { bytes, last, at: 0, skipped: None }
    }

    /// The offset up to which entries were read; what follows is not an entry, or not a complete one yet.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn skip_to(&mut self, to: usize) {
        if to > self.at {
            let (first, bytes) = self.skipped.unwrap_or((self.at, 0));
            self.skipped = Some((first, bytes + to - self.at));
            self.at = to;
        }
    }

    /// Skips the rest, which contains no entry.
    pub(super) fn skip_rest(&mut self) {
        self.skip_to(self.bytes.len());
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (Entry<'a>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut at = self.at;
        while at < self.bytes.len() {
            match front(&self.bytes[at..]) {
                Front::Entry(entry, whole) => {
                    self.skip_to(at);
                    self.at += whole.len();
                    return Some((entry, whole));
                }
                Front::Short if !self.last => break,
                Front::Nothing | Front::Short => at += 1,
            }
        }
        if !self.last {
            self.skip_to(at);
        }
        None
    }
}

/// Encodes the start of an attempt.
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
        why: attempt.why.as_str(),
    }))
}

/// Encodes the end of an attempt: of a bundle's, two entries.
pub(super) fn done(attempt: &AttemptDone) -> Vec<u8> {
    let mut packed = Shares::of(attempt).map(|shares| pack(&Entry::Shares(shares))).unwrap_or_default();
    packed.extend(pack(&Entry::Done(Done {
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
    })));
    packed
}

/// Entries on their way into the database. An attempt that began and ended within one batch, as nearly all do, takes
/// one insert.
pub(super) struct Intake<'a> {
    connection: &'a Connection,
    /// The prepared statement of all inserts: preparing it for each row would be a seventh of the cost of a row.
    insert: CachedStatement<'a>,
    begun: HashMap<i64, Begun<'a>>,
}

impl<'a> Intake<'a> {
    pub(super) fn new(connection: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self { connection, insert: connection.prepare_cached(INSERT)?, begun: HashMap::new() })
    }

    /// Takes the next entry.
    pub(super) fn take(&mut self, entry: Entry<'a>) -> rusqlite::Result<()> {
        match entry {
            Entry::Begun(row) => {
                self.begun.insert(row.id, row);
                Ok(())
            }
            Entry::Done(row) => match self.begun.remove(&row.id) {
                Some(begun) => self.insert(&begun, Some(&row)),
                None => complete(self.connection, &row),
            },
            Entry::Shares(shares) => shares.store(self.connection),
        }
    }

    /// Stores the attempts that have only begun.
    pub(super) fn finish(mut self) -> rusqlite::Result<()> {
        std::mem::take(&mut self.begun).values().try_for_each(|begun| self.insert(begun, None))
    }

    /// Inserts an attempt, complete or only begun. Reading a log a second time changes nothing.
    fn insert(&mut self, begun: &Begun<'_>, done: Option<&Done<'_>>) -> rusqlite::Result<()> {
        let inserted = self.insert.execute(rusqlite::params![
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
            // The row existed already without its end.
            Some(done) if inserted == 0 => complete(self.connection, done),
            _ => Ok(()),
        }
    }
}

/// Adds the end to a row that is in the database.
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
