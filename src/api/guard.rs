//! Checks the `Host` and `Origin` headers of every request before anything else.
//!
//! A browser that opened a malicious page can reach a loopback daemon. These two checks refuse its requests: DNS
//! rebinding shows in `Host`, cross-site requests show in `Origin`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, ORIGIN};
use http::{Method, Request};

use super::config::ServerConfig;
use super::error::ApiError;

/// The allowed hosts and origins of one listener.
#[derive(Debug, Clone)]
pub struct Guard {
    listen: SocketAddr,
    tls: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Guard {
    /// The rules for a listener at `listen`, with TLS or without.
    pub fn new(config: &ServerConfig, listen: SocketAddr, tls: bool) -> Self {
        Self { listen, tls, hosts: config.hosts.clone(), origins: config.origins.clone() }
    }

    /// Checks a request before it is routed.
    ///
    /// # Errors
    /// 403 if `Host` or `Origin` is not allowed, 400 without exactly one valid `Host`, 415 for a POST whose content
    /// type is not JSON or that is compressed.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), ApiError> {
        let host = host(request)?;
        if !self.host_allowed(&host) {
            return Err(ApiError::forbidden(
                "forbidden_host",
                format!(
                    "Host {:?} is not this server's; allowed are loopback, {}, and what [server] hosts names",
                    host.text, self.listen
                ),
            ));
        }
        for origin in request.headers().get_all(ORIGIN) {
            let origin = origin.to_str().unwrap_or("");
            if !self.origin_allowed(origin, &host) {
                return Err(ApiError::forbidden(
                    "forbidden_origin",
                    format!("Origin {origin:?} is not this server's; add it to [server] origins to allow it"),
                ));
            }
        }
        if request.method() == Method::POST {
            let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
            let media = media.split(';').next().unwrap_or("").trim();
            if !media.eq_ignore_ascii_case("application/json") {
                return Err(ApiError::unsupported_media_type(format!(
                    "a POST needs content-type: application/json, found {media:?}"
                )));
            }
            let coding =
                request.headers().get(CONTENT_ENCODING).map_or("identity", |value| value.to_str().unwrap_or(""));
            if !coding.trim().eq_ignore_ascii_case("identity") {
                return Err(ApiError::unsupported_media_type(format!(
                    "a POST must not have a content-encoding, found {coding:?}"
                )));
            }
        }
        Ok(())
    }

    /// Returns true if `[server] origins` contains this origin.
    pub(super) fn names(&self, origin: &str) -> bool {
        self.origins.contains(&plain(origin))
    }

    fn host_allowed(&self, host: &Authority<'_>) -> bool {
        let named = |allowed: &String| [host.name, host.text].iter().any(|name| allowed.eq_ignore_ascii_case(name));
        if host.name.eq_ignore_ascii_case("localhost") || self.hosts.iter().any(named) {
            return true;
        }
        host.name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == self.listen.ip())
    }

    /// An origin is allowed if it has the scheme and the host of the request itself, or if it is configured.
    fn origin_allowed(&self, origin: &str, host: &Authority<'_>) -> bool {
        let own = format!("{}://{}", if self.tls { "https" } else { "http" }, host.text.to_ascii_lowercase());
        plain(origin) == own || self.names(origin)
    }
}

/// The host that a request names in its only `Host` header. An absolute URI must name the same host.
///
/// # Errors
/// 400 that says what is wrong.
fn host<B>(request: &Request<B>) -> Result<Authority<'_>, ApiError> {
    let bad = |message: String| ApiError::bad_request("bad_host", message);
    let absolute = request.uri().authority().map(http::uri::Authority::as_str);
    let mut hosts = request.headers().get_all(HOST).iter();
    let named = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(bad("the request has more than one Host header; one is allowed".to_owned())),
        (Some(host), None) => {
            Some(host.to_str().map_err(|_| bad("the Host header must be HOST or HOST:PORT in ASCII".to_owned()))?)
        }
        (None, _) => None,
    };
    let text = named.or(absolute).ok_or_else(|| bad("the Host header is missing".to_owned()))?;
    let wrong = |text: &str, wrong: &str| bad(format!("Host {text:?}: {wrong}; expected HOST or HOST:PORT"));
    let host = Authority::parse(text).map_err(|error| wrong(text, error))?;
    if let Some(other) = absolute.filter(|_| named.is_some()) {
        let absolute = Authority::parse(other).map_err(|error| wrong(other, error))?;
        if !absolute.text.eq_ignore_ascii_case(host.text) {
            return Err(bad(format!("the request's URI names the host {other:?}, but its Host header {text:?}")));
        }
    }
    Ok(host)
}

/// `HOST` or `HOST:PORT` (RFC 3986, section 3.2, without userinfo). The comparison ignores case.
#[derive(Debug)]
struct Authority<'a> {
    text: &'a str,
    /// The host, an IPv6 address without its brackets.
    name: &'a str,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a str) -> Result<Self, &'static str> {
        if text.contains('@') {
            return Err("a user name is not allowed there");
        }
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or("the bracket is not closed")?;
                if address.parse::<Ipv6Addr>().is_err() {
                    return Err("the text in brackets is not an IPv6 address");
                }
                (address, port)
            }
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
                if name.is_empty() || !name.bytes().all(allowed) {
                    return Err("it is not a valid host name");
                }
                (name, port)
            }
        };
        let is_port = |digits: &str| {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.is_empty() || digits.parse::<u16>().is_ok())
        };
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return Err("after the host, only a colon and a port may come");
        }
        Ok(Self { text, name })
    }
}

