//! The daemon's address and key: the value of `--to`, the URLs made from it, and the key in the environment. Knows no
//! socket.

use std::fmt;
use std::str::FromStr;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use url::Url;

use crate::protocol::ErrorCode;

/// Default address of the daemon, for itself and for its clients.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:7700";

/// The environment variable that contains the key, if the daemon requires one.
const KEY_VARIABLE: &str = "SIDETONE_KEY";

/// A daemon's address: `http://HOST:PORT`, `https://…`, `ws://…`, `wss://…` or `HOST:PORT`; and the key from the
/// environment, which `Debug` never shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    authority: String,
    is_tls: bool,
    key: Option<HeaderValue>,
}

impl Target {
    /// The daemon at `addr`.
    pub(crate) fn at(addr: std::net::SocketAddr) -> Self {
        Self { authority: addr.to_string(), is_tls: false, key: None }
    }

    /// The server of `url`, which is not a Sidetone daemon: no key is sent to it. `None` if the URL has no host.
    pub(crate) fn other(url: &Url) -> Option<Self> {
        let authority = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
        Some(Self { authority, is_tls: url.scheme() == "https", key: None })
    }

    /// The headers of each request.
    pub(crate) fn headers(&self) -> HeaderMap {
        self.key.iter().map(|key| (AUTHORIZATION, key.clone())).collect()
    }

    /// `http://HOST:PORT` (or `https:`) and `path`, which begins with a slash.
    pub(crate) fn http(&self, path: &str) -> String {
        format!("http{}://{}{path}", self.s(), self.authority)
    }

    /// `ws://HOST:PORT` (or `wss:`), `path`, and `query` form-encoded.
    pub(crate) fn ws(&self, path: &str, query: &[(&str, String)]) -> String {
        let mut url = format!("ws{}://{}{path}", self.s(), self.authority);
        if !query.is_empty() {
            let mut pairs = url::form_urlencoded::Serializer::new(String::new());
            for (name, value) in query {
                pairs.append_pair(name, value);
            }
            url.push('?');
            url.push_str(&pairs.finish());
        }
        url
    }

    fn s(&self) -> &'static str {
        if self.is_tls { "s" } else { "" }
    }
}

/// The next step after the daemon refused with `code`, as the end of a sentence; empty for most codes.
pub(crate) fn next_step(code: &str) -> &'static str {
    match ErrorCode::from_text(code) {
        Some(ErrorCode::Unauthenticated) => {
            "; set SIDETONE_KEY to a key of this daemon (`sidetone key create` makes one)"
        }
        Some(ErrorCode::Forbidden) => "; set SIDETONE_KEY to a key with that scope",
        _ => "",
    }
}

/// The key as a header; `None` if the variable is not set or is empty.
fn key(variable: Option<String>) -> Result<Option<HeaderValue>, String> {
    let Some(key) = variable.filter(|key| !key.trim().is_empty()) else { return Ok(None) };
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.trim()))
        .map_err(|_| format!("{KEY_VARIABLE}: expected a key as `sidetone key create` prints it"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.http(""))
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected http://HOST:PORT, such as http://{DEFAULT_LISTEN}, found {text:?}");
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&full).map_err(|_| expected())?;
        let is_tls = match url.scheme() {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return Err(expected()),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || !url.username().is_empty() {
            return Err(format!("{}: a path, a query or a user is not allowed", expected()));
        }
        let host = url.host_str().ok_or_else(expected)?;
        let port = url.port_or_known_default().unwrap_or(80);
        let key = key(std::env::var(KEY_VARIABLE).ok())?;
        Ok(Self { authority: format!("{host}:{port}"), is_tls, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood() {
        for (typed, authority) in [
            ("http://127.0.0.1:7700", "127.0.0.1:7700"),
            ("ws://localhost:81/", "localhost:81"),
            ("localhost:7700", "localhost:7700"),
            ("http://[::1]:9", "[::1]:9"),
            ("http://localhost", "localhost:80"),
            ("https://voice.lan", "voice.lan:443"),
        ] {
            assert_eq!(typed.parse::<Target>().expect(typed).authority, authority);
        }
        for typed in ["", "http://x:1/v1/ingest", "ftp://x", "http://x:99999", "http://u@x:1"] {
            assert!(typed.parse::<Target>().expect_err(typed).contains("http://HOST:PORT"), "{typed}");
        }
    }

    #[test]
    fn tls_and_keys_are_brought_and_not_shown() {
        let plain: Target = "http://[::1]:9".parse().expect("target");
        assert_eq!(plain.http("/a"), "http://[::1]:9/a");
        let mut target: Target = "wss://voice.lan".parse().expect("target");
        assert_eq!(target.http("/a"), "https://voice.lan:443/a");
        assert_eq!(target.ws("/b", &[]), "wss://voice.lan:443/b");
        target.key = key(Some(" sk-1 \n".to_owned())).expect("a key");
        assert_eq!(target.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes), Some(&b"Bearer sk-1"[..]));
        assert!(!format!("{target:?}").contains("sk-1"), "{target:?}");
        assert_eq!(key(Some("  ".to_owned())), Ok(None));
        assert!(key(Some("a\nb".to_owned())).expect_err("no header").contains("SIDETONE_KEY"));
    }

    #[test]
    fn queries_are_encoded() {
        let target: Target = "localhost:1".parse().expect("target");
        assert_eq!(
            target.ws("/v1/ingest", &[("call_id", "a~b".into()), ("meta", "{\"x\": 1}".into())]),
            "ws://localhost:1/v1/ingest?call_id=a%7Eb&meta=%7B%22x%22%3A+1%7D"
        );
    }
}
