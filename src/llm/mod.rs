//! LLM vendors' wire formats, sans-IO: canonical requests are encoded into bodies; bodies and stream events are decoded
//! into canonical answers.
//!
//! Knows no socket, no clock, no host of a URL and no configuration. To add a vendor, add one file here with a
//! [`Provider`], one line in [`PROVIDERS`], and one folder of fixtures under `tests/golden/llm/`, which the golden test
//! finds by itself.

mod anthropic;
mod auth;
mod caching;
mod calls;
mod choices;
mod cohere;
pub mod complete;
mod emulate;
pub mod failure;
pub mod form;
mod framing;
mod google;
pub mod json;
mod lenient;
pub mod limits;
pub mod local;
pub mod models;
mod openai;
pub mod repair;
mod request;
mod response;
pub mod schema;
pub mod sse;
mod text;
mod thinking;
pub mod tokens;
mod wait;
mod wrong;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use openai::write_tool_call;
pub(crate) use response::THINKING_BLOCKS;

pub use auth::{AuthScheme, KeyHeader};
pub use caching::{Before, Block, Caching, Layout, Marks, Plan, PromptCache};
pub use failure::{Class, RetryAfter, VendorError};
pub use framing::Framing;
pub use request::{ChatRequest, Content, Function, Message, ResponseFormat, Role, Tool, ToolCall, ToolChoice};
pub use response::{ChatResponse, Choice, Finish, Piece, Usage};
pub use text::Text;
pub use thinking::{ThinkTags, Thinking};
pub use wrong::RequestError;

use crate::base::measure::cut;

/// All vendors, by their name in `provider = "…"`.
pub static PROVIDERS: &[&dyn Provider] = &[
    &openai::OPENAI,
    &anthropic::ANTHROPIC,
    &google::GOOGLE,
    &cohere::COHERE,
    &openai::COMPATIBLE,
    &openai::ASSEMBLYAI,
    &openai::AZURE,
    &openai::GROQ,
    &openai::LLAMACPP,
    &openai::MISTRAL,
    &openai::OLLAMA,
    &openai::OPENROUTER,
    &openai::TOGETHER,
    &openai::VLLM,
];

pub fn provider(name: &str) -> Option<&'static dyn Provider> {
    PROVIDERS.iter().copied().find(|provider| provider.name() == name)
}

/// The wire format of one LLM vendor.
pub trait Provider: Send + Sync {
    /// The name in the configuration.
    fn name(&self) -> &'static str;

    /// The default base URL; `None` if one must be configured.
    fn base_url(&self) -> Option<&'static str>;

    /// The default version of its API; `None` if the API has no versions to choose from.
    fn api_version(&self) -> Option<&'static str> {
        None
    }

    /// How requests are authenticated.
    fn auth(&self) -> AuthScheme {
        AuthScheme::Key(KeyHeader::BEARER)
    }

    /// How a stream is cut into events.
    fn framing(&self) -> Framing {
        Framing::Sse
    }

    /// The prompt cache of a model; `None` if none is known.
    fn prompt_cache(&self, _model: &str) -> Option<PromptCache> {
        None
    }

    /// Ways to get an answer under a schema, in the order in which they are tried if nothing is configured or learned.
    fn schema_modes(&self) -> &'static [SchemaMode];

    /// Encodes the request.
    ///
    /// # Errors
    /// The vendor does not support something in the request, and it cannot be emulated.
    fn encode(&self, request: &ChatRequest, call: &Call<'_>) -> Result<Wire, Unsupported>;

    /// Reads a whole answer (HTTP 200).
    ///
    /// # Errors
    /// The body is not an answer of this vendor, not a complete one, or an error that came with status 200.
    fn answer(&self, body: &[u8]) -> Result<ChatResponse, StreamError>;

    /// A decoder for a new stream of events.
    fn stream(&self) -> Box<dyn StreamDecoder>;

    /// Reads a response with any other status.
    fn error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> VendorError {
        failure::read(status, headers, body)
    }

    /// The request for a page of the vendor's list of models: a GET with an empty body.
    ///
    /// # Errors
    /// The vendor has no such list.
    fn list(&self, _call: &ListCall<'_>) -> Result<Wire, Unsupported> {
        Err(Unsupported(format!("{} has no list of models", self.name())))
    }

    /// Reads a page of the vendor's list of models.
    ///
    /// # Errors
    /// The body is not such a list.
    fn read_list(&self, body: &[u8]) -> Result<models::Page, StreamError> {
        models::openai(body, false)
    }

    /// Returns true if the vendor's chunks are OpenAI's own, so that they can be passed to an OpenAI client unchanged.
    fn speaks_openai(&self) -> bool {
        false
    }
}

/// How to get an answer under a schema from a vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaMode {
    /// The vendor's own schema mode.
    JsonSchema,
    /// The vendor's JSON mode with the schema beside it, and the schema in the prompt.
    JsonObject,
    /// Only the schema in the prompt.
    Prompt,
}

impl SchemaMode {
    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JsonSchema => "json_schema",
            Self::JsonObject => "json_object",
            Self::Prompt => "prompt",
        }
    }
}

/// Inputs of an encoder besides the request.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The vendor's name for the model.
    pub model: &'a str,
    /// Set if the answer is to be streamed.
    pub stream: bool,
    /// How to get an answer under a schema; unused without a schema.
    pub schema_mode: SchemaMode,
    /// The vendor's API version, if one is configured.
    pub api_version: Option<&'a str>,
    /// The blocks of the request at which the vendor's prompt cache is used.
    pub marks: Marks,
}

/// Inputs of a request for a list of models.
#[derive(Clone, Copy)]
pub struct ListCall<'a> {
    /// The vendor's API version, if one is configured.
    pub api_version: Option<&'a str>,
    /// The position that the previous page gave; `None` for the first page.
    pub page: Option<&'a str>,
}

/// A request as sent to the vendor, not yet authenticated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wire {
    /// The URL after the base URL, including the query.
    pub path: String,
    /// Headers beyond `content-type`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Vec<u8>,
}

/// Why a request cannot be sent to a vendor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// Decodes the events of one stream, in order.
pub trait StreamDecoder: Send {
    /// Appends the pieces of an event, zero or more.
    ///
    /// # Errors
    /// [`StreamError::Malformed`]: skip the event; the stream may continue. [`StreamError::Vendor`]: the stream has
    /// ended.
    fn decode(&mut self, event: sse::Event<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError>;

    /// Returns true if the event just decoded, whose data this is, is what OpenAI itself would send, so that it can be
    /// passed to an OpenAI client unchanged. Only vendors that [speak OpenAI's format](Provider::speaks_openai) have
    /// such events.
    fn as_openai(&self, _data: &[u8]) -> bool {
        false
    }
}

/// Why an event or a body was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The event has none of this vendor's formats.
    #[error("{0}")]
    Malformed(String),
    /// The vendor reported an error.
    #[error("{0}")]
    Vendor(VendorError),
    /// A whole answer that is not complete.
    #[error("{why}")]
    Incomplete {
        /// What is missing.
        why: complete::Incomplete,
        /// The tokens that the incomplete answer used nevertheless.
        usage: Usage,
    },
}

#[cfg(test)]
mod tests;
