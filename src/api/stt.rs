//! The STT paths: the socket and the tokens of the drop-in proxy, and the list of dialects that ingest understands.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Request;
use serde_json::{Value, json};

use super::auth::{self, Caller, Refusal};
use super::error::{self, ApiError};
use super::sockets::held;
use super::state::{Api, ConnectionGuard};
use crate::base::ws::Upgrade;
use crate::ingest::proxy::{self, Bounds, TokenAnswer};
use crate::keys::Scope;
use crate::stt::DIALECTS;

/// `GET /v1/dialects`.
pub(super) async fn dialects() -> Response {
    let dialects: Vec<Value> = DIALECTS
        .iter()
        .map(|dialect| {
            let example: Value = serde_json::from_str(dialect.example()).unwrap_or(Value::Null);
            json!({"name": dialect.name(), "names_turns": dialect.names_turns(), "needs": dialect.needs(), "example": example})
        })
        .collect();
    Json(json!({"dialects": dialects})).into_response()
}

/// `GET /v3/ws`: upgrades first, then connects to the vendor.
pub(super) async fn socket(State(api): State<Arc<Api>>, mut request: Request<Body>) -> Response {
    let (upgrade, response) = match Upgrade::new(&mut request, proxy::MAX_MESSAGE_BYTES, None, Body::empty) {
        Ok(upgraded) => upgraded,
        Err(message) => return ApiError::bad_request("not_a_websocket", message).into_response(),
    };
    let query = request.uri().query().unwrap_or("").to_owned();
    let headers = vendors_headers(&api, request.headers());
    let limit = auth::grant(&query, request.headers(), &api.proxy.tokens).map(|grant| grant.session);
    let bounds =
        Bounds { limit, revoked: request.extensions().get::<Caller>().map(Caller::revoked).unwrap_or_default() };
    let refusal = request.extensions_mut().remove::<Refusal>();
    let hold = request.extensions_mut().remove::<ConnectionGuard>();
    let tasks = api.drain.tasks.clone();
    tasks.spawn(async move {
        if let Ok(socket) = upgrade.socket().await {
            let socket = held(socket, hold.as_ref());
            if let Some(refusal) = refusal {
                let message = format!("Unauthorized Connection: {}", refusal.message);
                return proxy::refuse(socket, 1008, &message).await;
            }
            Box::pin(proxy::serve(socket, &query, &headers, bounds, &api.proxy)).await;
        }
    });
    response
}

/// `GET /v3/token`.
pub(super) async fn token(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let query = request.uri().query().unwrap_or("").to_owned();
    let headers = vendors_headers(&api, request.headers());
    let caller = request.extensions().get::<Caller>();
    let gateway = caller.is_some_and(|caller| caller.may(Scope::Gateway));
    let key = caller.and_then(|caller| caller.0.as_ref()).map(|identity| Arc::clone(&identity.name));
    drop(request);
    match proxy::answer_token(&query, &headers, gateway, key, &api.proxy).await {
        TokenAnswer::Token(body) => Json(body).into_response(),
        TokenAnswer::Unprocessable(body) => error::unprocessable(Json(body)),
        TokenAnswer::Vendor(status, body) => error::relayed(status, body),
        TokenAnswer::Unavailable(message) => {
            ApiError::upstream("stt_unavailable", format!("the STT vendor cannot be reached: {message}"))
                .into_response()
        }
    }
}

/// The client's headers that may be sent to the vendor. A key of this daemon is never among them.
fn vendors_headers(api: &Api, headers: &http::HeaderMap) -> http::HeaderMap {
    let mut headers = headers.clone();
    if api.keys.needed() {
        headers.remove(http::header::AUTHORIZATION);
    }
    headers
}
