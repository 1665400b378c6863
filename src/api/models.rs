//! `GET /v1/models` (also without `/v1`): every model name that a request may use.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::{Value, json};

use super::error::OpenAiError;
use super::state::Api;
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

/// Returns true if AssemblyAI's own package sent the request, which only its user agent shows. The package refuses the
/// whole list if one entry does not have its vendor's fields, none of which may be null.
fn is_assemblyai(headers: &HeaderMap) -> bool {
    headers.get(USER_AGENT).and_then(|name| name.to_str().ok()).is_some_and(|name| name.contains("AssemblyAI/"))
}

/// An entry with AssemblyAI's fields in addition to its own. As in that vendor's lists, 0 stands for an unknown number
/// or time. An unknown price is -1, as in OpenRouter's lists, because 0 would be a price.
fn in_assemblyais_form(model: &ModelEntry) -> Value {
    let mut entry = entry(model);
    let price = |name: &str| model.pricing.get(name).filter(|price| !price.is_null()).cloned();
    let endpoints = model.candidates.iter().map(|candidate| candidate.split('/').next().unwrap_or_default());
    let mut providers: Vec<Value> = endpoints.map(|name| json!({"id": name, "name": name})).collect();
    providers.dedup();
    let context_length = model.traits.context_length.unwrap_or(0);
    let fields = json!({
        "name": model.id, "creator": model.owned_by,
        "description": format!("{} of {}: {}", model.kind, model.owned_by, model.candidates.join(", ")),
        "context_length": context_length,
        "top_provider": {
            "is_moderated": false, "context_length": context_length,
            "max_completion_tokens": model.traits.max_output_tokens.unwrap_or(0),
        },
        "pricing": {"global": {
            "prompt": price("input").unwrap_or(json!(-1)), "completions": price("output").unwrap_or(json!(-1)),
            "input_cache_read": price("cached"), "input_cache_write": price("cache_write"),
        }},
        "retirement_date": model.traits.retires_ms.map_or(0, |retires_ms| retires_ms / 1000),
        "default_parameters": {}, "available_regions": [],
        "default_provider": providers.first(), "providers": providers,
    });
    if let (Value::Object(entry), Value::Object(fields)) = (&mut entry, fields) {
        entry.extend(fields);
    }
    entry
}

fn endpoint(endpoint: &EndpointEntry) -> Value {
    json!({
        "name": endpoint.name, "provider": endpoint.provider, "discover": endpoint.discover,
        "models": endpoint.models, "listed_at": endpoint.listed_at, "error": endpoint.error,
    })
}

/// OpenAI's list of all models, and the state of the vendors' own lists.
pub fn document(gateway: &Gateway) -> Value {
    written(gateway, entry)
}

fn written(gateway: &Gateway, entry: impl Fn(&ModelEntry) -> Value) -> Value {
    let (models, endpoints) = (gateway.models(), gateway.endpoints());
    json!({
        "object": "list", "data": models.iter().map(entry).collect::<Vec<_>>(),
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// `GET /v1/models`
pub(super) async fn list(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let gateway = &api.sessions.deps().gateway;
    Json(if is_assemblyai(&headers) { written(gateway, in_assemblyais_form) } else { document(gateway) })
        .into_response()
}

/// `GET /v1/models/{id}`
pub(super) async fn show(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Response {
    let gateway = &api.sessions.deps().gateway;
    match gateway.models().iter().find(|model| model.id == id) {
        Some(model) => Json(entry(model)).into_response(),
        None => match gateway.resolve(&id, "") {
            Ok(_) => Json(json!({"id": id, "object": "model", "created": 0, "owned_by": "sidetone"})).into_response(),
            Err(error) => OpenAiError::gateway(&error).into_response(),
        },
    }
}
