//! Stores models' answers to the requests of calls that are not live, answers repeated requests from the store, and
//! adds up tokens and cost for each call.
//!
//! An exchange is the result of a request after all retries and failovers. A request that is answered from an
//! [`ExchangeStore`] costs no time and no money. Knows no file and no meaning of an answer: a stored answer is
//! validated, repaired and read like a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::catalogue::resolved::Resolved;
use super::code::Code;
use super::error::GatewayError;
use super::request::Origin;
use crate::base::sync::lock;
use crate::llm::{self, Call, ChatRequest, ChatResponse, Choice, Finish, Marks, SchemaMode, ToolCall, Usage};
use crate::types::CallId;

/// Length of a digest in hexadecimal digits: 128 bits.
const DIGEST_CHARS: usize = 32;

/// The parts of a request that determine its answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Asked {
    /// Identifies the request: the beginning of a SHA-256 over the candidates and the body, in hexadecimal digits.
    #[serde(skip)]
    pub digest: String,
    #[serde(skip)]
    pub call: Option<CallId>,
    pub analysis: Option<Arc<str>>,
    /// The candidates, as `endpoint/vendor-model`, in failover order.
    pub candidates: Vec<String>,
    /// The request as an OpenAI-compatible vendor would get it.
    pub body: serde_json::Value,
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    pub outcome: Outcome,
    /// Number of HTTP calls made.
    pub attempts: u32,
    pub usage: Usage,
    /// Cost in pico-dollars; `None` if the price of any attempt is unknown.
    pub cost_pico: Option<i64>,
    /// Time spent waiting for the network and the vendors, microseconds.
    pub waited_us: u64,
    /// From the start of the successful attempt to its first token; `None` if the answer was not streamed.
    pub first_token_us: Option<u64>,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Answer(Answered),
    /// No vendor answered, so the embedded provider must answer.
    Embedded,
    Error(Failed),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    pub text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Why the answer ended, in OpenAI's spelling.
    pub finish: Option<String>,
    /// Set if the model called tools in place of an answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub calls_tools: bool,
    /// The endpoint that answered.
    pub endpoint: String,
    /// The vendor's name for the model.
    pub vendor_model: String,
}

/// An error of the schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The error code, as sent to clients.
    pub code: String,
    /// The gateway's own message, without text of a vendor.
    pub message: String,
    pub temporary: bool,
}

/// Stores exchanges by the digest of their request. A request that is made several times in one call has several
/// exchanges, in order.
pub trait ExchangeStore: Send + Sync {
    /// The stored exchanges of a request.
    ///
    /// # Errors
    /// The store cannot be read; the message names the place.
    fn read(&self, digest: &str) -> Result<Vec<Exchange>, String>;

    /// Stores an exchange at `position`, and returns the stored one. This is an earlier exchange if another request
    /// stored one at that position in the meantime.
    ///
    /// # Errors
    /// The store cannot be written; the message names the place.
    fn add(&self, asked: &Asked, position: usize, exchange: Exchange) -> Result<Exchange, String>;
}

/// Number, tokens and cost of the requests of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub requests: u64,
    /// Number of HTTP calls made.
    pub attempts: u64,
    /// Sum of the tokens; a count is `None` if that of any answer is unknown.
    pub input: Sum<u64>,
    pub cached: Sum<u64>,
    pub output: Sum<u64>,
    /// Cost, pico-dollars.
    pub cost: Sum<i64>,
}

/// A sum; unknown (`None`) once one of its parts is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum<T>(pub Option<T>);

impl<T: Default> Default for Sum<T> {
    fn default() -> Self {
        Self(Some(T::default()))
    }
}

impl<T: std::ops::Add<Output = T>> Sum<T> {
    fn add(&mut self, part: Option<T>) {
        self.0 = self.0.take().zip(part).map(|(sum, part)| sum + part);
    }
}

/// A call in progress.
#[derive(Default)]
struct Progress {
    tally: Tally,
    /// Time spent waiting since the last [`Exchanges::take_waited`].
    waited: Duration,
    /// How often each request was made.
    made: HashMap<String, usize>,
    fault: Option<String>,
}

/// The exchanges of a gateway whose calls are not live.
#[derive(Default)]
pub struct Exchanges {
    store: Option<Arc<dyn ExchangeStore>>,
    /// Set if no model is asked: a request without a stored answer is an error.
    replays: bool,
    calls: Mutex<HashMap<Option<CallId>, Progress>>,
}

impl Exchanges {
    /// Sends every request, and stores nothing.
    pub fn live() -> Self {
        Self::default()
    }

    /// Answers requests from the store if it has them; sends the others, and stores their results.
    pub fn recording(store: Arc<dyn ExchangeStore>) -> Self {
        Self { store: Some(store), ..Self::default() }
    }

    /// Answers requests only from the store.
    pub fn replaying(store: Arc<dyn ExchangeStore>) -> Self {
        Self { store: Some(store), replays: true, ..Self::default() }
    }

    /// The sums of a call's requests so far, and the error that stops the call, if there is one.
    pub fn tally(&self, call: &CallId) -> (Tally, Option<String>) {
        let calls = self.calls();
        calls
            .get(&Some(call.clone()))
            .map(|progress| (progress.tally.clone(), progress.fault.clone()))
            .unwrap_or_default()
    }

    /// Time that the requests of a call spent waiting since the last call of this function.
    pub fn take_waited(&self, call: &CallId) -> Duration {
        let mut calls = self.calls();
        calls.get_mut(&Some(call.clone())).map(|progress| std::mem::take(&mut progress.waited)).unwrap_or_default()
    }

