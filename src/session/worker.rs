//! One task: asks analyses about a snapshot, a producer's own question, or for a digest. Runs beside the session, which gets
//! only its result.
//!
//! Knows no journal and no sequence number. Dropping the future aborts the request to the vendor.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::bundle::{self, Prepared};
use super::job::Job;
use super::{answers, failure, live};
use crate::analysis::digest::{self, DIGEST};
use crate::base::measure;
use crate::call::answer::{Failed, Replied};
use crate::call::bill::Bill;
use crate::call::task::{Answered, Asking, Asks, Digested, Digesting, Member, Output, Start};
use crate::gateway::{Gateway, Request};
use crate::hub::Hub;
use crate::llm::Finish;
use crate::protocol::FailureCode;

/// Name under which producers' own questions are routed, recorded and counted.
pub(super) const QUESTION: &str = "llm_gateway";

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
        Asks::Digest(digesting) => digest(job, digesting, gateway).await.map(Output::Digest),
        Asks::Insights(members) => insights(job, members, gateway, hub).await.map(Output::Insights),
    }
}

/// Asks the analyses, and sends deltas to the hub if there is only one.
async fn insights(job: &Job, due: &[Member], gateway: &Gateway, hub: &Hub) -> Result<Answered, Failed> {
    let began = Instant::now();
    let Start { snapshot, last, deadline, .. } = &*job.start;
    let Prepared { mut chat, parts, refused } = bundle::prepare(job, due)?;
    if let Some(caching) = &mut chat.caching {
        caching.last = *last;
    }
    let names: Vec<&str> = job.bundle.iter().map(|(analysis, _)| &*analysis.name).collect();
    let mut request = Request::of_analysis(Arc::clone(&job.arm), chat, names.join("+").into());
    let held = snapshot.clone();
    // For a provider that reads the transcript and not the prompt.
    request.transcript = Some(Arc::new(move || held.transcript()));
    request.origin.call = Some(job.call.clone());
    request.deadline = *deadline;
    if let ([member], []) = (due, &parts[..]) {
        request.local = member.analysis.settings.local;
        request.deltas = live::deltas(hub, &job.call, &member.key, member.rev, member.analysis.growing(None));
    }
    request.parts.clone_from(&parts);
    let answer = gateway.complete(request).await.map_err(|error| failure::of(&error))?;
    let value = answer.value.ok_or_else(|| Failed {
        code: FailureCode::SchemaMismatch,
        message: "instead of answering, the model refused or called tools that it does not have".to_owned(),
        temporary: true,
    })?;
    let mut values = bundle::values(value, &parts, answer.degraded).into_iter();
    let (mut members, mut weights) = (Vec::new(), Vec::new());
    for (member, refused) in due.iter().zip(refused) {
        let value = match refused {
            Some(failed) => Err(failed),
            // There is one value for each analysis that was asked.
            None => values.next().unwrap_or(Ok(Value::Null)),
        };
        weights.push(value.as_ref().map_or(0, |value| measure::value(value) as u64));
        members.push(match value {
            Ok(value) => answers::read(value, job, member, answer.degraded).await,
            Err(failed) => Err(failed),
        });
    }
    Ok(Answered {
        members,
        model: answer.provenance.model.to_string(),
        endpoint: answer.provenance.endpoint.to_string(),
        attempts: answer.provenance.attempts,
        bill: Bill { usage: answer.usage, cost_usd: answer.cost_usd },
        weights,
        degraded: answer.degraded,
        first_token: answer.first_token,
        took: began.elapsed(),
    })
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

/// Asks for a digest of the turns in the snapshot.
async fn digest(job: &Job, digesting: &Digesting, gateway: &Gateway) -> Result<Digested, Failed> {
    let Digesting { source, tokens, most } = digesting;
    let Start { snapshot, facts, .. } = &*job.start;
    let chat = digest::request(snapshot, facts, *tokens);
    let mut request = Request::of_analysis(Arc::clone(&job.arm), chat, Arc::from(DIGEST));
    request.origin.call = Some(job.call.clone());
    let answer = gateway.complete(request).await.map_err(|error| failure::of(&error))?;
    let claims = answer.value.as_ref().map(digest::claims).unwrap_or_default();
    let made = source.digest(claims, *most).map_err(|error| Failed {
        code: FailureCode::SchemaMismatch,
        message: error.to_string(),
        temporary: true,
    })?;
    Ok(Digested { digest: made, cost_usd: answer.cost_usd })
}
