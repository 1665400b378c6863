//! `POST /v1/chat/completions` (also without `/v1`): OpenAI's API for every configured model.
//!
//! Reads the request and its extensions, sends it to the gateway, and writes the answer so that the clients of OpenAI,
//! LiteLLM and AssemblyAI accept it. Knows no model and no vendor: the gateway alone decides which models are asked, in
//! which order, and what happens after a failure.

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

use self::extensions::Extensions;
use super::auth::{Caller, Refusal};
use super::body;
use super::error::{ApiError, OpenAiError};
use super::route::BodyLimit;
use super::state::{Api, ConnectionGuard};
use crate::base::inflight::Holder;
use crate::gateway::transcript::{Conversation, Source, Spec};
use crate::gateway::{self, Answer, Gateway, Provenance, Resolved, Stream};
use crate::keys::Scope;
use crate::llm::ChatRequest;
use crate::types::id;

const ROUTE: HeaderName = HeaderName::from_static("sidetone-route");
const VARIANT: HeaderName = HeaderName::from_static("sidetone-variant");
const MODEL: HeaderName = HeaderName::from_static("sidetone-model");
const ENDPOINT: HeaderName = HeaderName::from_static("sidetone-endpoint");
const ATTEMPTS: HeaderName = HeaderName::from_static("sidetone-attempts");
const COST: HeaderName = HeaderName::from_static("sidetone-cost-usd");
const SUBSTITUTED: HeaderName = HeaderName::from_static("sidetone-model-substituted");
/// Response header: time that the daemon itself added, in microseconds, without the time spent waiting for a vendor.
/// For a stream, until its first token.
const OVERHEAD: HeaderName = HeaderName::from_static("sidetone-overhead-us");

/// Handles `POST /v1/chat/completions` when the request came through the router.
pub(super) async fn post(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(hold): Extension<ConnectionGuard>,
    Extension(BodyLimit(limit)): Extension<BodyLimit>,
    request: Request<Body>,
) -> Response {
    complete(api, caller, request, &hold.holder, limit, Instant::now()).await
}