    /// The request, and its position among the equal requests of its call.
    pub(in crate::gateway) fn asked(
        &self,
        origin: &Origin,
        resolved: &Resolved,
        chat: &ChatRequest,
    ) -> Result<(Asked, usize), GatewayError> {
        let asked = Asked::new(origin, resolved, chat)?;
        let mut calls = self.calls();
        let made = progress(&mut calls, &asked).made.entry(asked.digest.clone()).or_default();
        *made += 1;
        Ok((asked, *made - 1))
    }

    /// The stored result of a request; `None` if the models must be asked.
    pub(in crate::gateway) fn find(&self, asked: &Asked, position: usize) -> Result<Option<Exchange>, GatewayError> {
        let Some(store) = &self.store else { return Ok(None) };
        let mut kept = store.read(&asked.digest).map_err(|message| self.fault(asked, message))?;
        let found = match (kept.len(), self.replays) {
            (0, true) => {
                let analysis = asked.analysis.as_deref().unwrap_or("a request");
                let message = format!("{analysis}: the request {} to {} is not recorded", asked.digest, asked.whom());
                return Err(self.fault(asked, message));
            }
            (count, true) => Some(kept.swap_remove(position.min(count - 1))),
            (count, false) => (position < count).then(|| kept.swap_remove(position)),
        };
        if let Some(exchange) = &found {
            self.count(asked, exchange);
        }
        Ok(found)
    }

    /// Stores the result of a request; returns the result to use.
    pub(in crate::gateway) fn record(
        &self,
        asked: &Asked,
        position: usize,
        exchange: Exchange,
    ) -> Result<Exchange, GatewayError> {
        let exchange = match &self.store {
            Some(store) => store.add(asked, position, exchange).map_err(|message| self.fault(asked, message))?,
            None => exchange,
        };
        self.count(asked, &exchange);
        Ok(exchange)
    }

    fn count(&self, asked: &Asked, exchange: &Exchange) {
        let mut calls = self.calls();
        let progress = progress(&mut calls, asked);
        progress.waited += Duration::from_micros(exchange.waited_us);
        let Tally { requests, attempts, input, cached, output, cost } = &mut progress.tally;
        *requests += 1;
        *attempts += u64::from(exchange.attempts);
        cost.add(exchange.cost_pico);
        let usage = exchange.usage;
        // A request that failed has tokens only if its vendor began to answer.
        if matches!(exchange.outcome, Outcome::Answer(_)) || !usage.is_unknown() {
            input.add(usage.input);
            cached.add(usage.cached);
            output.add(usage.output);
        }
    }

    fn fault(&self, asked: &Asked, message: String) -> GatewayError {
        let error = GatewayError::new(Code::Unsupported, message.clone());
        progress(&mut self.calls(), asked).fault.get_or_insert(message);
        error
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<Option<CallId>, Progress>> {
        lock(&self.calls)
    }
}

fn progress<'a>(calls: &'a mut HashMap<Option<CallId>, Progress>, asked: &Asked) -> &'a mut Progress {
    calls.entry(asked.call.clone()).or_default()
}

impl Asked {
    fn new(origin: &Origin, resolved: &Resolved, chat: &ChatRequest) -> Result<Self, GatewayError> {
        let invalid = |message: String| GatewayError::new(Code::InvalidRequest, message);
        let candidates: Vec<String> = resolved.candidates.iter().map(ToString::to_string).collect();
        let wire = llm::provider("openai_compatible").ok_or_else(|| {
            invalid("the provider openai_compatible, whose format stored requests have, does not exist".to_owned())
        })?;
        let model = candidates.first().map_or("", String::as_str);
        let marks = Marks::default();
        let call = Call { model, stream: false, schema_mode: SchemaMode::JsonSchema, api_version: None, marks };
        let body = wire.encode(chat, &call).map_err(|error| invalid(error.to_string()))?.body;
        let mut hash = Sha256::new();
        for candidate in &candidates {
            hash.update(candidate);
            hash.update("\n");
        }
        hash.update(&body);
        let mut digest = hex::encode(hash.finalize());
        digest.truncate(DIGEST_CHARS);
        let body = serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
        Ok(Self { digest, call: origin.call.clone(), analysis: origin.analysis.clone(), candidates, body })
    }

    fn whom(&self) -> String {
        self.candidates.join(", ")
    }
}

impl Answered {
    pub(in crate::gateway) fn new(chat: &ChatResponse, endpoint: &str, vendor_model: &str) -> Self {
        let first = chat.choices.first().cloned().unwrap_or_default();
        Self {
            text: first.text,
            refusal: first.refusal,
            finish: first.finish.map(|finish| finish.as_str().to_owned()),
            calls_tools: !first.tool_calls.is_empty(),
            endpoint: endpoint.to_owned(),
            vendor_model: vendor_model.to_owned(),
        }
    }

    pub(in crate::gateway) fn chat(&self, usage: Usage) -> ChatResponse {
        let choice = Choice {
            text: self.text.clone(),
            refusal: self.refusal.clone(),
            finish: self.finish.as_deref().and_then(Finish::parse),
            tool_calls: if self.calls_tools { vec![ToolCall::default()] } else { Vec::new() },
            ..Choice::default()
        };
        ChatResponse { model: self.vendor_model.clone(), choices: vec![choice], usage, ..ChatResponse::default() }
    }
}

impl Failed {
    pub(in crate::gateway) fn new(error: &GatewayError) -> Self {
        let (code, message) = (error.code().as_str().to_owned(), error.message().to_owned());
        Self { code, message, temporary: error.temporary() }
    }

    pub(in crate::gateway) fn error(&self) -> GatewayError {
        let code = Code::parse(&self.code).unwrap_or(Code::UpstreamError);
        let error = GatewayError::new(code, self.message.clone());
        if self.temporary { error.temporarily() } else { error }
    }
}

/// A duration in microseconds, as it is stored.
pub(in crate::gateway) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
