//! AWS Signature Version 4: signs method, path, query, some headers and the body with keys derived from a secret.
//!
//! Knows no service and no source of credentials. Implemented here because the published crates for it bring a runtime
//! of their own; the tests check it against the vectors that AWS publishes.

use std::fmt::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Request, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::{Auth, AuthError};
use crate::base::{mac, secret};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
/// Characters that a canonical query does not encode: letters, digits and these.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Characters that a canonical path does not encode: also the separators of its segments.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// AWS credentials.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: SecretString,
    /// The token of temporary credentials.
    pub session_token: Option<SecretString>,
}

impl Credentials {
    /// Reads `ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]`.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(text: &SecretString) -> Result<Self, AuthError> {
        let mut parts = text.expose_secret().splitn(3, ':').map(str::trim);
        let (id, secret, token) = (parts.next(), parts.next(), parts.next());
        match (id.filter(|id| !id.is_empty()), secret.filter(|secret| !secret.is_empty())) {
            (Some(id), Some(secret)) => Ok(Self {
                access_key_id: id.to_owned(),
                secret_access_key: SecretString::from(secret.to_owned()),
                session_token: token.map(|token| SecretString::from(token.to_owned())),
            }),
            _ => Err(AuthError::lasting("expected ACCESS_KEY_ID:SECRET_ACCESS_KEY, or the same with :SESSION_TOKEN")),
        }
    }
}

/// Signs requests to one service in one region.
#[derive(Debug)]
pub struct SigV4 {
    credentials: Credentials,
    region: String,
    service: String,
}

impl SigV4 {
    pub fn new(credentials: Credentials, region: impl Into<String>, service: impl Into<String>) -> Self {
        Self { credentials, region: region.into(), service: service.into() }
    }

    /// The value of the `authorization` header. `date` is `YYYYMMDDTHHMMSSZ`; `headers` are those that are signed, sorted
    /// by name.
    fn authorization(&self, request: &Request<Bytes>, date: &str, headers: &[(&str, String)]) -> String {
        let day = &date[..date.len().min(8)];
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let mut canonical = format!(
            "{}\n{}\n{}\n",
            request.method(),
            canonical_path(request.uri().path()),
            canonical_query(request.uri().query().unwrap_or_default())
        );
        for (name, value) in headers {
            // Writing to a String cannot fail.
            let _ = writeln!(canonical, "{name}:{}", value.trim());
        }
        let _ = write!(canonical, "\n{names}\n{}", hex::encode(Sha256::digest(request.body())));
        let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical.as_bytes())));
        let secret = format!("AWS4{}", self.credentials.secret_access_key.expose_secret());
        let key = [day, &self.region, &self.service, "aws4_request"]
            .iter()
            .fold(secret.into_bytes(), |key, part| mac::code(&key, &[part.as_bytes()]));
        let signature = hex::encode(mac::code(&key, &[to_sign.as_bytes()]));
        let id = &self.credentials.access_key_id;
        format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
    }
}

impl Auth for SigV4 {
    fn sign(&self, request: &mut Request<Bytes>, now: SystemTime) -> Result<(), AuthError> {
        let unfit = |_| AuthError::lasting("the credentials have characters that are not allowed in a header");
        let time = jiff::Timestamp::try_from(now).map_err(|_| AuthError::lasting("the clock is out of range"))?;
        let date = time.strftime("%Y%m%dT%H%M%SZ").to_string();
        request.headers_mut().insert(DATE, HeaderValue::from_str(&date).map_err(unfit)?);
        if let Some(token) = &self.credentials.session_token {
            let mut value = HeaderValue::from_str(token.expose_secret()).map_err(unfit)?;
            value.set_sensitive(true);
            request.headers_mut().insert(TOKEN, value);
        }
        let mut headers = vec![("host", host(request.uri())), ("x-amz-date", date.clone())];
        for (name, header) in [("content-type", CONTENT_TYPE), ("x-amz-security-token", TOKEN)] {
            let value = request.headers().get(header).and_then(|value| value.to_str().ok());
            headers.extend(value.map(|value| (name, value.to_owned())));
        }
        headers.sort_unstable_by_key(|(name, _)| *name);
        let authorization = self.authorization(request, &date, &headers);
        let mut value = HeaderValue::from_str(&authorization).map_err(unfit)?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }

    fn is_repeated_in(&self, text: &str) -> bool {
        let Credentials { secret_access_key, session_token, .. } = &self.credentials;
        let mut secrets = std::iter::once(secret_access_key).chain(session_token);
        secrets.any(|secret| secret::repeats(text, secret.expose_secret()))
    }
}

