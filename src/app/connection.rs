//! One HTTP/1 connection and its time limits: for a request's head, for its body, for a response that the client does
//! not read, and for the time between two requests. The last is so long that clients do not send a request on a
//! connection that is just being closed.
//!
//! Knows no path and no response content.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use crate::base::body::TimedBody;
use crate::base::inflight::{Holder, Lease};

/// Longest time from the first byte of a request's head to its last; for the first head, from the start of the
/// connection.
const HEAD: Duration = Duration::from_secs(10);
/// Longest time that a connection is kept for the next request. It is longer than clients and load balancers keep
/// theirs (at most 600 s), so that they close the connection and not the daemon.
const IDLE: Duration = Duration::from_secs(620);
/// The connection is closed if writing a response makes no progress for this long.
const STALL: Duration = Duration::from_secs(10);
/// As [`STALL`], for a flush below TLS, whose progress is not visible: up to 64 KiB may wait there.
const FLUSH: Duration = Duration::from_secs(60);
/// A response body is passed to the HTTP library in pieces of this size, bytes; the rest of it is counted as in flight.
const PIECE: usize = 64 * 1024;
/// Size of the HTTP library's buffer for one connection in each direction, bytes. A request's head must fit into it.
const BUFFER: usize = 128 * 1024;
/// An incomplete head is counted as in flight above this size, bytes.
const SMALL_HEAD: usize = 8 * 1024;
/// Poll interval while a response is being written: hyper does not read the next request head until it is woken.
const LOOK: Duration = Duration::from_secs(60);

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
            let wrap = |body, answering| Told { body, rest: Bytes::new(), lease, _answering: answering };
            // The only informational status that is a final response is 101, a change of protocol.
            if response.status().is_informational() {
                answering.for_good();
                return Ok::<_, Infallible>(response.map(|body| wrap(body, None)));
            }
            Ok(response.map(|body| wrap(body, Some(answering))))
        }
    });
    let stream = Timed {
        stream,
        progress: Arc::clone(&progress),
        begun: Some(0),
        clock: Clock::new(),
        writing: None,
        flushing: None,
        holder: holder.clone(),
        head: None,
    };
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

/// The state of a connection.
#[derive(Debug, Default)]
struct Progress {
    /// Number of heads that were received.
    heads: AtomicU64,
    /// Set while the newest request is not answered.
    answering: AtomicBool,
    /// Set after a change of protocol: no further head will come.
    upgraded: AtomicBool,
}

/// Marks the time from a request's head to the end of its response.
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

/// A response body that is passed on in pieces. Dropping it marks the end of the response.
struct Told<B> {
    body: B,
    /// Rest of a large frame of the body.
    rest: Bytes,
    /// Counts the bytes that were not passed on yet.
    lease: Option<Lease>,
    _answering: Option<Answering>,
}

impl<B> Told<B> {
    fn next_piece(&mut self) -> Bytes {
        let piece = self.rest.split_to(PIECE.min(self.rest.len()));
        if let Some(lease) = &mut self.lease {
            lease.shrink(piece.len());
        }
        piece
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Told<B> {
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

/// A stream whose reads fail if a head takes too long or does not begin, and whose writes fail if they make no
/// progress.
struct Timed<S> {
    stream: S,
    progress: Arc<Progress>,
    /// Number of the head that has begun.
    begun: Option<u64>,
    clock: Clock,
    /// Timer of a blocked write, and below of a blocked flush.
    writing: Option<Pin<Box<Sleep>>>,
    flushing: Option<Pin<Box<Sleep>>>,
    holder: Holder,
    /// Bytes of the head that is being received, and a lease for them if there are many.
    head: Option<(usize, Option<Lease>)>,
}

impl<S> Timed<S> {
    /// Returns ready if the expected head is overdue.
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
        if stage != Stage::Head {
            self.head = None;
        }
        self.clock.poll(context, (head, stage))
    }

    /// Counts bytes of a head.
    fn charge_head(&mut self, more: usize) {
        let (bytes, lease) = self.head.get_or_insert((0, None));
        *bytes += more;
        if *bytes > SMALL_HEAD {
            match lease {
                Some(lease) => lease.set(*bytes),
                None => *lease = Some(self.holder.charge(*bytes)),
            }
        }
    }
}

/// Fails a write or flush that is blocked for longer than `patience`.
fn timed<T>(
    clock: &mut Option<Pin<Box<Sleep>>>,
    progress: &Progress,
    context: &mut Context<'_>,
    result: Poll<io::Result<T>>,
    patience: Duration,
) -> Poll<io::Result<T>> {
    if result.is_ready() {
        *clock = None;
        return result;
    }
    // An upgraded connection has its own time limits.
    if progress.upgraded.load(Ordering::Relaxed) {
        return Poll::Pending;
    }
    ready!(clock.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(context));
    Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
}

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It waits for the first byte of the next head.
    Idle,
    /// It is receiving a head.
    Head,
    /// It is answering a request.
    Answer,
}

/// The timer of a head, identified by the head's number. It may be set to a time that is too early, and is then set
/// again, but never to one that is too late; so a request does not need to touch it.
struct Clock {
    at: (u64, Stage),
    due: Instant,
    set: Pin<Box<Sleep>>,
}

impl Clock {
    /// The first head begins with the connection.
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
                    let head = Some(self.progress.heads.load(Ordering::Relaxed));
                    if std::mem::replace(&mut self.begun, head) != head {
                        self.head = None;
                    }
                    self.charge_head(buffer.filled().len() - before);
                }
                Poll::Ready(result)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        let this = &mut *self;
        timed(&mut this.writing, &this.progress, context, result, STALL)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        let this = &mut *self;
        timed(&mut this.flushing, &this.progress, context, result, FLUSH)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        let this = &mut *self;
        timed(&mut this.writing, &this.progress, context, result, STALL)
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
    use crate::base::inflight::{Account, Metrics};

