//! The request that asks the analyses of a task, and the values in its answer.
//!
//! Knows nothing of the gateway except the form of its requests, and reads no value.

use serde_json::Value;

use super::job::Job;
use crate::analysis::{Asked, RenderErrorKind, request};
use crate::call::answer::Failed;
use crate::call::task::{Member, Start};
use crate::gateway::Part;
use crate::llm::ChatRequest;
use crate::protocol::FailureCode;

/// A request.
pub(super) struct Prepared {
    pub(super) chat: ChatRequest,
    /// The analyses that it asks; empty if it is for one analysis alone.
    pub(super) parts: Vec<Part>,
    /// For each analysis that is due, why it cannot be asked.
    pub(super) refused: Vec<Option<Failed>>,
}

/// Makes the request that asks the analyses in `due`. In a bundle, one whose prompt cannot be rendered is left out.
///
/// # Errors
/// None of them can be asked.
pub(super) fn prepare(job: &Job, due: &[Member]) -> Result<Prepared, Failed> {
    let Start { snapshot, facts, last, .. } = &*job.start;
    let mut refused: Vec<Option<Failed>> = due.iter().map(|_| None).collect();
    loop {
        let place = |name: &str| {
            let mut members = due.iter().zip(&refused);
            members.position(|(member, refused)| *member.key.analysis == *name && refused.is_none())
        };
        let asked = job.bundle.iter().map(|(analysis, prompt)| {
            let place = place(&analysis.name);
            let current = place.and_then(|place| due[place].current.as_ref()).map(|insight| &insight.value);
            Asked { analysis, prompt, current, last: *last, due: place.is_some() }
        });
        let asked: Vec<Asked<'_>> = asked.collect();
        let error = match request::request(&asked, snapshot, facts) {
            Ok(chat) => {
                let parts = parts(job, due, &refused);
                return Ok(Prepared { chat, parts, refused });
            }
            Err(error) => error,
        };
        let code = match error.kind {
            RenderErrorKind::TooComplex => FailureCode::TooComplex,
            RenderErrorKind::BadPrompt => FailureCode::BadPrompt,
        };
        let failed = Failed { code, message: error.to_string(), temporary: false };
        let of = job.bundle.iter().find(|(_, prompt)| prompt.id == error.id);
        match of.and_then(|(analysis, _)| place(&analysis.name)) {
            Some(place) if refused.iter().filter(|refused| refused.is_none()).count() > 1 => {
                refused[place] = Some(failed);
            }
            _ => return Err(failed),
        }
    }
}

/// The analyses that a bundle's request asks.
fn parts(job: &Job, due: &[Member], refused: &[Option<Failed>]) -> Vec<Part> {
    if job.bundle.len() < 2 {
        return Vec::new();
    }
    let members = request::members(job.bundle.iter().map(|(analysis, _)| &*analysis.name));
    let asked = due.iter().zip(refused).filter(|(_, refused)| refused.is_none());
    let part = |(member, _): (&Member, &Option<Failed>)| {
        let place = job.bundle.iter().position(|(analysis, _)| analysis.name == member.key.analysis)?;
        Some(Part {
            analysis: member.key.analysis.clone(),
            member: members[place].clone(),
            needed: member.current.is_none(),
            local: member.analysis.settings.local,
        })
    };
    asked.filter_map(part).collect()
}

/// The values in an answer, in the order of `parts`; the answer itself if there are none.
pub(super) fn values(answer: Value, parts: &[Part], degraded: bool) -> Vec<Result<Value, Failed>> {
    let mut members = match answer {
        Value::Object(members) if !parts.is_empty() => members,
        value => return vec![Ok(value)],
    };
    let value = |part: &Part| match members.shift_remove(&part.member) {
        Some(value) => Ok(value),
        None if degraded && part.local.is_none() => Err(Failed {
            code: FailureCode::Unsupported,
            message: format!("the embedded provider cannot answer {}; configure an endpoint for that", part.analysis),
            temporary: false,
        }),
        None => Err(Failed {
            code: FailureCode::SchemaMismatch,
            message: "this part of the answer is not valid under its schema, after one repair round too".to_owned(),
            temporary: true,
        }),
    };
    parts.iter().map(value).collect()
}
