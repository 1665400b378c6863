//! Budgets for work whose cost a client, a model or a configuration decides: limits on steps, bytes and time, and a
//! bounded number of threads to run it on.
//!
//! Knows nothing of the work itself. The project's own code spends steps while it works. The cost of a library that
//! cannot be interrupted is counted before it is called. One step is about 100 ns of an optimized build.

use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::time::millis;

/// Stable error code for work over one of its limits: in HTTP errors, in `insight.failed`, in `check`.
pub const TOO_COMPLEX: &str = "too_complex";

/// Work of at most this many steps (about 2 ms) runs on the calling thread; larger work runs on a blocking thread.
pub const SMALL: u64 = 20_000;

/// Steps between two checks of the clock and of the cancellation flag.
const LOOK_EVERY: u64 = 4_096;

/// Longest wait for a free thread, ms.
const THREAD_WAIT: Bound = Bound::new("work_wait_ms", 10_000);

/// Permits for concurrent work: half of the processors, so that the other half continues to serve clients.
static THREADS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new((processors / 2).max(1)))
});

/// A named limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Name in errors and in the documentation; it includes the unit.
    pub name: &'static str,
    /// Largest allowed value.
    pub most: u64,
}

impl Bound {
    /// A limit.
    pub const fn new(name: &'static str, most: u64) -> Self {
        Self { name, most }
    }

    /// Checks a value against the limit.
    ///
    /// # Errors
    /// `found` is larger than the limit.
    pub fn check(self, found: u64) -> Result<(), Exceeded> {
        if found > self.most { Err(Exceeded::Limit(self)) } else { Ok(()) }
    }
}

/// Reason why work was not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// The work is over a limit.
    #[error("over the limit {} ({})", .0.name, .0.most)]
    Limit(Bound),
    /// No thread became free in time. Temporary.
    #[error("over the limit {} ({}): too many requests need such work at the same time", .0.name, .0.most)]
    Busy(Bound),
    /// The caller has dropped its future.
    #[error("cancelled: nobody waits for the result")]
    Stopped,
}

impl Exceeded {
    /// Stable error code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Limit(_) | Self::Stopped => TOO_COMPLEX,
            Self::Busy(_) => "overloaded",
        }
    }
}

/// Limits of one kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Steps. They are the same on every machine, so this limit should be reached before the others.
    pub steps: Bound,
    /// Bytes that the work allocates, as far as it counts them.
    pub bytes: Bound,
    /// Milliseconds. A safety net in case steps were counted too low.
    pub time: Bound,
}

/// Budget of one piece of work.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    steps: u64,
    bytes: u64,
    look_at: u64,
    began: Instant,
    /// Becomes invalid once the caller has dropped its future; `None` for work on the calling thread.
    asker: Option<Weak<()>>,
}

impl Budget {
    /// A fresh budget. Its time starts now.
    pub fn new(limits: Limits) -> Self {
        Self { limits, steps: 0, bytes: 0, look_at: LOOK_EVERY, began: Instant::now(), asker: None }
    }

    /// Spends steps. Must be called before the work that they stand for.
    ///
    /// # Errors
    /// Steps or time are used up, or the caller has dropped its future.
    pub fn spend(&mut self, steps: u64) -> Result<(), Exceeded> {
        self.steps = self.steps.saturating_add(steps);
        self.limits.steps.check(self.steps)?;
        if self.steps < self.look_at {
            return Ok(());
        }
        self.look_at = self.steps.saturating_add(LOOK_EVERY);
        self.look()
    }

    /// Spends bytes. Must be called before they are allocated; they are never returned to the budget.
    ///
    /// # Errors
    /// The bytes are used up.
    pub fn hold(&mut self, bytes: u64) -> Result<(), Exceeded> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.limits.bytes.check(self.bytes)
    }

    /// Steps spent so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Bytes spent so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn look(&self) -> Result<(), Exceeded> {
        if self.asker.as_ref().is_some_and(|asker| asker.strong_count() == 0) {
            return Err(Exceeded::Stopped);
        }
        self.limits.time.check(millis(self.began.elapsed()))
    }
}

