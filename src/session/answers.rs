//! Reads the value of one analysis' answer: checks its evidence and that of the newest value, applies its lists to the newest
//! ones, and limits its size.
//!
//! Knows no request and no gateway.

use std::sync::Arc;

use serde_json::Value;

use super::failure;
use super::job::Job;
use crate::analysis::{Analysis, Answering, Form, READING, Reading};
use crate::base::budget;
use crate::base::measure;
use crate::call::answer::Failed;
use crate::call::task::Member;
use crate::protocol::FailureCode;
use crate::types::Insight;

/// Reads the value. `degraded`: the embedded provider answered.
///
/// # Errors
/// The value is over a limit.
pub(super) async fn read(value: Value, job: &Job, member: &Member, degraded: bool) -> Result<Reading, Failed> {
    let own = job.bundle.iter().find(|(analysis, _)| analysis.name == member.key.analysis);
    let form = match own {
        // The embedded provider always returns whole lists, whatever the prompt asks for.
        Some((analysis, prompt)) if !degraded => analysis.form(prompt, job.start.last),
        _ => Form::Whole,
    };
    let (analysis, rev, current) = (member.analysis.clone(), member.rev, member.current.clone());
    // In a bundle, null means that the newest value is still valid.
    let unchanged = value.is_null() && current.is_some() && job.bundle.len() > 1;
    let known = current.as_ref().map(|insight| &insight.value);
    let work = Analysis::reading_work(&value, &job.start.snapshot);
    let work = work.saturating_add(known.map_or(0, |known| Analysis::reading_work(known, &job.start.snapshot)));
    let work = work.saturating_add(analysis.concluding_work(&value, known));
    let snapshot = job.start.snapshot.clone();
    let reading = budget::run(work, READING, move |budget| {
        // Corrected turns may have changed which quotes of the newest value are right.
        let recheck =
            |newest: &Arc<Insight>| Analysis::recheck(newest.value.clone(), newest.evidence.clone(), &snapshot, budget);
        let checked = current.as_ref().map(recheck).transpose()?;
        let current = current.as_ref().map(|newest| &newest.value);
        match checked {
            Some(checked) if unchanged => {
                let changes = if current == Some(&checked.value) { analysis.unchanged() } else { None };
                Ok(Reading { changes, ..checked })
            }
            checked => {
                let reading = Analysis::read(value, &snapshot, budget)?;
                let checked = checked.as_ref().map(|checked| &checked.value);
                Ok(analysis.conclude(reading, &Answering { current, checked, form, rev }))
            }
        }
    });
    let reading = reading.await.map_err(|exceeded| failure::over("the answer's evidence", exceeded))?;
    limited(reading, job.insight_bytes)
}

fn limited(mut reading: Reading, most: usize) -> Result<Reading, Failed> {
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
