//! Where the daemon is: what people type after `--to`, and the URLs made from it. Knows no socket.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// Where a daemon listens unless it is told otherwise, and where the clients look for it.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:7700";

/// A daemon's address: `http://HOST:PORT`, `ws://HOST:PORT` or `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    authority: String,
}

impl Target {
    /// The daemon at `addr`.
    pub(crate) fn at(addr: std::net::SocketAddr) -> Self {
        Self { authority: addr.to_string() }
    }

    /// `HOST:PORT`, as in the `Host` header.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// `http://HOST:PORT` and `path`, which begins with a slash.
    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority)
    }

    /// `ws://HOST:PORT`, `path`, and `query` form-encoded.
    pub(crate) fn ws(&self, path: &str, query: &[(&str, String)]) -> String {
        let mut url = format!("ws://{}{path}", self.authority);
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
        match url.scheme() {
            "http" | "ws" => {}
            "https" | "wss" => return Err(format!("{}; TLS is not spoken by this client", expected())),
            _ => return Err(expected()),
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || !url.username().is_empty() {
            return Err(format!("{}: no path, no query and no user belong there", expected()));
        }
        let host = url.host_str().ok_or_else(expected)?;
        let port = url.port_or_known_default().unwrap_or(80);
        Ok(Self { authority: format!("{host}:{port}") })
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
        ] {
            assert_eq!(typed.parse::<Target>().expect(typed).authority(), authority);
        }
        for typed in ["", "https://x:1", "http://x:1/v1/ingest", "ftp://x", "http://x:99999", "http://u@x:1"] {
            assert!(typed.parse::<Target>().expect_err(typed).contains("http://HOST:PORT"), "{typed}");
        }
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
