//! Sums of the ledger, in requested groups.

use rusqlite::types::Value;
use rusqlite::{Connection, Params};

use super::LedgerError;
use crate::base::names;
use crate::types::attempt::{MAX_TOKENS, first_id};

/// The columns by which rows can be grouped.
pub const GROUPS: &[&str] = &[
    "endpoint",
    "route",
    "variant",
    "model",
    "vendor_model",
    "key",
    "call",
    "analysis",
    "outcome",
    "code",
    "why",
    "status",
    "number",
    "request",
    "hour",
    "day",
    "month",
];

/// A query of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageQuery {
    /// Names from [`GROUPS`], in the order of the result.
    pub group_by: Vec<String>,
    /// From this time on, Unix ms.
    pub from_ms: Option<i64>,
    /// Before this time, Unix ms.
    pub to_ms: Option<i64>,
}

/// One row of the sums.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageRow {
    /// The value of each requested group; `None` for rows without one.
    pub group: Vec<(String, Option<String>)>,
    /// Number of HTTP requests.
    pub attempts: i64,
    /// Prompt tokens; `None` if no attempt reported them. The same holds for the other counts.
    pub input: Option<i64>,
    /// Prompt tokens that were read from a cache.
    pub cached: Option<i64>,
    /// Prompt tokens that were written to a cache.
    pub cache_write: Option<i64>,
    /// Completion tokens.
    pub output: Option<i64>,
    /// Completion tokens that were reasoning.
    pub reasoning: Option<i64>,
    /// Sum of the known costs, pico-dollars. `None` if no cost is known, or if the sum exceeds `i64` (9.2 million dollars).
    pub cost_pico: Option<i64>,
    /// Number of attempts without a known cost.
    pub unpriced: i64,
}

/// SQL: one row for each attempt.
const ATTEMPTS: &str = "(SELECT *, 1 AS attempts FROM attempts)";
/// SQL: the same, but a bundle's attempt that has ended is one row for each of its analyses, with its share.
const SHARED: &str = "(
    SELECT id, at_ms, request, key, call, analysis, route, variant, model, endpoint, vendor_model, number, why, outcome,
        code, status, 1 AS attempts, input, cached, cache_write, output, reasoning, cost_pico
    FROM attempts WHERE NOT EXISTS (SELECT 1 FROM shares WHERE attempt = attempts.id)
    UNION ALL
    SELECT id, at_ms, request, key, call, shares.analysis, route, variant, model, endpoint, vendor_model, number, why,
        outcome, code, status, shares.attempts, shares.input, shares.cached, shares.cache_write, shares.output,
        shares.reasoning, shares.cost_pico
    FROM shares JOIN attempts ON attempts.id = shares.attempt)";

/// SQL: a token count, or NULL if it is implausible. Earlier versions stored counts unchecked; their sum may overflow.
fn plausible(column: &str) -> String {
    format!("CASE WHEN {column} BETWEEN 0 AND {MAX_TOKENS} THEN {column} END")
}

/// SQL: the cost of an attempt, or NULL if one of its token counts is implausible.
fn plausible_cost() -> String {
    let may_be_true = |column: &str| format!("COALESCE({column}, 0) BETWEEN 0 AND {MAX_TOKENS}");
    let counts = ["input", "cached", "cache_write", "output"].map(may_be_true).join(" AND ");
    format!("CASE WHEN {counts} THEN cost_pico END")
}

/// SQL: the sum of all costs as quotient and remainder by [`PART`], joined by [`whole`]. A plain `SUM` fails on overflow.
fn cost_sums() -> [String; 2] {
    let cost = plausible_cost();
    [format!("SUM({cost} / {PART})"), format!("SUM({cost} % {PART})")]
}

const PART: i64 = 1_000_000_000;

fn whole(parts: Option<i64>, rest: Option<i64>) -> Option<i128> {
    Some(i128::from(parts?) * i128::from(PART) + i128::from(rest?))
}

/// Sum of the known costs of the attempts that match `condition`, pico-dollars, saturating.
pub(super) fn spent(store: &Connection, condition: &str, bounds: impl Params) -> Result<i64, LedgerError> {
    let [billions, rest] = cost_sums();
    let sum = format!("SELECT {billions}, {rest} FROM attempts WHERE {condition}");
    let spent = store.query_row(&sum, bounds, |row| Ok(whole(row.get(0)?, row.get(1)?)))?;
    Ok(i64::try_from(spent.unwrap_or(0)).unwrap_or(i64::MAX))
}

pub(super) fn run(store: &Connection, query: &UsageQuery) -> Result<Vec<UsageRow>, LedgerError> {
    let mut columns = Vec::new();
    for group in &query.group_by {
        if !GROUPS.contains(&group.as_str()) {
            let allowed = GROUPS.join(", ");
            return Err(LedgerError::Query(format!(
                "group_by: expected one of {allowed}, found {group:?}{}",
                names::hint(group, GROUPS)
            )));
        }
        columns.push(match group.as_str() {
            "hour" => "strftime('%Y-%m-%dT%H:00:00Z', at_ms / 1000, 'unixepoch')".to_owned(),
            "day" => "date(at_ms / 1000, 'unixepoch')".to_owned(),
            "month" => "strftime('%Y-%m', at_ms / 1000, 'unixepoch')".to_owned(),
            other => format!("\"{other}\""),
        });
    }
    let numbers: Vec<String> = (1..=columns.len()).map(|number| number.to_string()).collect();
    let select = columns.iter().map(|column| format!("{column}, ")).collect::<String>();
    let grouped =
        if numbers.is_empty() { String::new() } else { format!(" GROUP BY {0} ORDER BY {0}", numbers.join(", ")) };
    let [input, cached, output, cache_write, reasoning] =
        ["input", "cached", "output", "cache_write", "reasoning"].map(|column| format!("SUM({})", plausible(column)));
    let (cost, [billions, rest]) = (plausible_cost(), cost_sums());
    let from = if query.group_by.iter().any(|group| group == "analysis") { SHARED } else { ATTEMPTS };
    let sql = format!(
        "SELECT {select}COALESCE(SUM(attempts), 0), {input}, {cached}, {output}, {billions}, {rest}, \
         SUM(CASE WHEN {cost} IS NULL THEN attempts ELSE 0 END), {cache_write}, {reasoning} \
         FROM {from} WHERE id >= ?3 AND at_ms >= ?1 AND at_ms < ?2{grouped}"
    );
    let mut statement = store.prepare_cached(&sql)?;
    let from_ms = query.from_ms.unwrap_or(i64::MIN);
    let bounds = (from_ms, query.to_ms.unwrap_or(i64::MAX), first_id(from_ms));
    let width = columns.len();
    let rows = statement.query_map(bounds, |row| {
        let mut group = Vec::with_capacity(width);
        for (position, name) in query.group_by.iter().enumerate() {
            let value = match row.get::<_, Value>(position)? {
                Value::Text(text) => Some(text),
                Value::Integer(number) => Some(number.to_string()),
                _ => None,
            };
            group.push((name.clone(), value));
        }
        Ok(UsageRow {
            group,
            attempts: row.get(width)?,
            input: row.get(width + 1)?,
            cached: row.get(width + 2)?,
            output: row.get(width + 3)?,
            cost_pico: whole(row.get(width + 4)?, row.get(width + 5)?).and_then(|sum| i64::try_from(sum).ok()),
            unpriced: row.get::<_, Option<i64>>(width + 6)?.unwrap_or(0),
            cache_write: row.get(width + 7)?,
            reasoning: row.get(width + 8)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
