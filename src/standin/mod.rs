//! A stand-in for the STT vendor, for tests: serves recordings over AssemblyAI's v3 protocol, to any client or to the
//! daemon's proxy, and simulates faults on request. It recognises no speech: incoming audio only determines the pace.
//!
//! Knows no call and no daemon. Clients and the proxy are tested with it without an API key.

mod fault;
mod script;
mod session;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub use fault::{Fault, FaultKind};
pub use script::Script;

use crate::base::ws::Upgrade;

/// The vendor's limit on the size of a message, in bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The vendor's limits on the lifetime of a token, in seconds.
const TOKEN_SECONDS: std::ops::RangeInclusive<u64> = 1..=600;

/// When the frames of a recording are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// At their recorded times, played this many times faster.
    Clock(f64),
    /// As soon as the client has sent audio up to the frame's recorded time.
    Audio,
    /// Immediately.
    Max,
}

/// How the stand-in behaves.
#[derive(Debug, Clone)]
pub struct Options {
    pub pace: Pace,
    /// The fault that each of the first [`Options::faulty_sessions`] sessions has.
    pub fault: Option<Fault>,
    /// Number of sessions that have the fault; later ones have none. `None` means all sessions.
    pub faulty_sessions: Option<usize>,
    /// The only API key that is accepted; `None` accepts any key, and clients without one.
    pub key: Option<String>,
    /// Sends a new session id in every `Begin` instead of the recorded one.
    pub fresh_ids: bool,
    /// Adds messages that recordings may lack: `SpeechStarted`, `Heartbeat`, and a `SpeakerRevision` at the end.
    pub extras: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { pace: Pace::Clock(1.0), fault: None, faulty_sessions: None, key: None, fresh_ids: false, extras: false }
    }
}

struct Shared {
    scripts: Vec<Arc<Script>>,
    options: Options,
    sessions: AtomicUsize,
}

/// Serves `scripts` until `stop` is cancelled, one per session in rotation. A session whose query has `recording=NAME`
/// gets the script of that name instead.
///
/// # Cancel safety
/// Dropping the future stops accepting connections. Sessions in progress run in tasks of their own and continue to
/// their end.
pub async fn serve(listener: TcpListener, scripts: Vec<Script>, options: Options, stop: CancellationToken) {
    let scripts = scripts.into_iter().map(Arc::new).collect();
    let shared = Arc::new(Shared { scripts, options, sessions: AtomicUsize::new(0) });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                let stop = stop.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = connection(stream, shared) => {}
                    }
                });
            }
            // Usually the process is out of file descriptors; a closing connection frees one.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let handler = hyper::service::service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(request, shared)) }
    });
    // An error here concerns only the peer: it did not close the connection properly.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), handler)
        .with_upgrades()
        .await;
}

fn respond(request: Request<Incoming>, shared: Arc<Shared>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/v3/ws" | "/" => upgrade(request, shared),
        "/v3/ws/health" => answer(StatusCode::OK, &json!({"status": "ok"})),
        "/v3/token" => token(&request, &shared),
        path => {
            answer(StatusCode::NOT_FOUND, &json!({"error": format!("no path {path}; there are /v3/ws, /v3/token")}))
        }
    }
}

fn upgrade(mut request: Request<Incoming>, shared: Arc<Shared>) -> Response<Full<Bytes>> {
    let index = shared.sessions.fetch_add(1, Ordering::Relaxed);
    let faulty = shared.options.faulty_sessions.is_none_or(|sessions| index < sessions);
    let fault = shared.options.fault.filter(|_| faulty);
    if fault.is_some_and(|fault| fault.kind == FaultKind::Refuse) {
        return answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"error": "Service unavailable"}));
    }
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes()).into_owned().collect();
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let credential = header.or_else(|| query.get("token").cloned());
    let named = query.get("recording").and_then(|name| shared.scripts.iter().find(|script| script.name == *name));
    let Some(script) = named.or_else(|| shared.scripts.get(index % shared.scripts.len().max(1))).map(Arc::clone) else {
        return answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"error": "no recording is loaded"}));
    };
    match Upgrade::new(&mut request, MAX_MESSAGE_BYTES, None, Full::default) {
        Err(message) => answer(StatusCode::BAD_REQUEST, &json!({"error": message})),
        Ok((upgrade, response)) => {
            tokio::spawn(async move {
                if let Ok(socket) = upgrade.socket().await {
                    session::run(socket, &script, &shared.options, fault, &query, credential.as_deref()).await;
                }
            });
            response
        }
    }
}

/// The vendor's token endpoint. Answers 422 to any invalid request, as observed at the vendor.
fn token(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes()).into_owned().collect();
    let unprocessable = |at: [&str; 2], message: &str| {
        let detail = json!({"detail": [{"type": "value_error", "loc": at, "msg": message, "input": null}]});
        answer(StatusCode::UNPROCESSABLE_ENTITY, &detail)
    };
    let Some(key) = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
        return unprocessable(["header", "authorization"], "Field required");
    };
    if shared.options.key.as_deref().is_some_and(|expected| key.trim_start_matches("Bearer ") != expected) {
        return answer(StatusCode::UNAUTHORIZED, &json!({"error": "Unauthorized"}));
    }
    let seconds = query.get("expires_in_seconds").and_then(|seconds| seconds.parse::<u64>().ok());
    match seconds.filter(|seconds| TOKEN_SECONDS.contains(seconds)) {
        None => unprocessable(["query", "expires_in_seconds"], "Input should be an integer from 1 to 600"),
        Some(seconds) => {
            // The token grants no more than the key that its holder sent, so the key itself can serve as the token.
            let token = shared.options.key.clone().unwrap_or_else(|| "standin-token".to_owned());
            answer(StatusCode::OK, &json!({"token": token, "expires_in_seconds": seconds}))
        }
    }
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;
