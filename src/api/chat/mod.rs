//! `POST /v1/chat/completions` (also without `/v1`): OpenAI's schema over every model there is.
//!
//! Knows no vendor: the gateway does. Reads the request and its extensions, asks, and writes the answer so that OpenAI's,
//! LiteLLM's and AssemblyAI's own clients take it.

mod answer;
mod extensions;
mod sse;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use self::answer::Facts;
use self::extensions::{Extensions, Fallback};
use super::auth::{Caller, Refusal};
use super::error::{ApiError, OpenAiError};
use super::{Api, Hold, body};
use crate::base::budget;
use crate::base::inflight::Holder;
use crate::gateway::transcript::{self, Source, Spec};
use crate::gateway::{Answer, Arm, AttemptFailure, Gateway, GatewayError, MakeTranscript, Query, Stream};
use crate::keys::Scope;
use crate::llm::repair::{self, REPAIRING};
use crate::llm::{ChatRequest, Choice};
use crate::types::{CallId, Transcript, id};

/// What an answer is taken to be at most, where the request does not say, tokens.
const OUTPUT_TOKENS: u64 = 1024;
/// Longest request body.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
const ROUTE: HeaderName = HeaderName::from_static("sidetone-route");
const VARIANT: HeaderName = HeaderName::from_static("sidetone-variant");
const MODEL: HeaderName = HeaderName::from_static("sidetone-model");
const ENDPOINT: HeaderName = HeaderName::from_static("sidetone-endpoint");
const ATTEMPTS: HeaderName = HeaderName::from_static("sidetone-attempts");
const COST: HeaderName = HeaderName::from_static("sidetone-cost-usd");
const SUBSTITUTED: HeaderName = HeaderName::from_static("sidetone-model-substituted");
/// Our own part of the time, in microseconds: reading, checking, writing and reading again, the ledger's row, the body;
/// all but the waiting for a vendor. Of a stream, until its first token.
const OVERHEAD: HeaderName = HeaderName::from_static("sidetone-overhead-us");

/// One request on its way: what each of its fallbacks shares.
struct Asked {
    gateway: Gateway,
    began: Instant,
    deadline: Option<Duration>,
    transcript: Option<Given>,
    call: Option<CallId>,
    key: Option<Arc<str>>,
    repair_json: bool,
}

/// The transcript that a request brings or names, before it is known who is to read it.
struct Given {
    spec: Spec,
    turns: Vec<Arc<crate::types::Turn>>,
}

impl Given {
    /// Estimated size of the rendered transcript and its copy in the request, bytes.
    fn bytes(&self) -> usize {
        let turns: usize = self.turns.iter().map(|turn| turn.text.len()).sum();
        2 * turns
    }

    /// What fits of it, and as it is written.
    fn for_room(&self, room: Option<usize>) -> (Arc<Transcript>, String) {
        let spec = self.spec.fitting(room);
        if let Source::Text(text) = &spec.source {
            return (Arc::default(), spec.cut(text).to_owned());
        }
        let selected = spec.select(&self.turns);
        let written = spec.render(&selected);
        (Arc::new(selected), written)
    }
}

/// Tokens that are left for a transcript beside the rest of the request, where the model's context is known.
fn room(arm: &Arm, request: &ChatRequest) -> Option<usize> {
    let bytes: usize = request.messages.iter().map(|message| message.content.plain().len()).sum();
    let context = arm.context_length()?;
    let rest = (bytes / 3) as u64 + request.max_tokens.unwrap_or(OUTPUT_TOKENS.min(context / 4)) + 64;
    // A token is taken for four bytes, which not every language keeps to: a quarter is left free.
    let left = context.saturating_sub(rest) / 4 * 3;
    usize::try_from(left).ok()
}

/// One candidate request: the caller's own, or one of its fallbacks.
struct Turn {
    arm: Arc<Arm>,
    /// What was asked for by name.
    named: String,
    request: ChatRequest,
}

/// `POST /v1/chat/completions` where the router was asked.
pub(super) async fn post(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(hold): Extension<Hold>,
    request: Request<Body>,
) -> Response {
    complete(api, caller, request, &hold.holder, Instant::now()).await
}

