//! Reads request bodies up to a size limit and counts them as in flight. Knows nothing of their content.

use std::ops::Deref;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::HeaderMap;
use http::header::EXPECT;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::base::body::BodyTimeout;
use crate::base::inflight::{Exceeded, Holder, Lease};

/// Of a body that is too long, at most this many more bytes are read and dropped. Without reading on, a client that is
/// still sending when its connection closes would see a reset instead of the answer.
const FORGOTTEN_BYTES: usize = 128 * 1024 * 1024;
/// Longest time for reading and dropping the rest of a body that is too long.
const FORGOTTEN_TIME: Duration = Duration::from_secs(10);
/// First buffer of a body that comes in several pieces, bytes. It doubles when it is full.
const FIRST_ROOM: usize = 16 * 1024;

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The body is longer than this many bytes.
    TooLong(usize),
    /// The client closed the connection before the end of the body.
    Cut,
    /// The body came too slowly.
    Timeout(BodyTimeout),
    /// The limit on bytes in flight is reached.
    InFlight(Exceeded),
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(limit) => write!(formatter, "the body is longer than {limit} bytes (request_bytes)"),
            Self::Cut => formatter.write_str("the body ended too early"),
            Self::Timeout(timeout) => timeout.fmt(formatter),
            Self::InFlight(exceeded) => exceeded.fmt(formatter),
        }
    }
}

impl From<axum::Error> for BodyError {
    fn from(error: axum::Error) -> Self {
        error.into_inner().downcast_ref::<BodyTimeout>().map_or(Self::Cut, |timeout| Self::Timeout(*timeout))
    }
}

impl From<Exceeded> for BodyError {
    fn from(exceeded: Exceeded) -> Self {
        Self::InFlight(exceeded)
    }
}

/// A complete body, and the lease that counts its bytes.
#[derive(Debug)]
pub(super) struct Whole {
    bytes: Bytes,
    lease: Lease,
}

impl Whole {
    /// Drops the body and keeps its lease, for the data that was made from the body.
    pub(super) fn into_lease(self) -> Lease {
        self.lease
    }

    /// Also counts the memory that the body may take once it is parsed as JSON.
    ///
    /// # Errors
    /// [`BodyError::InFlight`].
    pub(super) fn count_as_json(&mut self) -> Result<(), BodyError> {
        Ok(self.lease.grow(json_bytes(&self.bytes))?)
    }

    pub(super) fn into_parts(self) -> (Bytes, Lease) {
        (self.bytes, self.lease)
    }
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Upper bound of the memory that a JSON text takes once it is parsed, bytes: its strings, and one value for each
/// comma, colon and opening bracket. Those inside strings count too, which for prose adds about the length of the text.
pub(super) fn json_bytes(text: &[u8]) -> usize {
    /// Size of a JSON value and its slot in a list, bytes.
    const VALUE: usize = 80;
    let marks = text.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
    text.len().saturating_add(marks.saturating_mul(VALUE))
}

/// Reads the body of a request with `headers`, of at most `limit` bytes, and counts it for `holder`.
///
/// # Errors
/// [`BodyError`]. Except after [`BodyError::Cut`], the client can still get an answer.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    holder: &Holder,
) -> Result<Whole, BodyError> {
    let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if told > limit {
        // A client that sends `Expect: 100-continue` has not sent its body yet.
        if !headers.contains_key(EXPECT) {
            forget(body).await;
        }
        return Err(BodyError::TooLong(limit));
    }
    let mut lease = holder.take(0)?;
    let mut whole = Bytes::new();
    let mut parts = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if whole.is_empty() && parts.is_empty() {
            lease.grow(data.len())?;
            whole = data;
            continue;
        }
        let needed = parts.len().max(whole.len()) + data.len();
        if needed > limit {
            drop((parts, whole, lease));
            forget(body).await;
            return Err(BodyError::TooLong(limit));
        }
        if needed > parts.capacity() {
            // The content-length reserves no memory: the buffer grows with the bytes that arrive.
            let room = needed.max(parts.capacity() * 2).max(FIRST_ROOM).min(limit.max(needed));
            lease.grow(room - parts.capacity())?;
            parts.reserve_exact(room - parts.len());
        }
        if !whole.is_empty() {
            parts.extend_from_slice(&whole);
            lease.shrink(whole.len());
            whole = Bytes::new();
        }
        parts.extend_from_slice(&data);
    }
    match whole {
        _ if !parts.is_empty() => Ok(Whole { bytes: parts.into(), lease }),
        whole if whole.len() > limit => Err(BodyError::TooLong(limit)),
        whole => Ok(Whole { bytes: whole, lease }),
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
    // A client that is slower than this sees a reset.
    let _ = timeout(FORGOTTEN_TIME, reading).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::base::inflight::{Account, Metrics};

    fn account(limit: usize) -> Account {
        Account::new("limits.inflight_bytes", limit, Metrics::default())
    }

    /// A body of `count` pieces of `bytes` bytes, without a content length.
    fn pieces(count: usize, bytes: usize) -> Body {
        let pieces = (0..count).map(move |_| Ok::<_, Infallible>(Bytes::from(vec![b'x'; bytes])));
        Body::from_stream(futures::stream::iter(pieces))
    }

    #[tokio::test]
    async fn body_counts_until_it_is_dropped() {
        let account = account(10 << 20);
        let holder = account.holder();
        for (count, bytes) in [(0, 0), (1, 3), (2, 5_000), (300, 10_000)] {
            let whole = read(&HeaderMap::new(), pieces(count, bytes), 4 << 20, &holder).await.expect("a body");
            assert_eq!(whole.len(), count * bytes);
            assert!(account.used() >= whole.len() && account.used() <= 2 * whole.len() + FIRST_ROOM, "{count}");
            drop(whole);
            assert_eq!(account.used(), 0);
        }
    }

    #[tokio::test]
    async fn body_over_the_bytes_in_flight_is_refused() {
        let account = account(1 << 20);
        let error = read(&HeaderMap::new(), pieces(1_000, 10_000), 64 << 20, &account.holder()).await;
        let error = error.expect_err("over its share");
        assert!(matches!(error, BodyError::InFlight(Exceeded::PerHolder { .. })), "{error}");
        assert!(error.to_string().contains("limits.inflight_bytes"), "{error}");
        assert_eq!(account.used(), 0);
    }

    #[tokio::test]
    async fn dense_json_is_refused_before_it_is_parsed() {
        let account = account(10 << 20);
        let dense = Body::from(format!("[{}0]", "0,".repeat(100_000)));
        let mut dense = read(&HeaderMap::new(), dense, 1 << 20, &account.holder()).await.expect("a body");
        assert!(matches!(dense.count_as_json(), Err(BodyError::InFlight(Exceeded::PerHolder { .. }))));
        let prose = Body::from(format!(r#"{{"content":"{}"}}"#, "Words, and more words. ".repeat(10_000)));
        let mut prose = read(&HeaderMap::new(), prose, 1 << 20, &account.holder()).await.expect("a body");
        prose.count_as_json().expect("room");
        assert!(prose.into_lease().bytes() < 6 * 230_000);
    }
}
