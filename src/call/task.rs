//! A task: one or more analyses of a snapshot that are asked together, or a producer's own question. What is needed to
//! start it, and what it comes back with.
//!
//! Knows neither the gateway nor how a permit is had: the driver chooses who is asked and says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::answer::{Failed, Replied};
use super::bill::Bill;
use super::numbers::ConnectionNo;
use super::schedule::Cause;
use crate::analysis::{Analysis, Facts, Question, Reading, Spoken};
use crate::context::Snapshot;
use crate::types::{Coverage, Insight, TurnNo};

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

/// What a task is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An insight of each of these, which share a turn or have none. They are published.
    Insights(Vec<TaskKey>),
    /// An answer to a producer about one of its turns. It is not published.
    Reply(ReplyKey),
}

/// A turn that a connected producer asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReplyKey {
    /// The connection.
    pub(crate) connection: ConnectionNo,
    /// The vendor's number of the turn.
    pub(crate) turn_order: i64,
}

/// What the driver must know to choose who is asked.
pub(crate) enum Choice<'call> {
    /// Of an analysis.
    Analysis {
        analysis: &'call Arc<Analysis>,
        /// The variant that the call's first task of this analysis was answered by.
        pinned: Option<&'call str>,
        /// Variants that the call's producers chose, by route.
        variants: &'call BTreeMap<String, String>,
    },
    /// Of a producer's own question.
    Question(&'call Question),
}

/// Who is asked.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// The route.
    pub(crate) route: Arc<str>,
    /// Its variant.
    pub(crate) variant: Arc<str>,
    /// Only the embedded provider is behind it.
    pub(crate) local: bool,
    /// The analyses of the request, in its order; of a producer's own question, none.
    pub(crate) members: Vec<ChosenMember>,
}

/// An analysis that is asked.
#[derive(Debug, Clone)]
pub(crate) struct ChosenMember {
    pub(crate) analysis: Arc<str>,
    /// The prompt's id.
    pub(crate) prompt: Arc<str>,
}

/// A task to be started.
pub(crate) struct Start {
    /// Under which its result comes back.
    pub(crate) no: TaskNo,
    /// What is asked.
    pub(crate) asks: Asks,
    /// What it is about.
    pub(crate) snapshot: Snapshot,
    /// What else is known of the call.
    pub(crate) facts: Facts,
    /// It is the last run of these analyses in the call.
    pub(crate) last: bool,
    /// At most this long, all attempts and the repair included.
    pub(crate) deadline: Option<Duration>,
}

/// What is asked in one task.
pub(crate) enum Asks {
    /// These analyses, in this order.
    Insights(Vec<Member>),
    /// A producer's own question.
    Reply(Box<Asking>),
}

/// One analysis of a task.
pub(crate) struct Member {
    /// Which.
    pub(crate) key: TaskKey,
    /// The question.
    pub(crate) analysis: Arc<Analysis>,
    /// The rev that its insight will have.
    pub(crate) rev: u64,
    /// Its newest insight, where it is not per turn.
    pub(crate) current: Option<Arc<Insight>>,
}

/// A producer's own question about one turn.
pub(crate) struct Asking {
    pub(crate) question: Arc<Question>,
    pub(crate) spoken: Spoken,
    /// The newest summary, where the question shows it.
    pub(crate) summary: Option<Arc<Insight>>,
}

/// What a task comes back with.
#[derive(Debug)]
pub(crate) enum Output {
    /// Of analyses.
    Insights(Answered),
    /// Of a producer's own question.
    Reply(Replied),
}

/// An answer to the analyses of a task.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Of each of them, in their order: valid under its schema, its evidence checked against the snapshot.
    pub(crate) members: Vec<Result<Reading, Failed>>,
    /// The logical model that answered.
    pub(crate) model: String,
    /// The endpoint that answered.
    pub(crate) endpoint: String,
    /// HTTP calls made.
    pub(crate) attempts: u32,
    /// What the request took, all attempts included.
    pub(crate) bill: Bill,
    /// Made in a lesser way, by a fallback.
    pub(crate) degraded: bool,
    /// To the first token.
    pub(crate) first_token: Option<Duration>,
    /// To the end.
    pub(crate) took: Duration,
}

/// A task that was asked for and is not over.
#[derive(Debug)]
pub(super) struct Out {
    /// What for.
    pub(super) target: Target,
    /// Set once it was started; until then it waits for its permit.
    pub(super) run: Option<Run>,
}

/// What is remembered of a task's start.
#[derive(Debug)]
pub(super) enum Run {
    Insights(Box<Begun>),
    Reply,
}

/// A task whose insights will be published. Times are ms on the call's clock.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) route: Arc<str>,
    pub(super) variant: Arc<str>,
    /// What its snapshot holds.
    pub(super) covers: Coverage,
    /// Turns of the call when the snapshot was taken.
    pub(super) turns: u64,
    pub(super) is_final: bool,
    pub(super) started_ms: u64,
    /// In the order of the request.
    pub(super) members: Vec<BegunMember>,
}

/// One analysis of such a task.
#[derive(Debug)]
pub(super) struct BegunMember {
    pub(super) key: TaskKey,
    /// The prompt's id.
    pub(super) prompt: Arc<str>,
    pub(super) cause: Cause,
    /// When the newest of what the task is about came: a turn, or a correction of one.
    pub(super) news_ms: u64,
    /// When it was due.
    pub(super) fired_ms: u64,
}
