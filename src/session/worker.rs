//! One job: an analysis asked of a snapshot. Runs beside the session, which only hears of its end.
//!
//! Knows no journal and no sequence number. Dropping the future cancels the request upstream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::analysis::{Analysis, Facts, Prompt, READING};
use crate::base::budget::{self, Exceeded};
use crate::base::measure;
use crate::context::Snapshot;
use crate::gateway::{Gateway, MakeTranscript, Request, Resolved};
use crate::hub::{Hub, LiveFrame, LiveKind};
use crate::types::{CallId, Evidence, TokenUsage, TurnNo};

/// Which run of which analysis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct JobKey {
    /// The analysis.
    pub(super) analysis: Arc<str>,
    /// The turn, where it is per turn.
    pub(super) turn: Option<TurnNo>,
}

/// Everything that a job needs.
pub(super) struct Job {
    /// Which.
    pub(super) key: JobKey,
    /// The question.
    pub(super) analysis: Arc<Analysis>,
    /// Its words.
    pub(super) prompt: Arc<Prompt>,
    /// Who is asked.
    pub(super) arm: Arc<Resolved>,
    /// What it is about.
    pub(super) snapshot: Snapshot,
    /// What else is known of the call.
    pub(super) facts: Facts,
    /// The call.
    pub(super) call: CallId,
    /// The rev that its insight will have.
    pub(super) rev: u64,
    /// At most this long, all attempts and the repair included.
    pub(super) deadline: Option<Duration>,
    /// `limits.insight_bytes`.
    pub(super) insight_bytes: usize,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answered {
    /// Valid under the schema, without its evidence.
    pub(super) value: serde_json::Value,
    /// Checked against the snapshot.
    pub(super) evidence: Vec<Evidence>,
    /// The logical model that answered.
    pub(super) model: String,
    /// The endpoint that answered.
    pub(super) endpoint: String,
    /// HTTP calls made.
    pub(super) attempts: u32,
    /// Tokens.
    pub(super) usage: TokenUsage,
    /// US dollars.
    pub(super) cost_usd: Option<f64>,
    /// A lesser way made it.
    pub(super) degraded: bool,
    /// To the first token.
    pub(super) first_token: Option<Duration>,
    /// To the end.
    pub(super) took: Duration,
}

/// No answer.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    /// Stable code.
    pub(super) code: String,
    /// For people; no transcript text.
    pub(super) message: String,
    /// Whether trying again may help.
    pub(super) temporary: bool,
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
    let request = job.analysis.request(&job.prompt, &job.snapshot, &job.facts).map_err(|error| Failed {
        code: error.code.to_owned(),
        message: error.to_string(),
        temporary: false,
    })?;
    let delta = LiveKind::Delta { analysis: Arc::clone(&job.key.analysis) };
    let mut asked = Request::of_analysis(Arc::clone(&job.arm), request, Arc::clone(&job.key.analysis));
    asked.transcript = Some(reading(job));
    asked.local = job.analysis.settings.local;
    asked.origin.call = Some(job.call.clone());
    asked.deltas = hub.wants(&job.call, &delta).then(|| deltas(job, hub));
    asked.deadline = job.deadline;
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
    let (work, snapshot) = (Analysis::reading_work(&value, &job.snapshot), job.snapshot.clone());
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
fn reading(job: &Job) -> MakeTranscript {
    let snapshot = job.snapshot.clone();
    Arc::new(move || snapshot.transcript())
}

/// Longest text of one `insight.delta`, bytes. Longer pieces are split.
const DELTA_BYTES: usize = 64 * 1024;

/// Sends each piece of the answer to who watches, with its offset in characters.
fn deltas(job: &Job, hub: &Hub) -> Box<dyn FnMut(crate::gateway::Delta<'_>) + Send> {
    let hub = hub.clone();
    let call = job.call.clone();
    let key = job.key.clone();
    let rev = job.rev;
    Box::new(move |delta| {
        let (mut offset, mut rest) = (delta.offset, delta.text);
        loop {
            let (text, after) = rest.split_at(rest.floor_char_boundary(DELTA_BYTES));
            let mut frame = json!({
                "type": "insight.delta", "call_id": call, "analysis": &*key.analysis, "rev": rev,
                "offset": offset, "text": text,
            });
            if let Some(turn) = key.turn {
                frame["turn"] = json!(turn);
            }
            let frame = bytes::Bytes::from(frame.to_string());
            hub.live(&call, LiveFrame { kind: LiveKind::Delta { analysis: Arc::clone(&key.analysis) }, frame });
            if after.is_empty() {
                return;
            }
            offset += text.chars().count() as u64;
            rest = after;
        }
    })
}
