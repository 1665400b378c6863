//! The body of a response, in pieces, so that the HTTP library buffers a bounded part of it and the rest is counted as
//! in flight.
//!
//! Knows no connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::progress::Answering;
use crate::base::inflight::Lease;

/// A response body is passed to the HTTP library in pieces of this size, bytes; the rest of it is counted as in flight.
const PIECE: usize = 64 * 1024;

/// A response body that is passed on in pieces. Dropping it marks the end of the response.
pub(super) struct Pieces<B> {
    body: B,
    /// Rest of a large frame of the body.
    rest: Bytes,
    /// Counts the bytes that were not passed on yet.
    lease: Option<Lease>,
    _answering: Option<Answering>,
}

impl<B> Pieces<B> {
    /// `lease` counts the whole body as in flight.
    pub(super) fn new(body: B, lease: Option<Lease>, answering: Option<Answering>) -> Self {
        Self { body, rest: Bytes::new(), lease, _answering: answering }
    }

    fn next_piece(&mut self) -> Bytes {
        let piece = self.rest.split_to(PIECE.min(self.rest.len()));
        if let Some(lease) = &mut self.lease {
            lease.shrink(piece.len());
        }
        piece
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Pieces<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) if data.len() > PIECE => self.rest = data,
                Some(Ok(Ok(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Ok(Err(frame))) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let hint = self.body.size_hint();
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}
