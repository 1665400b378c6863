//! `GET /v1/usage?group_by=endpoint,route,…&from=&to=&changes=`: usage and cost of models, and changes of the
//! configuration.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::query::Query;
use super::state::Api;
use crate::base::time::{parse_rfc3339, rfc3339_ms};
use crate::ledger::{Change, GONE, LedgerError, UsageQuery, UsageRow};

/// Handles the request with sums over the ledger.
pub(super) async fn usage(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let query = Query::new(query.as_deref());
    let asked = UsageQuery {
        group_by: match query.text("group_by") {
            None => vec!["endpoint".to_owned()],
            Some("none") => Vec::new(),
            Some(groups) => groups.split(',').map(|group| group.trim().to_owned()).collect(),
        },
        from_ms: time(&query, "from")?,
        to_ms: time(&query, "to")?,
    };
    let changes = match query.text("changes") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let message = format!("changes: expected true or false, found {other:?}");
            return Err(ApiError::bad_request("bad_parameter", message));
        }
    };
    let ledger = api.ledger.clone();
    let read = move || -> Result<Value, LedgerError> {
        let rows: Vec<Value> = ledger.usage(&asked)?.iter().map(shown).collect();
        let mut answer = json!({ "rows": rows });
        if changes {
            let changes = ledger.changes(asked.from_ms, asked.to_ms)?;
            answer["changes"] = changes.iter().map(changed).collect();
        }
        Ok(answer)
    };
    let answer =
        tokio::task::spawn_blocking(read).await.map_err(|_| ApiError::internal("the ledger's query failed"))?;
    match answer {
        Ok(answer) => Ok(Json(answer).into_response()),
        Err(error @ LedgerError::Query(_)) => Err(ApiError::bad_request("bad_parameter", error.to_string())),
        Err(error) => Err(ApiError::unavailable("ledger_unavailable", error.to_string())),
    }
}

/// Reads a time in RFC 3339, or a UTC day.
fn time(query: &Query, name: &str) -> Result<Option<i64>, ApiError> {
    let Some(text) = query.text(name) else { return Ok(None) };
    let parsed = parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}T00:00:00Z")));
    let expected = || {
        let message = format!("{name}: expected 2026-01-31 or 2026-01-31T12:00:00Z, found {text:?}");
        ApiError::bad_request("bad_parameter", message)
    };
    parsed.map(Some).ok_or_else(expected)
}

/// A change of the configuration; `detail` is null if the item was removed.
fn changed(change: &Change) -> Value {
    let detail = Some(&change.detail).filter(|detail| *detail != GONE);
    json!({"at": rfc3339_ms(change.at_ms), "kind": change.kind, "name": change.name, "detail": detail})
}

fn shown(row: &UsageRow) -> Value {
    let mut shown: Map<String, Value> = row.group.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    shown.insert("attempts".to_owned(), json!(row.attempts));
    let tokens = json!({
        "input": row.input, "cached": row.cached, "cache_write": row.cache_write, "output": row.output,
        "reasoning": row.reasoning,
    });
    shown.insert("tokens".to_owned(), tokens);
    shown.insert("cost_usd".to_owned(), json!(row.cost_pico.map(crate::gateway::price::usd)));
    shown.insert("unpriced".to_owned(), json!(row.unpriced));
    Value::Object(shown)
}
