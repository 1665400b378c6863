//! The registry of sessions: finds, starts, rebuilds and isolates the tasks of calls.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Deps;
use super::command::{Command, Run, RunRefusal};
use super::record;
use super::state::CallState;
use super::task::{Exit, Task};
use crate::base::queue::{self, Receiver, Sender};
use crate::journal::{CallState as State, Entry, JournalError};
use crate::types::view::View;
use crate::types::{CallId, Seq};

/// Commands that wait for one session.
const QUEUE: usize = 256;
/// A second panic of a call within this time fails it.
const PANIC_WINDOW: Duration = Duration::from_secs(60);
/// Bytes of a log read at once in a rebuild.
const REBUILD_READ_BYTES: usize = 256 * 1024;
/// How often a command is handed on to a fresh task where the one that took it was just leaving.
const TRIES: usize = 5;

/// Why a session could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// No such call.
    #[error("no call {0}")]
    UnknownCall(CallId),
    /// A limit, named.
    #[error("{message}")]
    Limit {
        /// Names the limit.
        message: String,
    },
    /// Its log is damaged, or it failed twice.
    #[error("call {0} has failed; what it had stays readable, see the daemon's log")]
    Failed(CallId),
    /// The journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

struct Slot {
    sender: Sender<Command>,
    generation: u64,
}

/// Counts a new call as open until the directory has its entry. Dropped after the first commit.
pub(super) struct Arriving(Arc<AtomicUsize>);

impl Arriving {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Inner {
    deps: Arc<Deps>,
    slots: Mutex<HashMap<CallId, Slot>>,
    arriving: Arc<AtomicUsize>,
    panicked: Mutex<HashMap<CallId, Instant>>,
    new_calls: DefaultDirectRateLimiter,
    /// Where sessions that no connection asked for are rebuilt, in turn.
    runtimes: Vec<Handle>,
    next: AtomicUsize,
}

/// Handle to all sessions. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    /// A registry without sessions. `runtimes` are those on which calls that nobody touches are rebuilt.
    pub fn new(deps: Arc<Deps>, runtimes: Vec<Handle>) -> Self {
        let per_second = std::num::NonZeroU32::new(deps.limits.new_calls_per_s).unwrap_or(std::num::NonZeroU32::MIN);
        Self(Arc::new(Inner {
            deps,
            slots: Mutex::default(),
            arriving: Arc::default(),
            panicked: Mutex::default(),
            new_calls: RateLimiter::direct(Quota::per_second(per_second)),
            runtimes,
            next: AtomicUsize::new(0),
        }))
    }

    /// What sessions use.
    pub fn deps(&self) -> &Arc<Deps> {
        &self.0.deps
    }

    /// Sessions in memory.
    pub fn resident(&self) -> usize {
        locked(&self.0.slots).len()
    }

    /// Hands `command` to the session of `call`, which is started where it is not resident: rebuilt if the call is
    /// known, new if `create`. Returns the session's queue for what follows.
    ///
    /// # Errors
    /// See [`SessionError`].
    ///
    /// # Cancel safety
    /// Cancelled, the command may or may not have been queued.
    pub async fn tell(
        &self,
        call: &CallId,
        create: bool,
        mut command: Command,
    ) -> Result<Sender<Command>, SessionError> {
        for _ in 0..TRIES {
            let sender = self.sender(call, create)?;
            match sender.send(command).await {
                Ok(()) => return Ok(sender),
                // The task was just leaving: a fresh one takes it.
                Err(returned) => command = returned,
            }
            tokio::task::yield_now().await;
        }
        Err(SessionError::Failed(call.clone()))
    }

