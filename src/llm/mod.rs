//! LLM vendors' wire formats, sans-IO: canonical requests in, bodies out; bodies and stream events in, canonical
//! answers out.
//!
//! Knows no socket, no clock, no URL's host and no configuration. To add a vendor: one file here with a [`Provider`], one
//! line in [`PROVIDERS`], one folder of fixtures under `tests/golden/llm/`, which the golden test picks up.

mod anthropic;
mod calls;
mod cohere;
pub mod complete;
mod emulate;
pub mod failure;
pub mod form;
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
mod wait;
mod wrong;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use openai::write_tool_call;
pub(crate) use response::THINKING_BLOCKS;

pub use failure::{Class, RetryAfter, VendorError};
pub use request::{ChatRequest, Content, Function, Message, ResponseFormat, Role, Tool, ToolCall, ToolChoice};
pub use response::{ChatResponse, Choice, Finish, Piece, Usage};
pub use text::Text;
pub use thinking::{ThinkTags, Thinking};
pub use wrong::RequestError;

/// Every vendor, by the name in `provider = "…"`.
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

/// The provider of that name.
pub fn provider(name: &str) -> Option<&'static dyn Provider> {
    PROVIDERS.iter().copied().find(|provider| provider.name() == name)
}

/// The wire format of one LLM vendor.
pub trait Provider: Send + Sync {
    /// The name in the configuration.
    fn name(&self) -> &'static str;

    /// The base URL where none is configured; `None` = it must be.
    fn base_url(&self) -> Option<&'static str>;

    /// The version of its API that is spoken where none is configured; `None` = its API has none to choose from.
    fn api_version(&self) -> Option<&'static str> {
        None
    }

    /// How answers under a schema are had where nothing is configured or learned.
    fn schema_modes(&self) -> &'static [SchemaMode];

    /// Writes the request.
    ///
    /// # Errors
    /// The vendor cannot do what is asked, and it cannot be emulated.
    fn encode(&self, request: &ChatRequest, call: &Call<'_>) -> Result<Wire, Unsupported>;

    /// Reads a whole answer (HTTP 200).
    ///
    /// # Errors
    /// The body is none of this vendor's answers, or an error that came with status 200.
    fn answer(&self, body: &[u8]) -> Result<ChatResponse, StreamError>;

    /// A decoder for a new stream of events.
    fn stream(&self) -> Box<dyn StreamDecoder>;

    /// Reads an answer of any other status.
    fn error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> VendorError {
        failure::read(status, headers, body)
    }

    /// Asks for a page of its list of models; the body is empty, it is a GET.
    ///
    /// # Errors
    /// The vendor has none.
    fn list(&self, _call: &ListCall<'_>) -> Result<Wire, Unsupported> {
        Err(Unsupported(format!("{} has no list of models", self.name())))
    }

    /// Reads a page of its list of models.
    ///
    /// # Errors
    /// The body is none.
    fn read_list(&self, body: &[u8]) -> Result<models::Page, StreamError> {
        models::openai(body, false)
    }

    /// Whether its chunks are OpenAI's own, so that they can go to an OpenAI client as they came.
    fn speaks_openai(&self) -> bool {
        false
    }
}

/// How an answer under a schema is had from a vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaMode {
    /// The vendor's own schema mode.
    JsonSchema,
    /// The vendor's JSON mode with the schema beside it, and the schema in the prompt.
    JsonObject,
    /// The schema in the prompt alone.
    Prompt,
}

impl SchemaMode {
    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JsonSchema => "json_schema",
            Self::JsonObject => "json_object",
            Self::Prompt => "prompt",
        }
    }
}

/// What an encoder needs to know beside the request.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The vendor's name of the model.
    pub model: &'a str,
    /// The key, if there is one.
    pub key: Option<&'a str>,
    /// Whether the answer is to come as a stream.
    pub stream: bool,
    /// How an answer under a schema is to be had; of no meaning without a schema.
    pub schema_mode: SchemaMode,
    /// The vendor's API version, where one is configured.
    pub api_version: Option<&'a str>,
}

/// What asking for a list of models needs to know.
#[derive(Clone, Copy)]
pub struct ListCall<'a> {
    /// The key, if there is one.
    pub key: Option<&'a str>,
    /// The vendor's API version, where one is configured.
    pub api_version: Option<&'a str>,
    /// Where the page before said to go on.
    pub page: Option<&'a str>,
}

/// A request as it goes over the wire.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wire {
    /// What follows the base URL, query included.
    pub path: String,
    /// Headers beyond `content-type`. Those with a secret are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why a request cannot be asked of a vendor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// Decodes the events of one stream, in order.
pub trait StreamDecoder: Send {
    /// Appends what an event says, zero or more pieces.
    ///
    /// # Errors
    /// [`StreamError::Malformed`]: the event is to be skipped, the stream may go on. [`StreamError::Vendor`]: it is over.
    fn decode(&mut self, event: sse::Event<'_>, out: &mut Vec<Piece>) -> Result<(), StreamError>;

    /// Whether the event just decoded, of which this is the data, is what OpenAI itself would send, so that it can go to an
    /// OpenAI client as it came. Only vendors that [speak OpenAI's format](Provider::speaks_openai) have such events.
    fn as_openai(&self, _data: &[u8]) -> bool {
        false
    }
}

/// Why an event or a body was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It is none of this vendor's shapes.
    #[error("{0}")]
    Malformed(String),
    /// The vendor reports an error.
    #[error("{0}")]
    Vendor(VendorError),
    /// A whole answer that is not complete.
    #[error("{why}")]
    Incomplete {
        /// What is missing.
        why: complete::Incomplete,
        /// The tokens that it took all the same.
        usage: Usage,
    },
}

/// A header with a secret value.
///
/// # Errors
/// The value has characters that no header can hold.
pub(crate) fn secret_header(name: HeaderName, value: &str) -> Result<(HeaderName, HeaderValue), Unsupported> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Unsupported("the endpoint's key has characters that no header can hold".to_owned()))?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Cuts a text to at most so many bytes, between two characters.
pub(crate) fn cut(text: &mut String, bytes: usize) {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests;