/// Answers a chat completion of `caller`, which began at `began`, on `holder`'s connection. Its body has at most
/// `limit` bytes.
pub(super) async fn complete(
    api: Arc<Api>,
    caller: Caller,
    request: Request<Body>,
    holder: &Holder,
    limit: usize,
    began: Instant,
) -> Response {
    // The future is on the heap: otherwise every connection would reserve memory for it, and most connections request
    // no completion.
    match Box::pin(respond(api, caller, request, holder, limit, began)).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn respond(
    api: Arc<Api>,
    caller: Caller,
    http: Request<Body>,
    holder: &Holder,
    limit: usize,
    began: Instant,
) -> Result<Response, OpenAiError> {
    let (parts, body) = http.into_parts();
    let mut body = body::read(&parts.headers, body, limit, holder).await.map_err(OpenAiError::no_body)?;
    body.count_as_json().map_err(OpenAiError::no_body)?;
    let (mut chat, name) = ChatRequest::from_json(&body).map_err(|error| OpenAiError::request(&error))?;
    // Keeps counting the memory of the parsed request until it is answered.
    let mut lease = body.into_lease();
    let extensions = Extensions::take(&mut chat).map_err(|error| OpenAiError::request(&error))?;
    let gateway = api.sessions.deps().gateway.clone();
    let sticky_key = sticky_key(&extensions, &chat, &parts.headers);
    let call = match extensions.transcript.as_ref().map(|spec| &spec.source) {
        Some(Source::Call(call)) => Some(call.clone()),
        _ => None,
    };
    if call.is_some() && !caller.may(Scope::Subscribe) {
        let message = "transcript.call_id reads a call: the key needs the scope subscribe too".to_owned();
        return Err(OpenAiError::refused(&Refusal { known: true, message }));
    }
    let conversation = match extensions.transcript {
        None => None,
        Some(spec) => {
            let conversation = read_conversation(&api, spec).await?;
            lease.grow(conversation.bytes()).map_err(|exceeded| OpenAiError::from(ApiError::in_flight(exceeded)))?;
            Some(conversation)
        }
    };
    let name = name.unwrap_or_default();
    let resolved = resolve(&gateway, &name, &sticky_key)?;
    let (streamed, include_usage) = (chat.stream, chat.include_usage);
    let request = gateway::Request {
        name: Arc::from(name),
        fallbacks: extensions.fallbacks,
        sticky_key,
        once: extensions.once,
        conversation,
        repair_json: extensions.repair_json,
        origin: gateway::Origin { key: caller.0.map(|identity| identity.name), call, analysis: None },
        deadline: extensions.deadline.map(|deadline| deadline.saturating_sub(began.elapsed())),
        ..gateway::Request::new(resolved, chat)
    };
    if streamed {
        return stream(gateway, request, include_usage, began, sse::KEEP_ALIVE).await;
    }
    match gateway.complete(request).await {
        Ok(answer) => Ok(write_whole(&answer, began)),
        Err(error) => Err(OpenAiError::gateway(&error)),
    }
}

/// The key that keeps a request on the same variant each time: the call, else the user, else the header, else none.
fn sticky_key(extensions: &Extensions, chat: &ChatRequest, headers: &HeaderMap) -> String {
    if let Some(Spec { source: Source::Call(call), .. }) = &extensions.transcript {
        return call.to_string();
    }
    let header = || headers.get("sidetone-session").and_then(|value| value.to_str().ok()).map(str::to_owned);
    chat.user.clone().or_else(header).unwrap_or_else(id::random_suffix)
}

async fn read_conversation(api: &Api, spec: Spec) -> Result<Conversation, OpenAiError> {
    let turns = match &spec.source {
        Source::Text(_) => Vec::new(),
        Source::Turns(transcript) => transcript.turns.clone(),
        Source::Call(call) => {
            let view = api.sessions.view(call).await.map_err(|error| OpenAiError::unavailable(error.to_string()))?;
            view.ok_or_else(|| OpenAiError::unknown_call(call))?.turns.clone()
        }
    };
    Ok(Conversation { spec, turns })
}

fn resolve(gateway: &Gateway, name: &str, sticky_key: &str) -> Result<Arc<Resolved>, OpenAiError> {
    gateway.resolve(name, sticky_key).map_err(|error| {
        if name.is_empty() {
            let message = format!("model: missing; there are: {}", gateway.names().join(", "));
            return OpenAiError::bad_request(Some("model"), message);
        }
        OpenAiError::gateway(&error)
    })
}

/// The time since the request began, without `waited`, the time spent waiting for vendors.
fn overhead(began: Instant, waited: Duration) -> HeaderValue {
    let own = began.elapsed().saturating_sub(waited);
    HeaderValue::from(u64::try_from(own.as_micros()).unwrap_or(u64::MAX))
}

fn write_whole(answer: &Answer, began: Instant) -> Response {
    let body = answer::whole(&answer.response, &answer.provenance, answer.cost_usd, began.elapsed());
    let mut response = Response::new(Body::from(body));
    provenance_headers(response.headers_mut(), &answer.provenance, answer.cost_usd);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(OVERHEAD, overhead(began, answer.waited));
    response
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn provenance_headers(headers: &mut HeaderMap, provenance: &Provenance, cost_usd: Option<f64>) {
    headers.reserve(10);
    put(headers, ROUTE, &provenance.route);
    put(headers, VARIANT, &provenance.variant);
    put(headers, MODEL, &provenance.model);
    put(headers, ENDPOINT, &provenance.endpoint);
    headers.insert(ATTEMPTS, HeaderValue::from(provenance.attempts));
    if let Some(cost) = cost_usd {
        put(headers, COST, &cost.to_string());
    }
    if provenance.route != provenance.name {
        put(headers, SUBSTITUTED, &provenance.route);
    }
}

/// Answers with a stream, which begins at its first token. If a vendor has begun to answer but no token has come by the
/// end of a `pace`, the response begins without a token: a proxy in between may close a connection on which nothing is
/// sent.
async fn stream(
    gateway: Gateway,
    request: gateway::Request,
    include_usage: bool,
    began: Instant,
    pace: Duration,
) -> Result<Response, OpenAiError> {
    let answering = Arc::new(AtomicBool::new(false));
    // Route and variant for the response headers, if it is not yet known which model answers.
    let resolved = Arc::clone(&request.resolved);
    let mut opening = Box::pin(open(gateway, request, began, Arc::clone(&answering)));
    loop {
        match tokio::time::timeout(pace, opening.as_mut()).await {
            Ok(opened) => {
                let (stream, overhead) = opened?;
                let provenance = stream.provenance.clone();
                let mut response = event_stream(sse::body(stream, include_usage));
                provenance_headers(response.headers_mut(), &provenance, None);
                response.headers_mut().insert(OVERHEAD, overhead);
                return Ok(response);
            }
            Err(_) if answering.load(Ordering::Relaxed) => {
                let opening = Box::pin(async move { opening.await.map(|(stream, _)| stream) });
                let mut response = event_stream(sse::early(opening, include_usage, pace));
                put(response.headers_mut(), ROUTE, &resolved.route);
                put(response.headers_mut(), VARIANT, &resolved.variant);
                return Ok(response);
            }
            Err(_) => {}
        }
    }
}

async fn open(
    gateway: Gateway,
    request: gateway::Request,
    began: Instant,
    answering: Arc<AtomicBool>,
) -> Result<(Stream, HeaderValue), OpenAiError> {
    let opened = gateway.stream(request, &answering).await.map_err(|error| OpenAiError::gateway(&error))?;
    let overhead = overhead(began, opened.waited);
    Ok((opened, overhead))
}

fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests;
