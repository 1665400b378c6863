//! The tasks of one call that wait for a permit or are running.
//!
//! Knows no schedule: the call says which task it wants, and gets the result.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{AbortHandle, JoinSet};

use super::job::{Bundle, Job};
use super::worker::{self, QUESTION};
use super::{Deps, Metrics, failure};
use crate::analysis::digest::DIGEST;
use crate::analysis::{Analysis, Prompt, Question};
use crate::base::tokens::Fit;
use crate::call::answer::Failed;
use crate::call::task::{Asks, Choice, Chosen, ChosenMember, Other, Output, Start, TaskNo};
use crate::gateway::Resolved;
use crate::protocol::FailureCode;
use crate::types::{CallId, provider};

/// Assumed tokens of one analysis' instructions, schema and newest value.
const INSTRUCTIONS_TOKENS: u64 = 2_000;

/// What a task returned.
pub(super) enum Returned {
    /// The permit that the task waited for.
    Permit { task: TaskNo, permit: OwnedSemaphorePermit },
    /// The task ended.
    Done { task: TaskNo, result: Box<Result<Output, Failed>> },
}

/// The chosen model, and the prompts.
pub(super) struct Asked {
    arm: Arc<Resolved>,
    /// The analyses in the schema of the request.
    bundle: Bundle,
}

/// All tasks of one call.
pub(super) struct Runs {
    deps: Arc<Deps>,
    call: CallId,
    tasks: JoinSet<Returned>,
    /// Handles of the tasks that wait or run.
    handles: HashMap<TaskNo, AbortHandle>,
}

impl Runs {
    /// Without any task.
    pub(super) fn new(deps: Arc<Deps>, call: CallId) -> Self {
        Self { deps, call, tasks: JoinSet::new(), handles: HashMap::new() }
    }

