//! One write of several messages, in order. It is counted as in flight only while the peer makes it wait.

use std::task::{Context, Poll, ready};
use std::vec;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;

use super::line::Line;
use super::{WRITE_BUFFER_BYTES, WsError};

/// A write in progress.
pub(super) struct Outgoing<I> {
    messages: I,
    /// Remaining messages, collected when the write first has to wait.
    left: Option<vec::IntoIter<Message>>,
    /// Size of the newest queued message, bytes.
    newest: usize,
}

impl<I: Iterator<Item = Message>> Outgoing<I> {
    pub(super) fn new(messages: I) -> Self {
        Self { messages, left: None, newest: 0 }
    }

    /// Writes and flushes all messages.
    pub(super) fn poll<S>(&mut self, line: &mut Line<S>, context: &mut Context<'_>) -> Poll<Result<(), WsError>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        line.check_evicted(context)?;
        let written = self.poll_written(line, context);
        if written.is_pending() && self.left.is_none() {
            let left: Vec<Message> = self.messages.by_ref().collect();
            line.charge_outgoing(WRITE_BUFFER_BYTES + self.newest + left.iter().map(Message::len).sum::<usize>());
            self.left = Some(left.into_iter());
        }
        written
    }

    fn poll_written<S>(&mut self, line: &mut Line<S>, context: &mut Context<'_>) -> Poll<Result<(), WsError>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            ready!(line.poll_room(context))?;
            let next = match &mut self.left {
                Some(left) => left.next(),
                None => self.messages.next(),
            };
            let Some(message) = next else { return line.poll_flushed(context) };
            self.newest = message.len();
            line.start(message)?;
        }
    }
}
