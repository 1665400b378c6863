//! `GET /v1/usage?group_by=endpoint,route,…&from=&to=`: what was used, and what it cost.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::Api;
use super::error::ApiError;
use super::query::Query;
use crate::base::time::parse_rfc3339;
use crate::ledger::{LedgerError, UsageQuery, UsageRow};

/// Sums up the ledger.
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
    let ledger = api.ledger.clone();
    let rows = tokio::task::spawn_blocking(move || ledger.usage(&asked))
        .await
        .map_err(|_| ApiError::internal("the ledger's query failed"))?;
    match rows {
        Ok(rows) => Ok(Json(json!({ "rows": rows.iter().map(shown).collect::<Vec<_>>() })).into_response()),
        Err(error @ LedgerError::Query(_)) => Err(ApiError::bad_request("bad_parameter", error.to_string())),
        Err(error) => Err(ApiError::unavailable("ledger_unavailable", error.to_string())),
    }
}

/// A time as RFC 3339, or a day of UTC.
fn time(query: &Query, name: &str) -> Result<Option<i64>, ApiError> {
    let Some(text) = query.text(name) else { return Ok(None) };
    let parsed = parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}T00:00:00Z")));
    let expected = || {
        let message = format!("{name}: expected 2026-01-31 or 2026-01-31T12:00:00Z, found {text:?}");
        ApiError::bad_request("bad_parameter", message)
    };
    parsed.map(Some).ok_or_else(expected)
}

fn shown(row: &UsageRow) -> Value {
    let mut shown: Map<String, Value> = row.group.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    shown.insert("attempts".to_owned(), json!(row.attempts));
    shown.insert("tokens".to_owned(), json!({"input": row.input, "cached": row.cached, "output": row.output}));
    shown.insert("cost_usd".to_owned(), json!(row.cost_pico.map(crate::gateway::price::usd)));
    shown.insert("unpriced".to_owned(), json!(row.unpriced));
    Value::Object(shown)
}