/// Answers a chat completion that `caller` has asked for when it `began`, on `holder`'s connection.
pub(super) async fn complete(
    api: Arc<Api>,
    caller: Caller,
    request: Request<Body>,
    holder: &Holder,
    began: Instant,
) -> Response {
    // On the heap, where it is made: every connection would have room for one, and most ask for none.
    match Box::pin(respond(api, caller, request, holder, began)).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn respond(
    api: Arc<Api>,
    caller: Caller,
    http: Request<Body>,
    holder: &Holder,
    began: Instant,
) -> Result<Response, OpenAiError> {
    let (parts, body) = http.into_parts();
    let mut body = body::read(&parts.headers, body, MAX_BODY_BYTES, holder).await.map_err(OpenAiError::no_body)?;
    body.count_as_json().map_err(OpenAiError::no_body)?;
    let (mut request, model) = ChatRequest::from_json(&body).map_err(|error| OpenAiError::request(&error))?;
    // Counts the parsed request until it is answered.
    let mut lease = body.into_lease();
    let extensions = Extensions::take(&mut request).map_err(|error| OpenAiError::request(&error))?;
    let gateway = api.sessions.deps().gateway.clone();
    let sticky = sticky_key(&extensions, &request, &parts.headers);
    let call = match extensions.transcript.as_ref().map(|spec| &spec.source) {
        Some(Source::Call(call)) => Some(call.clone()),
        _ => None,
    };
    if call.is_some() && !caller.may(Scope::Subscribe) {
        let message = "transcript.call_id reads a call, which needs a key with the scope subscribe too".to_owned();
        return Err(OpenAiError::refused(&Refusal { known: true, message }));
    }
    let transcript = match extensions.transcript {
        None => None,
        Some(spec) => {
            let given = read_transcript(&api, spec).await?;
            lease.grow(given.bytes()).map_err(|exceeded| OpenAiError::from(ApiError::in_flight(exceeded)))?;
            Some(given)
        }
    };
    let key = caller.0.map(|identity| identity.name);
    let streamed = request.stream;
    let include_usage = request.include_usage;
    let mut turns = turns(&gateway, request, model, extensions.fallbacks, &sticky, transcript.is_some()).await?;
    if extensions.once {
        for turn in &mut turns {
            turn.arm = Arc::new(turn.arm.asked_once());
        }
    }
    let asked = Asked {
        gateway,
        began,
        deadline: extensions.deadline,
        transcript,
        call,
        key,
        repair_json: extensions.repair_json,
    };
    if streamed { stream(asked, turns, include_usage, sse::KEEP_ALIVE).await } else { plain(&asked, turns).await }
}

/// Variants stick to the call, else the user, else the header, else nothing.
fn sticky_key(extensions: &Extensions, request: &ChatRequest, headers: &HeaderMap) -> String {
    if let Some(Spec { source: Source::Call(call), .. }) = &extensions.transcript {
        return call.to_string();
    }
    let header = || headers.get("sidetone-session").and_then(|value| value.to_str().ok()).map(str::to_owned);
    request.user.clone().or_else(header).unwrap_or_else(id::random_suffix)
}

async fn read_transcript(api: &Api, spec: Spec) -> Result<Given, OpenAiError> {
    let turns = match &spec.source {
        Source::Text(_) => Vec::new(),
        Source::Turns(transcript) => transcript.turns.clone(),
        Source::Call(call) => {
            let view = api.sessions.view(call).await.map_err(|error| OpenAiError::unavailable(error.to_string()))?;
            view.ok_or_else(|| OpenAiError::unknown_call(call))?.turns.clone()
        }
    };
    Ok(Given { spec, turns })
}

/// The caller's request and its fallbacks, each with who will answer. Every name must be known, and every fallback be a
/// request that can be asked, before anything is.
async fn turns(
    gateway: &Gateway,
    request: ChatRequest,
    model: Option<String>,
    fallbacks: Vec<Fallback>,
    sticky: &str,
    with_transcript: bool,
) -> Result<Vec<Turn>, OpenAiError> {
    let resolve = |name: &str| gateway.resolve(name, sticky).map_err(|error| OpenAiError::gateway(&error, &[]));
    let named = model.unwrap_or_default();
    if named.is_empty() && gateway.resolve("", sticky).is_err() {
        let message = format!("model: missing; there are: {}", gateway.names().join(", "));
        return Err(OpenAiError::bad_request(Some("model"), message));
    }
    let mut turns = vec![Turn { arm: resolve(&named)?, named, request }];
    for (position, fallback) in fallbacks.into_iter().enumerate() {
        let mut request = turns[0].request.clone();
        fallback.lay_over(&mut request).map_err(|error| OpenAiError::request(&error))?;
        let arm = resolve(&fallback.model)?;
        let mut asked = request.clone();
        if with_transcript {
            // Its text is of no account; that it is there may be.
            transcript::insert(&mut asked, "");
        }
        gateway.check(&arm, asked).await.map_err(|error| OpenAiError::fallback(position, &error))?;
        turns.push(Turn { arm, named: fallback.model, request });
    }
    Ok(turns)
}

impl Asked {
    /// What was not waiting, so far.
    fn overhead(&self, waited: Duration) -> HeaderValue {
        let own = self.began.elapsed().saturating_sub(waited);
        HeaderValue::from(u64::try_from(own.as_micros()).unwrap_or(u64::MAX))
    }

    /// Takes the turn's request out: each is asked once.
    fn query(&self, turn: &mut Turn) -> Query {
        let mut request = std::mem::take(&mut turn.request);
        let given = self.transcript.as_ref().map(|given| given.for_room(room(&turn.arm, &request)));
        if let Some((_, written)) = &given {
            transcript::insert(&mut request, written);
        }
        Query {
            arm: Arc::clone(&turn.arm),
            request,
            transcript: given.map(|(turns, _)| -> MakeTranscript { Arc::new(move || Arc::clone(&turns)) }),
            key: self.key.clone(),
            call: self.call.clone(),
            deadline: self.deadline.map(|deadline| deadline.saturating_sub(self.began.elapsed())),
        }
    }
}

async fn plain(asked: &Asked, turns: Vec<Turn>) -> Result<Response, OpenAiError> {
    let mut failed: Vec<GatewayError> = Vec::new();
    for mut turn in turns {
        match asked.gateway.complete(asked.query(&mut turn)).await {
            Ok(mut answer) => {
                answer.attempts += made(&failed);
                answer.waited += waited(&failed);
                if asked.repair_json {
                    answer = repair_answer(answer, &failed).await?;
                }
                return Ok(write_plain(asked, &turn, &answer));
            }
            Err(error) if stops(&error) => return Err(OpenAiError::gateway(&error, &failed)),
            Err(error) => failed.push(error),
        }
    }
    Err(all_failed(failed))
}

/// HTTP calls that were made for those that failed.
fn made(failed: &[GatewayError]) -> u32 {
    let calls = failed.iter().flat_map(GatewayError::attempts).filter(|attempt| attempt.why.is_some()).count();
    u32::try_from(calls).unwrap_or(u32::MAX)
}

/// What they waited for.
fn waited(failed: &[GatewayError]) -> Duration {
    failed.iter().map(GatewayError::waited).sum()
}

/// What the request itself is at fault for no other model can help with.
fn stops(error: &GatewayError) -> bool {
    matches!(error.code(), "invalid_request" | "too_complex" | "budget_exhausted") && error.attempts().is_empty()
}

fn all_failed(mut failed: Vec<GatewayError>) -> OpenAiError {
    match failed.pop() {
        Some(last) => OpenAiError::gateway(&last, &failed),
        None => OpenAiError::bad_request(None, "nobody to ask"),
    }
}

/// AssemblyAI's `json-repair`: of the text and of tools' arguments. `before` are the errors of those that were asked first.
async fn repair_answer(mut answer: Answer, before: &[GatewayError]) -> Result<Answer, OpenAiError> {
    let texts = |choice: &Choice| {
        let arguments: u64 = choice.tool_calls.iter().map(|call| repair::work(&call.arguments)).sum();
        choice.text.as_deref().map_or(0, repair::work) + arguments
    };
    let work = answer.response.choices.iter().map(texts).sum();
    let (endpoint, model) = (Arc::clone(&answer.endpoint), Arc::clone(&answer.vendor_model));
    let unusable = || AttemptFailure::mismatch(Arc::clone(&endpoint), Arc::clone(&model), None);
    let repaired = budget::run(work, REPAIRING, move |budget| {
        for choice in &mut answer.response.choices {
            let texts = choice.text.iter_mut().chain(choice.tool_calls.iter_mut().map(|call| &mut call.arguments));
            for text in texts.filter(|text| !text.is_empty()) {
                match repair::parse(text, budget)? {
                    Some((_, true)) => {}
                    Some((value, false)) => *text = value.to_string(),
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(answer))
    });
    match repaired.await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(OpenAiError::unrepairable(&unusable(), before)),
        Err(exceeded) => Err(OpenAiError::unrepaired(exceeded, unusable(), before)),
    }
}

fn write_plain(asked: &Asked, turn: &Turn, answer: &Answer) -> Response {
    let facts = Facts {
        route: &turn.arm.route,
        variant: &turn.arm.variant,
        model: &answer.model,
        endpoint: &answer.endpoint,
        attempts: answer.attempts,
        cost_usd: answer.cost_usd,
    };
    let body = answer::whole(&answer.response, &facts, &turn.named, asked.began.elapsed());
    let mut response = Response::new(Body::from(body));
    headers(response.headers_mut(), &facts, turn);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(OVERHEAD, asked.overhead(answer.waited));
    response
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Provenance, as headers.
fn headers(headers: &mut HeaderMap, facts: &Facts<'_>, turn: &Turn) {
    headers.reserve(10);
    put(headers, ROUTE, facts.route);
    put(headers, VARIANT, facts.variant);
    put(headers, MODEL, facts.model);
    put(headers, ENDPOINT, facts.endpoint);
    headers.insert(ATTEMPTS, HeaderValue::from(facts.attempts));
    if let Some(cost) = facts.cost_usd {
        put(headers, COST, &cost.to_string());
    }
    if *turn.arm.route != *turn.named {
        put(headers, SUBSTITUTED, &turn.arm.route);
    }
}

/// Answers with a stream, at its first token. Where a vendor has begun to answer and no token is there at the end of a
/// `pace`, the answer begins without: a proxy between takes a silent line for dead.
async fn stream(asked: Asked, turns: Vec<Turn>, include_usage: bool, pace: Duration) -> Result<Response, OpenAiError> {
    let answering = Arc::new(AtomicBool::new(false));
    // The route and variant asked: those of the headers, if it is not known yet who answers.
    let arm = turns.first().map(|turn| Arc::clone(&turn.arm));
    let mut opening = Box::pin(open(asked, turns, Arc::clone(&answering)));
    loop {
        match tokio::time::timeout(pace, opening.as_mut()).await {
            Ok(opened) => {
                let Opened { stream, turn, overhead } = opened?;
                let provenance = stream.provenance.clone();
                let facts = Facts {
                    route: &provenance.route,
                    variant: &provenance.variant,
                    model: &provenance.model,
                    endpoint: &provenance.endpoint,
                    attempts: provenance.attempts,
                    cost_usd: None,
                };
                let mut response = event_stream(sse::body(stream, include_usage));
                headers(response.headers_mut(), &facts, &turn);
                response.headers_mut().insert(OVERHEAD, overhead);
                return Ok(response);
            }
            Err(_) if answering.load(Ordering::Relaxed) => {
                let opening = Box::pin(async move { opening.await.map(|opened| opened.stream) });
                let mut response = event_stream(sse::early(opening, include_usage, pace));
                if let Some(arm) = arm {
                    put(response.headers_mut(), ROUTE, &arm.route);
                    put(response.headers_mut(), VARIANT, &arm.variant);
                }
                return Ok(response);
            }
            Err(_) => {}
        }
    }
}

fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A stream at its first token, and whose it is.
struct Opened {
    stream: Stream,
    turn: Turn,
    overhead: HeaderValue,
}

async fn open(asked: Asked, turns: Vec<Turn>, answering: Arc<AtomicBool>) -> Result<Opened, OpenAiError> {
    let mut failed: Vec<GatewayError> = Vec::new();
    for mut turn in turns {
        match asked.gateway.stream_watched(asked.query(&mut turn), &answering).await {
            Ok(mut stream) => {
                stream.provenance.attempts += made(&failed);
                stream.waited += waited(&failed);
                return Ok(Opened { overhead: asked.overhead(stream.waited), stream, turn });
            }
            Err(error) if stops(&error) => return Err(OpenAiError::gateway(&error, &failed)),
            Err(error) => failed.push(error),
        }
    }
    Err(all_failed(failed))
}

#[cfg(test)]
mod tests;
