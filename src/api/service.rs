//! All routes of one listener: the guard that checks every request, the router, and a shorter path for completions.
//!
//! Knows no handler but that of completions.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Method, Request};
use http_body::Body as _;
use tower_service::Service as _;

use super::cors::AllowedOrigin;
use super::error::{self, ApiError, OpenAiError};
use super::guard::Guard;
use super::state::{Api, ConnectionGuard};
use super::{auth, chat, routes};
use crate::base::inflight::Lease;

/// Response bodies up to this size are not counted as in flight, bytes: one of them fits into the buffer of its
/// connection.
const SMALL_ANSWER_BYTES: usize = 64 * 1024;

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
    pub async fn respond<B>(&self, request: Request<B>, hold: ConnectionGuard) -> Answered
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

    async fn respond_to<B>(&self, request: Request<B>, hold: ConnectionGuard, is_chat: bool) -> Response
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let began = Instant::now();
        if let Err(refusal) = self.0.guard.check(&request) {
            return in_form(refusal, is_chat);
        }
        let Some(shared) = AllowedOrigin::with(&request, |origin| self.0.guard.names(origin)) else {
            return self.answer(request, hold, began, is_chat).await;
        };
        match shared.preflight(&request) {
            Some(response) => response,
            None => shared.mark(self.answer(request, hold, began, is_chat).await),
        }
    }

    /// Answers a request that passed the guard.
    async fn answer<B>(&self, request: Request<B>, hold: ConnectionGuard, began: Instant, is_chat: bool) -> Response
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
