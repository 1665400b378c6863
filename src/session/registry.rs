//! The registry of sessions: finds, starts, rebuilds and isolates the tasks of calls.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::Deps;
use super::actor::{Actor, Exit};
use super::arriving::Arriving;
use super::command::{Command, Run, RunRefusal};
use super::error::SessionError;
use super::library::Library;
use super::rebuild::{self, Found, Known};
use crate::base::queue::{self, Receiver, Sender};
use crate::base::sync::lock;
use crate::call::Log;
use crate::journal::CallState as State;
use crate::placement::Owner;
use crate::types::{CallId, Seq};

/// Maximum number of commands that wait for one session.
const QUEUE: usize = 256;
/// A second panic of a call within this time fails it.
const PANIC_WINDOW: Duration = Duration::from_secs(60);
/// After another node took the log of a call, the call is not started here for this time. If this node still owns it
/// then, its timers continue.
const LET_GO: Duration = Duration::from_secs(2);
/// Maximum number of tasks to which a command is passed if each of them is just ending.
pub(super) const TRIES: usize = 5;

struct Slot {
    sender: Sender<Command>,
    generation: u64,
}

struct Inner {
    deps: Arc<Deps>,
    slots: Mutex<HashMap<CallId, Slot>>,
    arriving: Arc<AtomicUsize>,
    panicked: Mutex<HashMap<CallId, Instant>>,
    new_calls: DefaultDirectRateLimiter,
    /// Cached indexes of logs.
    library: Library,
    /// Limits how many calls are rebuilt at once without a client that uses them: one per runtime.
    untouched: Arc<Semaphore>,
    /// The runtimes on which these calls run, in rotation.
    runtimes: Vec<Handle>,
    next: AtomicUsize,
}

/// Handle to all sessions. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

impl Sessions {
    /// A registry without sessions. `runtimes` run the calls that are rebuilt without a client.
    pub fn new(deps: Arc<Deps>, runtimes: Vec<Handle>) -> Self {
        let per_second =
            std::num::NonZeroU32::new(deps.call.limits.new_calls_per_s).unwrap_or(std::num::NonZeroU32::MIN);
        Self(Arc::new(Inner {
            deps,
            slots: Mutex::default(),
            arriving: Arc::default(),
            panicked: Mutex::default(),
            new_calls: RateLimiter::direct(Quota::per_second(per_second)),
            library: Library::default(),
            untouched: Arc::new(Semaphore::new(runtimes.len().max(1))),
            runtimes,
            next: AtomicUsize::new(0),
        }))
    }

    /// Dependencies of the sessions.
    pub fn deps(&self) -> &Arc<Deps> {
        &self.0.deps
    }

    /// Cached indexes of logs.
    pub(super) fn library(&self) -> &Library {
        &self.0.library
    }

    /// Size of the cached indexes of logs, bytes.
    pub fn index_cache_bytes(&self) -> usize {
        let Inner { library, .. } = &*self.0;
        library.bytes()
    }

    /// The queue of a call's session, if it is in memory.
    pub(super) fn queue(&self, call: &CallId) -> Option<Sender<Command>> {
        lock(&self.0.slots).get(call).map(|slot| slot.sender.clone())
    }

    /// Number of sessions in memory.
    pub fn resident(&self) -> usize {
        lock(&self.0.slots).len()
    }

    /// Sends `command` to the session of `call`, which is started if it is not in memory: rebuilt if the call exists,
    /// new if `create`. Returns the session's queue for further commands.
    ///
    /// # Errors
    /// See [`SessionError`].
    ///
    /// # Cancel safety
    /// If this future is dropped, the command may or may not have been queued.
    pub async fn tell(
        &self,
        call: &CallId,
        create: bool,
        mut command: Command,
    ) -> Result<Sender<Command>, SessionError> {
        for _ in 0..TRIES {
            let sender = self.start(call, Why::Touched { create }, None).await?;
            match sender.send(command).await {
                Ok(()) => return Ok(sender),
                // The task was just ending: a new one gets the command.
                Err(returned) => command = returned,
            }
            tokio::task::yield_now().await;
        }
        Err(SessionError::Failed(call.clone()))
    }

    /// Runs an analysis now; returns the head after which its insight will come.
    ///
    /// # Errors
    /// The call does not exist, or the session refuses the run.
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

