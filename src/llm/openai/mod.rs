//! OpenAI's chat completions API, and all vendors that implement it.
//!
//! Knows no vendor's differences: [`vendors`] has them. Sources: the `openai` package's types; AssemblyAI's LLM Gateway
//! reference; the servers' own documentation.

mod cache;
mod decode;
mod encode;
mod plain;
mod shape;
mod text;
mod vendors;
mod wire;

pub(crate) use self::encode::write_tool_call;
pub(super) use self::vendors::{
    ASSEMBLYAI, AZURE, COMPATIBLE, GROQ, LLAMACPP, MISTRAL, OLLAMA, OPENAI, OPENROUTER, OpenAi, TOGETHER, VLLM,
};

use super::{
    AuthScheme, Call, ChatRequest, ChatResponse, ListCall, PromptCache, Provider, SchemaMode, StreamDecoder,
    StreamError, Unsupported, Wire, models,
};

impl Provider for OpenAi {
    fn name(&self) -> &'static str {
        self.name
    }

    fn base_url(&self) -> Option<&'static str> {
        self.base_url
    }

    fn auth(&self) -> AuthScheme {
        self.auth
    }

    fn prompt_cache(&self, model: &str) -> Option<PromptCache> {
        self.cache.of(model)
    }

    fn schema_modes(&self) -> &'static [SchemaMode] {
        self.schema_modes
    }

    fn encode(&self, request: &ChatRequest, call: &Call<'_>) -> Result<Wire, Unsupported> {
        self.refuse(request)?;
        let mut body = Vec::with_capacity(encode::body_size(request));
        self.write_body(&mut body, request, call);
        Ok(Wire { path: "/chat/completions".to_owned(), headers: Vec::new(), body })
    }

    fn list(&self, _call: &ListCall<'_>) -> Result<Wire, Unsupported> {
        Ok(Wire { path: "/models".to_owned(), headers: Vec::new(), body: Vec::new() })
    }

    fn read_list(&self, body: &[u8]) -> Result<models::Page, StreamError> {
        models::openai(body, self.own_list)
    }

    fn answer(&self, body: &[u8]) -> Result<ChatResponse, StreamError> {
        decode::answer(body)
    }

    fn stream(&self) -> Box<dyn StreamDecoder> {
        Box::new(decode::Decoder::default())
    }

    fn speaks_openai(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
