//! Posts bodies to one URL and returns the status; used by webhooks and the trace exporter.
//!
//! Knows no meaning of a status and retries nothing.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use url::Url;

use super::{HttpError, Pool, uri};

/// An answer's body is read up to this size so that its connection can be used again, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Longest wait for the body of a response.
const DRAIN: Duration = Duration::from_secs(1);
/// Time limit of one connection attempt; the whole request has the caller's timeout.
const CONNECT: Duration = Duration::from_secs(10);

/// The answer to a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The wait that `retry-after` asks for.
    pub retry_after: Option<Duration>,
}

/// No response was received; the server may have acted on the request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PostError {
    /// The connection could not be made, or was lost.
    #[error("cannot reach {host}: {error}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// The transport's error.
        error: HttpError,
    },
    /// No response was received in time.
    #[error("{host} gave no answer within {timeout:?}")]
    Timeout {
        /// Host and port.
        host: String,
        /// The time limit.
        timeout: Duration,
    },
}

/// Posts to one URL. Keeps its connections between posts.
pub struct Poster {
    pool: Pool,
    uri: Uri,
    host: String,
}

impl Poster {
    /// Makes a poster for `url`, which must be `http:` or `https:` with a host.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn new(url: &Url) -> Result<Self, HttpError> {
        // Without the user and password that a URL may contain, because errors show the host.
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { pool: Pool::new(url, CONNECT)?, uri: uri(url)?, host })
    }

    /// Posts `body` with `headers`, and waits for the response's header, within `timeout`.
    ///
    /// # Errors
    /// See [`PostError`].
    ///
    /// # Cancel safety
    /// If this future is dropped, its connection is closed; the server may have acted on the request.
    pub async fn post(&self, headers: &HeaderMap, body: Bytes, timeout: Duration) -> Result<Answer, PostError> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers.clone();
        // The future is on the heap, because it would be large in every task that posts.
        let sent = Box::pin(self.pool.send(request));
        let mut response = match tokio::time::timeout(timeout, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(PostError::Unreachable { host: self.host.clone(), error }),
            Err(_) => return Err(PostError::Timeout { host: self.host.clone(), timeout }),
        };
        let answer = Answer { status: response.status, retry_after: response.retry_after() };
        // Only the status is needed. If the body is late, too long or cut, only the connection cannot be used again.
        let _ = tokio::time::timeout(DRAIN, response.read(MAX_ANSWER_BYTES)).await;
        Ok(answer)
    }
}
