//! A request to the gateway.

use std::sync::Arc;
use std::time::Duration;

use super::answer::Deltas;
use super::catalogue::resolved::Resolved;
use super::transcript::Conversation;
use crate::llm::ChatRequest;
use crate::llm::local::Method;
use crate::types::{CallId, JsonMap, Transcript};

/// Makes the transcript that the embedded provider reads.
pub type MakeTranscript = Arc<dyn Fn() -> Arc<Transcript> + Send + Sync>;

/// Who makes a request: recorded with each of its attempts, and the key under which it shares turns in a queue.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Name of the client's key; `None` for the daemon itself.
    pub key: Option<Arc<str>>,
    /// The call that the request is about.
    pub call: Option<CallId>,
    /// The analysis that makes the request.
    pub analysis: Option<Arc<str>>,
}

/// Another model to ask if the ones before it give no answer.
#[derive(Debug, Clone)]
pub struct Fallback {
    /// A name, as for [`super::Gateway::resolve`].
    pub model: String,
    /// Fields that differ from those of the request. `messages` replaces the messages.
    pub overrides: JsonMap,
}

/// One analysis of a request for several analyses: its answer is one member of the answer, and is validated by itself.
#[derive(Debug, Clone)]
pub struct Part {
    pub analysis: Arc<str>,
    /// The name of the member.
    pub member: String,
    /// Set if null is not a valid answer.
    pub needed: bool,
    /// How the embedded provider answers; `None` if it cannot.
    pub local: Option<Method>,
}

/// A request, of a client or of the daemon itself.
pub struct Request {
    /// The name that the caller asked for.
    pub name: Arc<str>,
    /// What that name resolved to.
    pub resolved: Arc<Resolved>,
    /// The request itself. With a schema in `response_format`, the answer is validated even if the vendor does not
    /// support schemas. `stream` decides whether the vendor is asked for a stream.
    pub chat: ChatRequest,
    /// Asked in this order if `resolved` gives no answer. Each must be valid before anything is asked.
    pub fallbacks: Vec<Fallback>,
    /// Decides the variants of the fallbacks' routes.
    pub sticky_key: String,
    /// Each candidate is asked only once.
    pub once: bool,
    /// Inserted into the prompt, as much of it as fits the model's context. The embedded provider reads it as its
    /// transcript.
    pub conversation: Option<Conversation>,
    /// Makes the transcript that the embedded provider reads instead of the prompt; called only if that provider is
    /// asked.
    pub transcript: Option<MakeTranscript>,
    /// How the embedded provider answers for an analysis; `None` if it cannot. A client's request gets a plain summary.
    pub local: Option<Method>,
    /// The analyses that are asked, if the schema is one for several. The answer's value then has only the valid
    /// members of these; it is an error if none is valid.
    pub parts: Vec<Part>,
    /// The texts and the tools' arguments of a whole answer are repaired to be valid JSON. Has no effect on a stream.
    pub repair_json: bool,
    pub origin: Origin,
    /// Receives the text of a whole answer as it arrives.
    pub deltas: Option<Deltas>,
    /// Deadline of the whole request, fallbacks included; only a value below the model's own has an effect.
    pub deadline: Option<Duration>,
}

impl Request {
    /// A request to `resolved` with no other options.
    pub fn new(resolved: Arc<Resolved>, chat: ChatRequest) -> Self {
        Self {
            name: Arc::clone(&resolved.route),
            resolved,
            chat,
            fallbacks: Vec::new(),
            sticky_key: String::new(),
            once: false,
            conversation: None,
            transcript: None,
            local: None,
            parts: Vec::new(),
            repair_json: false,
            origin: Origin::default(),
            deltas: None,
            deadline: None,
        }
    }

    /// A request of the daemon's own, for `analysis`. The vendor is asked for a stream: its pieces arrive early, and a
    /// model that stalls is noticed within the timeout between tokens.
    pub fn of_analysis(resolved: Arc<Resolved>, chat: ChatRequest, analysis: Arc<str>) -> Self {
        let mut request = Self::new(resolved, chat);
        request.chat.stream = true;
        request.chat.include_usage = true;
        request.origin.analysis = Some(analysis);
        request
    }
}
