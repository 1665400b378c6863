//! The gateway's HTTP client: one connection pool per destination and runtime.
//!
//! Several single-threaded runtimes may run in one process, and a pooled connection is driven by the runtime that
//! opened it: two runtimes never share a pool.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use tokio::runtime;
use url::Url;

use super::auth::AuthError;
use super::destination::Destination;
use crate::base::http::{self as client, HttpError, Pool, Response};
use crate::base::sync::lock;
use crate::gateway::code::Code;
use crate::gateway::error::Failure;
use crate::llm::Wire;

/// Maximum size of a document that is read whole.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

type Key = (runtime::Id, u64, Duration);

/// All connection pools.
#[derive(Default)]
pub(in crate::gateway) struct Client {
    connections: Mutex<HashMap<Key, Connections>>,
}

/// A pool and the base URL of its destination.
struct Connections {
    pool: Pool,
    base: Url,
    /// The newest path and its URI. Building a URI is a large part of a request's cost, and most requests have the same
    /// path.
    newest: (String, Uri),
}

impl Client {
    /// Posts a request and waits for the response's header.
    ///
    /// # Errors
    /// The transport failure, classified.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the request and closes its connection.
    pub(in crate::gateway) async fn post(
        &self,
        to: &Destination,
        wire: Wire,
        connect: Duration,
    ) -> Result<Response, Failure> {
        self.send(Method::POST, to, wire, connect).await
    }

    /// Reads a whole document: its status, headers and body.
    ///
    /// # Errors
    /// The transport failure, classified; a body of more than 16 MiB.
    ///
    /// # Cancel safety
    /// As [`Client::post`].
    pub(in crate::gateway) async fn get(
        &self,
        to: &Destination,
        wire: Wire,
        connect: Duration,
    ) -> Result<(u16, HeaderMap, Vec<u8>), Failure> {
        let mut response = self.send(Method::GET, to, wire, connect).await?;
        let body = response.read(MAX_DOCUMENT_BYTES).await?;
        Ok((response.status, response.headers, body))
    }

    async fn send(&self, method: Method, to: &Destination, wire: Wire, connect: Duration) -> Result<Response, Failure> {
        let (pool, uri) = self.pool(to, connect, &wire.path)?;
        let mut request = Request::new(Bytes::from(wire.body));
        let mut headers = HeaderMap::with_capacity(5 + wire.headers.len() + to.headers.len());
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        // Without this header, a server may compress its answer in any way.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("sidetone/", env!("CARGO_PKG_VERSION"))));
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in &to.headers {
            headers.insert(name, value.clone());
        }
        headers.extend(wire.headers);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        if let Some(auth) = &to.auth {
            if let Some(refresh) = auth.refresh() {
                refresh.await?;
            }
            auth.sign(&mut request, SystemTime::now())?;
        }
        let response = pool.send(request).await?;
        let coding = response.headers.get(CONTENT_ENCODING).and_then(|coding| coding.to_str().ok()).map(str::trim);
        match coding.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity")) {
            // An error is told by its status.
            Some(coding) if response.status < 400 => {
                let message = format!("the answer is compressed ({coding:?}), although the request excludes that");
                Err(Failure { retry: false, ..Failure::malformed(message) })
            }
            _ => Ok(response),
        }
    }

    /// The pool of a destination, and the URI of a path below its base URL.
    fn pool(&self, to: &Destination, connect: Duration, path: &str) -> Result<(Pool, Uri), Failure> {
        let key = (runtime::Handle::current().id(), to.id, connect);
        let mut all = lock(&self.connections);
        let connections = match all.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Connections::new(&to.base_url, connect)?),
        };
        Ok((connections.pool.clone(), connections.uri(path)?))
    }

    /// Drops the pools of the destinations whose id `keep` refuses.
    pub(in crate::gateway) fn retain(&self, keep: impl Fn(u64) -> bool) {
        let mut all = lock(&self.connections);
        all.retain(|(_, id, _), _| keep(*id));
    }
}

impl Connections {
    fn new(base_url: &str, connect: Duration) -> Result<Self, Failure> {
        let base = Url::parse(base_url).map_err(|error| {
            Failure::transport(Code::UpstreamError, format!("the HTTP client cannot be created: {error}"))
        })?;
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

/// The URI of a path, with its query if it has one, below a base URL.
fn behind(base: &Url, path: &str) -> Result<Uri, HttpError> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut url = base.clone();
    url.set_path(&[base.path().trim_end_matches('/'), path].concat());
    url.set_query(query);
    client::uri(&url)
}

/// Without authentication nothing was sent.
impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        let AuthError { message, temporary } = error;
        Self { retry: temporary, temporary, unsent: true, ..Self::transport(Code::UpstreamAuth, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_appended_to_the_base_url() {
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