/// An origin in the form that the configuration uses.
fn plain(origin: &str) -> String {
    origin.trim_end_matches('/').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let config = ServerConfig {
            listen: None,
            hosts: vec!["sidetone.example.com".to_owned()],
            origins: vec!["https://dash.example.com".to_owned()],
            key: None,
        };
        Guard::new(&config, "127.0.0.1:8080".parse().expect("address"), false)
    }

    fn ask(host: &str, origin: Option<&str>) -> Result<(), ApiError> {
        let mut request = Request::get("/v1/calls").header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        guard().check(&request.body(()).expect("request"))
    }

    #[test]
    fn own_hosts_and_origins_pass() {
        for host in ["127.0.0.1:8080", "localhost:9", "[::1]:8080", "127.0.0.1", "sidetone.example.com:443"] {
            assert!(ask(host, None).is_ok(), "{host}");
        }
        assert!(ask("localhost:8080", Some("http://localhost:8080")).is_ok());
        assert!(ask("localhost:8080", Some("https://dash.example.com")).is_ok());
    }

    #[test]
    fn foreign_ones_do_not() {
        for host in ["evil.example.com", "evil.example.com:8080", "10.0.0.1:8080", "localhost.evil.com"] {
            assert!(ask(host, None).is_err(), "{host}");
        }
        for origin in ["http://evil.example.com", "null", "https://localhost:8080", "http://localhost:9"] {
            assert!(ask("localhost:8080", Some(origin)).is_err(), "{origin}");
        }
    }

    #[test]
    fn host_that_is_not_an_authority_is_refused() {
        for (host, why) in [
            ("user@localhost", "user"),
            ("localhost:8080@evil.example.com", "user"),
            ("[::1]evil.example.com", "after the host"),
            ("[::1].evil.example.com:8080", "after the host"),
            ("[::1]:8080:9", "after the host"),
            ("[::1", "bracket"),
            ("[localhost]", "IPv6"),
            ("::1", "name"),
            ("localhost:http", "after the host"),
            ("localhost:99999", "after the host"),
            ("localhost/evil", "name"),
            ("localhost evil", "name"),
            ("", "name"),
        ] {
            let error = format!("{:?}", ask(host, None).expect_err(host));
            assert!(error.contains("bad_host") && error.contains(why), "{host}: {error}");
        }
        assert!(ask("LocalHost:8080", None).is_ok());
    }

    #[test]
    fn request_with_two_hosts_or_another_uri_host_is_refused() {
        let ask = |uri: &str, hosts: &[&str]| {
            let request = hosts.iter().fold(Request::get(uri), |request, host| request.header(HOST, *host));
            guard().check(&request.body(()).expect("request")).map_err(|error| format!("{error:?}"))
        };
        assert!(ask("http://localhost:8080/v1/calls", &["localhost:8080"]).is_ok());
        assert!(ask("http://LOCALHOST:8080/v1/calls", &["localhost:8080"]).is_ok());
        assert!(ask("http://localhost:8080/v1/calls", &[]).is_ok());
        for (uri, hosts, why) in [
            ("/v1/calls", &["localhost", "localhost"][..], "more than one"),
            ("/v1/calls", &["localhost", "evil.example.com"], "more than one"),
            ("/v1/calls", &[], "missing"),
            ("http://evil.example.com/v1/calls", &["localhost"], "evil.example.com"),
            ("http://localhost:9/v1/calls", &["localhost:8080"], "localhost:9"),
            ("http://user@localhost/v1/calls", &["localhost"], "user"),
            ("http://evil.example.com/v1/calls", &[], "evil.example.com"),
        ] {
            let error = ask(uri, hosts).expect_err(uri);
            assert!(error.contains(why), "{uri} {hosts:?}: {error}");
        }
    }

    #[test]
    fn a_post_must_be_json() {
        let post = |media: &str| {
            let request = Request::post("/v1/calls/c/analyses/summary").header(HOST, "localhost");
            guard().check(&request.header(CONTENT_TYPE, media).body(()).expect("request"))
        };
        assert!(post("application/json; charset=utf-8").is_ok());
        assert!(post("text/plain").is_err());
    }

    #[test]
    fn a_post_is_not_compressed() {
        let post = |coding: &str| {
            let request = Request::post("/v1/chat/completions").header(HOST, "localhost");
            let request = request.header(CONTENT_TYPE, "application/json").header(CONTENT_ENCODING, coding);
            guard().check(&request.body(()).expect("request"))
        };
        assert!(post("identity").is_ok() && post("Identity").is_ok());
        for coding in ["gzip", "br", "gzip, identity", ""] {
            assert!(post(coding).is_err(), "{coding}");
        }
    }
}
