//! The LLM gateway: names to models, models to endpoints, and one request over as many of them as it takes.
//!
//! Knows no client's protocol and no session: it is asked by [`Gateway::infer`] for whole answers. It reports every HTTP
//! call that it makes to a [`Recorder`].

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

/// Takes the report of every attempt. Called on the request's way: must neither block nor fail.
pub trait Recorder: Send + Sync {
    /// An attempt is about to be made: durable, as far as it can be, when this returns.
    fn begun(&self, attempt: AttemptBegun);
    /// It ended.
    fn done(&self, attempt: AttemptDone);
    /// A request is over; its last attempt may still be giving its answer.
    fn over(&self, _request: RequestDone) {}
    /// What holds from now on of a kind, as `(name, detail)`. Called off the request's way; may block.
    fn noted(&self, _kind: &'static str, _items: Vec<(String, String)>) {}
}

/// The gateway. Clones are the same gateway.
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
    validators: infer::Validators,
    /// The catalogue is another.
    reloaded: tokio::sync::Notify,
}

/// Makes the transcript that the embedded provider reads.
pub type MakeTranscript = Arc<dyn Fn() -> Arc<Transcript> + Send + Sync>;

/// Gets an answer's text as it comes.
pub type Deltas = Box<dyn FnMut(Delta<'_>) + Send>;

/// What is asked.
pub struct Ask {
    /// Who is to answer.
    pub arm: Arc<Arm>,
    /// The request. A `response_format` with a schema is kept, whatever the vendor can.
    pub request: ChatRequest,
    /// What the embedded provider reads instead of the prompt; made when it is asked.
    pub transcript: Option<MakeTranscript>,
    /// The analysis that asks.
    pub task: Option<Arc<str>>,
    /// The call that it is about.
    pub call: Option<CallId>,
    /// Gets the text as it comes.
    pub deltas: Option<Deltas>,
    /// For the whole request, if it is to be less than the model's own.
    pub deadline: Option<Duration>,
}

impl Ask {
    /// A request of an arm, with nothing else.
    pub fn new(arm: Arc<Arm>, request: ChatRequest) -> Self {
        Self { arm, request, transcript: None, task: None, call: None, deltas: None, deadline: None }
    }
}

/// What a client asks.
pub struct Query {
    /// Who is to answer.
    pub arm: Arc<Arm>,
    /// The request.
    pub request: ChatRequest,
    /// What the embedded provider reads instead of the prompt.
    pub transcript: Option<MakeTranscript>,
    /// The client's key, by name.
    pub key: Option<Arc<str>>,
    /// The call that it is about.
    pub call: Option<CallId>,
    /// For the whole request, if it is to be less than the model's own.
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
    /// Where it goes, in characters (Unicode scalar values); 0 = the text starts over (another attempt, or a repair).
    pub offset: u64,
    /// The piece.
    pub text: &'a str,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The text; valid JSON under the schema, where one was asked for.
    pub text: String,
    /// What the text says, where a schema was asked for and the answer is one: not withheld, no refusal, no call of
    /// tools.
    pub value: Option<serde_json::Value>,
    /// The whole answer.
    pub response: ChatResponse,
    /// The endpoint that answered.
    pub endpoint: Arc<str>,
    /// The logical model.
    pub model: Arc<str>,
    /// The vendor's name of the model.
    pub vendor_model: Arc<str>,
    /// HTTP calls made; 0 = the embedded provider.
    pub attempts: u32,
    /// Tokens, a repair's included.
    pub usage: TokenUsage,
    /// Cost in US dollars; `None` where no price is known.
    pub cost_usd: Option<f64>,
    /// The embedded provider made it.
    pub degraded: bool,
    /// From the request to its first token; `None` where the answer did not come as a stream.
    pub first_token: Option<Duration>,
    /// How long the network and the vendor were waited for.
    pub waited: Duration,
}

impl Gateway {
    /// A gateway over a validated configuration that reports its attempts to nobody.
    ///
    /// # Errors
    /// None yet; building the catalogue may come to fail.
    pub fn new(config: Config, metrics: Metrics) -> Result<Self, GatewayError> {
        Ok(Self::build(config, metrics, None, None))
    }

    /// The same; `recorder` gets every attempt, and `budget` is kept.
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
                validators: infer::Validators::default(),
                reloaded: tokio::sync::Notify::new(),
            }),
        }
    }

    /// Replaces the catalogue. Requests in flight, and arms that are pinned, keep what they have.
    pub fn reload(&self, config: Config) {
        let catalogue = Arc::new(catalogue::Catalogue::new(config, Some(&self.inner.catalogue.load())));
        catalogue.show(&self.inner.metrics.queue);
        self.inner.catalogue.store(Arc::clone(&catalogue));
        self.inner.http.retain(|uid| catalogue.has_endpoint(uid));
        self.inner.reloaded.notify_one();
    }

    /// Other caps on money from now on, US dollars; `spent_today` is what was spent since the day of UTC began,
    /// pico-dollars. A gateway without a budget has none to change.
    pub fn cap(&self, usd_per_call: Option<f64>, usd_per_day: Option<f64>, spent_today: i64) {
        if let Some(budget) = &self.inner.budget {
            budget.cap(usd_per_call, usd_per_day, spent_today);
        }
    }

    /// Looks a name up: a route (its variant by weighted rendezvous hashing over the route, `sticky_key` and the
    /// variants' names), a logical model, `endpoint/vendor-model`, a bare vendor id, then `catch_all_route`.
    ///
    /// # Errors
    /// `model_not_found`, naming what there is.
    pub fn resolve(&self, target: &str, sticky_key: &str) -> Result<Arc<Arm>, GatewayError> {
        self.inner.catalogue.load().resolve(target, sticky_key)
    }

    /// The same for an analysis that has chosen once already: `variant` stays while the route has it, and `default_route`
    /// stands in for a route that is no more.
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

    /// Whether `route` has the variant.
    ///
    /// # Errors
    /// What there is instead, for people.
    pub fn check_variant(&self, route: &str, variant: &str) -> Result<(), String> {
        self.inner.catalogue.load().check_variant(route, variant)
    }

    /// The name that an analysis asks: its own `route`, a route of its name, the default route, the only model, `local`.
    pub fn target(&self, analysis: &str, route: Option<&str>) -> String {
        self.inner.catalogue.load().analysis_target(analysis, route)
    }

    /// The arm of the embedded provider.
    pub fn local(&self) -> Arc<Arm> {
        Arc::clone(self.inner.catalogue.load().local())
    }

    /// Every name that can be asked and is known beforehand: routes, models, vendors' models.
    pub fn models(&self) -> Vec<ModelEntry> {
        entries::all(&self.inner.catalogue.load())
    }

    /// Every configured name that [`Gateway::resolve`] knows, for messages.
    pub fn names(&self) -> Vec<String> {
        self.inner.catalogue.load().names()
    }

    /// Asks for a whole answer.
    ///
    /// # Errors
    /// No candidate gave a usable answer within the deadline.
    ///
    /// # Cancel safety
    /// Dropped, the request under way is aborted upstream, and its attempt is reported as aborted.
    pub async fn infer(&self, ask: Ask) -> Result<Answer, GatewayError> {
        let mut request = ask.request;
        request.stream = true;
        request.include_usage = true;
        let asker = run::Asker { key: None, call: ask.call, analysis: ask.task };
        let Ask { arm, transcript, deltas, deadline, .. } =
            Ask { request: ChatRequest::default(), call: None, task: None, ..ask };
        infer::whole(&self.inner, infer::Question { arm, request, transcript, asker, deltas, deadline }, None).await
    }

    /// Asks for a whole answer on a client's behalf; it comes whole from the vendor, too.
    ///
    /// # Errors
    /// As [`Gateway::infer`].
    ///
    /// # Cancel safety
    /// As [`Gateway::infer`].
    pub async fn complete(&self, query: Query) -> Result<Answer, GatewayError> {
        infer::whole(&self.inner, query.question(false), None).await
    }

    /// Looks at a request as it will be asked, without asking: for what is asked only after something else has failed.
    ///
    /// # Errors
    /// `invalid_request`, with the parameter that is wrong.
    pub fn check(&self, arm: &Arm, mut request: ChatRequest) -> Result<(), GatewayError> {
        infer::prepare(&self.inner, arm, &mut request).map(|_| ())
    }

    /// Asks for a stream on a client's behalf. Returns at the commit point: the first token is there, and no other vendor
    /// can take over any more.
    ///
    /// # Errors
    /// As [`Gateway::infer`].
    ///
    /// # Cancel safety
    /// As [`Gateway::infer`]; so is dropping the stream.
    pub async fn stream(&self, query: Query) -> Result<Stream, GatewayError> {
        self.stream_watched(query, &AtomicBool::new(false)).await
    }

    /// The same; `answering` is set once a vendor's good header is there: whoever waits for the first token then waits for
    /// a model that thinks, though another may still take over.
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