    /// The call as it stands, from its task if it is resident, else from its log. `None` where there is no such call.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn view(&self, call: &CallId) -> Result<Option<Arc<View>>, SessionError> {
        for _ in 0..TRIES {
            let resident = locked(&self.0.slots).get(call).map(|slot| slot.sender.clone());
            let Some(sender) = resident else { break };
            let (reply, answer) = oneshot::channel();
            if sender.send(Command::View(reply)).await.is_ok()
                && let Ok(view) = answer.await
            {
                return Ok(Some(view));
            }
            tokio::task::yield_now().await;
        }
        let Some(entry) = self.0.deps.store.entry(call) else { return Ok(None) };
        let (mut state, damaged) = rebuild(&self.0.deps, call, &entry)?;
        if damaged.is_some() {
            state.status = State::Failed;
        }
        Ok((state.head > 0).then(|| Arc::new(state.view())))
    }

    /// Runs an analysis now; the head after which its insight will come.
    ///
    /// # Errors
    /// No such call, or why the session refuses.
    pub async fn run(&self, call: &CallId, analysis: &str) -> Result<Result<Seq, RunRefusal>, SessionError> {
        for _ in 0..TRIES {
            let (reply, answer) = oneshot::channel();
            let command = Command::Run(Box::new(Run { analysis: analysis.to_owned(), reply }));
            self.tell(call, false, command).await?;
            if let Ok(answer) = answer.await {
                return Ok(answer);
            }
        }
        Err(SessionError::Failed(call.clone()))
    }

    /// Takes up an open call whose timer ran out while it was not in memory, unless it is by now.
    pub fn wake_overdue(&self, call: &CallId) {
        self.wake(call, true);
    }

    /// Lets go of a call that was erased.
    pub fn forget(&self, call: &CallId) {
        locked(&self.0.slots).remove(call);
    }

    fn wake(&self, call: &CallId, overdue: bool) {
        if let Err(error) = self.start(call, false, overdue) {
            tracing::warn!(call = %call, %error, "an open call could not be taken up again");
        }
    }

    fn sender(&self, call: &CallId, create: bool) -> Result<Sender<Command>, SessionError> {
        self.start(call, create, false)
    }

    fn start(&self, call: &CallId, create: bool, overdue: bool) -> Result<Sender<Command>, SessionError> {
        if self.0.deps.drain.stopping() {
            return Err(SessionError::Stopping);
        }
        let mut slots = locked(&self.0.slots);
        if let Some(slot) = slots.get(call)
            && !slot.sender.is_closed()
        {
            return Ok(slot.sender.clone());
        }
        let entry = self.0.deps.store.entry(call);
        let arriving = match &entry {
            None if !create => return Err(SessionError::UnknownCall(call.clone())),
            None => Some(self.admit()?),
            Some(entry) if entry.state == State::Failed => return Err(SessionError::Failed(call.clone())),
            Some(_) => None,
        };
        let (sender, receiver) = queue::bounded(QUEUE, &self.0.deps.queue);
        let generation = slots.get(call).map_or(0, |slot| slot.generation) + 1;
        slots.insert(call.clone(), Slot { sender: sender.clone(), generation });
        drop(slots);
        self.0.deps.metrics.sessions.inc();
        let this = self.clone();
        let call = call.clone();
        let task =
            self.0.deps.drain.tasks.track_future(async move {
                this.supervise(call, generation, (entry, arriving), overdue, receiver).await
            });
        match Handle::try_current() {
            Ok(handle) => drop(handle.spawn(task)),
            Err(_) => {
                let next = self.0.next.fetch_add(1, Ordering::Relaxed);
                if let Some(handle) = self.0.runtimes.get(next % self.0.runtimes.len().max(1)) {
                    handle.spawn(task);
                }
            }
        }
        Ok(sender)
    }

    /// Checks the limits on new calls. Called with the slots locked, so admissions do not race.
    fn admit(&self) -> Result<Arriving, SessionError> {
        let limits = &self.0.deps.limits;
        // Open calls that are not in memory count too: after a start nobody has touched them yet.
        let open = self.0.deps.store.open_count() + self.0.arriving.load(Ordering::Relaxed);
        if open >= limits.open_calls {
            return Err(SessionError::Limit {
                message: format!("{open} calls are open, the limit is {} (limits.open_calls)", limits.open_calls),
            });
        }
        self.0.new_calls.check().map_err(|_| SessionError::Limit {
            message: format!("more than {} new calls in a second (limits.new_calls_per_s)", limits.new_calls_per_s),
        })?;
        Ok(Arriving::new(&self.0.arriving))
    }

    async fn supervise(
        self,
        call: CallId,
        generation: u64,
        known: (Option<Entry>, Option<Arriving>),
        overdue: bool,
        receiver: Receiver<Command>,
    ) {
        let deps = Arc::clone(&self.0.deps);
        let outcome = AssertUnwindSafe(run_session(Arc::clone(&deps), call.clone(), known, overdue, receiver))
            .catch_unwind()
            .await;
        {
            let mut slots = locked(&self.0.slots);
            if slots.get(&call).is_some_and(|slot| slot.generation == generation) {
                slots.remove(&call);
            }
        }
        deps.metrics.sessions.dec();
        let rebuild = match outcome {
            Ok(Exit::Finished | Exit::Stopped) => false,
            Ok(Exit::Fenced) => true,
            Err(_) => {
                deps.metrics.panics.inc();
                tracing::error!(call = %call, "the call's session panicked; it is rebuilt from its journal");
                true
            }
        };
        if !rebuild || deps.drain.stopping() {
            return;
        }
        let now = Instant::now();
        let again = locked(&self.0.panicked)
            .insert(call.clone(), now)
            .is_some_and(|before| now.duration_since(before) < PANIC_WINDOW);
        if again {
            tracing::error!(call = %call, "the call failed twice within a minute and is given up; the others go on");
            deps.store.mark_failed(&call);
        } else if deps.store.entry(&call).is_some_and(|entry| entry.state == State::Open) {
            self.wake(&call, false);
        }
    }
}

