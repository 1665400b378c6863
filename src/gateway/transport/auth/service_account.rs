//! OAuth 2.0 access tokens of a Google service account: a signed assertion (RFC 7523, `jwt-bearer`) is exchanged for a
//! token, which is used until shortly before it expires.
//!
//! Knows no API that the token is for.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;
use serde::Deserialize;
use url::Url;

use super::{Auth, AuthError};
use crate::base::http::{self as client, Pool};
use crate::base::secret;
use crate::base::sync::lock;

/// The grant type of the exchange, percent-encoded.
const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
/// How long an assertion is valid; the longest that is allowed.
const ASSERTION_LIFE: Duration = Duration::from_secs(3600);
/// A token is renewed this long before it expires. Until then one request renews it, and the others use it.
const EARLY: Duration = Duration::from_secs(300);
/// Lifetime of a token whose response does not state it.
const DEFAULT_LIFE: u64 = 3600;
/// Timeout of the connection to the token's address; the whole exchange has the request's own timeout.
const CONNECT: Duration = Duration::from_secs(5);
/// Maximum size of the answer of the exchange.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The part of a key file that is used.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    token_uri: String,
}

/// The answer of the exchange.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// A token that requests carry.
#[derive(Clone)]
struct Token {
    text: Arc<str>,
    /// `Bearer TOKEN`, marked as sensitive.
    header: HeaderValue,
    expires: SystemTime,
}

/// Gets and renews the access tokens of a service account.
pub struct ServiceAccount {
    email: String,
    key_id: String,
    key: Arc<dyn SigningKey>,
    token_url: Url,
    scope: String,
    token: Mutex<Option<Token>>,
    /// Held by the request that gets a new token.
    renewing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { email, scope, .. } = self;
        formatter.debug_struct("ServiceAccount").field("email", email).field("scope", scope).finish_non_exhaustive()
    }
}

impl ServiceAccount {
    /// Reads a key file, as Google's console gives it, for tokens of `scope`.
    ///
    /// # Errors
    /// It is not such a file.
    pub fn read(json: &str, scope: &str) -> Result<Self, AuthError> {
        // The parser's own message may quote the file.
        let file: KeyFile = serde_json::from_str(json).map_err(|_| {
            AuthError::lasting("expected a service account's key file: JSON with client_email, private_key, token_uri")
        })?;
        let no_key = || AuthError::lasting("private_key: expected an RSA key in PKCS#8 and PEM");
        let der = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes()).map_err(|_| no_key())?;
        let key = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(der)).map_err(|_| no_key())?;
        if key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).is_none() {
            return Err(no_key());
        }
        let token_url = Url::parse(&file.token_uri).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        Ok(Self {
            email: file.client_email,
            key_id: file.private_key_id,
            key,
            token_url: token_url.ok_or_else(|| AuthError::lasting("token_uri: expected an http or https URL"))?,
            scope: scope.to_owned(),
            token: Mutex::new(None),
            renewing: tokio::sync::Mutex::new(()),
        })
    }

    /// The signed claim that is exchanged for a token.
    fn assertion(&self, now: SystemTime) -> Result<String, AuthError> {
        let at = now.duration_since(UNIX_EPOCH).map_err(|_| AuthError::lasting("the clock is before 1970"))?.as_secs();
        let header = serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": self.key_id});
        let claims = serde_json::json!({
            "iss": self.email, "scope": self.scope, "aud": self.token_url.as_str(), "iat": at,
            "exp": at + ASSERTION_LIFE.as_secs(),
        });
        let encoded = |part: serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encoded(header), encoded(claims));
        let signer = self.key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]);
        let signature = signer.and_then(|signer| signer.sign(signed.as_bytes()).ok());
        let signature = signature.ok_or_else(|| AuthError::lasting("the service account's key cannot sign"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn current(&self) -> Option<Token> {
        lock(&self.token).clone()
    }

    /// Gets a new token if the current one is about to expire; only one request does so at a time.
    async fn renew(&self) -> Result<(), AuthError> {
        let usable = |now: SystemTime| self.current().is_some_and(|token| now < token.expires);
        let _renewing = match self.renewing.try_lock() {
            Ok(renewing) => renewing,
            Err(_) if usable(SystemTime::now()) => return Ok(()),
            Err(_) => self.renewing.lock().await,
        };
        if self.is_fresh(SystemTime::now()) {
            return Ok(());
        }
        match self.exchange(SystemTime::now()).await {
            Ok(token) => {
                *lock(&self.token) = Some(token);
                Ok(())
            }
            Err(error) if usable(SystemTime::now()) => {
                tracing::warn!(%error, "an access token cannot be renewed; the old one is used until it expires");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        self.current().is_some_and(|token| now + EARLY < token.expires)
    }

    async fn exchange(&self, now: SystemTime) -> Result<Token, AuthError> {
        let failed = |error: client::HttpError| AuthError::temporary(format!("no access token: {error}"));
        let body = format!("grant_type={GRANT}&assertion={}", self.assertion(now)?);
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = client::uri(&self.token_url).map_err(failed)?;
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form);
        // A pool must not be used from two runtimes, and this connection is needed once an hour: it is not kept.
        let pool = Pool::new(&self.token_url, CONNECT).map_err(failed)?;
        let mut response = pool.send(request).await.map_err(failed)?;
        let body = response.read(MAX_ANSWER_BYTES).await.map_err(failed)?;
        if response.status != 200 {
            let message = format!("no access token: the token server answered with HTTP {}", response.status);
            // 4xx: the key or the scope is not accepted, so a retry would fail too.
            let lasting = matches!(response.status, 400..=499) && response.status != 429;
            return Err(AuthError { message, temporary: !lasting });
        }
        let unfit = || AuthError::temporary("no access token: the token server's response contains none");
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| unfit())?;
        let mut header = HeaderValue::from_str(&format!("Bearer {}", answer.access_token)).map_err(|_| unfit())?;
        header.set_sensitive(true);
        let life = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFE).min(24 * 3600));
        Ok(Token { text: Arc::from(answer.access_token), header, expires: now + life })
    }
}

