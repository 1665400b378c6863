//! `GET /v3/token`: makes the daemon's own short-lived tokens if the daemon has the vendor's key; otherwise gets the
//! vendor's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request};
use serde_json::{Value, json};

use super::Deps;
use crate::base::http::{HttpError, Pool, uri};
use crate::base::mac;

/// The vendor's limits on a token's lifetime, s.
const LIFE: std::ops::RangeInclusive<u64> = 1..=600;
/// The vendor's limits on the duration of the session that a token opens, s.
const SESSION: std::ops::RangeInclusive<u64> = 60..=10_800;
/// Longest part of the vendor's response that is read, bytes.
const MAX_BODY_BYTES: usize = 64 << 10;
/// Time limit of the vendor's response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Makes and checks tokens. A restart of the daemon voids them all.
pub struct Tokens {
    secret: [u8; 32],
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self { secret: rand::random() }
    }
}

impl Tokens {
    /// Makes a token that is valid for `life` from `now_ms` (ms since 1970) and gives `grant`.
    pub fn mint(&self, now_ms: i64, life: Duration, grant: &Grant) -> String {
        let until = now_ms.saturating_add(i64::try_from(life.as_millis()).unwrap_or(i64::MAX));
        let nonce: u64 = rand::random();
        let (gateway, session) = (u8::from(grant.gateway), grant.session.as_secs());
        let claim = format!("{until:x}.{gateway}.{session:x}.{nonce:x}.{}", grant.key.as_deref().unwrap_or(""));
        format!("stk.{claim}.{}", hex::encode(self.tag(&claim)))
    }

    /// What a valid token of this daemon permits.
    ///
    /// # Errors
    /// Why the token is invalid, in the vendor's wording.
    pub fn check(&self, token: &str) -> Result<Grant, &'static str> {
        self.check_at(token, crate::base::time::unix_ms())
    }

    fn check_at(&self, token: &str, now_ms: i64) -> Result<Grant, &'static str> {
        const INVALID: &str = "Invalid API key";
        let (claim, tag) = token.strip_prefix("stk.").and_then(|rest| rest.rsplit_once('.')).ok_or(INVALID)?;
        let tag = hex::decode(tag).map_err(|_| INVALID)?;
        if !mac::is_code(&tag, &self.secret, &[claim.as_bytes()]) {
            return Err(INVALID);
        }
        // The name of a key may contain dots.
        let mut parts = claim.splitn(5, '.');
        let until = parts.next().and_then(|until| i64::from_str_radix(until, 16).ok()).ok_or(INVALID)?;
        let gateway = parts.next() == Some("1");
        let session = parts.next().and_then(|seconds| u64::from_str_radix(seconds, 16).ok()).ok_or(INVALID)?;
        let key = parts.nth(1).filter(|name| !name.is_empty()).map(Arc::from);
        let grant = Grant { gateway, session: Duration::from_secs(session), key };
        if now_ms < until { Ok(grant) } else { Err("Signature has expired") }
    }

    fn tag(&self, claim: &str) -> Vec<u8> {
        mac::code(&self.secret, &[claim.as_bytes()])
    }
}

/// What a token permits besides the proxy itself; never more than the key that it was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Set if `llm_gateway` may be used.
    pub gateway: bool,
    /// Maximum duration of the session.
    pub session: Duration,
    /// Name of the key that the token was made with, if one was needed.
    pub key: Option<Arc<str>>,
}

/// The response of the token endpoint.
#[derive(Debug, PartialEq)]
pub enum TokenAnswer {
    /// A new token: status 200, with this body.
    Token(Value),
    /// A parameter is wrong: status 422 as the vendor sends it, with this body.
    Unprocessable(Value),
    /// The vendor's response, with its status and body unchanged.
    Vendor(u16, Vec<u8>),
    /// The vendor could not be reached.
    Unavailable(String),
}