/// The `host` header that the HTTP client sends: without the port if that is the scheme's default.
fn host(uri: &Uri) -> String {
    let name = uri.host().unwrap_or_default();
    let default = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    match uri.port_u16().filter(|port| *port != default) {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    }
}

/// Encodes the percent-encoded path a second time, as all services except S3 require.
fn canonical_path(path: &str) -> String {
    if path.is_empty() { "/".to_owned() } else { utf8_percent_encode(path, PATH).to_string() }
}

/// The parameters, encoded and sorted by name and value.
fn canonical_query(query: &str) -> String {
    let encoded = |part: &str| percent_encode(&percent_decode_str(part).collect::<Vec<u8>>(), QUERY).to_string();
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let mut parameters: Vec<(String, String)> = parameters
        .map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (encoded(name), encoded(value))
        })
        .collect();
    parameters.sort_unstable();
    let written: Vec<String> = parameters.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    written.join("&")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;

    const ID: &str = "AKIDEXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const SESSION: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
    const FORM: &str = "application/x-www-form-urlencoded";

    /// 2015-08-30T12:36:00Z
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160)
    }

    fn signed(method: &str, url: &str, body: &'static str, content_type: Option<&str>, token: bool) -> Request<Bytes> {
        let key = if token { format!("{ID}:{SECRET}:{SESSION}") } else { format!("{ID}:{SECRET}") };
        let credentials = Credentials::parse(&SecretString::from(key)).expect("credentials");
        let mut request = Request::new(Bytes::from_static(body.as_bytes()));
        *request.method_mut() = method.parse::<Method>().expect("a method");
        *request.uri_mut() = url.parse().expect("a URI");
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, content_type.parse().expect("a value"));
        }
        SigV4::new(credentials, "us-east-1", "service").sign(&mut request, now()).expect("signed");
        request
    }

    fn header(request: &Request<Bytes>, name: &str) -> String {
        request.headers()[name].to_str().expect("text").to_owned()
    }

    /// The vectors of AWS's test suite for Signature Version 4, as far as this client can make such requests.
    #[test]
    fn signatures_are_those_of_the_published_test_suite() {
        for (name, method, url, body, content_type, token, headers, signature) in [
            (
                "get-vanilla",
                "GET",
                "https://example.amazonaws.com/",
                "",
                None,
                false,
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                "GET",
                "https://example.amazonaws.com/?Param2=value2&Param1=value1",
                "",
                None,
                false,
                "host;x-amz-date",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "post-vanilla",
                "POST",
                "https://example.amazonaws.com/",
                "",
                None,
                false,
                "host;x-amz-date",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-x-www-form-urlencoded",
                "POST",
                "https://example.amazonaws.com/",
                "Param1=value1",
                Some(FORM),
                false,
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            (
                "post-sts-header-before",
                "POST",
                "https://example.amazonaws.com/",
                "",
                None,
                true,
                "host;x-amz-date;x-amz-security-token",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
        ] {
            let request = signed(method, url, body, content_type, token);
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential={ID}/20150830/us-east-1/service/aws4_request, SignedHeaders={headers}, \
                 Signature={signature}"
            );
            assert_eq!(header(&request, "authorization"), expected, "{name}");
            assert_eq!(header(&request, "x-amz-date"), "20150830T123600Z", "{name}");
        }
    }

    #[test]
    fn path_and_query_are_canonical() {
        assert_eq!(canonical_path(""), "/");
        assert_eq!(canonical_path("/model/a.b-v1%3A0/converse-stream"), "/model/a.b-v1%253A0/converse-stream");
        assert_eq!(canonical_query("b=2&a=%20x&a=%2B&flag"), "a=%20x&a=%2B&b=2&flag=");
    }

    #[test]
    fn host_has_a_port_only_if_it_is_not_the_schemes_own() {
        for (uri, expected) in [
            ("https://a.example/x", "a.example"),
            ("https://a.example:443/x", "a.example"),
            ("http://127.0.0.1:8080/x", "127.0.0.1:8080"),
            ("http://a.example:80/x", "a.example"),
        ] {
            assert_eq!(host(&uri.parse().expect("a URI")), expected);
        }
    }

    #[test]
    fn secrets_are_redacted_in_debug_output_and_texts() {
        let request = signed("POST", "https://example.amazonaws.com/", "", None, true);
        let credentials = Credentials::parse(&SecretString::from(format!("{ID}:{SECRET}:{SESSION}"))).expect("parsed");
        let auth = SigV4::new(credentials, "us-east-1", "service");
        let shown = format!("{auth:?} {request:?}");
        assert!(!auth.is_repeated_in(&shown), "{shown}");
        assert!(auth.is_repeated_in(&format!("bad key {SECRET}")));
        assert!(auth.is_repeated_in(&format!("bad token {SESSION}")));
    }
}
