//! The drop-in proxy, `GET /v3/ws`: relays a client's session to its STT vendor message by message, byte for byte, and
//! sends a copy of the vendor's frames to the pipeline (DESIGN 5.3).
//!
//! The relay knows no call: it offers frames to a [`tap`], which never makes it wait, and takes the frames to insert
//! from a queue. While one side accepts no bytes, the relay does not read the other, so that TCP's backpressure works
//! as without the proxy.

mod answers;
mod config;
mod frames;
mod insights;
mod metrics;
mod query;
mod questions;
mod relay;
mod response;
mod tap;
mod token;
mod upward;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use config::SttConfig;
pub use metrics::Metrics;
pub use token::{Grant, TokenAnswer, Tokens, answer as answer_token};

use self::answers::Answers;
use self::query::Query;
use self::questions::Questions;
use self::relay::{Ended, Relay};
use self::tap::{Drawn, Tapped};
use super::feed::{Feed, Stream};
use super::record::Recorder;
use super::watch::Watch;
use crate::analysis::Question;
use crate::base::queue::QueueGauges;
use crate::base::ws::{self, ServerSocket, Utf8Bytes};
use crate::hub::Hub;
use crate::protocol::{ErrorCode, GapCause, REVOKED};
use crate::session::Sessions;
use crate::session::command::{Asking, OPEN_TURNS};
use crate::stt;
use crate::types::{CallId, Seq, StreamId};

/// Maximum size of a message; the vendor and its clients have the same limit, bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The session fails if the vendor is not connected, or sends nothing at the start, for this long.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of insights and errors that wait for the client.
const INJECTED: usize = 64;
/// The vendor's version header.
const VERSION: HeaderName = HeaderName::from_static("assemblyai-version");
/// Reason in every close frame that follows an `Error` frame; the vendor uses the same text.
const SEE_ERROR: &str = "See Error message for details";

/// Dependencies of a proxied session.
#[derive(Clone)]
pub struct Deps {
    pub sessions: Sessions,
    pub hub: Hub,
    pub metrics: Metrics,
    pub config: Arc<SttConfig>,
    /// The daemon's short-lived tokens.
    pub tokens: Arc<Tokens>,
    pub tap: Arc<QueueGauges>,
    /// `[record]`
    pub recorder: Recorder,
}

/// The call that a stream feeds, once known, and the position from which its events are new.
type Found = Option<(CallId, Seq)>;

/// What ends a session if neither side does.
#[derive(Debug, Default)]
pub struct Bounds {
    /// Maximum duration, if a short-lived token opened the session.
    pub limit: Option<Duration>,
    /// Cancelled when the session's key is revoked.
    pub revoked: CancellationToken,
}

/// Relays `socket` until either side ends it, or one of its bounds is reached. `query` and `headers` are those of its
/// upgrade.
pub async fn serve(socket: ServerSocket, query: &str, headers: &HeaderMap, bounds: Bounds, deps: &Deps) {
    deps.metrics.sessions.inc();
    let known = deps.sessions.deps();
    let variants = |route: &str, variant: &str| known.gateway.check_variant(route, variant);
    let query = query::read(query, &known.call.analyses, &variants);
    for error in &query.errors {
        tracing::warn!(error.message, "a client's query parameter sidetone is invalid");
    }
    match upstream(&query, headers, deps) {
        Err((code, message)) => refuse(socket, code, &message).await,
        Ok((url, headers)) => match ws::connect(&url, &headers, MAX_MESSAGE_BYTES, UPSTREAM_TIMEOUT).await {
            Ok(upstream) => {
                // The buffers of both sockets are counted for the client's connection.
                let upstream = match socket.holder() {
                    Some(holder) => upstream.held_by(holder.clone()),
                    None => upstream,
                };
                Box::pin(session(socket, upstream, query, bounds, deps)).await;
            }
            Err(error) => {
                deps.metrics.upstream_failures.inc();
                // The URL is not logged, because it contains the client's query.
                tracing::warn!(%error, upstream = deps.config.socket_url, "the STT vendor cannot be reached");
                refuse(socket, 3005, &format!("Session Cancelled: the STT vendor cannot be reached: {error}")).await;
            }
        },
    }
    deps.metrics.sessions.dec();
}

