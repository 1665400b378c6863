//! A store in memory, for simulation and tests; its contents end with the process.
//!
//! By default it answers at once. With [`Faults`] it answers late, finishes appends of different calls in another order
//! than they began, and fences writers, all determined by a seed: the same operations in the same order give the same
//! answers. Knows no file, no clock and no thread: a late answer is one that must be polled several times.

mod state;

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Poll;

use tokio::sync::oneshot;

use self::state::{InFlight, State};
use super::{Answer, CallState, Commit, Entry, JournalError, NewRecord, Record, Seq, Store, Tail};
use crate::base::sync::lock;
use crate::types::CallId;

/// An arbitrary constant: a store in memory has only one history.
const GENERATION: u64 = 7;

/// Which faults occur, and the seed that determines them.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Seed of the random numbers.
    pub seed: u64,
    /// Maximum number of polls after the first one that an answer takes.
    pub delay: u64,
    /// Refuses one of this many appends as `Fenced`, as if another node had written; 0 = none.
    pub fenced: u64,
}

/// The store. Its clones share all contents.
#[derive(Clone, Default)]
pub struct Memory(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    tail: OnceLock<Arc<dyn Tail>>,
}

impl Memory {
    /// An empty store with faults.
    pub fn with(faults: Faults) -> Self {
        let state = Mutex::new(State::with(faults));
        Self(Arc::new(Shared { state, tail: OnceLock::new() }))
    }

    /// Appends without any delay or fault, as another writer of the call would. See [`Store::append`].
    ///
    /// # Errors
    /// Those of [`Store::append`].
    pub fn append_now(
        &self,
        call: &CallId,
        after: Seq,
        batch: Vec<NewRecord>,
        entry: Option<Entry>,
    ) -> Result<Commit, JournalError> {
        let mut state = self.0.lock();
        state.commit(self.0.tail.get(), call, after, batch, entry)
    }

    /// Makes reads fail from now on, or work again.
    pub fn set_unreadable(&self, unreadable: bool) {
        self.0.lock().unreadable = unreadable;
    }

    /// Makes appends fail from now on, or work again.
    pub fn set_unwritable(&self, unwritable: bool) {
        self.0.lock().unwritable = unwritable;
    }

    /// Deletes the events of `call` up to `oldest`, as retention does.
    pub fn forget(&self, call: &CallId, oldest: Seq) {
        if let Some(call) = self.0.lock().calls.get_mut(call) {
            call.oldest = oldest;
        }
    }

    /// Damages the log of `call` after its event `after`.
    pub fn damage(&self, call: &CallId, after: Seq) {
        if let Some(call) = self.0.lock().calls.get_mut(call) {
            call.damaged_after = Some(after);
        }
    }

    /// All records of `call`, including those that retention has deleted.
    pub fn log(&self, call: &CallId) -> Vec<Arc<Record>> {
        self.0.lock().calls.get(call).map(|call| call.log.clone()).unwrap_or_default()
    }

