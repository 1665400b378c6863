//! A waker that notifies: for state machines that a task polls itself and then waits for with a [`Notify`].

use std::sync::Arc;
use std::task::{Wake, Waker};

use tokio::sync::Notify;

struct Notifies(Arc<Notify>);

impl Wake for Notifies {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

/// A waker of the task that waits for `notify`.
pub fn waker(notify: &Arc<Notify>) -> Waker {
    Waker::from(Arc::new(Notifies(Arc::clone(notify))))
}
