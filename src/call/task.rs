//! A task: one or more analyses of a snapshot that are asked together, a producer's own question, or a digest of old
//! turns. Defines what is needed to start a task, and what it returns.
//!
//! Knows no gateway and no permits: the driver chooses the model and passes in the choice.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::answer::{Failed, Replied};
use super::bill::Bill;
use super::numbers::ConnectionNo;
use super::schedule::Cause;
use crate::analysis::{Analysis, Facts, Question, Reading, Spoken};
use crate::base::tokens::Fit;
use crate::context::{Digest, Snapshot, Source};
use crate::types::{Coverage, Insight, TurnNo};

/// Number of a task in its call; never given twice by one [`super::Call`].
pub(crate) type TaskNo = u64;

/// An analysis, with a turn if it is per turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TaskKey {
    pub(crate) analysis: Arc<str>,
    /// The turn, if the analysis is per turn.
    pub(crate) turn: Option<TurnNo>,
}

/// The purpose of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// One insight for each of these, which share a turn or have none. They are published.
    Insights(Vec<TaskKey>),
    /// An answer to a producer about one of its turns. It is not published.
    Reply(ReplyKey),
    /// A digest of old turns. It is not published, but kept in the log.
    Digest(DigestKey),
}

/// A digest to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DigestKey {
    /// The high-water mark: `max_context_tokens` of the analyses whose prompts show the digest.
    pub(crate) mark: u64,
    /// The analysis whose model makes it.
    pub(crate) analysis: Arc<str>,
    pub(crate) turns: Range<TurnNo>,
    /// Desired number of tokens.
    pub(crate) tokens: u64,
}

/// A turn that a connected producer asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReplyKey {
    pub(crate) connection: ConnectionNo,
    /// The vendor's number of the turn.
    pub(crate) turn_order: i64,
}

/// What the driver needs to choose a model.
pub(crate) enum Choice<'call> {
    /// A model for an analysis.
    Analysis {
        analysis: &'call Arc<Analysis>,
        /// The variant that answered the call's first task of this analysis.
        pinned: Option<&'call str>,
        /// Variants that the call's producers chose, by route.
        variants: &'call BTreeMap<String, String>,
        /// Analyses that the same request may ask, if it goes to the same variant.
        others: Vec<Other<'call>>,
    },
    /// A model for a producer's own question.
    Question(&'call Question),
}

/// An analysis that the request of another one may ask too.
pub(crate) struct Other<'call> {
    pub(crate) analysis: &'call Arc<Analysis>,
    /// The variant that answered the call's first task of this analysis.
    pub(crate) pinned: Option<&'call str>,
}

/// The chosen model.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// The route.
    pub(crate) route: Arc<str>,
    /// The variant's name.
    pub(crate) variant: Arc<str>,
    /// Set if the only candidate is the embedded provider.
    pub(crate) local: bool,
    /// How much of the call its prompts may hold.
    pub(crate) fit: Fit,
    /// The analyses in the schema of the request, in its order; empty for a producer's own question.
    pub(crate) members: Vec<ChosenMember>,
}

/// An analysis of the request.
#[derive(Debug, Clone)]
pub(crate) struct ChosenMember {
    pub(crate) analysis: Arc<str>,
    /// The prompt's id.
    pub(crate) prompt: Arc<str>,
}

/// A task to start.
pub(crate) struct Start {
    /// Number under which its result returns.
    pub(crate) no: TaskNo,
    /// The questions.
    pub(crate) asks: Asks,
    /// The turns that the task is about.
    pub(crate) snapshot: Snapshot,
    /// Further facts about the call.
    pub(crate) facts: Facts,
    /// Set if this is the last run of these analyses in the call.
    pub(crate) last: bool,
    /// Time limit of the task, including all attempts and the repair.
    pub(crate) deadline: Option<Duration>,
}

/// The questions of one task.
pub(crate) enum Asks {
    /// The listed analyses, in this order.
    Insights(Vec<Member>),
    /// A producer's own question.
    Reply(Box<Asking>),
    /// A digest of the turns in the snapshot.
    Digest(Box<Digesting>),
}

/// A request for a digest.
pub(crate) struct Digesting {
    pub(crate) source: Source,
    /// Desired number of tokens.
    pub(crate) tokens: u64,
    /// Maximum number of tokens.
    pub(crate) most: u64,
}

/// One analysis of a task.
pub(crate) struct Member {
    pub(crate) key: TaskKey,
    pub(crate) analysis: Arc<Analysis>,
    /// The revision that the new insight will have.
    pub(crate) rev: u64,
    /// The analysis's newest insight, if it is not per turn.
    pub(crate) current: Option<Arc<Insight>>,
}

/// A producer's own question about one turn.
pub(crate) struct Asking {
    pub(crate) question: Arc<Question>,
    pub(crate) spoken: Spoken,
    /// The newest summary, if the question includes it.
    pub(crate) summary: Option<Arc<Insight>>,
}

/// The result of a task.
#[derive(Debug)]
pub(crate) enum Output {
    /// The answer to analyses.
    Insights(Answered),
    /// The answer to a producer's own question.
    Reply(Replied),
    /// For old turns.
    Digest(Digested),
}

/// A digest that was made.
#[derive(Debug)]
pub(crate) struct Digested {
    pub(crate) digest: Digest,
    /// US dollars; `None` if a price is unknown.
    pub(crate) cost_usd: Option<f64>,
}

/// An answer to the analyses of a task.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The answer to each of them, in their order: valid under its schema, its evidence checked against the snapshot.
    pub(crate) members: Vec<Result<Reading, Failed>>,
    /// The logical model that answered.
    pub(crate) model: String,
    /// The endpoint that answered.
    pub(crate) endpoint: String,
    /// Number of HTTP requests made.
    pub(crate) attempts: u32,
    /// Tokens and cost of the request, including all attempts.
    pub(crate) bill: Bill,
    /// The length of each member's part of the answer, in their order.
    pub(crate) weights: Vec<u64>,
    /// Set if the embedded provider answered as a fallback.
    pub(crate) degraded: bool,
    /// Time to the first token.
    pub(crate) first_token: Option<Duration>,
    /// Time to the end.
    pub(crate) took: Duration,
}

/// A task that was requested and is not over.
#[derive(Debug)]
pub(super) struct Out {
    /// The task's purpose.
    pub(super) target: Target,
    /// Set once the task was started; until then it waits for its permit.
    pub(super) run: Option<Run>,
}

/// What is remembered from the start of a task.
#[derive(Debug)]
pub(super) enum Run {
    Insights(Box<Begun>),
    Reply,
    /// The estimated tokens of the digest's turns.
    Digest {
        tokens: u64,
    },
}

/// A task whose insights will be published. Times are ms on the call's clock.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) route: Arc<str>,
    pub(super) variant: Arc<str>,
    /// The turns that the task's snapshot contains.
    pub(super) covers: Coverage,
    /// Number of turns of the call when the snapshot was taken.
    pub(super) turns: u64,
    pub(super) is_final: bool,
    /// Set if the schema of the request is one for several analyses.
    pub(super) bundled: bool,
    pub(super) started_ms: u64,
    /// The task's analyses, in the order of the request.
    pub(super) members: Vec<BegunMember>,
}

/// One analysis of such a task.
#[derive(Debug)]
pub(super) struct BegunMember {
    pub(super) key: TaskKey,
    /// The prompt's id.
    pub(super) prompt: Arc<str>,
    pub(super) cause: Cause,
    /// When the newest turn or correction that the task is about came.
    pub(super) news_ms: u64,
    /// When the analysis became due.
    pub(super) fired_ms: u64,
}
