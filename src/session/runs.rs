//! The tasks of one call that wait for a permit or are out.
//!
//! Knows no schedule: the call says which task it wants, and is told what became of it.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::Deps;
use super::worker::{self, Job};
use crate::analysis::Prompt;
use crate::call::task::{Answered, Choice, Chosen, Failed, Start, TaskNo};
use crate::gateway::{GatewayError, Resolved};
use crate::types::CallId;

/// What a task came back with.
pub(super) enum Returned {
    /// The permit that it waited for.
    Permit { task: TaskNo, permit: OwnedSemaphorePermit },
    /// Its end.
    Done { task: TaskNo, result: Box<Result<Answered, Failed>> },
}

/// Who is asked, and with which words.
pub(super) struct Asked {
    arm: Arc<Resolved>,
    prompt: Arc<Prompt>,
}

/// All of one call.
pub(super) struct Runs {
    deps: Arc<Deps>,
    call: CallId,
    tasks: JoinSet<Returned>,
}

impl Runs {
    /// Nothing is out.
    pub(super) fn new(deps: Arc<Deps>, call: CallId) -> Self {
        Self { deps, call, tasks: JoinSet::new() }
    }

    /// A permit for `task`, if there is one at once; else it comes back by [`Runs::next`].
    pub(super) fn permit(&mut self, task: TaskNo) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.deps.permits).try_acquire_owned() {
            return Some(permit);
        }
        let permits = Arc::clone(&self.deps.permits);
        let waiting = Raised::new(&self.deps.metrics.permits_waiting);
        self.tasks.spawn(async move {
            let permit = permits.acquire_owned().await;
            drop(waiting);
            match permit {
                Ok(permit) => Returned::Permit { task, permit },
                // The semaphore is never closed.
                Err(_) => std::future::pending().await,
            }
        });
        None
    }

    /// Who answers an analysis, and its prompt; a pinned variant stays.
    pub(super) fn choose(&self, choice: &Choice<'_>) -> (Result<Chosen, Failed>, Option<Asked>) {
        match self.resolve(choice) {
            Ok(asked) => {
                let Asked { arm, prompt } = &asked;
                let chosen = Chosen {
                    route: Arc::clone(&arm.route),
                    variant: Arc::clone(&arm.variant),
                    prompt: Arc::clone(&prompt.id),
                    local: arm.local(),
                };
                (Ok(chosen), Some(asked))
            }
            Err(failed) => (Err(failed), None),
        }
    }

    fn resolve(&self, choice: &Choice<'_>) -> Result<Asked, Failed> {
        let (gateway, analysis) = (&self.deps.gateway, choice.analysis);
        let target = gateway.target(&analysis.name, analysis.settings.route.as_deref());
        let resolve = |variant: Option<&str>| gateway.resolve_pinned(&target, self.call.as_str(), variant);
        let resolved = match choice.pinned {
            Some(variant) => resolve(Some(variant)),
            // Which route answers is known only now: an analysis may leave that to the default route.
            None => resolve(None).and_then(|arm| match choice.variants.get(&*arm.route) {
                Some(variant) => resolve(Some(variant)),
                None => Ok(arm),
            }),
        };
        let arm = resolved.map_err(|error| failed(&error))?;
        let prompt = analysis.prompt(arm.prompt.as_deref()).map_err(|error| Failed {
            code: "bad_prompt".into(),
            message: error.to_string(),
            temporary: false,
        })?;
        Ok(Asked { arm, prompt })
    }

    /// Starts a task, which keeps its permit until it is over.
    pub(super) fn start(&mut self, start: Box<Start>, asked: Asked, permit: OwnedSemaphorePermit) {
        let Asked { arm, prompt } = asked;
        let insight_bytes = self.deps.call.limits.insight_bytes;
        let job = Job { call: self.call.clone(), start, prompt, arm, insight_bytes };
        let deps = Arc::clone(&self.deps);
        let running = Raised::new(&self.deps.metrics.jobs_running);
        self.tasks.spawn(async move {
            let result = worker::run(&job, &deps.gateway, &deps.hub).await;
            deps.metrics.job(&job.start.key.analysis, result.is_ok());
            drop((permit, running));
            Returned::Done { task: job.start.no, result: Box::new(result) }
        });
    }

    /// The next permit or result; `None` while nothing is out. A panic of a task goes on here.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken before it is returned.
    pub(super) async fn next(&mut self) -> Option<Returned> {
        loop {
            match self.tasks.join_next().await? {
                Ok(returned) => return Some(returned),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // Aborted.
                Err(_) => {}
            }
        }
    }

    /// Aborts all tasks, and forgets those that wait for a permit.
    pub(super) fn abort_all(&mut self) {
        self.tasks.abort_all();
    }
}

fn failed(error: &GatewayError) -> Failed {
    Failed { code: error.code().as_str().to_owned(), message: error.message().to_owned(), temporary: error.temporary() }
}

/// A gauge that is one higher until this is dropped, however a task ends.
struct Raised(Gauge);

impl Raised {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
    }
}
