//! `/docs/`: the documentation as pages. No key is needed, as for the dashboard: the pages contain no data of this
//! daemon.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::error::ApiError;
use super::pages;
use crate::docs::{self, SIDETONE_TOML, SIDETONE_TOML_NAME, TOPICS};

/// Content security policy of the pages, which run nothing and load only their pictures.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'";

/// Each page, rendered once.
static PAGES: LazyLock<HashMap<&str, String>> =
    LazyLock::new(|| TOPICS.iter().map(|topic| (topic.name, docs::page(topic))).collect());
static INDEX: LazyLock<String> = LazyLock::new(docs::index);

/// `GET /docs` redirects to `/docs/`, because the links of the list are relative to that folder.
pub(super) async fn folder() -> Redirect {
    Redirect::permanent("docs/")
}

/// `GET /docs/`
pub(super) async fn index() -> Response {
    pages::page(&INDEX, POLICY)
}

/// `GET /docs/{topic}`
pub(super) async fn topic(Path(name): Path<String>) -> Result<Response, ApiError> {
    if name == SIDETONE_TOML_NAME {
        return Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], SIDETONE_TOML).into_response());
    }
    if let Some(picture) = docs::picture(&name) {
        return Ok(([(CONTENT_TYPE, "image/png"), (CACHE_CONTROL, "max-age=3600")], picture).into_response());
    }
    match PAGES.get(name.as_str()) {
        Some(page) => Ok(pages::page(page, POLICY)),
        None => {
            let names: Vec<&str> = TOPICS.iter().map(|topic| topic.name).collect();
            let message = format!("no topic {name:?}; there are: {}, {SIDETONE_TOML_NAME}", names.join(", "));
            Err(ApiError::not_found("unknown_path", message))
        }
    }
}
