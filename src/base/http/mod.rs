//! The HTTP client of the whole program: for vendors, webhooks, the STT vendor's token and the command line. Requests
//! go directly to the host, or through the proxy in the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
//! `NO_PROXY`).
//!
//! Follows no redirect and retries nothing. Knows no endpoint, no vendor and no meaning of a status.

mod direct;
mod error;
pub mod post;
mod via_proxy;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

pub use error::{HttpError, Kind};

/// Maximum number of idle connections per pool.
const MAX_IDLE: usize = 256;
/// Idle connections are closed after this time, earlier than servers and load balancers close them (after a minute or
/// more).
const IDLE: Duration = Duration::from_secs(55);

/// Connections to one host. Clones share them.
///
/// A pooled connection is driven by the tokio runtime that opened it, so a pool must not be used from two runtimes.
#[derive(Clone)]
pub struct Pool(Way);

#[derive(Clone)]
enum Way {
    Direct(direct::Pool),
    ViaProxy(via_proxy::Pool),
}

/// A response whose header has arrived; the caller reads its body.
pub struct Response {
    /// HTTP status.
    pub status: u16,
    pub headers: HeaderMap,
    body: Body,
}

enum Body {
    Direct(direct::Body),
    ViaProxy(via_proxy::Body),
}

impl Pool {
    /// A pool for the host of `base`. Opens no connection yet. `connect` limits name lookup, TCP and TLS together.
    ///
    /// # Errors
    /// [`Kind::NoClient`]: the address is not an `http:` or `https:` URL with a host, or TLS cannot be configured.
    pub fn new(base: &Url, connect: Duration) -> Result<Self, HttpError> {
        if !matches!(base.scheme(), "http" | "https") {
            return Err(HttpError::no_client(format!("expected http:// or https://, found {}:", base.scheme())));
        }
        if base.host_str().is_none_or(str::is_empty) {
            return Err(HttpError::no_client("expected a URL with a host"));
        }
        let root = uri(base)?;
        let way = if !is_near(base) && Matcher::from_system().intercept(&root).is_some() {
            Way::ViaProxy(via_proxy::Pool::new(connect)?)
        } else {
            Way::Direct(direct::Pool::new(base.scheme() == "https", connect)?)
        };
        Ok(Self(way))
    }

    /// Sends a request and waits for the response's header. The request's address must be absolute.
    ///
    /// # Errors
    /// See [`Kind`].
    ///
    /// # Cancel safety
    /// If this future is dropped, the request is aborted and its connection closed; the server may have acted on it.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response, HttpError> {
        match &self.0 {
            Way::Direct(pool) => pool.send(request).await,
            Way::ViaProxy(pool) => pool.send(request).await,
        }
    }
}

impl Response {
    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// [`Kind::Cut`].
    ///
    /// # Cancel safety
    /// Safe: no byte is lost.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        match &mut self.body {
            Body::Direct(body) => body.chunk().await,
            Body::ViaProxy(body) => body.chunk().await,
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`Kind::Cut`], or [`Kind::TooLong`] for more than `limit` bytes.
    ///
    /// # Cancel safety
    /// Not safe: the bytes read so far are lost.
    pub async fn read(&mut self, limit: usize) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            if body.len() + bytes.len() > limit {
                return Err(HttpError::too_long(limit));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }

    /// The media type, without parameters.
    pub fn media_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim()
    }

    /// `retry-after`, seconds or an HTTP date, counted from now.
    pub fn retry_after(&self) -> Option<Duration> {
        read_retry_after(self.headers.get(RETRY_AFTER)?.to_str().ok()?)
    }
}

/// Converts `url` to a request's address.
///
/// # Errors
/// [`Kind::NoClient`].
pub fn uri(url: &Url) -> Result<Uri, HttpError> {
    url.as_str().parse().map_err(|error: http::uri::InvalidUri| HttpError::no_client(error.to_string()))
}

/// Returns true for loopback and private addresses, which are reached without a proxy even if the environment names
/// one.
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

    fn pool(url: &str) -> Result<Pool, HttpError> {
        Pool::new(&Url::parse(url).expect("a URL"), Duration::from_secs(1))
    }

    #[test]
    fn pool_url_without_http_or_host_is_refused() {
        assert!(pool("http://[::1]/").is_ok());
        for url in ["ftp://x/", "data:x"] {
            let error = pool(url).err().expect(url);
            assert_eq!((error.kind(), error.to_string().contains("http://")), (Kind::NoClient, true), "{url}");
        }
    }

    #[test]
    fn local_hosts_never_use_the_proxy() {
        for (url, near) in [
            ("http://localhost:1", true),
            ("http://127.0.0.1", true),
            ("http://[::1]", true),
            ("http://10.1.2.3", true),
            ("http://192.168.0.1", true),
            ("http://169.254.1.1", true),
            ("http://[fd00::1]", true),
            ("http://8.8.8.8", false),
            ("http://example.com", false),
        ] {
            assert_eq!(is_near(&Url::parse(url).expect("a URL")), near, "{url}");
        }
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