    /// A permit for `task`, if one is available at once; otherwise [`Runs::next`] returns it later.
    pub(super) fn permit(&mut self, task: TaskNo) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.deps.permits).try_acquire_owned() {
            return Some(permit);
        }
        let permits = Arc::clone(&self.deps.permits);
        let waiting = Raised::new(&self.deps.metrics.permits_waiting);
        let handle = self.tasks.spawn(async move {
            let permit = permits.acquire_owned().await;
            drop(waiting);
            match permit {
                Ok(permit) => Returned::Permit { task, permit },
                // The semaphore is never closed.
                Err(_) => std::future::pending().await,
            }
        });
        self.handles.insert(task, handle);
        None
    }

    /// Chooses the model and the prompts; a pinned variant does not change.
    pub(super) fn choose(&self, choice: &Choice<'_>) -> (Result<Chosen, Failed>, Option<Asked>) {
        let asked = match choice {
            Choice::Analysis { analysis, pinned, variants, others } => {
                let chosen = self.analysis(analysis, *pinned, variants);
                chosen.map(|(arm, prompt)| {
                    let bundle = self.bundle(&arm, (*analysis, prompt), others, variants);
                    (arm, bundle)
                })
            }
            Choice::Question(question) => self.question(question).map(|arm| (arm, Vec::new())),
        };
        match asked {
            Ok((arm, bundle)) => {
                let (route, variant, local) = (Arc::clone(&arm.route), Arc::clone(&arm.variant), arm.local());
                let member = |(analysis, prompt): &(Arc<Analysis>, Arc<Prompt>)| ChosenMember {
                    analysis: Arc::clone(&analysis.name),
                    prompt: Arc::clone(&prompt.id),
                };
                let members = bundle.iter().map(member).collect();
                let fit = fit(&arm, choice, bundle.len());
                (Ok(Chosen { route, variant, local, fit, members }), Some(Asked { arm, bundle }))
            }
            Err(failed) => (Err(failed), None),
        }
    }

    fn analysis(
        &self,
        analysis: &Analysis,
        pinned: Option<&str>,
        variants: &BTreeMap<String, String>,
    ) -> Result<(Arc<Resolved>, Arc<Prompt>), Failed> {
        let gateway = &self.deps.gateway;
        let target = gateway.target(&analysis.name, analysis.settings.route.as_deref());
        let resolve = |variant: Option<&str>| gateway.resolve_pinned(&target, self.call.as_str(), variant);
        let resolved = match pinned {
            Some(variant) => resolve(Some(variant)),
            // The answering route is known only now, because an analysis may use the default route.
            None => resolve(None).and_then(|arm| match variants.get(&*arm.route) {
                Some(variant) => resolve(Some(variant)),
                None => Ok(arm),
            }),
        };
        let arm = resolved.map_err(|error| failure::of(&error))?;
        let prompt = analysis.prompt(arm.prompt.as_deref()).map_err(|error| Failed {
            code: FailureCode::BadPrompt,
            message: error.to_string(),
            temporary: false,
        })?;
        Ok((arm, prompt))
    }

    /// The analyses in the schema of a request to `arm`: the one that is due, and those of its bundle that go to the same
    /// variant, in the order of their names. The embedded provider gets each analysis alone.
    fn bundle(
        &self,
        arm: &Resolved,
        due: (&Arc<Analysis>, Arc<Prompt>),
        others: &[Other<'_>],
        variants: &BTreeMap<String, String>,
    ) -> Bundle {
        let (analysis, prompt) = due;
        let is_alone = arm.local() || !prompt.bundles();
        let mut bundle = vec![(Arc::clone(analysis), prompt)];
        for other in others.iter().filter(|other| !is_alone && analysis.goes_with(other.analysis, &arm.route)) {
            let Ok((its, prompt)) = self.analysis(other.analysis, other.pinned, variants) else { continue };
            if (&its.route, &its.variant) == (&arm.route, &arm.variant) && prompt.bundles() {
                bundle.push((Arc::clone(other.analysis), prompt));
            }
        }
        bundle.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        bundle
    }

    fn question(&self, question: &Question) -> Result<Arc<Resolved>, Failed> {
        let gateway = &self.deps.gateway;
        let own = question.model.is_empty().then(|| gateway.target(QUESTION, None));
        // The embedded provider cannot answer a producer's own question.
        if own.as_deref().is_some_and(provider::is_local) {
            let message =
                "llm_gateway names no model, and neither [routes.llm_gateway] nor [gateway] default_route is set";
            return Err(Failed { code: FailureCode::ModelNotFound, message: message.to_owned(), temporary: false });
        }
        let resolved = gateway.resolve(own.as_deref().unwrap_or(&question.model), self.call.as_str());
        resolved.map_err(|error| failure::of(&error))
    }

    /// Starts a task, which keeps its permit until it ends.
    pub(super) fn start(&mut self, start: Box<Start>, asked: Asked, permit: OwnedSemaphorePermit) {
        let Asked { arm, bundle } = asked;
        let insight_bytes = self.deps.call.limits.insight_bytes;
        let no = start.no;
        let job = Job { call: self.call.clone(), start, bundle, arm, insight_bytes };
        let deps = Arc::clone(&self.deps);
        let running = Raised::new(&self.deps.metrics.jobs_running);
        let handle = self.tasks.spawn(async move {
            let result = worker::run(&job, &deps.gateway, &deps.hub).await;
            count(&job, &result, &deps.metrics);
            drop((permit, running));
            Returned::Done { task: no, result: Box::new(result) }
        });
        self.handles.insert(no, handle);
    }

    /// The next permit or result; `None` if there is no task. A panic of a task is propagated.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost if this future is dropped.
    pub(super) async fn next(&mut self) -> Option<Returned> {
        loop {
            match self.tasks.join_next().await? {
                Ok(returned) => {
                    let (Returned::Permit { task, .. } | Returned::Done { task, .. }) = &returned;
                    self.handles.remove(task);
                    return Some(returned);
                }
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The task was aborted.
                Err(_) => {}
            }
        }
    }

    /// Aborts a task, whether it waits for a permit or runs.
    pub(super) fn abort(&mut self, task: TaskNo) {
        if let Some(handle) = self.handles.remove(&task) {
            handle.abort();
        }
    }

    /// Aborts all tasks.
    pub(super) fn abort_all(&mut self) {
        self.tasks.abort_all();
        self.handles.clear();
    }
}

/// The limit for the call's text in a prompt, beside the answer and the instructions of the analyses.
fn fit(arm: &Resolved, choice: &Choice<'_>, analyses: usize) -> Fit {
    let answer = match choice {
        Choice::Analysis { analysis, .. } => analysis.settings.max_output_tokens,
        Choice::Question(_) => None,
    };
    let rest = INSTRUCTIONS_TOKENS * analyses.max(1) as u64;
    arm.fit(answer, rest.min(arm.context_length().map_or(u64::MAX, |context| context / 4)))
}

/// Counts the end of a task for each of its analyses.
fn count(job: &Job, result: &Result<Output, Failed>, metrics: &Metrics) {
    match (&job.start.asks, result) {
        (Asks::Reply(_), result) => metrics.job(QUESTION, result.is_ok()),
        (Asks::Digest(_), result) => metrics.job(DIGEST, result.is_ok()),
        (Asks::Insights(members), Ok(Output::Insights(answered))) => {
            for (member, part) in members.iter().zip(&answered.members) {
                metrics.job(&member.key.analysis, part.is_ok());
                if let Ok(reading) = part {
                    metrics.dropped(&member.key.analysis, &reading.dropped);
                }
            }
        }
        (Asks::Insights(members), _) => members.iter().for_each(|member| metrics.job(&member.key.analysis, false)),
    }
}

/// Keeps a gauge one higher until it is dropped, however the task ends.
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
