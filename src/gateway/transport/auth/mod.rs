//! Authentication: adds to a request the proof of who sends it.
//!
//! Knows no vendor and no meaning of a request. To add a scheme, add one file here, a variant of [`AuthScheme`], and
//! its line in [`build`].

mod service_account;
mod sigv4;
mod static_key;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

pub use service_account::ServiceAccount;
pub use sigv4::{Credentials, SigV4};
pub use static_key::StaticKey;

use crate::llm::AuthScheme;

/// Authenticates the requests to one endpoint.
pub trait Auth: fmt::Debug + Send + Sync {
    /// Gets what must be up to date before a request can be signed, such as a token. `None` if nothing must be fetched.
    ///
    /// # Errors
    /// The token could not be fetched.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the fetch; the next request tries again.
    fn refresh(&self) -> Option<BoxFuture<'_, Result<(), AuthError>>> {
        None
    }

    /// Signs a request, whose address is absolute and whose other headers and body are complete.
    ///
    /// # Errors
    /// The request cannot be signed.
    fn sign(&self, request: &mut Request<Bytes>, now: SystemTime) -> Result<(), AuthError>;

    /// Returns true if a text repeats a secret, in whole or in part, plain or encoded.
    fn is_repeated_in(&self, text: &str) -> bool;
}

/// Why a request cannot be authenticated. The message contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AuthError {
    pub message: String,
    /// Set if a retry a little later may succeed.
    pub temporary: bool,
}

impl AuthError {
    fn lasting(message: impl Into<String>) -> Self {
        Self { message: message.into(), temporary: false }
    }

    fn temporary(message: impl Into<String>) -> Self {
        Self { message: message.into(), temporary: true }
    }
}

/// Builds the authentication of an endpoint from the vendor's scheme, its key and its base URL. `None` if there is no
/// key and none is needed.
///
/// # Errors
/// Why the key is invalid, or that it is missing; contains no secret.
pub fn build(
    scheme: &AuthScheme,
    key: Option<&SecretString>,
    base_url: &str,
) -> Result<Option<Arc<dyn Auth>>, AuthError> {
    let needed = || AuthError::lasting("missing; this provider signs its requests with it");
    let auth: Arc<dyn Auth> = match scheme {
        AuthScheme::Key(header) => match key {
            None => return Ok(None),
            Some(key) => Arc::new(StaticKey::new(header, key.clone())?),
        },
        AuthScheme::SigV4 { service } => {
            let credentials = Credentials::parse(key.ok_or_else(needed)?)?;
            Arc::new(SigV4::new(credentials, region(base_url)?, *service))
        }
        AuthScheme::ServiceAccount { scope } => {
            Arc::new(ServiceAccount::read(key.ok_or_else(needed)?.expose_secret(), scope)?)
        }
    };
    Ok(Some(auth))
}

/// The AWS region in a host such as `bedrock-runtime.eu-west-1.amazonaws.com`.
fn region(base_url: &str) -> Result<String, AuthError> {
    let url = Url::parse(base_url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    let labels: Vec<&str> = host.split('.').collect();
    let end = labels.iter().position(|label| matches!(*label, "amazonaws" | "vpce"));
    match end.and_then(|end| labels.get(end.checked_sub(1)?)) {
        Some(region) => Ok((*region).to_owned()),
        None => Err(AuthError::lasting("the base URL contains no AWS region; expected a host of amazonaws.com")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::KeyHeader;

    #[test]
    fn each_scheme_is_built_from_the_endpoints_key() {
        let secret = |text: &str| SecretString::from(text.to_owned());
        let built = |scheme: &AuthScheme, key: Option<&str>, url: &str| {
            build(scheme, key.map(secret).as_ref(), url).map(|auth| auth.map(|auth| format!("{auth:?}")))
        };
        let bearer = AuthScheme::Key(KeyHeader::BEARER);
        assert_eq!(built(&bearer, None, "https://a.example"), Ok(None));
        let shown = built(&bearer, Some("sk-secret"), "https://a.example").expect("a key").expect("auth");
        assert!(!shown.contains("sk-secret"), "{shown}");
        let sigv4 = AuthScheme::SigV4 { service: "bedrock" };
        let aws = "https://bedrock-runtime.eu-west-1.amazonaws.com";
        let shown = built(&sigv4, Some("AKIDEXAMPLE:s3cretkey:t0ken"), aws).expect("credentials").expect("auth");
        assert!(shown.contains("eu-west-1") && !shown.contains("s3cretkey") && !shown.contains("t0ken"), "{shown}");
        let account = AuthScheme::ServiceAccount { scope: "s" };
        for (scheme, key, url) in [
            (&bearer, Some("line\nbreak"), aws),
            (&sigv4, None, aws),
            (&sigv4, Some("only-an-id"), aws),
            (&sigv4, Some("id:secret"), "https://a.example"),
            (&account, None, aws),
            (&account, Some("{}"), aws),
            (&account, Some("no JSON"), aws),
        ] {
            let error = built(scheme, key, url).expect_err("wrong");
            assert!(!error.temporary && key.is_none_or(|key| !error.message.contains(key)), "{error}");
        }
    }

    #[test]
    fn region_is_the_label_before_amazonaws() {
        for (url, expected) in [
            ("https://bedrock-runtime.us-east-1.amazonaws.com", Some("us-east-1")),
            ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/", Some("us-gov-west-1")),
            ("https://vpce-1a2b.bedrock-runtime.eu-west-1.vpce.amazonaws.com", Some("eu-west-1")),
            ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("https://amazonaws.com", None),
            ("https://a.example", None),
        ] {
            assert_eq!(region(url).ok().as_deref(), expected, "{url}");
        }
    }
}
