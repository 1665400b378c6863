//! A socket split into two halves, so that reading continues while a write waits. One task must poll both, because they
//! share a waker.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;

use super::line::Line;
use super::outgoing::Outgoing;
use super::{Incoming, Socket, WsError};
use crate::base::sync::{entered, lock};

/// Locked during one poll.
type Shared<S> = Arc<Mutex<Box<Line<S>>>>;

/// The reading half of a [`Socket`].
#[derive(Debug)]
pub struct ReadHalf<S>(Shared<S>);

/// The writing half of a [`Socket`].
#[derive(Debug)]
pub struct WriteHalf<S>(Shared<S>);

pub(super) fn split<S>(socket: Socket<S>) -> (ReadHalf<S>, WriteHalf<S>) {
    let shared = Arc::new(Mutex::new(socket.line));
    (ReadHalf(Arc::clone(&shared)), WriteHalf(shared))
}

pub(super) fn join<S>(read: ReadHalf<S>, write: WriteHalf<S>) -> Option<Socket<S>> {
    if !Arc::ptr_eq(&read.0, &write.0) {
        return None;
    }
    drop(write);
    let line = entered(Arc::into_inner(read.0)?.into_inner());
    Some(Socket { line })
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReadHalf<S> {
    /// As [`Socket::recv`].
    ///
    /// # Errors
    /// See [`WsError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn recv(&mut self) -> Result<Incoming, WsError> {
        poll_fn(|context| lock(&self.0).poll_recv(context)).await
    }

    /// The next message, if one is available already.
    ///
    /// # Errors
    /// See [`WsError`].
    pub fn ready(&mut self) -> Option<Result<Incoming, WsError>> {
        self.recv().now_or_never()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WriteHalf<S> {
    /// Writes data messages unchanged, in order, and flushes once. Pings, pongs and closes are left out, because each
    /// side has its own.
    ///
    /// # Errors
    /// As [`Socket::send`].
    ///
    /// # Cancel safety
    /// Not safe: if this future is dropped, some of the messages may have been written.
    pub async fn relay(&mut self, messages: impl IntoIterator<Item = Incoming>) -> Result<(), WsError> {
        let messages = messages.into_iter().filter_map(|message| match message {
            Incoming::Text(text) => Some(Message::Text(text)),
            Incoming::Binary(bytes) => Some(Message::Binary(bytes)),
            Incoming::Ping | Incoming::Pong | Incoming::Closed { .. } => None,
        });
        self.write(messages).await
    }

    /// Sends a ping.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn ping(&mut self) -> Result<(), WsError> {
        self.write(std::iter::once(Message::Ping(Bytes::new()))).await
    }

    async fn write(&mut self, messages: impl Iterator<Item = Message>) -> Result<(), WsError> {
        let mut outgoing = Outgoing::new(messages);
        poll_fn(|context| outgoing.poll(&mut lock(&self.0), context)).await
    }
}