    /// Starts the session of an open call whose timer expired while it was not in memory, unless it has started
    /// meanwhile. `overdue`: it is the timer that ends the call. Waits while enough other calls are being rebuilt.
    ///
    /// # Cancel safety
    /// If this future is dropped while it waits, the session is not started.
    pub async fn wake_due(&self, call: &CallId, overdue: bool) {
        // The semaphore is never closed.
        let turn = Arc::clone(&self.0.untouched).acquire_owned().await.ok();
        self.wake(call, overdue, turn).await;
    }

    /// Tells every session when the journal stops accepting appends, and when it accepts them again, so that producers
    /// learn of it even if they send nothing. Ends with the watch.
    pub async fn tell_health(self, mut health: watch::Receiver<bool>) {
        while health.changed().await.is_ok() {
            let well = *health.borrow_and_update();
            let senders: Vec<_> = lock(&self.0.slots).values().map(|slot| slot.sender.clone()).collect();
            for sender in senders {
                // A session whose queue is full has input that waits for the journal, and notices the outage itself.
                drop(sender.offer(Command::Journal { well }));
            }
        }
    }

    /// Ends the session of an erased call.
    pub fn forget(&self, call: &CallId) {
        lock(&self.0.slots).remove(call);
        self.0.library.forget(call);
    }

    async fn wake(&self, call: &CallId, overdue: bool, turn: Option<OwnedSemaphorePermit>) {
        match self.start(call, Why::Untouched { overdue }, turn).await {
            Ok(_) | Err(SessionError::Elsewhere { .. }) => {}
            Err(error) => tracing::warn!(call_id = %call, %error, "the session of an open call could not be started \
                again"),
        }
    }

    /// Starts the session of a call again if the call is open.
    async fn resume(&self, call: &CallId) {
        match self.0.deps.store.entry(call).await {
            Ok(Some(entry)) if entry.state == State::Open => self.wake(call, false, None).await,
            Ok(_) => {}
            Err(error) => tracing::warn!(call_id = %call, %error, "the session of an open call could not be started \
                again"),
        }
    }

    /// The queue of a call's session, if that accepts commands.
    fn running(slots: &HashMap<CallId, Slot>, call: &CallId) -> Option<Sender<Command>> {
        slots.get(call).map(|slot| slot.sender.clone()).filter(|sender| !sender.is_closed())
    }

