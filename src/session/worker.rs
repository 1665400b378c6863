//! One task: asks analyses about a snapshot, or asks a producer's own question. Runs beside the session, which gets
//! only its result.
//!
//! Knows no journal and no sequence number. Dropping the future aborts the request to the vendor.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::{failure, live};
use crate::analysis::{Analysis, Answering, Asked, Form, Prompt, READING, Reading, RenderErrorKind, request};
use crate::base::budget;
use crate::base::measure;
use crate::call::answer::{Failed, Replied};
use crate::call::bill::Bill;
use crate::call::task::{Answered, Asking, Asks, Member, Output, Start};
use crate::context::Snapshot;
use crate::gateway::{Gateway, Request, Resolved};
use crate::hub::Hub;
use crate::llm::Finish;
use crate::protocol::FailureCode;
use crate::types::CallId;

/// Name under which producers' own questions are routed, recorded and counted.
pub(super) const QUESTION: &str = "llm_gateway";

/// Everything that a task needs.
pub(super) struct Job {
    pub(super) call: CallId,
    /// The task that the call wants.
    pub(super) start: Box<Start>,
    /// The prompts of the task's analyses.
    pub(super) prompts: Vec<Arc<Prompt>>,
    /// The chosen model.
    pub(super) arm: Arc<Resolved>,
    /// `limits.insight_bytes`.
    pub(super) insight_bytes: usize,
}

/// Asks the model and reads the answer.
///
/// # Errors
/// Why there is no answer.
///
/// # Cancel safety
/// If this future is dropped, the request to the vendor is aborted and nothing is published.
pub(super) async fn run(job: &Job, gateway: &Gateway, hub: &Hub) -> Result<Output, Failed> {
    match &job.start.asks {
        Asks::Reply(asking) => reply(job, asking, gateway).await.map(Output::Reply),
        Asks::Insights(members) => insights(job, members, gateway, hub).await.map(Output::Insights),
    }
}

/// Asks the analyses, and sends deltas to the hub.
async fn insights(job: &Job, members: &[Member], gateway: &Gateway, hub: &Hub) -> Result<Answered, Failed> {
    let began = Instant::now();
    let Start { snapshot, facts, last, deadline, .. } = &*job.start;
    let ([member], [prompt]) = (members, &job.prompts[..]) else {
        // Never happens: a task never has several analyses.
        let message = "several analyses cannot be asked in one request".to_owned();
        return Err(Failed { code: FailureCode::Unsupported, message, temporary: false });
    };
    let Member { key, analysis, rev, current } = member;
    let asked = Asked { analysis, prompt, current: current.as_ref().map(|insight| &insight.value), last: *last };
    let mut chat = request::request(&[asked], snapshot, facts).map_err(|error| {
        let code = match error.kind {
            RenderErrorKind::TooComplex => FailureCode::TooComplex,
            RenderErrorKind::BadPrompt => FailureCode::BadPrompt,
        };
        Failed { code, message: error.to_string(), temporary: false }
    })?;
    if let Some(caching) = &mut chat.caching {
        caching.last = *last;
    }
    let mut request = Request::of_analysis(Arc::clone(&job.arm), chat, Arc::clone(&key.analysis));
    let held = snapshot.clone();
    // For a provider that reads the transcript and not the prompt.
    request.transcript = Some(Arc::new(move || held.transcript()));
    request.local = analysis.settings.local;
    request.origin.call = Some(job.call.clone());
    request.deltas = live::deltas(hub, &job.call, key, *rev, analysis.growing(None));
    request.deadline = *deadline;
    let answer = gateway.complete(request).await.map_err(|error| failure::of(&error))?;
    let value = answer.value.ok_or_else(|| Failed {
        code: FailureCode::SchemaMismatch,
        message: "instead of answering, the model refused or called tools that it does not have".to_owned(),
        temporary: true,
    })?;
    // The embedded provider always returns whole lists, whatever the prompt asks for.
    let form = if answer.degraded { Form::Whole } else { analysis.form(prompt, *last) };
    let reading = read(value, member, form, snapshot, job.insight_bytes).await;
    Ok(Answered {
        members: vec![reading],
        model: answer.provenance.model.to_string(),
        endpoint: answer.provenance.endpoint.to_string(),
        attempts: answer.provenance.attempts,
        bill: Bill { usage: answer.usage, cost_usd: answer.cost_usd },
        degraded: answer.degraded,
        first_token: answer.first_token,
        took: began.elapsed(),
    })
}

/// Makes the value of one analysis' answer: its evidence is checked, its lists are applied to the newest ones, and its size
/// is limited.
async fn read(value: Value, member: &Member, form: Form, snapshot: &Snapshot, most: usize) -> Result<Reading, Failed> {
    let (analysis, rev, current) = (Arc::clone(&member.analysis), member.rev, member.current.clone());
    let known = current.as_ref().map(|insight| &insight.value);
    let work = Analysis::reading_work(&value, snapshot).saturating_add(analysis.concluding_work(&value, known));
    let snapshot = snapshot.clone();
    let reading = budget::run(work, READING, move |budget| {
        let reading = Analysis::read(value, &snapshot, budget)?;
        let current = current.as_ref().map(|insight| &insight.value);
        Ok(analysis.conclude(reading, &Answering { current, form, rev }))
    });
    let mut reading = reading.await.map_err(|exceeded| failure::over("the answer's evidence", exceeded))?;
    let value = measure::value(&reading.value);
    let bytes = value + measure::value(&reading.evidence);
    if bytes > most {
        let message = format!("the answer has {bytes} bytes as JSON, over the limit of {most} (limits.insight_bytes)");
        return Err(Failed { code: FailureCode::InsightTooLarge, message, temporary: false });
    }
    // Changes that are longer than the value would not save anything.
    reading.changes = reading.changes.filter(|changes| {
        let changes = measure::value(changes);
        changes <= value && bytes + changes <= most
    });
    Ok(reading)
}

/// Asks a producer's own question about one of its turns.
async fn reply(job: &Job, asking: &Asking, gateway: &Gateway) -> Result<Replied, Failed> {
    let Asking { question, spoken, summary } = asking;
    let chat = question.request(spoken, &job.start.snapshot, summary.as_ref().map(|summary| &summary.value));
    let mut request = Request::of_analysis(Arc::clone(&job.arm), chat, Arc::from(QUESTION));
    request.origin.call = Some(job.call.clone());
    let alone = spoken.transcript();
    // For a provider that reads the transcript and not the prompt.
    request.transcript = Some(Arc::new(move || Arc::clone(&alone)));
    let answer = gateway.complete(request).await.map_err(|error| failure::of(&error))?;
    let finish = answer.response.choices.first().and_then(|choice| choice.finish).unwrap_or(Finish::Stop).as_str();
    Ok(Replied {
        text: answer.text,
        id: answer.response.id,
        finish,
        model: answer.provenance.model,
        endpoint: answer.provenance.endpoint,
        vendor_model: answer.provenance.vendor_model,
        attempts: answer.provenance.attempts,
        usage: answer.usage,
        cost_usd: answer.cost_usd,
        degraded: answer.degraded,
    })
}
