//! Time limits of a request body: on a pause, and on the whole body in proportion to its size.
//!
//! Knows no request and no response. A body that is already buffered starts no timer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// A body fails after this long without a byte.
pub const PAUSE: Duration = Duration::from_secs(10);
/// Unit of the limit on the whole body.
const MIB: u64 = 1024 * 1024;

/// Why a body failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyTimeout {
    /// No byte came for [`PAUSE`].
    #[error("no byte of the body came for {} s", PAUSE.as_secs())]
    Idle,
    /// The whole body was too slow.
    #[error(
        "{received} bytes of the body came in {} ms; the limit is {} ms for each started MiB (limits.body_timeout_ms)",
        allowed.as_millis(), a_mib.as_millis()
    )]
    TooSlow {
        /// Bytes received.
        received: u64,
        /// Time limit of that many bytes.
        allowed: Duration,
        /// Time limit of each started MiB.
        a_mib: Duration,
    },
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that fails with [`BodyTimeout`] when it is too slow.
#[derive(Debug)]
pub struct TimedBody<B> {
    body: B,
    a_mib: Duration,
    received: u64,
    /// Set while no byte has come since the timer was last checked.
    waits: bool,
    clock: Option<Clock>,
}

#[derive(Debug)]
struct Clock {
    began: Instant,
    /// First poll that had to wait after the newest byte.
    heard: Instant,
    due: Pin<Box<Sleep>>,
}

impl<B> TimedBody<B> {
    /// Limits `body` to `a_mib` for each started MiB: the first MiB has this long, and each further one adds as much.
    pub fn new(body: B, a_mib: Duration) -> Self {
        Self { body, a_mib, received: 0, waits: false, clock: None }
    }

    /// Time limit of the bytes received so far.
    fn allowed(&self) -> Duration {
        let begun = u32::try_from(self.received / MIB + 1).unwrap_or(u32::MAX);
        self.a_mib.saturating_mul(begun)
    }

    /// Returns ready once a limit is exceeded.
    fn poll_slow(&mut self, context: &mut Context<'_>) -> Poll<BodyTimeout> {
        let now = Instant::now();
        let allowed = self.allowed();
        let clock = self.clock.get_or_insert_with(|| Clock {
            began: now,
            heard: now,
            due: Box::pin(sleep_until(now + PAUSE.min(allowed))),
        });
        if !std::mem::replace(&mut self.waits, true) {
            clock.heard = now;
        }
        let (paused, late) = (clock.heard + PAUSE, clock.began + allowed);
        let due = paused.min(late);
        if clock.due.deadline() != due {
            clock.due.as_mut().reset(due);
        }
        ready!(clock.due.as_mut().poll(context));
        let slow = BodyTimeout::TooSlow { received: self.received, allowed, a_mib: self.a_mib };
        Poll::Ready(if late <= paused { slow } else { BodyTimeout::Idle })
    }
}

impl<B> Body for TimedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Pending => this.poll_slow(context).map(|slow| Some(Err(slow.into()))),
            Poll::Ready(Some(Ok(frame))) => {
                this.waits = false;
                this.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(other) => Poll::Ready(other.map(|result| result.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::sleep;

    use super::*;

    const A_MIB: Duration = Duration::from_secs(30);

    /// A body of `pieces`: the time before each piece, and its size. It never ends.
    fn body(pieces: Vec<(Duration, usize)>) -> TimedBody<impl Body<Data = Bytes, Error = Infallible> + Unpin> {
        let pieces = futures::stream::unfold(pieces.into_iter(), |mut pieces| async move {
            let Some((pause, bytes)) = pieces.next() else { return std::future::pending().await };
            sleep(pause).await;
            Some((Ok(Frame::data(Bytes::from(vec![0; bytes]))), pieces))
        });
        TimedBody::new(StreamBody::new(Box::pin(pieces)), A_MIB)
    }

    /// Bytes received, time of the failure, and the failure.
    async fn read(
        mut body: TimedBody<impl Body<Data = Bytes, Error = Infallible> + Unpin>,
    ) -> (u64, Duration, BodyTimeout) {
        let began = Instant::now();
        loop {
            match body.frame().await.expect("it never ends") {
                Ok(_) => {}
                Err(error) => {
                    let slow = *error.downcast_ref::<BodyTimeout>().expect("slow");
                    return (body.received, began.elapsed(), slow);
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_body_fails_ten_seconds_after_its_last_byte() {
        assert_eq!(read(body(Vec::new())).await, (0, PAUSE, BodyTimeout::Idle));
        let pause = PAUSE - Duration::from_millis(1);
        let (received, after, slow) = read(body(vec![(pause, 1), (pause, 1)])).await;
        assert_eq!((received, after, slow), (2, pause * 2 + PAUSE, BodyTimeout::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_body_fails_after_the_time_of_its_first_mib() {
        let drips = vec![(Duration::from_secs(7), 1); 100];
        let (received, after, slow) = read(body(drips)).await;
        assert_eq!((received, after), (4, A_MIB));
        assert!(matches!(slow, BodyTimeout::TooSlow { received: 4, .. }), "{slow}");
        assert!(slow.to_string().contains("limits.body_timeout_ms"), "{slow}");
    }

    #[tokio::test(start_paused = true)]
    async fn large_body_has_time_in_proportion_to_its_size() {
        let second = Duration::from_secs(1);
        // A third of a MiB per second is always fast enough; after that, the body arrives byte by byte.
        let fast = vec![(second, 350_000); 120];
        let received = 350_000 * 120;
        let (_, after, slow) = read(body([fast, vec![(second, 1); 2_000]].concat())).await;
        let allowed = A_MIB * u32::try_from(received / MIB + 1).expect("small");
        assert_eq!(after, allowed);
        assert!(matches!(slow, BodyTimeout::TooSlow { a_mib: A_MIB, .. }), "{slow}");
    }
}
