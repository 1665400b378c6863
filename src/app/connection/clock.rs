//! The time limits of request heads: one timer for a whole connection.
//!
//! Knows no byte and no request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Longest time from the first byte of a request's head to its last; for the first head, from the start of the
/// connection.
pub(super) const HEAD: Duration = Duration::from_secs(10);
/// Longest time that a connection is kept for the next request. It is longer than clients and load balancers keep
/// theirs (at most 600 s), so that they close the connection and not the daemon.
pub(super) const IDLE: Duration = Duration::from_secs(620);
/// Poll interval while a response is being written: hyper does not read the next request head until it is woken.
const LOOK: Duration = Duration::from_secs(60);

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The connection waits for the first byte of the next head.
    Idle,
    /// The connection is receiving a head.
    Head,
    /// The daemon is answering a request.
    Answer,
}

/// The timer of a head, identified by the head's number. It may be set to a time that is too early, and is then set
/// again, but never to one that is too late; so a request does not need to touch it.
pub(super) struct Clock {
    at: (u64, Stage),
    due: Instant,
    set: Pin<Box<Sleep>>,
}

impl Clock {
    /// The first head begins with the connection.
    pub(super) fn new() -> Self {
        Self { at: (0, Stage::Head), due: Instant::now() + HEAD, set: Box::pin(sleep(HEAD)) }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>, at: (u64, Stage)) -> Poll<()> {
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
