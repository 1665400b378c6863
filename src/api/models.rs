//! `GET /v1/models` (also without `/v1`): every name that a request may ask for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Api;
use super::error::OpenAiError;
use crate::gateway::{EndpointEntry, Gateway, ModelEntry};

fn entry(model: &ModelEntry) -> Value {
    let traits = &model.traits;
    json!({
        "id": model.id, "object": "model", "created": 0, "owned_by": model.owned_by, "kind": model.kind,
        "candidates": model.candidates, "configured": model.configured, "context_length": traits.context_length,
        "max_output_tokens": traits.max_output_tokens, "pricing": model.pricing,
        "retirement_date": model.retirement_date, "warning": model.warning,
        "supported_parameters": traits.parameters,
        "capabilities": {
            "tools": traits.tools, "json_schema": traits.json_schema, "vision": traits.vision,
            "reasoning": traits.reasoning, "parallel_tools": traits.parallel_tools, "stream": traits.stream,
        },
    })
}

fn endpoint(endpoint: &EndpointEntry) -> Value {
    json!({
        "name": endpoint.name, "provider": endpoint.provider, "discover": endpoint.discover,
        "models": endpoint.models, "listed_at": endpoint.listed_at, "error": endpoint.error,
    })
}

/// All of them, in OpenAI's list, and how the vendors' own lists stand.
pub fn document(gateway: &Gateway) -> Value {
    let (models, endpoints) = (gateway.models(), gateway.endpoints());
    json!({
        "object": "list", "data": models.iter().map(entry).collect::<Vec<_>>(),
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// The list.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Response {
    Json(document(&api.sessions.deps().gateway)).into_response()
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
