//! Poll functions of one WebSocket. Its buffers are bounded and counted as in flight, and a peer that stops reading is
//! detected.
//!
//! tungstenite writes the answer to each ping into an unbounded buffer. Reading stops here while too many pongs wait,
//! so a peer that pings and does not read cannot fill the memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::progress::Traffic;
use super::{Incoming, WRITE_STALL, WsError, classify};
use crate::base::inflight::{Holder, Lease};

/// Reading stops while more pongs than this wait to be written, bytes.
pub(super) const PONG_BYTES: usize = 16 * 1024;
/// Frame overhead of a pong, bytes: header and mask.
const PONG_HEAD: usize = 6;
/// A partly received message is counted as in flight above this size, bytes; most messages are smaller.
const SMALL_BYTES: u64 = 4 * 1024;
/// Interval at which a blocked write is checked for progress.
pub(super) const WRITE_LOOK: Duration = Duration::from_millis(500);

/// A WebSocket with the counts of its bytes and the timer of its writes.
#[derive(Debug)]
pub(super) struct Line<S> {
    pub(super) ws: WebSocketStream<S>,
    traffic: Arc<Traffic>,
    pub(super) holder: Option<Holder>,
    /// Bytes of pongs queued since the last complete flush.
    pongs: usize,
    /// Bytes read from the stream when the newest message was complete.
    read_before: u64,
    /// Bytes of a partly received message.
    incoming: Option<Lease>,
    /// Bytes that the peer has not read.
    outgoing: Option<Lease>,
    stall: Option<Stall>,
}

/// Timer of a blocked write.
#[derive(Debug)]
struct Stall {
    seen: u64,
    since: Instant,
    look: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    pub(super) fn new(ws: WebSocketStream<S>, traffic: Arc<Traffic>) -> Self {
        let read_before = traffic.read();
        Self { ws, traffic, holder: None, pongs: 0, read_before, incoming: None, outgoing: None, stall: None }
    }

    /// The next message.
    pub(super) fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<Incoming, WsError>> {
        loop {
            self.check_evicted(context)?;
            if self.pongs > PONG_BYTES {
                ready!(self.poll_flushed(context))?;
            }
            let message = match Pin::new(&mut self.ws).poll_next(context) {
                Poll::Pending => {
                    self.charge_incoming();
                    return Poll::Pending;
                }
                Poll::Ready(message) => message,
            };
            self.read_before = self.traffic.read();
            self.incoming = None;
            return Poll::Ready(match message {
                None => Err(WsError::Lost("end of stream".to_owned())),
                Some(Err(error)) => Err(classify(error)),
                Some(Ok(Message::Text(text))) => Ok(Incoming::Text(text)),
                Some(Ok(Message::Binary(bytes))) => Ok(Incoming::Binary(bytes)),
                Some(Ok(Message::Ping(payload))) => {
                    self.pongs += payload.len() + PONG_HEAD;
                    Ok(Incoming::Ping)
                }
                Some(Ok(Message::Pong(_))) => Ok(Incoming::Pong),
                Some(Ok(Message::Close(None))) => Ok(Incoming::Closed { code: 1005, reason: String::new() }),
                Some(Ok(Message::Close(Some(frame)))) => {
                    Ok(Incoming::Closed { code: frame.code.into(), reason: frame.reason.to_string() })
                }
                Some(Ok(Message::Frame(_))) => continue,
            });
        }
    }

    /// Fails once the holder was evicted.
    pub(super) fn check_evicted(&self, context: &mut Context<'_>) -> Result<(), WsError> {
        match &self.holder {
            Some(holder) if holder.poll_evicted(context).is_ready() => Err(WsError::Evicted),
            _ => Ok(()),
        }
    }

    /// Waits for room for one more message: a blocked write is completed first.
    pub(super) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        match Pin::new(&mut self.ws).poll_ready(context) {
            Poll::Ready(result) => Poll::Ready(result.map_err(classify)),
            Poll::Pending => self.poll_stalled(context).map(|()| Err(WsError::Stalled)),
        }
    }

    /// Queues one message; [`Line::poll_room`] must have been ready.
    pub(super) fn start(&mut self, message: Message) -> Result<(), WsError> {
        Pin::new(&mut self.ws).start_send(message).map_err(classify)
    }

    /// Writes everything that is queued.
    pub(super) fn poll_flushed(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        match Pin::new(&mut self.ws).poll_flush(context) {
            Poll::Ready(result) => {
                (self.pongs, self.outgoing, self.stall) = (0, None, None);
                Poll::Ready(result.map_err(classify))
            }
            Poll::Pending => self.poll_stalled(context).map(|()| Err(WsError::Stalled)),
        }
    }

    /// Returns ready once no byte was written for [`WRITE_STALL`].
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let written = self.traffic.written();
        let fresh = || Stall { seen: written, since: Instant::now(), look: Box::pin(sleep(WRITE_LOOK)) };
        let stall = self.stall.get_or_insert_with(fresh);
        loop {
            if stall.seen != written {
                (stall.seen, stall.since) = (written, Instant::now());
            }
            ready!(stall.look.as_mut().poll(context));
            if stall.since.elapsed() >= WRITE_STALL {
                return Poll::Ready(());
            }
            stall.look.as_mut().reset(Instant::now() + WRITE_LOOK);
        }
    }

    /// Counts `bytes` that wait for the peer.
    pub(super) fn charge_outgoing(&mut self, bytes: usize) {
        if let Some(holder) = &self.holder {
            match &mut self.outgoing {
                Some(lease) => lease.set(bytes),
                None => self.outgoing = Some(holder.charge(bytes)),
            }
        }
    }

    /// Counts a partly received message.
    fn charge_incoming(&mut self) {
        let here = self.traffic.read().saturating_sub(self.read_before);
        let Some(holder) = self.holder.as_ref().filter(|_| here > SMALL_BYTES) else { return };
        let here = usize::try_from(here).unwrap_or(usize::MAX);
        match &mut self.incoming {
            Some(lease) => lease.set(here),
            None => self.incoming = Some(holder.charge(here)),
        }
    }
}
