//! One HTTP/1 connection, by its clocks: a request's head must come in time once it has begun, and a connection between two
//! requests may idle for long, so that clients that keep theirs do not send into one that is just being closed.
//!
//! Knows no path and no answer.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

/// A request's head must have come this long after its first byte, the first one after the connection.
const HEAD: Duration = Duration::from_secs(10);
/// A connection that is kept for the next request is closed after this: longer than clients and load balancers keep theirs
/// (600 s at most), so that it is they who close.
const IDLE: Duration = Duration::from_secs(620);
/// While an answer is under way, it is looked so often whether it is over: hyper asks for no byte of a head before it is
/// woken.
const LOOK: Duration = Duration::from_secs(60);

/// Answers the requests of a connection until it ends, or `stop` has come and the answer under way is told.
pub(super) async fn serve<S, A, F, B>(stream: S, answer: A, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let progress = Arc::new(Progress::default());
    let handler = hyper::service::service_fn(|request| {
        let answering = Answering::begin(&progress);
        let answer = answer(request);
        async move {
            let response = answer.await;
            // As an answer there is but one such status: the protocol changes.
            if response.status().is_informational() {
                answering.for_good();
                return Ok::<_, Infallible>(response.map(|body| Told { body, _answering: None }));
            }
            Ok(response.map(|body| Told { body, _answering: Some(answering) }))
        }
    });
    let stream = Timed { stream, progress: Arc::clone(&progress), begun: Some(0), clock: Clock::new() };
    let connection = http1::Builder::new()
        // Both clocks are ours: hyper's is set and taken back with every request.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), handler)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        // A connection that ends badly is the peer's affair.
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// How far the connection is.
#[derive(Debug, Default)]
struct Progress {
    /// Heads that have come.
    heads: AtomicU64,
    /// The newest request is not answered yet.
    answering: AtomicBool,
    /// The protocol has changed: there will be no head.
    upgraded: AtomicBool,
}

/// A request between its head and the end of its answer.
struct Answering(Option<Arc<Progress>>);

impl Answering {
    fn begin(progress: &Arc<Progress>) -> Self {
        progress.heads.fetch_add(1, Ordering::Relaxed);
        progress.answering.store(true, Ordering::Relaxed);
        Self(Some(Arc::clone(progress)))
    }

    fn for_good(mut self) {
        if let Some(progress) = self.0.take() {
            progress.upgraded.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(progress) = &self.0 {
            progress.answering.store(false, Ordering::Relaxed);
        }
    }
}

/// An answer's body; dropped, the answer is told.
struct Told<B> {
    body: B,
    _answering: Option<Answering>,
}

impl<B: Body + Unpin> Body for Told<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose reads fail when a head takes too long, or does not begin.
struct Timed<S> {
    stream: S,
    progress: Arc<Progress>,
    /// The number of the head that has begun.
    begun: Option<u64>,
    clock: Clock,
}

impl<S> Timed<S> {
    /// Whether the head that is waited for is overdue.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let progress = &self.progress;
        if progress.upgraded.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let head = progress.heads.load(Ordering::Relaxed);
        let stage = if progress.answering.load(Ordering::Relaxed) {
            Stage::Answer
        } else if self.begun == Some(head) {
            Stage::Head
        } else {
            Stage::Idle
        };
        self.clock.poll(context, (head, stage))
    }
}

/// What a connection is at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No byte of the next head has come.
    Idle,
    /// Its first has.
    Head,
    /// It is being answered.
    Answer,
}

/// The clock of a head, by its number. What it is set to may be too early, and then it is set again, but never too late:
/// so a request does not have to touch it.
struct Clock {
    at: (u64, Stage),
    due: Instant,
    set: Pin<Box<Sleep>>,
}

impl Clock {
    /// The first head has begun with the connection.
    fn new() -> Self {
        Self { at: (0, Stage::Head), due: Instant::now() + HEAD, set: Box::pin(sleep(HEAD)) }
    }

