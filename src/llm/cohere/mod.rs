//! Cohere's chat API, version 2. Sources: the `cohere` package's types; the documentation's "Streaming" and "Tool use".
//!
//! Knows no other vendor's format.

mod decode;
mod request;

use super::{
    Call, ChatRequest, ChatResponse, Provider, SchemaMode, StreamDecoder, StreamError, Unsupported, Wire, emulate,
};

pub(super) static COHERE: Cohere = Cohere;

#[derive(Debug)]
pub(super) struct Cohere;

impl Provider for Cohere {
    fn name(&self) -> &'static str {
        "cohere"
    }

    fn base_url(&self) -> Option<&'static str> {
        Some("https://api.cohere.com")
    }

    fn schema_modes(&self) -> &'static [SchemaMode] {
        &[SchemaMode::JsonSchema, SchemaMode::Prompt]
    }

    fn encode(&self, request: &ChatRequest, call: &Call<'_>) -> Result<Wire, Unsupported> {
        emulate::refuse(request, "Cohere", &["n", "logprobs"])?;
        let mut body = Vec::with_capacity(4096);
        request::write_body(&mut body, request, call)?;
        Ok(Wire { path: "/v2/chat".to_owned(), headers: Vec::new(), body })
    }

    fn answer(&self, body: &[u8]) -> Result<ChatResponse, StreamError> {
        decode::answer(body)
    }

    fn stream(&self) -> Box<dyn StreamDecoder> {
        Box::<decode::Decoder>::default()
    }
}