/// Runs `work`. `size` is an upper estimate of its steps: up to [`SMALL`] it runs on the calling thread, above that on a
/// blocking thread. A panic in `work` is resumed in the caller.
///
/// # Errors
/// The work is over one of `limits`, or no thread became free in time.
///
/// # Cancel safety
/// If the future is dropped, the work stops when it next spends steps, and its result is dropped. It keeps its permit
/// until then, so the number of busy threads stays bounded.
pub async fn run<T: Send + 'static>(
    size: u64,
    limits: Limits,
    work: impl FnOnce(&mut Budget) -> Result<T, Exceeded> + Send + 'static,
) -> Result<T, Exceeded> {
    if size <= SMALL {
        return work(&mut Budget::new(limits));
    }
    let wait = Duration::from_millis(THREAD_WAIT.most);
    let thread = match tokio::time::timeout(wait, Arc::clone(&THREADS).acquire_owned()).await {
        Ok(Ok(thread)) => thread,
        // The semaphore is never closed, so this is the timeout.
        Err(_) | Ok(Err(_)) => return Err(Exceeded::Busy(THREAD_WAIT)),
    };
    let asker = Arc::new(());
    let waits = Arc::downgrade(&asker);
    let done = tokio::task::spawn_blocking(move || {
        let _thread = thread;
        work(&mut Budget { asker: Some(waits), ..Budget::new(limits) })
    })
    .await;
    drop(asker);
    match done {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down.
        Err(_) => Err(Exceeded::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LIMITS: Limits = Limits {
        steps: Bound::new("test_steps", 1_000_000),
        bytes: Bound::new("test_bytes", 1_000),
        time: Bound::new("test_ms", 60_000),
    };

    #[test]
    fn budget_over_a_limit_names_it() {
        let mut budget = Budget::new(LIMITS);
        assert_eq!(budget.spend(1_000_000), Ok(()));
        assert_eq!(budget.spend(1), Err(Exceeded::Limit(LIMITS.steps)));
        assert_eq!(budget.spend(u64::MAX), Err(Exceeded::Limit(LIMITS.steps)), "no overflow");
        let mut budget = Budget::new(LIMITS);
        assert_eq!(budget.hold(1_000), Ok(()));
        let over = budget.hold(1).expect_err("over");
        assert_eq!((over.to_string().as_str(), over.code()), ("over the limit test_bytes (1000)", "too_complex"));
        let mut late = Budget::new(Limits { time: Bound::new("test_ms", 0), ..LIMITS });
        while late.began.elapsed() < Duration::from_millis(1) {
            std::thread::yield_now();
        }
        assert_eq!(late.spend(1), Ok(()), "the clock is not looked at for each step");
        assert!(matches!(late.spend(LOOK_EVERY), Err(Exceeded::Limit(Bound { name: "test_ms", .. }))));
    }

    #[tokio::test]
    async fn small_work_runs_on_the_calling_thread() {
        let here = std::thread::current().id();
        let place = |size| run(size, LIMITS, |_| Ok(std::thread::current().id()));
        assert_eq!(place(SMALL).await, Ok(here));
        assert_ne!(place(SMALL + 1).await, Ok(here));
    }

    /// The work reports its start and waits for the test, so nothing here depends on timing.
    #[tokio::test]
    async fn work_stops_when_its_caller_is_dropped() {
        let (begun, has_begun) = mpsc::channel();
        let (go_on, gone_on) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let asked = tokio::spawn(run(SMALL + 1, LIMITS, move |budget| {
            begun.send(()).expect("begun");
            gone_on.recv().expect("word");
            let stopped = budget.spend(LOOK_EVERY);
            tell.send(stopped).expect("told");
            stopped
        }));
        tokio::task::spawn_blocking(move || has_begun.recv()).await.expect("join").expect("begun");
        asked.abort();
        assert!(asked.await.expect_err("aborted").is_cancelled());
        go_on.send(()).expect("word");
        let stopped = tokio::task::spawn_blocking(move || told.recv()).await.expect("join").expect("told");
        assert_eq!(stopped, Err(Exceeded::Stopped));
    }

    #[tokio::test]
    #[should_panic(expected = "as if inline")]
    async fn panic_in_work_continues_in_the_caller() {
        let _: Result<(), _> = run(SMALL + 1, LIMITS, |_| panic!("as if inline")).await;
    }
}
