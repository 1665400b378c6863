//! The gateway's HTTP requests: one connection pool per endpoint and runtime, and transport failures classified for the
//! scheduler.
//!
//! Several single-threaded runtimes may run in one process, and a pooled connection is driven by the runtime that
//! opened it: two runtimes never share a pool.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use tokio::runtime;
use url::Url;

use super::endpoint::Endpoint;
use super::error::Failure;
use crate::base::http::{self as client, HttpError, Kind, Pool, Response};
use crate::llm::Wire;

/// Maximum size of a document that is read whole.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

type Key = (runtime::Id, u64, Duration);

/// All connection pools.
#[derive(Default)]
pub(super) struct Http {
    clients: Mutex<HashMap<Key, Client>>,
}

/// A pool and the base URL of its endpoint.
struct Client {
    pool: Pool,
    base: Url,
    /// The newest path and its URI. Building a URI is a large part of a request's cost, and most requests have the same
    /// path.
    newest: (String, Uri),
}

impl Http {
    /// Posts a request and waits for the response's header.
    ///
    /// # Errors
    /// The transport failure, classified.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the request and closes its connection.
    pub(super) async fn post(&self, endpoint: &Endpoint, wire: Wire, connect: Duration) -> Result<Response, Failure> {
        self.send(Method::POST, endpoint, wire, connect).await
    }

    /// Reads a whole document: its status, headers and body.
    ///
    /// # Errors
    /// The transport failure, classified; a body of more than 16 MiB.
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
        let body = response.read(MAX_DOCUMENT_BYTES).await?;
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
        Ok(pool.send(request).await?)
    }

    /// The pool of an endpoint, and the URI of a path below its base URL.
    fn pool(&self, endpoint: &Endpoint, connect: Duration, path: &str) -> Result<(Pool, Uri), Failure> {
        let key = (runtime::Handle::current().id(), endpoint.uid, connect);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match clients.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Client::new(&endpoint.config.base_url, connect)?),
        };
        Ok((client.pool.clone(), client.uri(path)?))
    }

    /// Drops the pools of endpoints that `keep` refuses.
    pub(super) fn retain(&self, keep: impl Fn(u64) -> bool) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|(_, uid, _), _| keep(*uid));
    }
}

impl Client {
    fn new(base_url: &str, connect: Duration) -> Result<Self, Failure> {
        let base = Url::parse(base_url)
            .map_err(|error| Failure::transport("upstream_error", format!("no HTTP client: {error}")))?;
        let pool = Pool::new(&base, connect)?;
        let root = behind(&base, "")?;
        Ok(Self { pool, base, newest: (String::new(), root) })
    }

    fn uri(&mut self, path: &str) -> Result<Uri, Failure> {
        if self.newest.0 != path {
            self.newest = (path.to_owned(), behind(&self.base, path)?);
        }
        Ok(self.newest.1.clone())
    }
}

/// The URI of a path, with its query if it has one, below an endpoint's base URL.
fn behind(base: &Url, path: &str) -> Result<Uri, HttpError> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut url = base.clone();
    url.set_path(&[base.path().trim_end_matches('/'), path].concat());
    url.set_query(query);
    client::uri(&url)
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let message = error.to_string();
        match error.kind() {
            Kind::Refused => Self::transport("refused", message),
            // The connection timed out, not the model: the same candidate may answer if it is asked again at once.
            Kind::ConnectTimeout => Self::transport("timeout", message),
            Kind::Tls => Self { retry: false, ..Self::transport("upstream_error", message) },
            Kind::NoClient | Kind::NoAnswer => Self::transport("upstream_error", message),
            Kind::Cut => Self::transport("interrupted", message),
            Kind::TooLong => Self::transport("malformed", message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_put_behind_the_endpoints_base() {
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
