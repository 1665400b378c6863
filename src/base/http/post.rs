//! Posts bodies to one URL and reports the status: what webhooks and the trace exporter need.
//!
//! Knows no meaning of a status and retries nothing.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use url::Url;

use super::{HttpError, Pool, uri};

/// An answer's body is read up to this size so that its connection can be used again, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The body is waited for this long.
const DRAIN: Duration = Duration::from_secs(1);
/// Limit of one connection attempt; the whole exchange has the caller's time-out.
const CONNECT: Duration = Duration::from_secs(10);

/// The answer to a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `retry-after`, from now on.
    pub retry_after: Option<Duration>,
}

/// No answer came; whether the server acted on the request is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PostError {
    /// No connection, or it was lost.
    #[error("cannot reach {host}: {error}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// The transport's error.
        error: HttpError,
    },
    /// No answer in time.
    #[error("{host} gave no answer within {timeout:?}")]
    Timeout {
        /// Host and port.
        host: String,
        /// The time it had.
        timeout: Duration,
    },
}

/// Posts to one URL. Its connections are kept between posts.
pub struct Poster {
    pool: Pool,
    uri: Uri,
    host: String,
}

impl Poster {
    /// For `url`, which must be `http:` or `https:` with a host.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn new(url: &Url) -> Result<Self, HttpError> {
        // Without the user and password that an address may hold: errors show it.
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { pool: Pool::new(url, CONNECT)?, uri: uri(url)?, host })
    }

    /// Posts `body` with `headers`, and waits for the answer's header, within `timeout`.
    ///
    /// # Errors
    /// See [`PostError`].
    ///
    /// # Cancel safety
    /// Cancelled, the request may have been acted on; its connection is closed.
    pub async fn post(&self, headers: &HeaderMap, body: Bytes, timeout: Duration) -> Result<Answer, PostError> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers.clone();
        // On the heap: the future would be large in every task that posts.
        let sent = Box::pin(self.pool.send(request));
        let mut response = match tokio::time::timeout(timeout, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(PostError::Unreachable { host: self.host.clone(), error }),
            Err(_) => return Err(PostError::Timeout { host: self.host.clone(), timeout }),
        };
        let answer = Answer { status: response.status, retry_after: response.retry_after() };
        // The status is the answer. A body that is late, too long or cut costs no more than the connection.
        let _ = tokio::time::timeout(DRAIN, response.read(MAX_ANSWER_BYTES)).await;
        Ok(answer)
    }
}
