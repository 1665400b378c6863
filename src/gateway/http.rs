//! The gateway's HTTP client: one connection pool per endpoint and runtime. The only place that knows reqwest.
//!
//! Several single-threaded runtimes may run in one process, and a pooled connection is driven by the runtime that opened
//! it: a pool is never shared between two.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error as _;
use std::net::IpAddr;
use std::sync::{Mutex, Once};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::runtime;

use super::endpoint::Endpoint;
use super::error::Failure;
use crate::llm::Wire;

/// Idle connections that are kept, per endpoint and runtime.
const MAX_IDLE: usize = 256;
/// Vendors and their load balancers close idle connections after a minute or more.
const IDLE: Duration = Duration::from_secs(55);

/// Longest document that is read whole.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

type Key = (runtime::Id, u64, Duration);

/// All pools.
#[derive(Default)]
pub(super) struct Http {
    clients: Mutex<HashMap<Key, Client>>,
}

/// A pool, and where it leads to.
struct Client {
    pool: reqwest::Client,
    base: reqwest::Url,
    /// The newest path and its whole URL: to put URLs together is a good part of what a request costs, and most are alike.
    newest: (String, reqwest::Url),
}

impl Client {
    fn url(&mut self, path: &str) -> reqwest::Url {
        if self.newest.0 != path {
            self.newest = (path.to_owned(), behind(&self.base, path));
        }
        self.newest.1.clone()
    }
}

/// The header of a response has come.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    inner: reqwest::Response,
}

impl Http {
    /// Posts a request and waits for the response's header.
    ///
    /// # Errors
    /// The transport's failure, sorted.
    ///
    /// # Cancel safety
    /// Dropped, the request is aborted and its connection closed.
    pub(super) async fn post(&self, endpoint: &Endpoint, wire: Wire, connect: Duration) -> Result<Response, Failure> {
        self.send(Method::POST, endpoint, wire, connect).await
    }

    /// Gets a whole document: its status, header and body.
    ///
    /// # Errors
    /// The transport's failure, sorted; a body of more than 16 MiB.
    ///
    /// # Cancel safety
    /// As [`Http::post`].
    pub(super) async fn get(
        &self,
        endpoint: &Endpoint,
        wire: Wire,
        connect: Duration,
    ) -> Result<(u16, HeaderMap, Vec<u8>), Failure> {
        let mut response = self.send(Method::GET, endpoint, wire, connect).await?;
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await? {
            body.extend_from_slice(&bytes);
            if body.len() > MAX_DOCUMENT_BYTES {
                let message = format!("an answer of more than {MAX_DOCUMENT_BYTES} bytes");
                return Err(Failure::transport("malformed", message));
            }
        }
        Ok((response.status, response.headers, body))
    }

    async fn send(
        &self,
        method: Method,
        endpoint: &Endpoint,
        wire: Wire,
        connect: Duration,
    ) -> Result<Response, Failure> {
        let (pool, url) = self.pool(endpoint, connect, &wire.path)?;
        let mut headers = HeaderMap::with_capacity(2 + wire.headers.len() + endpoint.config.headers.len());
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in &endpoint.config.headers {
            headers.insert(name, value.clone());
        }
        headers.extend(wire.headers);
        let mut request = reqwest::Request::new(method, url);
        *request.headers_mut() = headers;
        *request.body_mut() = Some(wire.body.into());
        let mut inner = pool.execute(request).await.map_err(|error| sort(&error, connect))?;
        let headers = std::mem::take(inner.headers_mut());
        Ok(Response { status: inner.status().as_u16(), headers, inner })
    }

    /// The pool for an endpoint, and the URL of a path of it.
    fn pool(
        &self,
        endpoint: &Endpoint,
        connect: Duration,
        path: &str,
    ) -> Result<(reqwest::Client, reqwest::Url), Failure> {
        let key = (runtime::Handle::current().id(), endpoint.uid, connect);
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let client = match clients.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let failed = |error: String| Failure::transport("upstream_error", format!("no HTTP client: {error}"));
                let base = reqwest::Url::parse(&endpoint.config.base_url).map_err(|error| failed(error.to_string()))?;
                let pool = build(endpoint, connect).map_err(|error| failed(error.to_string()))?;
                place.insert(Client { pool, newest: (String::new(), behind(&base, "")), base })
            }
        };
        Ok((client.pool.clone(), client.url(path)))
    }

    /// Forgets the pools of endpoints that are no more.
    pub(super) fn retain(&self, keep: impl Fn(u64) -> bool) {
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        clients.retain(|(_, uid, _), _| keep(*uid));
    }
}

