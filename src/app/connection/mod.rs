//! One HTTP/1 connection and its time limits: for a request's head, for its body, for a response that the client does
//! not read, and for the time between two requests. The last is so long that clients do not send a request on a
//! connection that is just being closed.
//!
//! Knows no path and no response content.

mod body;
mod clock;
mod progress;
mod timed;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use self::body::Pieces;
use self::progress::{Answering, Progress};
use self::timed::Timed;
use crate::base::body::TimedBody;
use crate::base::inflight::{Holder, Lease};

/// Size of the HTTP library's buffer for one connection in each direction, bytes. A request's head must fit into it.
const BUFFER: usize = 128 * 1024;

/// Serves a connection until it ends, `holder` is evicted, or `stop` is cancelled and the current response is sent.
/// `a_mib` bounds the time for each started MiB of a request's body. `answer` returns a response and the lease that
/// counts its body.
pub(super) async fn serve<S, A, F, B>(stream: S, answer: A, holder: Holder, a_mib: Duration, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<TimedBody<Incoming>>) -> F,
    F: Future<Output = (Response<B>, Option<Lease>)>,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let progress = Arc::new(Progress::default());
    let handler = hyper::service::service_fn(|request: Request<Incoming>| {
        let answering = Answering::begin(&progress);
        let answer = answer(request.map(|body| TimedBody::new(body, a_mib)));
        async move {
            let (response, lease) = answer.await;
            let wrap = |body, answering| Pieces::new(body, lease, answering);
            // The only informational status that is a final response is 101, a change of protocol.
            if response.status().is_informational() {
                answering.for_good();
                return Ok::<_, Infallible>(response.map(|body| wrap(body, None)));
            }
            Ok(response.map(|body| wrap(body, Some(answering))))
        }
    });
    let stream = Timed::new(stream, Arc::clone(&progress), holder.clone());
    let connection = http1::Builder::new()
        // Both time limits are our own: hyper's would set and remove a timer for every request.
        .header_read_timeout(None)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), handler)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        // An error of the connection concerns only the peer.
        _ = connection.as_mut() => {}
        // Dropping the connection frees the memory that it holds.
        () = holder.evicted() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                _ = connection => {}
                () = holder.evicted() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