    /// The answer of `look`, available now or after some polls.
    fn answer<T: Send + Unpin + 'static>(
        &self,
        look: impl FnOnce(&mut State) -> Result<T, JournalError> + Send + 'static,
    ) -> Answer<T> {
        let mut state = self.0.lock();
        state.advance(self.0.tail.get());
        let delay = state.delay();
        if delay == 0 {
            return Answer::ready(look(&mut state));
        }
        // The answer shows the state at some moment in between.
        let seen_at = state.random(delay + 1);
        drop(state);
        let shared = Arc::clone(&self.0);
        let (mut look, mut seen, mut polls) = (Some(look), None, 0);
        Answer::later(poll_fn(move |context| {
            let mut state = shared.lock();
            state.advance(shared.tail.get());
            if polls >= seen_at
                && let Some(look) = look.take()
            {
                seen = Some(look(&mut state));
            }
            if polls >= delay
                && let Some(seen) = seen.take()
            {
                return Poll::Ready(seen);
            }
            polls += 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Store for Memory {
    fn append(&self, call: &CallId, after: Seq, batch: Vec<NewRecord>, entry: Option<Entry>) -> Answer<Commit> {
        let tail = self.0.tail.get();
        let mut state = self.0.lock();
        state.advance(tail);
        if state.fences() {
            return Answer::ready(Err(JournalError::Fenced { head: after, after }));
        }
        let delay = state.delay();
        if delay == 0 && state.in_flight.iter().all(|append| append.call != *call) {
            return Answer::ready(state.commit(tail, call, after, batch, entry));
        }
        let (answer, mut receiver) = oneshot::channel();
        let due = state.now + delay;
        state.in_flight.push_back(InFlight { due, call: call.clone(), after, batch, entry, answer });
        drop(state);
        let shared = Arc::clone(&self.0);
        Answer::later(poll_fn(move |context| {
            shared.lock().advance(shared.tail.get());
            match receiver.try_recv() {
                Ok(result) => Poll::Ready(result),
                Err(oneshot::error::TryRecvError::Empty) => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                Err(oneshot::error::TryRecvError::Closed) => {
                    Poll::Ready(Err(JournalError::Unavailable("the store is closed".to_owned())))
                }
            }
        }))
    }

    fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Answer<Vec<Arc<Record>>> {
        let call = call.clone();
        self.answer(move |state| state.read(&call, after, max_bytes))
    }

    fn head(&self, call: &CallId) -> Answer<Seq> {
        let call = call.clone();
        self.answer(move |state| state.head(&call))
    }

    fn since(&self, after: u64) -> Answer<Vec<(CallId, Seq)>> {
        self.answer(move |state| state.since(after))
    }

    fn entry(&self, call: &CallId) -> Answer<Option<Entry>> {
        let call = call.clone();
        self.answer(move |state| state.entry(&call))
    }

    fn page(&self, state: Option<CallState>, after: Option<&CallId>, limit: usize) -> Answer<Vec<Entry>> {
        let after = after.cloned();
        self.answer(move |known| known.page(state, after.as_ref(), limit))
    }

    fn open_calls(&self) -> Answer<Vec<Entry>> {
        Store::page(self, Some(CallState::Open), None, usize::MAX)
    }

    fn open_count(&self) -> usize {
        self.0.lock().calls.values().filter(|call| call.entry.state == CallState::Open).count()
    }

    fn mark_failed(&self, call: &CallId) -> Answer<()> {
        let call = call.clone();
        self.answer(move |state| {
            let known = state.calls.get_mut(&call).filter(|call| call.entry.state != CallState::Failed);
            if let Some(call) = known {
                let ended_at_ms = call.entry.ended_at_ms.or(Some(call.entry.started_at_ms));
                call.entry = Entry { state: CallState::Failed, ended_at_ms, open_streams: 0, ..call.entry.clone() };
            }
            Ok(())
        })
    }

    fn erase(&self, call: &CallId) -> Answer<bool> {
        let mut state = self.0.lock();
        let over = state.calls.get(call).is_some_and(|call| call.entry.state != CallState::Open);
        if over {
            state.calls.remove(call);
            if let Some(tail) = self.0.tail.get() {
                tail.erased(call);
            }
        }
        Answer::ready(Ok(over))
    }

    fn order(&self) -> u64 {
        self.0.lock().order
    }

    fn generation(&self) -> u64 {
        GENERATION
    }

    fn set_tail(&self, tail: Arc<dyn Tail>) {
        if self.0.tail.set(tail).is_err() {
            tracing::error!("the store has a listener already; the second one will receive nothing");
        }
    }

    fn health(&self) -> Result<(), JournalError> {
        let state = self.0.lock();
        if state.unwritable { Err(JournalError::Unavailable("the store takes no appends".to_owned())) } else { Ok(()) }
    }

    fn close(&self) -> Answer<()> {
        let mut state = self.0.lock();
        state.in_flight.iter_mut().for_each(|append| append.due = 0);
        state.advance(self.0.tail.get());
        state.closed = true;
        Answer::ready(Ok(()))
    }
}

/// Returns answers as plain results, for tests that check the contents.
#[cfg(test)]
impl Memory {
    pub(crate) fn read(&self, call: &CallId, after: Seq, max_bytes: usize) -> Result<Vec<Arc<Record>>, JournalError> {
        self.0.lock().read(call, after, max_bytes)
    }

    pub(crate) fn head(&self, call: &CallId) -> Result<Seq, JournalError> {
        self.0.lock().head(call)
    }

    pub(crate) fn entry(&self, call: &CallId) -> Option<Entry> {
        self.0.lock().calls.get(call).map(|call| call.entry.clone())
    }

    pub(crate) fn page(&self, state: Option<CallState>, after: Option<&CallId>, limit: usize) -> Vec<Entry> {
        self.0.lock().page(state, after, limit).unwrap_or_default()
    }

    pub(crate) fn erase(&self, call: &CallId) -> bool {
        let mut erased = Store::erase(self, call);
        matches!(erased.poll_with(std::task::Waker::noop()), Some(Ok(true)))
    }
}
