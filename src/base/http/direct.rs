//! Sends requests directly to a host, with the pooled client of hyper on which reqwest is based. What reqwest adds to
//! each request (redirects, retries, parsing the URL three times) is not needed here and takes a sixth of a gateway
//! request's CPU time (`tests/bench/gateway`).

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower_service::Service;

use super::error::chain;
use super::{HttpError, IDLE, MAX_IDLE, Response};
use crate::base::tls;

/// Interval of TCP keep-alive probes, and their number, after which a peer counts as gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const PROBES: u32 = 3;

#[derive(Clone)]
pub(super) struct Pool {
    client: Arc<Client<Connector, Full<Bytes>>>,
    connect: Duration,
}

pub(super) struct Body(Incoming);

impl Pool {
    /// `tls`: set if the system's root certificates are needed.
    pub(super) fn new(tls: bool, connect: Duration) -> Result<Self, HttpError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        tcp.set_keepalive_retries(Some(PROBES));
        let config = tls::client_config(tls).map_err(HttpError::no_client)?;
        let builder = HttpsConnectorBuilder::new().with_tls_config(config.as_ref().clone()).https_or_http();
        let builder = builder.enable_all_versions();
        let connector = Connector { inner: builder.wrap_connector(tcp), limit: connect };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Ok(Self { client: Arc::new(client), connect })
    }

    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response, HttpError> {
        let response = self.client.request(request.map(Full::new)).await.map_err(|error| {
            if chain(error.source()).any(|error| error.is::<Overdue>()) {
                return HttpError::connect_timeout(self.connect);
            }
            HttpError::sort(error.source(), error.is_connect())
        })?;
        let (parts, body) = response.into_parts();
        Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body: super::Body::Direct(Body(body)) })
    }
}

impl Body {
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        while let Some(frame) = self.0.frame().await {
            let frame = frame.map_err(|error| HttpError::cut(Some(&error)))?;
            // Trailers are left out.
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// Looks up the name, connects and does the TLS handshake, all within `limit`.
#[derive(Clone)]
struct Connector {
    inner: HttpsConnector<HttpConnector>,
    limit: Duration,
}

/// The limit of [`Connector`] passed.
#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
struct Overdue;

type Connected = Result<MaybeHttpsStream<TokioIo<TcpStream>>, Box<dyn Error + Send + Sync>>;

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Connected> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.limit, self.inner.call(uri));
        Box::pin(async move { connecting.await.unwrap_or_else(|_| Err(Overdue.into())) })
    }
}
