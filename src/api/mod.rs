//! The HTTP surface: calls, health, metrics, and the upgrades to the two WebSocket paths (DESIGN 5.5).
//!
//! Knows no journal format and no analysis; every handler asks the module that owns the answer. Only `api::error` knows
//! status codes.

pub mod auth;
mod body;
mod calls;
mod chat;
pub mod config;
mod cors;
mod docs;
pub mod error;
pub mod guard;
mod health;
mod items;
pub mod models;
mod openapi;
mod query;
mod routes;
mod schemas;
mod stt;
pub mod subscribe;
mod transcripts;
mod usage;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use http::{Method, Request};
use http_body::Body as _;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use self::auth::{Caller, Refusal};
use self::cors::Shared;
use self::error::{ApiError, OpenAiError};
use self::guard::Guard;
use self::subscribe::ViewError;
use crate::base::drain::Drain;
use crate::base::inflight::{Holder, Lease};
use crate::base::ws::{ServerSocket, Upgrade};
use crate::hub::Hub;
use crate::ingest;
use crate::journal::Store;
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::protocol::{self, ErrorFrame};
use crate::session::Sessions;
use crate::types::CallId;
use crate::types::view::View;

/// Largest message that a subscriber may send, bytes.
const SUBSCRIBE_FRAME_BYTES: usize = 1024 * 1024;

/// Response bodies up to this size are not counted as in flight, bytes: one of them fits into the buffer of its
/// connection.
const SMALL_ANSWER_BYTES: usize = 64 * 1024;

/// Everything that handlers use.
pub struct Api {
    pub sessions: Sessions,
    /// Distributes new events to subscribers.
    pub hub: Hub,
    /// Stores all events.
    pub store: Arc<dyn Store>,
    /// What the gateway used, and its cost.
    pub ledger: Ledger,
    /// Client keys and their scopes.
    pub keys: Keys,
    /// Metrics of producers' sockets.
    pub ingest: ingest::Metrics,
    /// Dependencies of the STT proxy.
    pub proxy: ingest::proxy::Deps,
    /// Dependencies of subscribers' sockets.
    pub subscribe: Arc<subscribe::Deps>,
    /// The registry of all metrics.
    pub registry: Arc<Registry>,
    /// Signals the shutdown of the daemon.
    pub drain: Drain,
}

/// Counts a connection until it ends. It comes with each request, and an upgraded socket keeps it, because for the HTTP
/// server the connection ends with the upgrade.
#[derive(Clone)]
pub struct Hold {
    /// Dropped with the last clone of this value.
    pub counts: Arc<dyn std::any::Any + Send + Sync>,
    /// Counts the connection's bytes in flight.
    pub holder: Holder,
}

/// A response and the lease that counts its body.
pub struct Answered {
    pub response: Response,
    /// `None` for a body that is streamed or small.
    pub lease: Option<Lease>,
}

/// Serves all paths of one listener. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    guard: Guard,
    api: Arc<Api>,
    router: Router,
}

impl Service {
    /// Serves the paths of `api`, after the checks of `guard`.
    pub fn new(api: Arc<Api>, guard: Guard) -> Self {
        let router = routes::router(&api);
        Self(Arc::new(Inner { guard, api, router }))
    }

    /// Answers one request of a connection that `hold` counts. A response that would exceed the limit of bytes in
    /// flight is replaced by an error.
    pub async fn respond<B>(&self, request: Request<B>, hold: Hold) -> Answered
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let is_chat = routes::speaks_openai(request.uri().path());
        let holder = hold.holder.clone();
        let response = self.respond_to(request, hold, is_chat).await;
        let bytes = usize::try_from(response.body().size_hint().exact().unwrap_or(0)).unwrap_or(usize::MAX);
        if bytes <= SMALL_ANSWER_BYTES {
            return Answered { response, lease: None };
        }
        match holder.take(bytes) {
            Ok(lease) => Answered { response, lease: Some(lease) },
            Err(exceeded) => Answered { response: in_form(ApiError::in_flight(exceeded), is_chat), lease: None },
        }
    }

    async fn respond_to<B>(&self, request: Request<B>, hold: Hold, is_chat: bool) -> Response
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let began = Instant::now();
        if let Err(refusal) = self.0.guard.check(&request) {
            return in_form(refusal, is_chat);
        }
        let Some(shared) = Shared::with(&request, |origin| self.0.guard.names(origin)) else {
            return self.answer(request, hold, began, is_chat).await;
        };
        match shared.preflight(&request) {
            Some(response) => response,
            None => shared.mark(self.answer(request, hold, began, is_chat).await),
        }
    }

    /// Answers a request that passed the guard.
    async fn answer<B>(&self, request: Request<B>, hold: Hold, began: Instant, is_chat: bool) -> Response
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let Inner { api, router, .. } = &*self.0;
        if !is_text(request.uri().path()) {
            let message = "the path is not UTF-8 after percent-decoding";
            return in_form(ApiError::bad_request("bad_path", message), is_chat);
        }
        let mut request = request.map(Body::new);
        let direct = (request.method() == Method::POST).then(|| routes::completions(request.uri().path())).flatten();
        if let Some(route) = direct {
            return match auth::check(&request, route, &api.keys, &api.proxy.tokens) {
                Ok(caller) => {
                    chat::complete(Arc::clone(api), caller, request, &hold.holder, route.body_bytes, began).await
                }
                Err(refusal) => OpenAiError::refused(&refusal).into_response(),
            };
        }
        request.extensions_mut().insert(hold);
        match router.clone().call(request).await {
            Ok(response) => error::name_methods(response, is_chat),
            Err(never) => match never {},
        }
    }
}

