//! Sends requests through a proxy of the environment, with the credentials in its address. The only file that uses
//! reqwest, which finds the proxy and talks to it.

use std::error::Error;
use std::sync::Once;
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use super::{HttpError, IDLE, MAX_IDLE, Response};

#[derive(Clone)]
pub(super) struct Pool {
    client: reqwest::Client,
    connect: Duration,
}

pub(super) struct Body(reqwest::Response);

impl Pool {
    pub(super) fn new(connect: Duration) -> Result<Self, HttpError> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // An error means that a provider is installed already, and any provider works.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let builder = reqwest::Client::builder()
            .connect_timeout(connect)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // The caller counts each attempt and does the retries.
            .retry(reqwest::retry::never().max_retries_per_request(0));
        let client = builder.build().map_err(HttpError::no_client)?;
        Ok(Self { client, connect })
    }

    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response, HttpError> {
        let request = reqwest::Request::try_from(request).map_err(|error| HttpError::no_client(error.without_url()))?;
        // reqwest's own message names the URL, so only its causes are used.
        let response = self.client.execute(request).await.map_err(|error| match error {
            error if error.is_connect() && error.is_timeout() => HttpError::connect_timeout(self.connect),
            error => HttpError::sort(error.source(), error.is_connect()),
        });
        let mut response = response.map_err(HttpError::by_proxy)?;
        let headers = std::mem::take(response.headers_mut());
        Ok(Response { status: response.status().as_u16(), headers, body: super::Body::ViaProxy(Body(response)) })
    }
}

impl Body {
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        self.0.chunk().await.map_err(|error| HttpError::cut(error.source()))
    }
}
