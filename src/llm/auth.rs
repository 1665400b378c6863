//! Describes how a vendor authenticates requests. The transport does it.
//!
//! Knows no key and no clock.

use http::{HeaderName, HeaderValue};

/// A way to authenticate requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthScheme {
    /// The endpoint's key in a header.
    Key(KeyHeader),
    /// AWS Signature Version 4, with the endpoint's key as `ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]`. The region
    /// is part of the host, as in `bedrock-runtime.eu-west-1.amazonaws.com`.
    SigV4 {
        /// The name of the service in signatures.
        service: &'static str,
    },
    /// An OAuth 2.0 access token of a Google service account, whose key file (JSON) is the endpoint's key.
    ServiceAccount {
        /// The scope of the token.
        scope: &'static str,
    },
}

/// A header with the endpoint's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHeader {
    /// The header's name, in lower case.
    name: &'static str,
    /// Text before the key.
    prefix: &'static str,
}

impl KeyHeader {
    /// `Authorization: Bearer KEY`.
    pub const BEARER: Self = Self { name: "authorization", prefix: "Bearer " };

    /// `NAME: KEY`. The name is in lower case.
    pub const fn named(name: &'static str) -> Self {
        Self { name, prefix: "" }
    }

    /// The header with this key, marked as sensitive. `None` if the key has characters that no header can hold.
    pub fn with(self, key: &str) -> Option<(HeaderName, HeaderValue)> {
        let mut value = HeaderValue::from_str(&format!("{}{key}", self.prefix)).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_static(self.name), value))
    }
}
