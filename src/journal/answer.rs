//! The answer of a store: available at once if the store knows the result, otherwise later.
//!
//! An answer that is available at once costs no allocation. Knows no store.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;

use super::JournalError;

/// Resolves to the result of one operation of a store. Polled again after that, it stays pending.
///
/// # Cancel safety
/// Dropping it cancels no write: an append or an erasure was started before the answer was returned.
#[must_use = "the result says whether the operation succeeded"]
pub struct Answer<T>(State<T>);

enum State<T> {
    Ready(Result<T, JournalError>),
    Later(BoxFuture<'static, Result<T, JournalError>>),
    Taken,
}

impl<T> Answer<T> {
    /// An answer that is available now.
    pub fn ready(result: Result<T, JournalError>) -> Self {
        Self(State::Ready(result))
    }

    /// An answer that `future` will produce.
    pub fn later(future: impl Future<Output = Result<T, JournalError>> + Send + 'static) -> Self {
        Self(State::Later(Box::pin(future)))
    }
}

impl<T: Unpin> Answer<T> {
    /// The result, if it is available; otherwise `waker` is woken when it may be.
    pub fn poll_with(&mut self, waker: &Waker) -> Option<Result<T, JournalError>> {
        match Pin::new(self).poll(&mut Context::from_waker(waker)) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }
}

impl<T: Unpin> Future for Answer<T> {
    type Output = Result<T, JournalError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let state = &mut self.get_mut().0;
        if let State::Later(future) = state {
            let result = std::task::ready!(future.as_mut().poll(context));
            *state = State::Taken;
            return Poll::Ready(result);
        }
        match std::mem::replace(state, State::Taken) {
            State::Ready(result) => Poll::Ready(result),
            State::Later(_) | State::Taken => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_that_is_ready_is_given_once() {
        let mut answer = Answer::ready(Ok(7));
        assert!(matches!(answer.poll_with(Waker::noop()), Some(Ok(7))));
        assert!(answer.poll_with(Waker::noop()).is_none());
    }

    #[test]
    fn answer_that_comes_later_is_given_once() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut answer = Answer::later(async move { receiver.await.map_err(|_| JournalError::UnknownCall) });
        assert!(answer.poll_with(Waker::noop()).is_none());
        sender.send(7).expect("waits");
        assert!(matches!(answer.poll_with(Waker::noop()), Some(Ok(7))));
        assert!(answer.poll_with(Waker::noop()).is_none());
    }
}
