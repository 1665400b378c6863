//! Who may talk to us at all, whatever the path: `Host` and `Origin`, before anything else is looked at.
//!
//! A browser that was lured to a foreign page can reach a loopback daemon; these two checks are what stands in between
//! (DNS rebinding shows in `Host`, cross-site requests in `Origin`).

use std::net::{IpAddr, SocketAddr};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, ORIGIN};
use http::{Method, Request};

use super::config::ServerConfig;
use super::error::ApiError;

/// The rules of one listener.
#[derive(Debug, Clone)]
pub struct Guard {
    listen: SocketAddr,
    tls: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Guard {
    /// Rules for a listener at `listen`, with TLS or without.
    pub fn new(config: &ServerConfig, listen: SocketAddr, tls: bool) -> Self {
        Self { listen, tls, hosts: config.hosts.clone(), origins: config.origins.clone() }
    }

    /// Checks a request before it is routed.
    ///
    /// # Errors
    /// 403 for a foreign `Host` or `Origin`, 400 without `Host`, 415 for a POST that is no JSON, or compressed.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), ApiError> {
        let host = request
            .headers()
            .get(HOST)
            .and_then(|value| value.to_str().ok())
            .or_else(|| request.uri().authority().map(http::uri::Authority::as_str))
            .ok_or_else(|| ApiError::bad_request("bad_host", "the Host header is missing"))?;
        if !self.host_allowed(host) {
            return Err(ApiError::forbidden(
                "forbidden_host",
                format!(
                    "Host {host:?} is not this server's; allowed are loopback, {}, and what [server] hosts names",
                    self.listen
                ),
            ));
        }
        for origin in request.headers().get_all(ORIGIN) {
            let origin = origin.to_str().unwrap_or("");
            if !self.origin_allowed(origin, host) {
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
                    "a POST's body is read as it is, without content-encoding, found {coding:?}"
                )));
            }
        }
        Ok(())
    }

    /// Whether `[server] origins` names this origin.
    pub(super) fn names(&self, origin: &str) -> bool {
        self.origins.contains(&plain(origin))
    }

    fn host_allowed(&self, authority: &str) -> bool {
        let host = host_of(authority).to_ascii_lowercase();
        if host == "localhost" || self.hosts.iter().any(|allowed| *allowed == host || *allowed == authority) {
            return true;
        }
        host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == self.listen.ip())
    }

    /// An origin is ours where it is the very host and scheme by which we were asked, or is configured.
    fn origin_allowed(&self, origin: &str, host: &str) -> bool {
        let own = format!("{}://{}", if self.tls { "https" } else { "http" }, host.to_ascii_lowercase());
        plain(origin) == own || self.names(origin)
    }
}

/// An origin as the configuration has them.
fn plain(origin: &str) -> String {
    origin.trim_end_matches('/').to_ascii_lowercase()
}

/// The host of `host[:port]`, IPv6 brackets taken off.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or("");
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
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
