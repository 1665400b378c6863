//! By a proxy of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`), with credentials if its address
//! has some: reqwest knows how. The only place that knows it.

use std::error::Error;
use std::sync::Once;
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use super::{IDLE, MAX_IDLE, Response, cut, no_client, overdue, sort};
use crate::gateway::error::Failure;

#[derive(Clone)]
pub(super) struct Pool(reqwest::Client);

pub(super) struct Body(reqwest::Response);

impl Pool {
    pub(super) fn new(connect: Duration) -> Result<Self, Failure> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Somebody else may have installed one already; any will do.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let builder = reqwest::Client::builder()
            .connect_timeout(connect)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // Each attempt is counted, and retries are the scheduler's.
            .retry(reqwest::retry::never().max_retries_per_request(0));
        builder.build().map(Self).map_err(|error| no_client(&error))
    }

    pub(super) async fn send(&self, request: Request<Bytes>, connect: Duration) -> Result<Response, Failure> {
        let request = reqwest::Request::try_from(request).map_err(|error| no_client(&error.without_url()))?;
        // Its own words name the URL.
        let response = self.0.execute(request).await.map_err(|error| match error {
            error if error.is_connect() && error.is_timeout() => overdue(connect),
            error => sort(error.source(), error.is_connect()),
        });
        // Whoever looks for the fault has to look there first.
        let mut response =
            response.map_err(|failure| Failure { message: format!("by proxy: {}", failure.message), ..failure })?;
        let headers = std::mem::take(response.headers_mut());
        Ok(Response { status: response.status().as_u16(), headers, body: super::Body::Proxied(Body(response)) })
    }
}

impl Body {
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        self.0.chunk().await.map_err(|error| cut(error.source()))
    }
}