/// The URL and the headers of the upstream connection.
fn upstream(query: &Query, client: &HeaderMap, deps: &Deps) -> Result<(String, HeaderMap), (u16, String)> {
    let mut headers = HeaderMap::new();
    for name in [VERSION, USER_AGENT] {
        if let Some(value) = client.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let upstream = match &deps.config.api_key {
        Some(key) => {
            if let Some(token) = &query.token {
                let checked = deps.tokens.check(token);
                checked.map_err(|message| (1008, format!("Unauthorized Connection: {message}")))?;
            }
            let value = HeaderValue::from_str(key.value.expose_secret()).map_err(|_| {
                (
                    3005,
                    "Session Cancelled: [stt] api_key has characters that are not allowed in a \
                    header"
                        .to_owned(),
                )
            })?;
            headers.insert(AUTHORIZATION, value);
            &query.upstream
        }
        None => {
            if let Some(value) = client.get(AUTHORIZATION) {
                headers.insert(AUTHORIZATION, value.clone());
            }
            &query.upstream_with_token
        }
    };
    let url = &deps.config.socket_url;
    Ok((if upstream.is_empty() { url.clone() } else { format!("{url}?{upstream}") }, headers))
}

/// Relays between two connected sockets.
async fn session(client: ServerSocket, upstream: ws::ClientSocket, query: Query, bounds: Bounds, deps: &Deps) {
    let drain = deps.sessions.deps().drain.clone();
    let (tap, drawn) = tap::tap(&deps.tap);
    let (found, known) = watch::channel(None);
    let (inject, injections) = mpsc::channel(INJECTED);
    let newest = Arc::new(AtomicI64::new(-1));
    let insights = query.insights;
    let wants_words = query.sidetone.results.as_deref() != Some("none");
    let stream = query.sidetone.stream_id.clone().unwrap_or_else(StreamId::mint);
    let (answers, asking) = match query.llm_gateway {
        Some(question) => {
            let (answers, asking) = ask(question, query.formats, deps);
            (Some(answers), asking)
        }
        None => (None, None),
    };
    if let Some(dialect) = stt::dialect("assemblyai") {
        let sidetone = query.sidetone;
        let stream = Stream {
            stream: stream.clone(),
            dialect,
            call: sidetone.call_id,
            meta: sidetone.meta,
            analyses: sidetone.analyses,
            variants: sidetone.variants,
            asking,
        };
        let feed = Feed::new(stream, deps.sessions.clone(), deps.recorder.clone(), deps.metrics.feed.clone());
        drain.tasks.spawn(feed_frames(drawn, feed, found, deps.metrics.clone()));
    }
    if !query.errors.is_empty() && wants_words {
        drain.tasks.spawn(insights::tell(query.errors, known.clone(), inject.clone()));
    }
    let watcher = insights
        .then(|| drain.tasks.spawn(insights::send(stream, known, Arc::clone(&newest), inject.clone(), deps.clone())));
    drop(inject);
    let newest = insights.then_some(newest);
    let (kill, metrics) = (drain.kill.clone(), deps.metrics.clone());
    let relay = Relay { tap, answers, injections, newest, bounds, patience: UPSTREAM_TIMEOUT, kill, metrics };
    let (socket, ended) = relay.run(client, upstream).await;
    if let Some(watcher) = watcher {
        watcher.abort();
    }
    let Some(socket) = socket else { return };
    match ended {
        Ended::Client => {}
        Ended::Closed { code, reason } => socket.close(code, &reason).await,
        // The client caused it and should not repeat it: the vendor has a code for that.
        Ended::Refused(message) => {
            refuse(socket, 3006, &format!("User Input Validation Error: {message}")).await;
        }
        Ended::Expired => refuse(socket, 3008, "Session Expired: Maximum session duration exceeded").await,
        Ended::Revoked => {
            let error = error_frame(1008, &format!("Unauthorized Connection: {REVOKED}"));
            socket.dismiss(error, 1008, SEE_ERROR).await;
        }
        Ended::Failed(message) => {
            deps.metrics.upstream_failures.inc();
            refuse(socket, 3005, &format!("Session Cancelled: {message}")).await;
        }
    }
}

/// The answers that a session owes to its client, and the question for its call; no question if it is invalid.
fn ask(question: Result<Question, String>, formats: bool, deps: &Deps) -> (Answers, Option<Asking>) {
    let (sender, replies) = mpsc::channel(OPEN_TURNS);
    let (asking, wrong) = match question {
        Ok(question) => (Some(Asking { question: Arc::new(question), replies: sender }), None),
        Err(wrong) => (None, Some(wrong)),
    };
    let (questions, metrics) = (Questions::new(formats), deps.metrics.clone());
    (Answers { questions, replies, wrong, metrics }, asking)
}

/// Feeds the tap's frames to the session. It may wait for the session as long as necessary, because nothing waits for
/// this task.
async fn feed_frames(mut drawn: Drawn, mut feed: Feed, found: watch::Sender<Found>, metrics: Metrics) {
    let mut watch = Watch::new(feed.dialect());
    let warn = |message: String| {
        metrics.feed.not_understood.inc();
        tracing::warn!(
            code = ErrorCode::NotUnderstood.as_str(),
            reason = message,
            "no frame of a proxied session is understood"
        );
    };
    loop {
        let tapped = tokio::select! {
            tapped = drawn.next() => tapped,
            () = feed.listen() => continue,
            message = watch.expired() => {
                warn(message);
                continue;
            }
        };
        match tapped {
            Tapped::Frame(text, asks) => {
                let fit = feed.frame(text.clone(), asks).await;
                if let Some(message) = watch.note(&text, fit) {
                    warn(message);
                }
                found.send_if_modified(|known| {
                    let call = feed.call();
                    let new =
                        call.is_some() && known.as_ref().map(|(call, _)| call) != call.as_ref().map(|(call, _)| call);
                    if new {
                        *known = call;
                    }
                    new
                });
            }
            Tapped::Hole(hole) => {
                metrics.overruns.inc();
                feed.gap(GapCause::TapOverrun, hole.from_ms, hole.to_ms).await;
            }
            Tapped::Over => break,
        }
    }
    feed.detach().await;
}

/// Closes a connection with an error in the vendor's format, because the vendor's SDKs understand no other.
pub async fn refuse(mut socket: ServerSocket, code: u16, message: &str) {
    if socket.send([error_frame(code, message)]).await.is_ok() {
        socket.close(code, SEE_ERROR).await;
    }
}

fn error_frame(code: u16, message: &str) -> Utf8Bytes {
    Utf8Bytes::from(json!({"type": "Error", "error_code": code, "error": message}).to_string())
}