    fn poll(&mut self, context: &mut Context<'_>, at: (u64, Stage)) -> Poll<()> {
        if self.at != at {
            self.at = at;
            self.due = Instant::now()
                + match at.1 {
                    Stage::Idle => IDLE,
                    Stage::Head => HEAD,
                    Stage::Answer => LOOK,
                };
        }
        if self.set.deadline() > self.due {
            self.set.as_mut().reset(self.due);
        }
        loop {
            ready!(self.set.as_mut().poll(context));
            if self.set.deadline() < self.due {
                self.set.as_mut().reset(self.due);
            } else if at.1 == Stage::Answer {
                self.due = Instant::now() + LOOK;
            } else {
                return Poll::Ready(());
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => {
                ready!(self.poll_overdue(context));
                Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
            }
            Poll::Ready(result) => {
                if buffer.filled().len() > before && !self.progress.answering.load(Ordering::Relaxed) {
                    self.begun = Some(self.progress.heads.load(Ordering::Relaxed));
                }
                Poll::Ready(result)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const REQUEST: &[u8] = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi";

    /// A client's end; what is asked is answered with its own body after a time.
    fn connected(takes: Duration) -> DuplexStream {
        let (client, server) = tokio::io::duplex(1 << 16);
        let answer = move |request: Request<Incoming>| async move {
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            sleep(takes).await;
            Response::new(Full::new(body))
        };
        tokio::spawn(serve(server, answer, CancellationToken::new()));
        client
    }

    async fn answered(client: &mut DuplexStream) {
        let mut told = Vec::new();
        while !told.ends_with(b"\r\n\r\nhi") {
            assert!(client.read_buf(&mut told).await.expect("read") > 0, "closed after {told:?}");
        }
        assert!(told.starts_with(b"HTTP/1.1 200"), "{told:?}");
    }

    /// How long it takes until the connection is closed.
    async fn closed(client: &mut DuplexStream) -> Duration {
        let began = Instant::now();
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.expect("an end");
        assert!(told.is_empty(), "{told:?}");
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_answers_long_after_the_clock_of_a_head() {
        for takes in [Duration::ZERO, HEAD * 3] {
            let mut client = connected(takes);
            for _ in 0..3 {
                client.write_all(REQUEST).await.expect("write");
                answered(&mut client).await;
                sleep(HEAD * 20).await;
            }
            // But not for ever.
            let after = closed(&mut client).await;
            assert!(after + HEAD * 20 >= IDLE && after < IDLE, "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_is_given_up() {
        for asked_before in [0, 2] {
            let mut client = connected(Duration::ZERO);
            for _ in 0..asked_before {
                client.write_all(REQUEST).await.expect("write");
                answered(&mut client).await;
                sleep(HEAD * 2).await;
            }
            // A byte now and then winds no clock up.
            let began = Instant::now();
            while client.write_all(b"x").await.is_ok() {
                assert!(began.elapsed() < HEAD * 2, "after {asked_before} requests a slow head is still read");
                sleep(Duration::from_secs(1)).await;
            }
            assert!(began.elapsed() >= HEAD, "{:?}", began.elapsed());
        }
        let mut silent = connected(Duration::ZERO);
        assert_eq!(closed(&mut silent).await.as_secs(), HEAD.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_and_a_slow_body_are_no_slow_head() {
        let mut client = connected(HEAD * 3);
        for _ in 0..2 {
            let (last, but_last) = REQUEST.split_last().expect("bytes");
            client.write_all(&but_last[..20]).await.expect("write");
            sleep(HEAD / 2).await;
            client.write_all(&but_last[20..]).await.expect("write");
            sleep(HEAD * 2).await;
            client.write_all(&[*last]).await.expect("write");
            answered(&mut client).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_upgrade_no_clock_runs() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let answer = |mut request: Request<Incoming>| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut upgraded = TokioIo::new(upgrade.await.expect("upgraded"));
                let mut byte = [0];
                while upgraded.read_exact(&mut byte).await.is_ok() && upgraded.write_all(&byte).await.is_ok() {}
            });
            let mut response = Response::new(Full::new(bytes::Bytes::new()));
            *response.status_mut() = http::status::StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("upgrade", http::HeaderValue::from_static("echo"));
            response.headers_mut().insert("connection", http::HeaderValue::from_static("upgrade"));
            response
        };
        tokio::spawn(serve(server, answer, CancellationToken::new()));
        let head = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        client.write_all(head).await.expect("write");
        let mut told = Vec::new();
        while !told.ends_with(b"\r\n\r\n") {
            assert!(client.read_buf(&mut told).await.expect("read") > 0);
        }
        for _ in 0..3 {
            client.write_all(b"x").await.expect("write");
            let mut byte = [0];
            client.read_exact(&mut byte).await.expect("echoed");
            sleep(HEAD * 2).await;
        }
    }
}
