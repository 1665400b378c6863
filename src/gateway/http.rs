//! The gateway's HTTP client: one connection pool per endpoint and runtime. What goes straight to a vendor and what a
//! proxy of the environment takes there are two kinds of pools.
//!
//! Several single-threaded runtimes may run in one process, and a pooled connection is driven by the runtime that opened
//! it: a pool is never shared between two.

mod proxied;
mod straight;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::runtime;
use url::Url;

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
    pool: Pool,
    base: Url,
    /// The newest path and its whole address: to put one together is a good part of what a request costs, and most are
    /// alike.
    newest: (String, Uri),
}

#[derive(Clone)]
enum Pool {
    Straight(straight::Pool),
    Proxied(proxied::Pool),
}

/// The header of a response has come.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    body: Body,
}

enum Body {
    Straight(straight::Body),
    Proxied(proxied::Body),
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
        let (pool, uri) = self.pool(endpoint, connect, &wire.path)?;
        let mut request = Request::new(Bytes::from(wire.body));
        let mut headers = HeaderMap::with_capacity(4 + wire.headers.len() + endpoint.config.headers.len());
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("sidetone/", env!("CARGO_PKG_VERSION"))));
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in &endpoint.config.headers {
            headers.insert(name, value.clone());
        }
        headers.extend(wire.headers);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        match pool {
            Pool::Straight(pool) => pool.send(request, connect).await,
            Pool::Proxied(pool) => pool.send(request, connect).await,
        }
    }

    /// The pool for an endpoint, and the address of a path of it.
    fn pool(&self, endpoint: &Endpoint, connect: Duration, path: &str) -> Result<(Pool, Uri), Failure> {
        let key = (runtime::Handle::current().id(), endpoint.uid, connect);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match clients.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Client::new(&endpoint.config.base_url, connect)?),
        };
        Ok((client.pool.clone(), client.uri(path)?))
    }

    /// Forgets the pools of endpoints that are no more.
    pub(super) fn retain(&self, keep: impl Fn(u64) -> bool) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|(_, uid, _), _| keep(*uid));
    }
}

impl Client {
    fn new(base_url: &str, connect: Duration) -> Result<Self, Failure> {
        let base = Url::parse(base_url).map_err(|error| no_client(&error))?;
        let root = behind(&base, "")?;
        let pool = if !is_near(&base) && Matcher::from_system().intercept(&root).is_some() {
            Pool::Proxied(proxied::Pool::new(connect)?)
        } else {
            Pool::Straight(straight::Pool::new(base.scheme() == "https", connect)?)
        };
        Ok(Self { pool, base, newest: (String::new(), root) })
    }

    fn uri(&mut self, path: &str) -> Result<Uri, Failure> {
        if self.newest.0 != path {
            self.newest = (path.to_owned(), behind(&self.base, path)?);
        }
        Ok(self.newest.1.clone())
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
        match &mut self.body {
            Body::Straight(body) => body.chunk().await,
            Body::Proxied(body) => body.chunk().await,
        }
    }

    /// The media type, without parameters.
    pub(super) fn media_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim()
    }
}

/// The address of a path, with its query if it has one, behind an endpoint's base.
fn behind(base: &Url, path: &str) -> Result<Uri, Failure> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut url = base.clone();
    url.set_path(&[base.path().trim_end_matches('/'), path].concat());
    url.set_query(query);
    url.as_str().parse().map_err(|error: http::uri::InvalidUri| no_client(&error))
}

/// Hosts that no proxy of the environment leads to: loopback and private addresses.
fn is_near(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    if host == "localhost" {
        return true;
    }
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => false,
    }
}

fn no_client(error: &dyn Error) -> Failure {
    Failure::transport("upstream_error", format!("no HTTP client: {error}"))
}

fn cut(error: Option<&(dyn Error + 'static)>) -> Failure {
    Failure::transport("interrupted", format!("the body was cut: {}", innermost(error)))
}

/// An error and its causes, outermost first.
fn chain<'e>(error: Option<&'e (dyn Error + 'static)>) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(error, |error: &&'e (dyn Error + 'static)| Error::source(*error))
}

/// The innermost cause, which is the one that says something.
fn innermost(error: Option<&(dyn Error + 'static)>) -> String {
    chain(error).last().map_or_else(|| "no cause given".to_owned(), ToString::to_string)
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

/// A connection took too long.
fn overdue(connect: Duration) -> Failure {
    Failure { retry: true, ..Failure::timeout("no connection", connect) }
}

/// What came in place of a response's header: by its causes, of which none names the URL.
fn sort(error: Option<&(dyn Error + 'static)>, connecting: bool) -> Failure {
    for error in chain(error).filter_map(|error| error.downcast_ref::<std::io::Error>()) {
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
    let (code, what) = if connecting { ("refused", "no connection") } else { ("upstream_error", "no answer") };
    Failure::transport(code, format!("{what}: {}", innermost(error)))
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
            let uri = behind(&Url::parse(base).expect("URL"), path);
            assert_eq!(uri.map(|uri| uri.to_string()).ok().as_deref(), Some(expected), "{base} and {path}");
        }
    }
}
