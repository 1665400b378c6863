//! What the gateway answers, and where the answer came from.

use std::sync::Arc;
use std::time::Duration;

use crate::llm::ChatResponse;
use crate::types::TokenUsage;

/// A piece of an answer's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta<'a> {
    /// Position in the text, in characters (Unicode scalar values). 0 = the text starts over: first piece, another
    /// attempt, or a repair.
    pub offset: u64,
    pub text: &'a str,
}

/// Receives an answer's text as it arrives.
pub type Deltas = Box<dyn FnMut(Delta<'_>) + Send>;

/// Model, endpoint and attempts that led to an answer.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// The name under which the answering model was asked for: the request's own, or a fallback's.
    pub name: Arc<str>,
    /// The route of that name.
    pub route: Arc<str>,
    /// The variant of the route.
    pub variant: Arc<str>,
    /// The logical model.
    pub model: Arc<str>,
    /// The endpoint; `local` for the embedded provider.
    pub endpoint: Arc<str>,
    /// The vendor's name for the model.
    pub vendor_model: Arc<str>,
    /// Number of HTTP calls made, those of failed models included; 0 if only the embedded provider was asked.
    pub attempts: u32,
}

/// A whole answer, and how it was obtained.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The text. If `value` is set, it is valid JSON under the requested schema.
    pub text: String,
    /// The parsed text, if a schema was requested. `None` if the answer was withheld, is a refusal or calls tools.
    pub value: Option<serde_json::Value>,
    /// The vendor's response with all its choices.
    pub response: ChatResponse,
    pub provenance: Provenance,
    /// Tokens of every attempt that began to answer, a repair's included.
    pub usage: TokenUsage,
    /// Cost of these attempts in US dollars; `None` if any of their prices is unknown.
    pub cost_usd: Option<f64>,
    /// Set if the embedded provider made the answer.
    pub degraded: bool,
    /// Time from the start of the successful attempt to its first token; `None` if the answer was not streamed.
    pub first_token: Option<Duration>,
    /// Time spent waiting for the network and the vendors.
    pub waited: Duration,
}