    /// Starts a session, unless there is one. `turn` is held until the call is rebuilt.
    async fn start(
        &self,
        call: &CallId,
        why: Why,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Sender<Command>, SessionError> {
        let deps = &self.0.deps;
        if deps.drain.stopping() {
            return Err(SessionError::Stopping);
        }
        let running = Self::running(&lock(&self.0.slots), call);
        if let Some(sender) = running {
            return Ok(sender);
        }
        if let Owner::There(url) = deps.placement.owner(call).await? {
            return Err(SessionError::Elsewhere { call: call.clone(), url });
        }
        let is_new = match deps.store.entry(call).await? {
            None if !matches!(why, Why::Touched { create: true }) => {
                return Err(SessionError::UnknownCall(call.clone()));
            }
            None => true,
            Some(entry) if entry.state == State::Failed => return Err(SessionError::Failed(call.clone())),
            Some(_) => false,
        };
        self.launch(call, is_new, why, turn)
    }

    /// Starts a session, unless another caller has done so meanwhile.
    fn launch(
        &self,
        call: &CallId,
        is_new: bool,
        why: Why,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Sender<Command>, SessionError> {
        let mut slots = lock(&self.0.slots);
        if let Some(sender) = Self::running(&slots, call) {
            return Ok(sender);
        }
        let arriving = if is_new { Some(self.admit()?) } else { None };
        let (sender, receiver) = queue::bounded(QUEUE, &self.0.deps.queue);
        let generation = slots.get(call).map_or(0, |slot| slot.generation) + 1;
        slots.insert(call.clone(), Slot { sender: sender.clone(), generation });
        drop(slots);
        self.0.deps.metrics.sessions.inc();
        let this = self.clone();
        let call = call.clone();
        let start = Start { arriving, why, turn };
        let task = self
            .0
            .deps
            .drain
            .tasks
            .track_future(async move { this.supervise(call, generation, start, receiver).await });
        // A call that a client uses stays on the client's runtime; the others are distributed.
        match (why, Handle::try_current()) {
            (Why::Touched { .. }, Ok(handle)) => drop(handle.spawn(task)),
            _ => {
                let next = self.0.next.fetch_add(1, Ordering::Relaxed);
                if let Some(handle) = self.0.runtimes.get(next % self.0.runtimes.len().max(1)) {
                    handle.spawn(task);
                }
            }
        }
        Ok(sender)
    }

    /// Checks the limits on new calls. Called with the slots locked, so that concurrent admissions cannot exceed a
    /// limit.
    fn admit(&self) -> Result<Arriving, SessionError> {
        let limits = &self.0.deps.call.limits;
        // Open calls that are not in memory count too, for example after a start.
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

    async fn supervise(self, call: CallId, generation: u64, start: Start, receiver: Receiver<Command>) {
        let deps = Arc::clone(&self.0.deps);
        let outcome = AssertUnwindSafe(self.run_session(call.clone(), start, receiver)).catch_unwind().await;
        {
            let mut slots = lock(&self.0.slots);
            if slots.get(&call).is_some_and(|slot| slot.generation == generation) {
                slots.remove(&call);
            }
        }
        deps.metrics.sessions.dec();
        match outcome {
            Ok(Exit::Finished | Exit::Stopped) => return,
            Ok(Exit::Fenced) => {
                tracing::info!(call_id = %call, "another writer has the call's log; this session ends");
                deps.metrics.fenced.inc();
                tokio::select! {
                    () = deps.drain.stop.cancelled() => {}
                    () = tokio::time::sleep(LET_GO) => self.resume(&call).await,
                }
                return;
            }
            Ok(Exit::Unwritable) => {}
            Err(_) => {
                deps.metrics.panics.inc();
                tracing::error!(call_id = %call, "the call's session panicked; it is rebuilt from its journal");
            }
        }
        if deps.drain.stopping() {
            return;
        }
        let now = Instant::now();
        let again = lock(&self.0.panicked)
            .insert(call.clone(), now)
            .is_some_and(|before| now.duration_since(before) < PANIC_WINDOW);
        if again {
            tracing::error!(call_id = %call, "the call's session failed twice within a minute; the call is marked as \
                failed, other calls continue");
            self.give_up(&call).await;
        } else {
            self.resume(&call).await;
        }
    }

    async fn give_up(&self, call: &CallId) {
        if let Err(error) = self.0.deps.store.mark_failed(call).await {
            tracing::error!(call_id = %call, %error, "the call cannot be marked as failed");
        }
    }

    /// Rebuilds the call from its log and runs its task.
    async fn run_session(
        &self,
        call: CallId,
        Start { arriving, why, turn }: Start,
        receiver: Receiver<Command>,
    ) -> Exit {
        let deps = Arc::clone(&self.0.deps);
        let (log, entry) = match rebuild::found(deps.store.as_ref(), &deps.drain.stop, &call).await {
            Some(Found::Known(known)) => {
                let Known { entry, log, damage } = *known;
                if let Some(message) = damage {
                    tracing::error!(call_id = %call, message, "the call's log is damaged; the call is marked as \
                        failed, and events before the damage can be read");
                    self.give_up(&call).await;
                    return Exit::Finished;
                }
                (log, Some(entry))
            }
            Some(Found::Nothing) if arriving.is_some() => (Log::new(call.clone()), None),
            // The call was erased meanwhile.
            Some(Found::Nothing) => return Exit::Finished,
            None => return Exit::Stopped,
        };
        drop(turn);
        let overdue = matches!(why, Why::Untouched { overdue: true });
        let mut actor = Box::new(Actor::new(deps, log, entry.as_ref(), overdue, arriving, receiver));
        let exit = actor.run().await;
        if exit == Exit::Fenced {
            actor.let_go();
        }
        exit
    }
}

/// What a session is started with.
struct Start {
    /// Set for a new call.
    arriving: Option<Arriving>,
    why: Why,
    /// Held until the call is rebuilt.
    turn: Option<OwnedSemaphorePermit>,
}

/// Why a session is started.
#[derive(Debug, Clone, Copy)]
enum Why {
    /// A client has a command for it; with `create`, the call may be new.
    Touched { create: bool },
    /// The call continues by itself; `overdue`: its last timer expired.
    Untouched { overdue: bool },
}