impl Auth for ServiceAccount {
    fn refresh(&self) -> Option<BoxFuture<'_, Result<(), AuthError>>> {
        if self.is_fresh(SystemTime::now()) { None } else { Some(Box::pin(self.renew())) }
    }

    fn sign(&self, request: &mut Request<Bytes>, now: SystemTime) -> Result<(), AuthError> {
        let token = self.current().filter(|token| now < token.expires);
        let token = token.ok_or_else(|| AuthError::temporary("the access token has expired"))?;
        request.headers_mut().insert(AUTHORIZATION, token.header);
        Ok(())
    }

    fn is_repeated_in(&self, text: &str) -> bool {
        self.current().is_some_and(|token| secret::repeats(text, &token.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fake::{Fake, reply};

    /// A key that was made for this test.
    const KEY: &str = include_str!("test_key.pem");
    const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

    fn account(token_uri: &str) -> ServiceAccount {
        let file = serde_json::json!({
            "type": "service_account", "project_id": "project", "private_key_id": "key-1", "private_key": KEY,
            "client_email": "bot@project.iam.example", "token_uri": token_uri,
        });
        ServiceAccount::read(&file.to_string(), SCOPE).expect("a key file")
    }

    fn token(text: &str, expires_in: u64) -> crate::gateway::tests::fake::Reply {
        let body = serde_json::json!({"access_token": text, "expires_in": expires_in, "token_type": "Bearer"});
        reply(200, "", &body.to_string())
    }

    /// The headers of a request after it was signed.
    async fn carried(account: &ServiceAccount) -> Result<String, AuthError> {
        if let Some(refresh) = account.refresh() {
            refresh.await?;
        }
        let mut request = Request::new(Bytes::new());
        account.sign(&mut request, SystemTime::now())?;
        Ok(request.headers()[AUTHORIZATION].to_str().expect("text").to_owned())
    }

    #[test]
    fn assertion_is_the_one_that_openssl_signs() {
        let at = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let assertion = account("https://oauth2.example/token").assertion(at).expect("signed");
        let (signed, signature) = assertion.rsplit_once('.').expect("three parts");
        let parts: Vec<String> = signed
            .split('.')
            .map(|part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("text"))
            .collect();
        assert_eq!(
            parts,
            [
                r#"{"alg":"RS256","typ":"JWT","kid":"key-1"}"#,
                r#"{"iss":"bot@project.iam.example","scope":"https://www.googleapis.com/auth/cloud-platform","aud":"https://oauth2.example/token","iat":1767225600,"exp":1767229200}"#,
            ]
        );
        // openssl dgst -sha256 -sign test_key.pem, over the first two parts
        let expected = "PQjQnpBx70ZYL6X4JqRHlJkJdueY6dsXvwa1NKmFYS-y1usf0ig1j8z8ld-s871HrgSHWA36Rlacu4AgSnuEo48Q98_E2_Na567BNh5unv6DcxfPc53NZ6Y3QB4rmL1M80KK0-b1_icn4RICoLQ2tAXGTXojRdS9D7sdUWAO_SnM_GpX8zOWWWLME_357BRsNMV7xtKr0YcdGCJY_bLzXUpJsAieMzudSpBUhxVCadZejuzStub_SOtjIlESvpBRK1-yM2cbXdNwRIW-8DSqTh38jqdQ7cjuHOkpw9p_Ax7rkUB9lZYnN85xcKBSNWzkCdwP3Laiu3aP_vIVVa5kjA";
        assert_eq!(signature, expected);
    }

    #[tokio::test]
    async fn token_is_exchanged_once_and_carried_by_every_request() {
        let server = Fake::start(vec![token("one", 3600)]).await;
        let account = account(&server.url);
        let (first, second) = tokio::join!(carried(&account), carried(&account));
        assert_eq!((first.as_deref(), second.as_deref()), (Ok("Bearer one"), Ok("Bearer one")));
        assert_eq!(carried(&account).await.as_deref(), Ok("Bearer one"));
        assert_eq!(server.requests(), 1);
        let seen = server.seen.lock().expect("seen");
        assert!(
            seen.heads[0].to_lowercase().contains("content-type: application/x-www-form-urlencoded"),
            "{:?}",
            seen.heads
        );
        let body = seen.bodies[0].as_str().expect("a form").to_owned();
        let assertion = body.strip_prefix(&format!("grant_type={GRANT}&assertion=")).expect("the grant");
        assert_eq!(assertion.split('.').count(), 3);
        assert!(account.is_repeated_in("bad token one") && !format!("{account:?}").contains("one\""));
    }

    #[tokio::test]
    async fn token_is_renewed_before_it_expires_and_kept_if_that_fails() {
        // Both live for less than `EARLY`: each request renews them.
        let server = Fake::start(vec![token("one", 60), reply(503, "", "{}"), token("two", 60)]).await;
        let account = account(&server.url);
        assert_eq!(carried(&account).await.as_deref(), Ok("Bearer one"));
        assert_eq!(carried(&account).await.as_deref(), Ok("Bearer one"), "the server fails, and the token is good");
        assert_eq!(carried(&account).await.as_deref(), Ok("Bearer two"));
        assert_eq!(server.requests(), 3);
    }

    #[tokio::test]
    async fn refused_exchange_is_an_error_that_says_whether_it_lasts() {
        let refused = r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#;
        for (status, body, temporary) in
            [(400, refused, false), (429, "{}", true), (503, "{}", true), (200, "{}", true)]
        {
            let server = Fake::start(vec![reply(status, "", body)]).await;
            let error = carried(&account(&server.url)).await.expect_err("no token");
            assert_eq!((error.temporary, error.message.starts_with("no access token")), (temporary, true), "{error}");
        }
        let error = carried(&account("http://127.0.0.1:1/token")).await.expect_err("no server");
        assert!(error.temporary, "{error}");
    }

    #[tokio::test]
    async fn expired_token_is_never_sent() {
        let server = Fake::start(vec![token("one", 0), reply(503, "", "{}")]).await;
        let error = carried(&account(&server.url)).await.expect_err("expired at once");
        assert!(error.temporary, "{error}");
    }
}
