//! The CORS protocol (Fetch standard, section 3.3) for pages of the origins in `[server] origins`: answers preflight
//! requests, and adds the headers that let a browser show a response to the page.
//!
//! `guard` decides which hosts and origins may connect at all. Knows no path; keys and scopes decide what a request may
//! do. The daemon reads no cookies, so the headers allow no credentials.

use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderName, HeaderValue, Method, Request};

/// How long a browser may cache a preflight answer, seconds.
const MAX_AGE: &str = "600";
/// Sent by a browser when a page of the public network requests a loopback or private address.
const REQUEST_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// An origin whose pages may read responses.
pub(super) struct AllowedOrigin(HeaderValue);

impl AllowedOrigin {
    /// The request's origin, if `named` accepts it.
    pub(super) fn with<B>(request: &Request<B>, named: impl Fn(&str) -> bool) -> Option<Self> {
        let origin = request.headers().get(ORIGIN)?;
        origin.to_str().is_ok_and(named).then(|| Self(origin.clone()))
    }

    /// The answer to a preflight request; `None` if the request is not one.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Response> {
        if request.method() != Method::OPTIONS || !request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = Response::default();
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
        if let Some(wanted) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        if request.headers().contains_key(REQUEST_PRIVATE) {
            headers.insert(ALLOW_PRIVATE, HeaderValue::from_static("true"));
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        Some(self.mark(response))
    }

    /// Adds the headers that let the origin's page read a response and all of its headers.
    pub(super) fn mark(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.0.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        headers.append(VARY, HeaderValue::from_static("origin"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "https://dash.example.com";

    fn request(method: Method, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri("/v1/calls");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("request")
    }

    fn shared(request: &Request<()>) -> Option<AllowedOrigin> {
        AllowedOrigin::with(request, |origin| origin == OURS)
    }

    #[test]
    fn only_a_configured_origin_gets_cors_headers() {
        assert!(shared(&request(Method::GET, &[])).is_none());
        assert!(shared(&request(Method::GET, &[("origin", "https://dash.example.com.evil.example")])).is_none());
        let asks = [
            ("origin", OURS),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
            ("access-control-request-private-network", "true"),
        ];
        let asked = request(Method::OPTIONS, &asks);
        let told = shared(&asked).expect("named").preflight(&asked).expect("asked beforehand");
        let header = |name: &str| told.headers().get(name).map(|value| value.to_str().expect("text"));
        assert!(told.status().is_success());
        assert_eq!(header("access-control-allow-origin"), Some(OURS));
        assert_eq!(header("access-control-allow-headers"), Some("authorization,content-type"));
        assert_eq!(header("access-control-allow-private-network"), Some("true"));
        assert!(header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
        assert_eq!(header("access-control-allow-credentials"), None);
        // Ordinary requests.
        for plain in [request(Method::OPTIONS, &asks[..1]), request(Method::POST, &asks)] {
            assert!(shared(&plain).expect("named").preflight(&plain).is_none());
        }
        let answer = shared(&asked).expect("named").mark(Response::default());
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], OURS);
        assert_eq!(answer.headers()[VARY], "origin");
    }
}
