//! A task: one run of an analysis on a snapshot. What is needed to start it, and what it comes back with.
//!
//! Knows neither the gateway nor how a permit is had: the driver chooses who is asked and says so.

use std::sync::Arc;
use std::time::Duration;

use super::schedule::Cause;
use crate::analysis::{Analysis, Facts};
use crate::context::Snapshot;
use crate::types::{Coverage, Evidence, TokenUsage, TurnNo};

/// Number of a task in its call; never given twice by one [`super::Call`].
pub(crate) type TaskNo = u64;

/// Which analysis, and which turn where it is per turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TaskKey {
    /// The analysis.
    pub(crate) analysis: Arc<str>,
    /// The turn, where it is per turn.
    pub(crate) turn: Option<TurnNo>,
}

/// What the driver must know to choose who is asked.
pub(crate) struct Choice<'call> {
    /// The question.
    pub(crate) analysis: &'call Arc<Analysis>,
    /// The variant that the call's first task of this analysis was answered by.
    pub(crate) pinned: Option<&'call str>,
    /// Variants that the call's producers chose, by route.
    pub(crate) variants: &'call std::collections::BTreeMap<String, String>,
}

/// Who is asked.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// The route.
    pub(crate) route: Arc<str>,
    /// Its variant.
    pub(crate) variant: Arc<str>,
    /// The prompt's id.
    pub(crate) prompt: Arc<str>,
    /// Only the embedded provider is behind it.
    pub(crate) local: bool,
}

/// A task to be started.
pub(crate) struct Start {
    /// Under which its result comes back.
    pub(crate) no: TaskNo,
    /// Which.
    pub(crate) key: TaskKey,
    /// The question.
    pub(crate) analysis: Arc<Analysis>,
    /// What it is about.
    pub(crate) snapshot: Snapshot,
    /// What else is known of the call.
    pub(crate) facts: Facts,
    /// The rev that its insight will have.
    pub(crate) rev: u64,
    /// At most this long, all attempts and the repair included.
    pub(crate) deadline: Option<Duration>,
}

/// A good answer.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Valid under the schema, without its evidence.
    pub(crate) value: serde_json::Value,
    /// Checked against the snapshot.
    pub(crate) evidence: Vec<Evidence>,
    /// The logical model that answered.
    pub(crate) model: String,
    /// The endpoint that answered.
    pub(crate) endpoint: String,
    /// HTTP calls made.
    pub(crate) attempts: u32,
    /// Tokens.
    pub(crate) usage: TokenUsage,
    /// US dollars.
    pub(crate) cost_usd: Option<f64>,
    /// Made in a lesser way, by a fallback.
    pub(crate) degraded: bool,
    /// To the first token.
    pub(crate) first_token: Option<Duration>,
    /// To the end.
    pub(crate) took: Duration,
}

/// No answer.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    /// Stable code.
    pub(crate) code: String,
    /// For people; no transcript text.
    pub(crate) message: String,
    /// Whether trying again may help.
    pub(crate) temporary: bool,
}

/// A task that was asked for and is not over.
#[derive(Debug)]
pub(super) struct Out {
    /// Which.
    pub(super) key: TaskKey,
    /// Set once it was started; until then it waits for its permit.
    pub(super) run: Option<Box<Run>>,
}

/// What is remembered of a task's start.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) chosen: Chosen,
    /// What its snapshot holds.
    pub(super) covers: Coverage,
    /// Turns of the call when the snapshot was taken.
    pub(super) turns: u64,
    pub(super) cause: Cause,
    pub(super) is_final: bool,
    /// When the newest of what the task is about came: a turn, or a correction of one. ms, as all times here.
    pub(super) news_ms: u64,
    pub(super) fired_ms: u64,
    pub(super) started_ms: u64,
}
