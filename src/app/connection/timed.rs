//! The bytes of a connection, with the time limits of heads, of the time between requests, and of writes.
//!
//! Knows no request: `progress` counts the heads and says whether the newest request is answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::clock::{Clock, Stage};
use super::progress::Progress;
use crate::base::inflight::{Holder, Lease};

/// The connection is closed if writing a response makes no progress for this long.
pub(super) const STALL: Duration = Duration::from_secs(10);
/// As [`STALL`], for a flush below TLS, whose progress is not visible: up to 64 KiB may wait there.
const FLUSH: Duration = Duration::from_secs(60);
/// An incomplete head is counted as in flight above this size, bytes.
const SMALL_HEAD: usize = 8 * 1024;

/// A stream whose reads fail if a head takes too long or does not begin, and whose writes fail if they make no
/// progress.
pub(super) struct Timed<S> {
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
    /// Makes the stream; the time limit of the first head begins now.
    pub(super) fn new(stream: S, progress: Arc<Progress>, holder: Holder) -> Self {
        let clock = Clock::new();
        Self { stream, progress, begun: Some(0), clock, writing: None, flushing: None, holder, head: None }
    }

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
