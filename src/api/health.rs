//! Liveness, readiness, metrics and version.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::error::ApiError;
use super::state::Api;

/// Says that the process responds.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Ready to take calls: the journal accepts appends, the ledger is open, the key file can be read, and no shutdown has
/// begun.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    if api.drain.stopping() {
        return ApiError::unavailable("stopping", "the daemon is stopping").into_response();
    }
    if let Err(error) = api.store.health() {
        return ApiError::unavailable("journal_unavailable", error.to_string()).into_response();
    }
    if let Err(error) = api.ledger.health() {
        return ApiError::unavailable("ledger_unavailable", error.to_string()).into_response();
    }
    match api.keys.health() {
        Ok(()) => "ready\n".into_response(),
        Err(error) => ApiError::unavailable("keys_unavailable", error).into_response(),
    }
}

/// The metrics in Prometheus' text format.
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &api.registry).is_err() {
        return ApiError::internal("the metrics cannot be written").into_response();
    }
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

/// The daemon's version.
pub(super) async fn version() -> Response {
    Json(json!({"name": "sidetone", "version": env!("CARGO_PKG_VERSION"), "wire": 1})).into_response()
}
