//! A small HTTP/1.1 client for one URL: POST a body, learn the status. Keeps its connection; follows no redirect.
//!
//! Knows no meaning of a status and retries nothing.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use url::Url;

/// An answer's body is read up to this size so that the connection can be used again, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `retry-after`, from now on.
    pub retry_after: Option<Duration>,
}

/// Nothing came back; whether the server acted on it is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PostError {
    /// No connection, or it was lost.
    #[error("cannot reach {host}: {message}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What the system says.
        message: String,
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

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Posts to one URL, one request at a time.
pub struct Poster {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    target: String,
    connection: Option<Connection>,
}

impl Poster {
    /// For `url`, which must be `http:` or `https:` with a host.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn new(url: &Url) -> Result<Self, String> {
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(format!("expected http:// or https://, found {other}:")),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("expected a URL with a host")?;
        let port = url.port_or_known_default().unwrap_or(if tls { 443 } else { 80 });
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        Ok(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authority: url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            target,
            connection: None,
        })
    }

    /// Posts `body` with `headers`, and waits for the answer's header, all within `timeout`.
    ///
    /// # Errors
    /// See [`PostError`].
    ///
    /// # Cancel safety
    /// Cancelled, the request may have been acted on; the connection is closed.
    pub async fn post(&mut self, headers: &HeaderMap, body: Bytes, timeout: Duration) -> Result<Answer, PostError> {
        // Taken: whatever cuts this short also drops the connection, whose state is then unknown.
        let kept = self.connection.take();
        let exchange = Box::pin(self.exchange(kept, headers, body));
        match tokio::time::timeout(timeout, exchange).await {
            Err(_) => Err(PostError::Timeout { host: self.authority.clone(), timeout }),
            Ok(Err(message)) => Err(PostError::Unreachable { host: self.authority.clone(), message }),
            Ok(Ok((answer, connection))) => {
                self.connection = connection;
                Ok(answer)
            }
        }
    }

    async fn exchange(
        &self,
        kept: Option<Connection>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<(Answer, Option<Connection>), String> {
        let kept = match kept {
            Some(mut kept) => kept.sender.ready().await.is_ok().then_some(kept),
            None => None,
        };
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let mut request = Request::post(&self.target).body(Full::new(body)).map_err(|error| error.to_string())?;
        let host = HeaderValue::from_str(&self.authority).map_err(|error| error.to_string())?;
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(HOST, host);
        let response = connection.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| read_retry_after(value.to_str().ok()?));
        let answer = Answer { status: response.status().as_u16(), retry_after };
        let whole = drain(response.into_body()).await;
        Ok((answer, whole.then_some(connection)))
    }

    async fn connect(&self) -> Result<Connection, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        if self.tls {
            let stream = super::tls::connect(stream, &self.host).await.map_err(|error| error.to_string())?;
            shake(TokioIo::new(stream)).await
        } else {
            shake(TokioIo::new(stream)).await
        }
    }
}

async fn shake<I>(io: I) -> Result<Connection, String>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(io).await.map_err(|error| error.to_string())?;
    // Its errors come out of the request that they break.
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok(Connection { sender, driver })
}

/// Whether the body was read to its end.
async fn drain(body: Incoming) -> bool {
    Limited::new(body, MAX_ANSWER_BYTES).collect().await.is_ok()
}

/// Seconds, or an HTTP date.
fn read_retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        let poster = |text: &str| Poster::new(&Url::parse(text).expect("a URL"));
        let fine = poster("https://hooks.example.com:8443/a?b=c").expect("fine");
        assert_eq!((fine.host.as_str(), fine.port, fine.tls), ("hooks.example.com", 8443, true));
        assert_eq!((fine.authority.as_str(), fine.target.as_str()), ("hooks.example.com:8443", "/a?b=c"));
        assert_eq!(poster("http://[::1]/").expect("fine").host, "::1");
        assert!(poster("ftp://x/").is_err());
        assert!(poster("data:x").is_err());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(read_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(read_retry_after("soon"), None);
        assert_eq!(read_retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!(read_retry_after(&later).is_some_and(|wait| wait > Duration::from_secs(90)));
    }
}
