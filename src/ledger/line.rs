//! One line of the log: a begun or a done row, as JSON with a checksum.

use std::collections::HashMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::types::{AttemptBegun, AttemptDone};

#[derive(Serialize, Deserialize)]
struct Begun<'a> {
    b: i64,
    request: i64,
    at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    call: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    analysis: Option<Text<'a>>,
    route: Text<'a>,
    variant: Text<'a>,
    model: Text<'a>,
    endpoint: Text<'a>,
    vendor_model: Text<'a>,
    number: u32,
    why: Text<'a>,
}

type Text<'a> = std::borrow::Cow<'a, str>;

#[derive(Serialize, Deserialize)]
struct Done<'a> {
    d: i64,
    outcome: Text<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<Text<'a>>,
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

fn finish(value: &impl Serialize) -> Vec<u8> {
    let mut line = vec![b' '; 9];
    // Plain structs of text and numbers always serialise.
    let _ = serde_json::to_writer(&mut line, value);
    let sum = format!("{:08x}", crc32fast::hash(&line[9..]));
    line[..8].copy_from_slice(sum.as_bytes());
    line.push(b'\n');
    line
}

/// A begun row.
pub(super) fn begun(attempt: &AttemptBegun) -> Vec<u8> {
    finish(&Begun {
        b: attempt.id,
        request: attempt.request,
        at_ms: attempt.at_ms,
        key: attempt.key.as_deref().map(Text::from),
        call: attempt.call.as_ref().map(|call| Text::from(call.as_str())),
        analysis: attempt.analysis.as_deref().map(Text::from),
        route: Text::from(&*attempt.route),
        variant: Text::from(&*attempt.variant),
        model: Text::from(&*attempt.model),
        endpoint: Text::from(&*attempt.endpoint),
        vendor_model: Text::from(&*attempt.vendor_model),
        number: attempt.number,
        why: Text::from(attempt.why),
    })
}

/// A done row.
pub(super) fn done(attempt: &AttemptDone) -> Vec<u8> {
    finish(&Done {
        d: attempt.id,
        outcome: Text::from(attempt.outcome.as_str()),
        code: attempt.code.map(Text::from),
        status: attempt.status,
        input: attempt.input.map(signed),
        cached: attempt.cached.map(signed),
        cache_write: attempt.cache_write.map(signed),
        output: attempt.output.map(signed),
        reasoning: attempt.reasoning.map(signed),
        cost_pico: attempt.cost_pico,
        first_token_us: attempt.first_token_us.map(signed),
        total_us: signed(attempt.total_us),
    })
}

/// Lines on their way into the database: a row that began and ended in one batch of them, as nearly all do, is one insert.
pub(super) struct Intake<'a> {
    connection: &'a Connection,
    begun: HashMap<i64, Begun<'a>>,
}

impl<'a> Intake<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, begun: HashMap::new() }
    }

    /// Takes the next line. One that is damaged is told and left out: nothing else hangs on it.
    pub(super) fn take(&mut self, line: &'a [u8]) -> rusqlite::Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let whole = line.split_at_checked(9).filter(|(sum, body)| {
            std::str::from_utf8(&sum[..8]).is_ok_and(|sum| u32::from_str_radix(sum, 16) == Ok(crc32fast::hash(body)))
        });
        let body = whole.map_or(&[][..], |(_, body)| body);
        if body.starts_with(b"{\"b\":") {
            if let Ok(row) = serde_json::from_slice::<Begun<'_>>(body) {
                self.begun.insert(row.b, row);
                return Ok(());
            }
        } else if let Ok(row) = serde_json::from_slice::<Done<'_>>(body) {
            return match self.begun.remove(&row.d) {
                Some(begun) => insert(self.connection, &begun, Some(&row)),
                None => complete(self.connection, &row),
            };
        }
        tracing::error!(bytes = line.len(), "a damaged line of the ledger's log is left out");
        Ok(())
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
        begun.b,
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
        done.map_or("begun", |done| &done.outcome),
        done.and_then(|done| done.code.as_deref()),
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
        done.d,
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