impl Response {
    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// The body was cut.
    ///
    /// # Cancel safety
    /// Safe: no byte is lost.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        self.inner
            .chunk()
            .await
            .map_err(|error| Failure::transport("interrupted", format!("the body was cut: {}", cause(&error))))
    }

    /// The media type, without parameters.
    pub(super) fn media_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim()
    }
}

/// The URL of a path, with its query if it has one, behind an endpoint's base.
fn behind(base: &reqwest::Url, path: &str) -> reqwest::Url {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut url = base.clone();
    url.set_path(&[base.path().trim_end_matches('/'), path].concat());
    url.set_query(query);
    url
}

fn build(endpoint: &Endpoint, connect: Duration) -> Result<reqwest::Client, reqwest::Error> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Somebody else may have installed one already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let url = &endpoint.config.base_url;
    let mut builder = reqwest::Client::builder()
        .connect_timeout(connect)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        // Each attempt is counted, and retries are the scheduler's; nothing is kept of a request for another try.
        .retry(reqwest::retry::never().max_retries_per_request(0))
        .referer(false)
        .user_agent(concat!("sidetone/", env!("CARGO_PKG_VERSION")));
    if is_near(url) {
        builder = builder.no_proxy();
    }
    if url.starts_with("http://") {
        // No certificate is ever looked at: the system's need not be loaded, nor be there.
        builder = builder.http1_only().tls_certs_only([]);
    }
    builder.build()
}

/// Hosts that no proxy of the environment leads to: loopback and private addresses.
fn is_near(url: &str) -> bool {
    let Some(host) = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)) else { return false };
    if host == "localhost" {
        return true;
    }
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => false,
    }
}

/// The innermost cause, which is the one that says something; never the URL.
fn cause(error: &reqwest::Error) -> String {
    let mut source = error.source();
    let mut text = None;
    while let Some(inner) = source {
        text = Some(inner.to_string());
        source = inner.source();
    }
    text.unwrap_or_else(|| "no cause given".to_owned())
}

/// What TLS found wrong; connectors wrap it in more than one I/O error.
fn tls_error(mut error: &std::io::Error) -> Option<&rustls::Error> {
    loop {
        let inner = error.get_ref()?;
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        error = inner.downcast_ref::<std::io::Error>()?;
    }
}

fn sort(error: &reqwest::Error, connect: Duration) -> Failure {
    if error.is_connect() && error.is_timeout() {
        return Failure { retry: true, ..Failure::timeout("no connection", connect) };
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<std::io::Error>() {
            match error.kind() {
                std::io::ErrorKind::ConnectionRefused => return Failure::transport("refused", "connection refused"),
                std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::ConnectionAborted
                | std::io::ErrorKind::BrokenPipe
                | std::io::ErrorKind::UnexpectedEof => {
                    return Failure::transport("upstream_error", "the connection was reset before an answer");
                }
                _ => {}
            }
            if let Some(tls) = tls_error(error) {
                return Failure { retry: false, ..Failure::transport("upstream_error", format!("TLS: {tls}")) };
            }
        }
        source = inner.source();
    }
    let what = if error.is_connect() { "no connection" } else { "no answer" };
    Failure::transport(
        if error.is_connect() { "refused" } else { "upstream_error" },
        format!("{what}: {}", cause(error)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_put_behind_an_endpoints_base() {
        for (base, path, expected) in [
            ("http://127.0.0.1:9", "/v1/models", "http://127.0.0.1:9/v1/models"),
            ("http://127.0.0.1:9/", "/v1/models", "http://127.0.0.1:9/v1/models"),
            ("https://a.example/v1", "/chat/completions", "https://a.example/v1/chat/completions"),
            ("https://a.example/v1/", "/chat/completions", "https://a.example/v1/chat/completions"),
            ("https://a.example", "/m:stream?alt=sse", "https://a.example/m:stream?alt=sse"),
            ("https://a.example/v1/", "/list?limit=9&after=a%2Fb", "https://a.example/v1/list?limit=9&after=a%2Fb"),
            ("https://a.example/x/y", "/deployments/d?v=1?2", "https://a.example/x/y/deployments/d?v=1?2"),
        ] {
            let url = behind(&reqwest::Url::parse(base).expect("URL"), path);
            assert_eq!(url.as_str(), expected, "{base} and {path}");
        }
    }
}
