//! The LLM gateway: resolves a name to a model and a model to its endpoints, and sends one request to as many of them
//! as it takes to get an answer.
//!
//! Knows no client's protocol and no session. Callers ask with [`Gateway::infer`], [`Gateway::complete`] and
//! [`Gateway::stream`]. Reports every HTTP call that it makes to a [`Recorder`].

mod attempt;
mod balance;
mod breaker;
pub mod budget;
mod catalogue;
pub mod config;
mod endpoint;
mod entries;
mod error;
mod fit;
mod gate;
mod http;
mod infer;
mod listing;
mod live;
mod metrics;
mod pace;
pub mod price;
mod rate;
mod row;
mod run;
mod stream;
pub mod transcript;
mod validators;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;

pub use catalogue::Arm;
pub use config::Config;
pub use entries::ModelEntry;
pub use error::{AttemptFailure, GatewayError};
pub use listing::EndpointEntry;
pub use live::Frame;
pub use metrics::Metrics;
pub use stream::{Provenance, Stream};

use crate::llm::{ChatRequest, ChatResponse};
use crate::types::{AttemptBegun, AttemptDone, CallId, RequestDone, TokenUsage, Transcript};

/// Receives the report of every attempt. Called on the request path: must neither block nor fail.
pub trait Recorder: Send + Sync {
    /// Called before an attempt is made. When it returns, the report is as durable as the recorder can make it.
    fn begun(&self, attempt: AttemptBegun);
    /// Called when the attempt has ended.
    fn done(&self, attempt: AttemptDone);
    /// Called when a request makes no further attempts; its last attempt may still be streaming its answer.
    fn over(&self, _request: RequestDone) {}
    /// Records the current items of a kind (such as listed prices) as `(name, detail)`. Items recorded before and not
    /// named here stay. Not called on the request path; may block.
    fn noted(&self, _kind: &'static str, _items: Vec<(String, String)>) {}
}

/// Handle to the gateway; clones share its state.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    catalogue: ArcSwap<catalogue::Catalogue>,
    http: http::Http,
    metrics: Arc<Metrics>,
    recorder: Option<Arc<dyn Recorder>>,
    budget: Option<Arc<budget::Budget>>,
    validators: Arc<validators::Validators>,
    /// Notified when [`Gateway::reload`] has replaced the catalogue.
    reloaded: tokio::sync::Notify,
}

/// Makes the transcript that the embedded provider reads.
pub type MakeTranscript = Arc<dyn Fn() -> Arc<Transcript> + Send + Sync>;

