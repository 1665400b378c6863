//! Request bodies, read up to a limit. Knows nothing of what is in them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::HeaderMap;
use http::header::EXPECT;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

/// What is read and forgotten of a body that is too long: a client that is still sending when its connection closes
/// sees a reset in place of the answer.
const FORGOTTEN_BYTES: usize = 128 * 1024 * 1024;
/// So long at most.
const FORGOTTEN_TIME: Duration = Duration::from_secs(10);

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// Longer than so many bytes.
    TooLong(usize),
    /// The client went away in it.
    Cut,
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(limit) => write!(formatter, "the body is longer than {limit} bytes"),
            Self::Cut => formatter.write_str("the body was cut"),
        }
    }
}

/// Reads the body of a request with `headers`, of at most `limit` bytes.
///
/// # Errors
/// [`BodyError`]: there is still somebody to answer to, but for a cut.
pub(super) async fn read(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, BodyError> {
    let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if told > limit {
        // Who expects to be asked for the body has not sent it yet.
        if !headers.contains_key(EXPECT) {
            forget(body).await;
        }
        return Err(BodyError::TooLong(limit));
    }
    let mut whole = Bytes::new();
    let mut parts = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Cut)?.into_data() else { continue };
        if whole.is_empty() && parts.is_empty() {
            whole = data;
            continue;
        }
        if parts.is_empty() {
            parts.reserve(told.max(whole.len() + data.len()));
            parts.extend_from_slice(&whole);
        }
        if parts.len() + data.len() > limit {
            drop(parts);
            forget(body).await;
            return Err(BodyError::TooLong(limit));
        }
        parts.extend_from_slice(&data);
    }
    match whole {
        _ if !parts.is_empty() => Ok(parts.into()),
        whole if whole.len() > limit => Err(BodyError::TooLong(limit)),
        whole => Ok(whole),
    }
}

async fn forget(mut body: Body) {
    let reading = async {
        let mut left = FORGOTTEN_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Whoever is slower than that gets the reset.
    let _ = timeout(FORGOTTEN_TIME, reading).await;
}