/// Returns true if a path is UTF-8 after percent-decoding. The router would answer other paths with plain text.
fn is_text(path: &str) -> bool {
    !path.contains('%') || percent_encoding::percent_decode_str(path).decode_utf8().is_ok()
}

/// The error in the format of its path: OpenAI's, or a problem document.
fn in_form(error: ApiError, is_chat: bool) -> Response {
    if is_chat { OpenAiError::from(error).into_response() } else { error.into_response() }
}

async fn ingest_socket(State(api): State<Arc<Api>>, mut request: Request<Body>) -> Response {
    let session = api.sessions.deps();
    let protocol = subprotocol(&request);
    let upgrade = Upgrade::new(&mut request, session.call.ingest.max_frame_bytes, protocol, Body::empty);
    let (upgrade, response) = match upgrade {
        Ok(upgraded) => upgraded,
        Err(message) => return ApiError::bad_request("not_a_websocket", message).into_response(),
    };
    let query = request.uri().query().unwrap_or("").to_owned();
    let deps = ingest::listen::Deps {
        sessions: api.sessions.clone(),
        hub: api.hub.clone(),
        metrics: api.ingest.clone(),
        recorder: api.proxy.recorder.clone(),
    };
    // The upgrade is answered before a session is looked for.
    go_on(&api, request, upgrade, |socket, revoked| async move {
        ingest::listen::serve(socket, &query, revoked, &deps).await;
    });
    response
}

/// Serves the socket after its upgrade, until its key is revoked. If the key was refused, sends the refusal on the
/// socket and closes it.
fn go_on<F>(
    api: &Api,
    mut request: Request<Body>,
    upgrade: Upgrade,
    serve: impl FnOnce(ServerSocket, CancellationToken) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    let hold = request.extensions_mut().remove::<Hold>();
    let refusal = request.extensions_mut().remove::<Refusal>();
    let revoked = request.extensions().get::<Caller>().map(Caller::revoked).unwrap_or_default();
    api.drain.tasks.spawn(async move {
        let Ok(socket) = upgrade.socket().await else { return };
        let socket = held(socket, hold.as_ref());
        match refusal {
            Some(refusal) => refuse(socket, &refusal).await,
            None => serve(socket, revoked).await,
        }
    });
}

/// Counts the socket's buffers for its connection.
fn held(socket: ServerSocket, hold: Option<&Hold>) -> ServerSocket {
    match hold {
        Some(hold) => socket.held_by(hold.holder.clone()),
        None => socket,
    }
}

/// Sends the reason and closes with 4401 or 4403.
async fn refuse(mut socket: ServerSocket, refusal: &Refusal) {
    let error = ErrorFrame::new(refusal.code(), refusal.message.clone()).fatal();
    if socket.send([protocol::text(&error).into()]).await.is_ok() {
        socket.close(refusal.close_code().number(), refusal.code().as_str()).await;
    }
}

/// `sidetone.v1`, if the client offers it. A browser sends its key as a subprotocol, and closes a socket whose server
/// accepts none of the offered ones.
fn subprotocol(request: &Request<Body>) -> Option<&'static str> {
    let offered = request
        .headers()
        .get_all(http::header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|protocol| protocol.trim() == subscribe::SUBPROTOCOL);
    offered.then_some(subscribe::SUBPROTOCOL)
}

async fn subscribe_socket(State(api): State<Arc<Api>>, mut request: Request<Body>) -> Response {
    let protocol = subprotocol(&request);
    let upgrade = Upgrade::new(&mut request, SUBSCRIBE_FRAME_BYTES, protocol, Body::empty);
    let (upgrade, response) = match upgrade {
        Ok(upgraded) => upgraded,
        Err(message) => return ApiError::bad_request("not_a_websocket", message).into_response(),
    };
    let (deps, stop) = (Arc::clone(&api.subscribe), api.drain.stop.clone());
    go_on(&api, request, upgrade, |socket, revoked| subscribe::serve(socket, deps, stop, revoked));
    response
}

/// Shows calls from the state of their sessions.
pub struct SessionViews(pub Sessions);

impl subscribe::Views for SessionViews {
    fn view<'a>(&'a self, call: &'a CallId) -> BoxFuture<'a, Result<Option<Arc<View>>, ViewError>> {
        let view = self.0.snapshot(call, subscribe::SNAPSHOT_TURNS);
        Box::pin(async move { view.await.map_err(|error| ViewError(error.to_string())) })
    }
}

/// The dashboard: one HTML page that contains its scripts and styles.
async fn dashboard() -> Response {
    const PAGE: &str = include_str!("dashboard.html");
    // The page may load nothing else and connect only to this server, so text of a call can never become a script or a
    // request.
    const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                          connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";
    page(PAGE, POLICY)
}

/// An HTML page that browsers show under the content security `policy`.
fn page(html: &'static str, policy: &'static str) -> Response {
    let headers = [
        (http::header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (http::header::CONTENT_SECURITY_POLICY, policy),
        (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, html).into_response()
}
