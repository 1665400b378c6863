//! Anthropic's Messages API, in both of its live versions. Sources: the `anthropic` package's types; the documentation's
//! "Versions" and "Migrating to API version 2026-10-21".
//!
//! Knows no other vendor's format.

mod blocks;
pub(super) mod cache;
mod decode;
mod messages;
mod request;

use http::header::{HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    AuthScheme, Call, ChatRequest, ChatResponse, KeyHeader, ListCall, PromptCache, Provider, SchemaMode, StreamDecoder,
    StreamError, Unsupported, Wire, emulate, models,
};

pub(super) static ANTHROPIC: Anthropic = Anthropic;

#[derive(Debug)]
pub(super) struct Anthropic;

const NEWEST: &str = "2026-10-21";

impl Provider for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn base_url(&self) -> Option<&'static str> {
        Some("https://api.anthropic.com")
    }

    fn api_version(&self) -> Option<&'static str> {
        Some(NEWEST)
    }

    fn auth(&self) -> AuthScheme {
        AuthScheme::Key(KeyHeader::named("x-api-key"))
    }

    fn prompt_cache(&self, model: &str) -> Option<PromptCache> {
        Some(cache::of(model))
    }

    fn schema_modes(&self) -> &'static [SchemaMode] {
        &[SchemaMode::JsonSchema, SchemaMode::Prompt]
    }

    fn encode(&self, request: &ChatRequest, call: &Call<'_>) -> Result<Wire, Unsupported> {
        emulate::refuse(request, "Anthropic", &["n", "logprobs", "penalties"])?;
        let version = call.api_version.unwrap_or(NEWEST);
        let mut body = Vec::with_capacity(4096);
        request::write_body(&mut body, request, call, version)?;
        Ok(Wire { path: "/v1/messages".to_owned(), headers: headers(version)?, body })
    }

    fn list(&self, call: &ListCall<'_>) -> Result<Wire, Unsupported> {
        let after =
            call.page.map_or_else(String::new, |id| format!("&after_id={}", utf8_percent_encode(id, NON_ALPHANUMERIC)));
        let headers = headers(call.api_version.unwrap_or(NEWEST))?;
        Ok(Wire { path: format!("/v1/models?limit=1000{after}"), headers, body: Vec::new() })
    }

    fn read_list(&self, body: &[u8]) -> Result<models::Page, StreamError> {
        models::anthropic(body)
    }

    fn answer(&self, body: &[u8]) -> Result<ChatResponse, StreamError> {
        decode::answer(body)
    }

    fn stream(&self) -> Box<dyn StreamDecoder> {
        Box::new(decode::Decoder::default())
    }
}

fn headers(version: &str) -> Result<Vec<(HeaderName, HeaderValue)>, Unsupported> {
    let version = HeaderValue::from_str(version)
        .map_err(|_| Unsupported("api_version has characters that are not allowed in a header".to_owned()))?;
    Ok(vec![(HeaderName::from_static("anthropic-version"), version)])
}