/// Rebuilds what there is and runs the call's task.
async fn run_session(
    deps: Arc<Deps>,
    call: CallId,
    (entry, arriving): (Option<Entry>, Option<Arriving>),
    overdue: bool,
    receiver: Receiver<Command>,
) -> Exit {
    let state = match entry {
        None => CallState::new(call.clone()),
        Some(entry) => match rebuild(&deps, &call, &entry) {
            Ok((state, None)) => state,
            Ok((_, Some(message))) => {
                tracing::error!(call = %call, message, "the call's log is damaged; it is given up and stays readable so far");
                deps.store.mark_failed(&call);
                return Exit::Finished;
            }
            Err(error) => {
                tracing::error!(call = %call, %error, "the call cannot be rebuilt from its journal");
                return Exit::Fenced;
            }
        },
    };
    let mut task = Box::new(Task::new(deps, state, arriving, receiver));
    task.run(overdue).await
}

/// The state of `call` as its log tells it, and what is wrong with the log, if something is.
fn rebuild(deps: &Deps, call: &CallId, entry: &Entry) -> Result<(CallState, Option<String>), JournalError> {
    let mut state = CallState::new(call.clone());
    loop {
        let records = match deps.store.read(call, state.head, REBUILD_READ_BYTES) {
            Ok(records) => records,
            Err(JournalError::UnknownCall) if state.head == 0 => Vec::new(),
            Err(JournalError::Damaged { message, .. }) => {
                state.adopt(entry);
                return Ok((state, Some(message)));
            }
            Err(error) => return Err(error),
        };
        if records.is_empty() {
            break;
        }
        for stored in records {
            match record::decode(&stored).and_then(|decoded| state.restore(decoded)) {
                Ok(()) => {}
                Err(message) => {
                    state.adopt(entry);
                    return Ok((state, Some(message)));
                }
            }
        }
    }
    if state.head > 0 {
        state.adopt(entry);
    }
    Ok((state, None))
}
