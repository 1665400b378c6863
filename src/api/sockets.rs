//! The upgrades to the sockets of producers and subscribers.
//!
//! Knows no frame but the refusal of a key: `ingest` and `subscribe` handle the frames of the sockets.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use http::Request;
use tokio_util::sync::CancellationToken;

use super::auth::{Caller, Refusal};
use super::error::ApiError;
use super::state::{Api, ConnectionGuard};
use super::subscribe::{self, ViewError};
use crate::base::ws::{ServerSocket, Upgrade};
use crate::ingest;
use crate::protocol::{self, ErrorFrame};
use crate::session::Sessions;
use crate::types::CallId;
use crate::types::view::View;

/// Largest message that a subscriber may send, bytes.
const SUBSCRIBE_FRAME_BYTES: usize = 1024 * 1024;

/// `GET /v1/ingest`
pub(super) async fn producer(State(api): State<Arc<Api>>, mut request: Request<Body>) -> Response {
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
    let hold = request.extensions_mut().remove::<ConnectionGuard>();
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
pub(super) fn held(socket: ServerSocket, hold: Option<&ConnectionGuard>) -> ServerSocket {
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

/// `GET /v1/subscribe`
pub(super) async fn subscriber(State(api): State<Arc<Api>>, mut request: Request<Body>) -> Response {
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
