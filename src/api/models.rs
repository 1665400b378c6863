//! `GET /v1/models` (also without `/v1`): every name that a request may ask for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Api;
use super::error::OpenAiError;
use crate::gateway::ModelEntry;

fn entry(model: &ModelEntry) -> Value {
    json!({
        "id": model.id, "object": "model", "created": 0, "owned_by": model.owned_by, "kind": model.kind,
        "candidates": model.candidates, "context_length": model.context_length, "pricing": model.pricing,
        "retirement_date": model.retirement_date, "supported_parameters": model.supported_parameters,
    })
}

/// All of them, in OpenAI's list.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Response {
    let models = api.sessions.deps().gateway.models();
    Json(json!({"object": "list", "data": models.iter().map(entry).collect::<Vec<_>>()})).into_response()
}

/// One of them.
pub(super) async fn show(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Response {
    let gateway = &api.sessions.deps().gateway;
    match gateway.models().iter().find(|model| model.id == id) {
        Some(model) => Json(entry(model)).into_response(),
        None => match gateway.resolve(&id, "") {
            Ok(_) => Json(json!({"id": id, "object": "model", "created": 0, "owned_by": "sidetone"})).into_response(),
            Err(error) => OpenAiError::gateway(&error, &[]).into_response(),
        },
    }
}