    const REQUEST: &[u8] = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi";

    /// Time limit of each MiB of a body.
    const A_MIB: Duration = Duration::from_secs(600);

    fn account() -> Account {
        Account::new("limits.inflight_bytes", 16 << 20, Metrics::default())
    }

    async fn echo(request: Request<TimedBody<Incoming>>) -> Response<Full<Bytes>> {
        match request.into_body().collect().await {
            Ok(body) => Response::new(Full::new(body.to_bytes())),
            Err(error) => Response::new(Full::from(error.to_string())),
        }
    }

    /// A client's end; what is asked is answered with its own body after a time.
    fn connected(takes: Duration) -> DuplexStream {
        let (client, server) = tokio::io::duplex(1 << 16);
        let answer = move |request: Request<TimedBody<Incoming>>| async move {
            let response = echo(request).await;
            sleep(takes).await;
            (response, None)
        };
        tokio::spawn(serve(server, answer, account().holder(), A_MIB, CancellationToken::new()));
        client
    }

    /// The client's end of a connection whose responses have this many bytes, counted in `account`.
    fn answering(account: &Account, bytes: usize) -> DuplexStream {
        let (client, server) = tokio::io::duplex(1 << 16);
        let holder = account.holder();
        let answer = {
            let holder = holder.clone();
            move |_: Request<TimedBody<Incoming>>| {
                let lease = holder.take(bytes).expect("room");
                std::future::ready((Response::new(Full::from(vec![b'x'; bytes])), Some(lease)))
            }
        };
        tokio::spawn(serve(server, answer, holder, A_MIB, CancellationToken::new()));
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
            let (but_last, last) = REQUEST.split_at(REQUEST.len() - 2);
            client.write_all(&but_last[..20]).await.expect("write");
            sleep(HEAD / 2).await;
            client.write_all(&but_last[20..]).await.expect("write");
            for byte in last {
                sleep(HEAD * 9 / 10).await;
                client.write_all(&[*byte]).await.expect("write");
            }
            answered(&mut client).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_body_ends_its_connection_with_an_error() {
        let mut client = connected(Duration::ZERO);
        client.write_all(&REQUEST[..REQUEST.len() - 1]).await.expect("write");
        let began = Instant::now();
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.expect("an end");
        assert_eq!(began.elapsed().as_secs(), 10);
        let told = String::from_utf8_lossy(&told);
        assert!(told.ends_with("no byte of the body came for 10 s"), "{told}");
    }

    #[tokio::test(start_paused = true)]
    async fn unread_response_ends_its_connection() {
        let account = account();
        let mut client = answering(&account, 1 << 20);
        client.write_all(REQUEST).await.expect("write");
        let began = Instant::now();
        // A slow reader takes some bytes before each timeout.
        let mut some = vec![0; 8 * 1024];
        for _ in 0..3 {
            sleep(STALL * 9 / 10).await;
            client.read_exact(&mut some).await.expect("a part of the answer");
        }
        assert!(account.used() > 700_000, "what is not taken counts: {}", account.used());
        while account.used() > 0 {
            sleep(Duration::from_millis(100)).await;
            assert!(began.elapsed() < STALL * 5, "it is still held");
        }
        let after = began.elapsed() - STALL * 27 / 10;
        assert!(after >= STALL && after < STALL * 3 / 2, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn read_response_is_complete_and_not_counted() {
        let account = account();
        let mut client = answering(&account, 1_000_003);
        for _ in 0..2 {
            client.write_all(REQUEST).await.expect("write");
            let mut told = Vec::new();
            while !told.windows(4).any(|end| end == b"\r\n\r\n") {
                told.push(client.read_u8().await.expect("a head"));
            }
            assert!(String::from_utf8_lossy(&told).contains("content-length: 1000003"), "{told:?}");
            let mut body = vec![0; 1_000_003];
            client.read_exact(&mut body).await.expect("the body");
            assert!(body.iter().all(|byte| *byte == b'x'));
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(account.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn evicted_connection_is_closed() {
        let account = account();
        let mut client = answering(&account, 5 << 20);
        client.write_all(REQUEST).await.expect("write");
        while account.used() == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..3).map(|_| account.holder()).collect();
        let _leases: Vec<_> = others.iter().map(|other| other.take(4 << 20)).collect();
        assert!(others.iter().all(|other| !other.is_evicted()));
        let began = Instant::now();
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.expect("an end");
        assert!(told.len() < 5 << 20 && began.elapsed() < STALL, "{} bytes", told.len());
    }

    #[tokio::test(start_paused = true)]
    async fn large_head_counts_while_it_is_received() {
        let account = account();
        let mut client = answering(&account, 1);
        client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nx: ").await.expect("write");
        client.write_all(&[b'x'; 50_000]).await.expect("write");
        while account.used() < 50_000 {
            sleep(Duration::from_millis(1)).await;
        }
        client.write_all(b"\r\n\r\n").await.expect("write");
        let mut told = vec![0; 12];
        client.read_exact(&mut told).await.expect("an answer");
        assert_eq!(told, b"HTTP/1.1 200");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(account.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_upgrade_no_clock_runs() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let answer = |mut request: Request<TimedBody<Incoming>>| async move {
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
            (response, None)
        };
        tokio::spawn(serve(server, answer, account().holder(), A_MIB, CancellationToken::new()));
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
