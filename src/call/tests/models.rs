//! Models that answer late, wrongly, not at all, and in any order; and the permits for which tasks wait.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::json;

use super::random::Random;
use crate::analysis::Reading;
use crate::call::answer::{Failed, Replied};
use crate::call::bill::Bill;
use crate::call::task::{Answered, Asks, Digested, Output, Start, Target, TaskKey, TaskNo};
use crate::context::{Claim, Source};
use crate::protocol::FailureCode;
use crate::types::{Coverage, TokenUsage};

/// A task in progress.
pub(super) struct Running {
    pub(super) target: Target,
    pub(super) covers: Coverage,
    pub(super) turns: usize,
    pub(super) due_ms: u64,
    /// Of a digest: its turns, and the maximum of its tokens.
    pub(super) source: Option<(Source, u64)>,
}

/// How models behave in one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    pub(super) permits: usize,
    pub(super) latency_ms: u64,
    /// Failures per 1000 answers; half of them are permanent.
    pub(super) failing: u64,
    /// Tasks per 1000 for which no model can be asked.
    pub(super) nobody: u64,
    /// Per mille of the parts of answers that are not valid.
    pub(super) breaking: u64,
}

pub(super) struct Models {
    pub(super) manners: Manners,
    pub(super) running: BTreeMap<TaskNo, Running>,
    /// Tasks that wait for a permit.
    pub(super) waiting: VecDeque<TaskNo>,
    /// Tasks that were aborted before their answer came: it may still come.
    pub(super) aborted: Vec<(TaskNo, Target)>,
}

impl Models {
    pub(super) fn new(manners: Manners) -> Self {
        Self { manners, running: BTreeMap::new(), waiting: VecDeque::new(), aborted: Vec::new() }
    }

    pub(super) fn has_permit(&self) -> bool {
        self.running.len() < self.manners.permits
    }

    pub(super) fn start(&mut self, start: &Start, target: Target, turns: usize, now_ms: u64, random: &mut Random) {
        let took = 1 + random.below(2 * self.manners.latency_ms);
        // The request ends at its deadline.
        let limit = start.deadline.map_or(60_000, |deadline| u64::try_from(deadline.as_millis()).expect("short"));
        let source = match &start.asks {
            Asks::Digest(asked) => Some((asked.source.clone(), asked.most)),
            Asks::Insights(_) | Asks::Reply(_) => None,
        };
        let covers = start.snapshot.covers();
        let running = Running { target, covers, turns, due_ms: now_ms + took.min(limit), source };
        let asked = match &start.asks {
            Asks::Insights(members) => members.len(),
            Asks::Reply(_) | Asks::Digest(_) => 0,
        };
        assert_eq!(asked, running.keys().len(), "a task asks what it is for");
        assert!(self.running.insert(start.no, running).is_none(), "a number is given once");
    }

    pub(super) fn abort(&mut self, task: TaskNo) {
        self.waiting.retain(|waiting| *waiting != task);
        self.aborted.extend(self.running.remove(&task).map(|running| (task, running.target)));
    }

    pub(super) fn abort_all(&mut self) {
        self.waiting.clear();
        self.aborted
            .extend(std::mem::take(&mut self.running).into_iter().map(|(task, running)| (task, running.target)));
    }

    /// When the next answer is due.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.running.values().map(|running| running.due_ms).min()
    }

    /// A random task whose answer is due.
    pub(super) fn due(&self, now_ms: u64, random: &mut Random) -> Option<TaskNo> {
        let due: Vec<TaskNo> =
            self.running.iter().filter(|(_, running)| running.due_ms <= now_ms).map(|(no, _)| *no).collect();
        (!due.is_empty()).then(|| due[random.index(due.len())])
    }

    pub(super) fn result(
        &self,
        target: &Target,
        source: Option<&(Source, u64)>,
        random: &mut Random,
    ) -> Result<Output, Failed> {
        if random.chance(self.manners.failing) {
            return Err(failed(random.chance(500)));
        }
        let cost_usd = random.chance(900).then_some(0.25);
        if let Target::Digest(_) = target {
            let (source, most) = source.ok_or_else(|| failed(true))?;
            let digest = source.digest(claims(source, random), *most).map_err(|_| failed(true))?;
            return Ok(Output::Digest(Digested { digest, cost_usd }));
        }
        let Target::Insights(keys) = target else {
            return Ok(Output::Reply(Replied {
                text: "fine".to_owned(),
                id: String::new(),
                finish: "stop",
                model: "m".into(),
                endpoint: "e".into(),
                vendor_model: "v".into(),
                attempts: 1,
                usage: TokenUsage::default(),
                cost_usd,
                degraded: false,
            }));
        };
        let mut part = || {
            if random.chance(self.manners.breaking) {
                return Err(Failed { code: FailureCode::SchemaMismatch, ..failed(true) });
            }
            Ok(Reading { value: json!({"text": "fine", "score": random.below(10)}), ..Reading::default() })
        };
        let members: Vec<_> = keys.iter().map(|_| part()).collect();
        Ok(Output::Insights(Answered {
            weights: members.iter().map(|_| 1 + random.below(100)).collect(),
            members,
            model: "m".to_owned(),
            endpoint: "e".to_owned(),
            attempts: 1,
            bill: Bill { usage: TokenUsage::default(), cost_usd },
            degraded: false,
            first_token: Some(Duration::from_millis(3)),
            took: Duration::from_millis(10),
        }))
    }
}

impl Running {
    /// The analyses of the task.
    pub(super) fn keys(&self) -> &[TaskKey] {
        match &self.target {
            Target::Insights(keys) => keys,
            Target::Reply(_) | Target::Digest(_) => &[],
        }
    }
}

/// Claims about turns: some, none, too many, or about turns that are not asked for.
fn claims(source: &Source, random: &mut Random) -> Vec<Claim> {
    let count = random.pick(&[0, 1, 1, 1, 1, 2, 200]);
    let claim = |random: &mut Random| {
        let beyond = if random.chance(200) { 3 } else { 0 };
        let turn = source.turns.start + random.below(source.turns.end - source.turns.start + beyond);
        Claim { text: "He asked.".to_owned(), turns: vec![turn] }
    };
    (0..count).map(|_| claim(random)).collect()
}

pub(super) fn failed(temporary: bool) -> Failed {
    let code = if temporary { FailureCode::UpstreamError } else { FailureCode::Refused };
    Failed { code, message: "the model failed".to_owned(), temporary }
}
