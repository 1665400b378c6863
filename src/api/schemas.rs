//! `/schemas/`: the JSON Schemas of the frames on both sockets. Knows no frame.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::protocol::schema::{self, SCHEMAS};

/// `GET /schemas/`
pub(super) async fn list() -> Response {
    let schemas: Vec<Value> = SCHEMAS
        .iter()
        .map(|schema| {
            json!({"name": schema.name, "title": schema.title, "path": format!("/schemas/{}.json", schema.name)})
        })
        .collect();
    Json(json!({ "schemas": schemas })).into_response()
}

/// `GET /schemas/{name}`
pub(super) async fn show(Path(name): Path<String>) -> Response {
    match name.strip_suffix(".json").and_then(schema::find) {
        Some(schema) => ([(CONTENT_TYPE, "application/schema+json")], schema.text).into_response(),
        None => {
            let known: Vec<String> = SCHEMAS.iter().map(|schema| format!("{}.json", schema.name)).collect();
            let message = format!("no such schema; there are: {}", known.join(", "));
            ApiError::not_found("unknown_schema", message).into_response()
        }
    }
}