/// Answers `GET /v3/token` with `query` and `headers`. `gateway`: the caller may ask models. `key`: name of the
/// caller's key.
pub async fn answer(
    query: &str,
    headers: &HeaderMap,
    gateway: bool,
    key: Option<Arc<str>>,
    deps: &Deps,
) -> TokenAnswer {
    if deps.config.api_key.is_some() {
        return mint(query, &deps.tokens, crate::base::time::unix_ms(), gateway, key);
    }
    match tokio::time::timeout(TIMEOUT, Box::pin(ask(query, headers, &deps.config.token_url))).await {
        Ok(Ok((status, body))) => TokenAnswer::Vendor(status, body),
        Ok(Err(error)) => TokenAnswer::Unavailable(error.to_string()),
        Err(_) => TokenAnswer::Unavailable(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

fn mint(query: &str, tokens: &Tokens, now_ms: i64, gateway: bool, key: Option<Arc<str>>) -> TokenAnswer {
    let (mut life, mut session, mut wrong) = (None, *SESSION.end(), Vec::new());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let range = match &*name {
            "expires_in_seconds" => LIFE,
            "max_session_duration_seconds" => SESSION,
            _ => continue,
        };
        match value.parse::<u64>().ok().filter(|number| range.contains(number)) {
            Some(number) if name == "expires_in_seconds" => life = Some(number),
            Some(number) => session = number,
            None => {
                let message = format!("Input should be an integer from {} to {}", range.start(), range.end());
                wrong.push(json!({"type": "value_error", "loc": ["query", name], "msg": message, "input": value}));
            }
        }
    }
    if life.is_none() && wrong.is_empty() {
        let at = ["query", "expires_in_seconds"];
        wrong.push(json!({"type": "missing", "loc": at, "msg": "Field required", "input": null}));
    }
    match life.filter(|_| wrong.is_empty()) {
        Some(life) => {
            let grant = Grant { gateway, session: Duration::from_secs(session), key };
            let token = tokens.mint(now_ms, Duration::from_secs(life), &grant);
            TokenAnswer::Token(json!({"token": token, "expires_in_seconds": life}))
        }
        None => TokenAnswer::Unprocessable(json!({"detail": wrong})),
    }
}

/// Requests a token from the vendor, with the client's query and `Authorization`.
async fn ask(query: &str, headers: &HeaderMap, url: &str) -> Result<(u16, Vec<u8>), HttpError> {
    let mut url = url::Url::parse(url).map_err(HttpError::no_client)?;
    url.set_query(Some(query));
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = uri(&url)?;
    if let Some(value) = headers.get(AUTHORIZATION) {
        request.headers_mut().insert(AUTHORIZATION, value.clone());
    }
    let mut response = Pool::new(&url, TIMEOUT)?.send(request).await?;
    let body = response.read(MAX_BODY_BYTES).await?;
    Ok((response.status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_valid_only_if_signed_complete_and_not_expired() {
        let tokens = Tokens::default();
        let grant = |gateway, key: Option<&str>| {
            let (session, key) = (Duration::from_secs(600), key.map(Arc::from));
            Grant { gateway, session, key }
        };
        for grant in
            [grant(false, None), grant(true, None), grant(false, Some("agent.7~a:b-c")), grant(true, Some("_"))]
        {
            let token = tokens.mint(1_000, Duration::from_secs(60), &grant);
            assert_eq!(tokens.check_at(&token, 60_999), Ok(grant));
        }
        let token = tokens.mint(1_000, Duration::from_secs(60), &grant(false, Some("agent")));
        assert!(tokens.check_at(&token.replacen(".agent.", ".boss.", 1), 1_000).is_err());
        assert!(tokens.check_at(&token.replacen(".0.", ".1.", 1), 1_000).is_err());
        assert_eq!(tokens.check_at(&token, 61_000), Err("Signature has expired"));
        assert_eq!(Tokens::default().check_at(&token, 1_000), Err("Invalid API key"));
        for broken in ["", "stk.", "AQI", &token.replace("stk.", "stk.f"), &token[..token.len() - 2]] {
            assert!(tokens.check_at(broken, 1_000).is_err(), "{broken}");
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let tokens = Tokens::default();
        assert_eq!(format!("{tokens:?}"), "Tokens { .. }");
    }

    #[test]
    fn parameters_are_checked_as_the_vendor_does() {
        let tokens = Tokens::default();
        let mint = |query: &str| mint(query, &tokens, 0, false, None);
        for (query, session) in
            [("expires_in_seconds=60", 10_800), ("max_session_duration_seconds=600&expires_in_seconds=60", 600)]
        {
            let TokenAnswer::Token(body) = mint(query) else { panic!("{query}") };
            assert_eq!(body["expires_in_seconds"], 60);
            let grant = tokens.check_at(body["token"].as_str().expect("token"), 59_999).expect("good");
            assert_eq!(grant.session, Duration::from_secs(session), "{query}");
        }
        for wrong in [
            "",
            "expires_in_seconds=601",
            "expires_in_seconds=x",
            "expires_in_seconds=9&max_session_duration_seconds=5",
        ] {
            assert!(matches!(mint(wrong), TokenAnswer::Unprocessable(body) if body["detail"][0]["loc"][0] == "query"));
        }
    }
}