/// Receives an answer's text as it arrives.
pub type Deltas = Box<dyn FnMut(Delta<'_>) + Send>;

/// A request that the daemon itself makes, such as one of an analysis; see [`Gateway::infer`].
pub struct Ask {
    /// The model or variant that answers.
    pub arm: Arc<Arm>,
    /// The request. With a schema in `response_format`, the answer is validated even if the vendor does not support
    /// schemas.
    pub request: ChatRequest,
    /// Makes the transcript that the embedded provider reads instead of the prompt; called only if that provider is
    /// asked.
    pub transcript: Option<MakeTranscript>,
    /// The analysis that makes the request.
    pub task: Option<Arc<str>>,
    /// The call that the request is about.
    pub call: Option<CallId>,
    /// Receives the text as it arrives.
    pub deltas: Option<Deltas>,
    /// Deadline of the whole request; only a value below the model's own has an effect.
    pub deadline: Option<Duration>,
}

impl Ask {
    /// A request to `arm` with no other options.
    pub fn new(arm: Arc<Arm>, request: ChatRequest) -> Self {
        Self { arm, request, transcript: None, task: None, call: None, deltas: None, deadline: None }
    }
}

/// A client's request; see [`Gateway::complete`] and [`Gateway::stream`].
pub struct Query {
    /// The model or variant that answers.
    pub arm: Arc<Arm>,
    pub request: ChatRequest,
    /// Makes the transcript that the embedded provider reads instead of the prompt.
    pub transcript: Option<MakeTranscript>,
    /// Name of the client's key.
    pub key: Option<Arc<str>>,
    /// The call that the request is about.
    pub call: Option<CallId>,
    /// Deadline of the whole request; only a value below the model's own has an effect.
    pub deadline: Option<Duration>,
}

impl Query {
    fn question(self, stream: bool) -> infer::Question {
        let mut request = self.request;
        request.stream = stream;
        infer::Question {
            arm: self.arm,
            request,
            transcript: self.transcript,
            asker: run::Asker { key: self.key, call: self.call, analysis: None },
            deltas: None,
            deadline: self.deadline,
        }
    }
}

/// A piece of an answer's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta<'a> {
    /// Position in the text, in characters (Unicode scalar values). 0 = the text starts over: first piece, another
    /// attempt, or a repair.
    pub offset: u64,
    pub text: &'a str,
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
    /// The endpoint that answered; `local` for the embedded provider.
    pub endpoint: Arc<str>,
    /// The logical model.
    pub model: Arc<str>,
    /// The vendor's name for the model.
    pub vendor_model: Arc<str>,
    /// Number of HTTP calls made; 0 if only the embedded provider was asked.
    pub attempts: u32,
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

impl Gateway {
    /// Creates a gateway from a validated configuration, without a recorder and without a budget.
    ///
    /// # Errors
    /// None at present; reserved for a catalogue that cannot be built.
    pub fn new(config: Config, metrics: Metrics) -> Result<Self, GatewayError> {
        Ok(Self::build(config, metrics, None, None))
    }

    /// Like [`Gateway::new`], but reports every attempt to `recorder` and enforces `budget`.
    ///
    /// # Errors
    /// As [`Gateway::new`].
    pub fn recorded(
        config: Config,
        metrics: Metrics,
        recorder: Arc<dyn Recorder>,
        budget: Option<budget::Budget>,
    ) -> Result<Self, GatewayError> {
        Ok(Self::build(config, metrics, Some(recorder), budget))
    }

    fn build(
        config: Config,
        metrics: Metrics,
        recorder: Option<Arc<dyn Recorder>>,
        budget: Option<budget::Budget>,
    ) -> Self {
        let catalogue = catalogue::Catalogue::new(config, None);
        catalogue.show(&metrics.queue);
        Self {
            inner: Arc::new(Inner {
                catalogue: ArcSwap::from_pointee(catalogue),
                http: http::Http::default(),
                budget: budget.map(|budget| Arc::new(budget.metered(metrics.reserved.clone()))),
                metrics: Arc::new(metrics),
                recorder,
                validators: Arc::default(),
                reloaded: tokio::sync::Notify::new(),
            }),
        }
    }

    /// Replaces the catalogue. Requests in flight, and arms that callers have pinned, keep the old one.
    pub fn reload(&self, config: Config) {
        let catalogue = Arc::new(catalogue::Catalogue::new(config, Some(&self.inner.catalogue.load())));
        catalogue.show(&self.inner.metrics.queue);
        self.inner.catalogue.store(Arc::clone(&catalogue));
        self.inner.http.retain(|uid| catalogue.has_endpoint(uid));
        self.inner.reloaded.notify_one();
    }

    /// Replaces the caps on money, in US dollars. `spent_today` is the amount spent since the start of the UTC day, in
    /// pico-dollars. Does nothing if the gateway was built without a budget.
    pub fn cap(&self, usd_per_call: Option<f64>, usd_per_day: Option<f64>, spent_today: i64) {
        if let Some(budget) = &self.inner.budget {
            budget.cap(usd_per_call, usd_per_day, spent_today);
        }
    }

    /// What was spent today is known now, pico-dollars; until then [`budget::UNKNOWN_SPENT`] stood in for it.
    pub fn learn_spent(&self, today: i64) {
        if let Some(budget) = &self.inner.budget {
            budget.learn(today);
        }
    }

    /// Resolves a name, in this order: a route (its variant chosen by weighted rendezvous hashing over the route,
    /// `sticky_key` and the variants' names), a logical model, `endpoint/vendor-model`, a bare vendor id, then
    /// `catch_all_route`.
    ///
    /// # Errors
    /// `model_not_found`; the message lists the configured names.
    pub fn resolve(&self, target: &str, sticky_key: &str) -> Result<Arc<Arm>, GatewayError> {
        self.inner.catalogue.load().resolve(target, sticky_key)
    }

    /// Like [`Gateway::resolve`], for an analysis that has chosen a variant before: keeps `variant` while the route has
    /// it, and falls back to `default_route` instead of `catch_all_route`.
    ///
    /// # Errors
    /// As [`Gateway::resolve`].
    pub fn resolve_pinned(
        &self,
        target: &str,
        sticky_key: &str,
        variant: Option<&str>,
    ) -> Result<Arc<Arm>, GatewayError> {
        self.inner.catalogue.load().resolve_pinned(target, sticky_key, variant)
    }

    /// Checks that `route` has the variant.
    ///
    /// # Errors
    /// A message for people that lists what exists.
    pub fn check_variant(&self, route: &str, variant: &str) -> Result<(), String> {
        self.inner.catalogue.load().check_variant(route, variant)
    }

    /// The name that an analysis asks: its own `route`, a route of its name, the default route, the only model, or
    /// `local`.
    pub fn target(&self, analysis: &str, route: Option<&str>) -> String {
        self.inner.catalogue.load().analysis_target(analysis, route)
    }

    /// The arm of the embedded provider.
    pub fn local(&self) -> Arc<Arm> {
        Arc::clone(self.inner.catalogue.load().local())
    }

    /// Every name that can be listed: routes, models, and vendor models that are configured or in a vendor's list.
    pub fn models(&self) -> Vec<ModelEntry> {
        entries::all(&self.inner.catalogue.load())
    }

    /// Every configured name that [`Gateway::resolve`] accepts, for messages.
    pub fn names(&self) -> Vec<String> {
        self.inner.catalogue.load().names()
    }

    /// Asks for a whole answer on the daemon's own behalf; the vendor is asked for a stream.
    ///
    /// # Errors
    /// No candidate gave a usable answer within the deadline.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the request upstream; its attempt is reported as aborted.
    pub async fn infer(&self, ask: Ask) -> Result<Answer, GatewayError> {
        let mut request = ask.request;
        request.stream = true;
        request.include_usage = true;
        let asker = run::Asker { key: None, call: ask.call, analysis: ask.task };
        let Ask { arm, transcript, deltas, deadline, .. } =
            Ask { request: ChatRequest::default(), call: None, task: None, ..ask };
        infer::whole(&self.inner, infer::Question { arm, request, transcript, asker, deltas, deadline }, None).await
    }

    /// Asks for a whole answer on a client's behalf; the vendor, too, is asked for a whole answer and not for a stream.
    ///
    /// # Errors
    /// As [`Gateway::infer`].
    ///
    /// # Cancel safety
    /// As [`Gateway::infer`].
    pub async fn complete(&self, query: Query) -> Result<Answer, GatewayError> {
        infer::whole(&self.inner, query.question(false), None).await
    }

    /// Validates a request without sending it, for a request that is sent only if another one fails.
    ///
    /// # Errors
    /// `invalid_request` or `too_complex`, with the name of the invalid parameter.
    ///
    /// # Cancel safety
    /// Safe: nothing is sent.
    pub async fn check(&self, arm: &Arm, mut request: ChatRequest) -> Result<(), GatewayError> {
        infer::prepare(&self.inner, arm, &mut request).await.map(|_| ())
    }

    /// Asks for a stream on a client's behalf. Returns at the commit point: the first token has arrived, and no other
    /// vendor can take over any more.
    ///
    /// # Errors
    /// As [`Gateway::infer`].
    ///
    /// # Cancel safety
    /// As [`Gateway::infer`]; dropping the stream also aborts the request.
    pub async fn stream(&self, query: Query) -> Result<Stream, GatewayError> {
        self.stream_watched(query, &AtomicBool::new(false)).await
    }

    /// Like [`Gateway::stream`]; also sets `answering` once a vendor has sent a successful response header. From then
    /// on the caller is waiting for a model that is thinking, although another candidate may still take over.
    ///
    /// # Errors
    /// As [`Gateway::infer`].
    ///
    /// # Cancel safety
    /// As [`Gateway::stream`].
    pub async fn stream_watched(&self, query: Query, answering: &AtomicBool) -> Result<Stream, GatewayError> {
        stream::open(&self.inner, query.question(true), answering).await
    }
}

#[cfg(test)]
pub(crate) mod tests;
