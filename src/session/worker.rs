//! One task: an analysis asked of a snapshot. Runs beside the session, which only hears of its end.
//!
//! Knows no journal and no sequence number. Dropping the future cancels the request upstream.

use std::sync::Arc;
use std::time::Instant;

use super::live;
use crate::analysis::{Analysis, Prompt, READING};
use crate::base::budget::{self, Exceeded};
use crate::base::measure;
use crate::call::task::{Answered, Failed, Start};
use crate::gateway::{Gateway, MakeTranscript, Request, Resolved};
use crate::hub::Hub;
use crate::types::CallId;

/// Everything that a task needs.
pub(super) struct Job {
    /// The call.
    pub(super) call: CallId,
    /// What the call wants asked.
    pub(super) start: Box<Start>,
    /// Its words.
    pub(super) prompt: Arc<Prompt>,
    /// Who is asked.
    pub(super) arm: Arc<Resolved>,
    /// `limits.insight_bytes`.
    pub(super) insight_bytes: usize,
}

/// Asks, streams deltas to the hub, reads and checks the answer.
///
/// # Errors
/// Why there is no answer.
///
/// # Cancel safety
/// Cancelled, the request upstream is aborted and nothing is published.
pub(super) async fn run(job: &Job, gateway: &Gateway, hub: &Hub) -> Result<Answered, Failed> {
    let began = Instant::now();
    let Start { key, analysis, snapshot, facts, rev, deadline, .. } = &*job.start;
    let request = analysis.request(&job.prompt, snapshot, facts).map_err(|error| Failed {
        code: error.code.to_owned(),
        message: error.to_string(),
        temporary: false,
    })?;
    let mut asked = Request::of_analysis(Arc::clone(&job.arm), request, Arc::clone(&key.analysis));
    asked.transcript = Some(reading(&job.start));
    asked.local = analysis.settings.local;
    asked.origin.call = Some(job.call.clone());
    asked.deltas = live::deltas(hub, &job.call, key, *rev);
    asked.deadline = *deadline;
    let answer = gateway.complete(asked).await.map_err(|error| Failed {
        code: error.code().as_str().to_owned(),
        message: error.message().to_owned(),
        temporary: error.temporary(),
    })?;
    let value = answer.value.ok_or_else(|| Failed {
        code: "schema_mismatch".to_owned(),
        message: "the model refused, or called tools that it does not have, instead of answering".to_owned(),
        temporary: true,
    })?;
    let (work, snapshot) = (Analysis::reading_work(&value, snapshot), snapshot.clone());
    let reading = budget::run(work, READING, move |budget| Analysis::read(value, &snapshot, budget)).await;
    let reading = reading.map_err(|exceeded| Failed {
        code: exceeded.code().to_owned(),
        message: format!("the answer's evidence is {exceeded}"),
        temporary: matches!(exceeded, Exceeded::Busy(_)),
    })?;
    let (bytes, limit) = (measure::value(&reading.value) + measure::value(&reading.evidence), job.insight_bytes);
    if bytes > limit {
        return Err(Failed {
            code: "insight_too_large".to_owned(),
            message: format!("the answer has {bytes} bytes as JSON, over the limit of {limit} (limits.insight_bytes)"),
            temporary: false,
        });
    }
    Ok(Answered {
        value: reading.value,
        evidence: reading.evidence,
        model: answer.provenance.model.to_string(),
        endpoint: answer.provenance.endpoint.to_string(),
        attempts: answer.provenance.attempts,
        usage: answer.usage,
        cost_usd: answer.cost_usd,
        degraded: answer.degraded,
        first_token: answer.first_token,
        took: began.elapsed(),
    })
}

/// The transcript for a provider that reads no prompt.
fn reading(start: &Start) -> MakeTranscript {
    let snapshot = start.snapshot.clone();
    Arc::new(move || snapshot.transcript())
}
