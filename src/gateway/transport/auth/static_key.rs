//! A key in a header, the same for every request.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Auth, AuthError};
use crate::base::secret;
use crate::llm::KeyHeader;

/// A key in a header.
#[derive(Debug)]
pub struct StaticKey {
    name: HeaderName,
    /// Marked as sensitive.
    value: HeaderValue,
    key: SecretString,
}

impl StaticKey {
    /// `key` in `header`.
    ///
    /// # Errors
    /// The key has characters that no header can hold.
    pub fn new(header: &KeyHeader, key: SecretString) -> Result<Self, AuthError> {
        let unfit = || AuthError::lasting("the key has characters that are not allowed in a header");
        let (name, value) = header.with(key.expose_secret()).ok_or_else(unfit)?;
        Ok(Self { name, value, key })
    }
}

impl Auth for StaticKey {
    fn sign(&self, request: &mut Request<Bytes>, _now: SystemTime) -> Result<(), AuthError> {
        request.headers_mut().insert(self.name.clone(), self.value.clone());
        Ok(())
    }

    fn is_repeated_in(&self, text: &str) -> bool {
        secret::repeats(text, self.key.expose_secret())
    }
}
