//! A call on a virtual clock, whose tasks are started at once and answered by the test.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::analysis::{Reading, Registry};
use crate::base::settings::Problems;
use crate::base::tokens::Fit;
use crate::call::answer::Failed;
use crate::call::bill::Bill;
use crate::call::config::{IngestConfig, LimitsConfig};
use crate::call::effects::TaskEffect;
use crate::call::input::{Attach, Frames, Input, Now};
use crate::call::record::{self, Decoded, Outgoing};
use crate::call::task::{Answered, Asks, Choice, Chosen, ChosenMember, Output, TaskNo};
use crate::call::{Call, Log, Settings};
use crate::protocol::{Event, FailureCode};
use crate::rules::Rules;
use crate::types::{
    CallId, Carry, EndScope, Final, Insight, JsonMap, Revision, StreamId, SttEvent, TokenUsage, TurnKey,
};

/// Wall time at which every call here begins, ms since 1970.
const BEGAN_MS: i64 = 1_790_000_000_000;

/// A task that was started.
pub(super) struct Task {
    pub(super) no: TaskNo,
    /// The analyses that its request asks.
    pub(super) asked: Vec<String>,
    /// All analyses in the schema of its request.
    pub(super) schema: Vec<String>,
    pub(super) last: bool,
}

pub(super) struct Bench {
    call: Call,
    now_ms: u64,
    frames: u64,
    log: Vec<Outgoing>,
    /// Tasks that were not taken by the test yet, oldest first.
    pub(super) started: Vec<Task>,
}

fn stream() -> StreamId {
    StreamId::parse("s_1").expect("id")
}

impl Bench {
    /// A call with these analyses, and the default ones. Figures do not run, and all analyses ask one route.
    pub(super) fn new(analyses: &str) -> Self {
        let mut problems = Problems::default();
        let table: toml::Table = analyses.parse().expect("toml");
        let registry = Registry::read(Some(toml::Value::Table(table)), Path::new("."), &mut problems);
        let never = "idle_timeout_ms = 86400000\nmax_silence_ms = 86400000".parse().expect("toml");
        let settings = Settings {
            default_analyses: registry.defaults().into_iter().filter(|name| name != "stats").collect(),
            analyses: Arc::new(registry),
            rules: Arc::new(Rules::read(None, &mut problems)),
            ingest: IngestConfig::read(Some(toml::Value::Table(never)), &mut problems),
            limits: LimitsConfig::read(None, &mut problems),
        };
        assert_eq!(problems.into_vec().len(), 0, "{analyses}");
        let (log, now) = (Log::new(CallId::parse("c_1").expect("id")), Now { ms: 0, unix_ms: BEGAN_MS });
        let call = Call::new(Arc::new(settings), log, None, false, Box::new(|| 7), now);
        let mut bench = Self { call, now_ms: 0, frames: 0, log: Vec::new(), started: Vec::new() };
        bench.input(Input::Attach(Attach {
            peer: 1,
            stream: stream(),
            dialect: crate::stt::dialect("sidetone").expect("a dialect"),
            offset_ms: None,
            meta: JsonMap::new(),
            analyses: None,
            variants: BTreeMap::new(),
            question: None,
        }));
        bench
    }

    fn now(&self) -> Now {
        Now { ms: self.now_ms, unix_ms: BEGAN_MS + i64::try_from(self.now_ms).expect("short") }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        self.call.on(input, now);
        self.call.on(Input::Settle, now);
        loop {
            let effects = self.call.task_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                if let TaskEffect::Want(task) = effect {
                    self.ready(task);
                }
            }
            self.call.on(Input::Settle, now);
        }
        while let Some(batch) = self.call.batch(now) {
            self.log.extend(batch.records);
            let head = self.log.len() as u64;
            self.call.on(Input::Committed { head }, now);
        }
    }

    /// Starts a task with all analyses that may be in its schema.
    fn ready(&mut self, task: TaskNo) {
        let Some(Choice::Analysis { analysis, others, .. }) = self.call.choice(task) else { return };
        let others = others.iter().filter(|other| analysis.goes_with(other.analysis, "r"));
        let mut schema: Vec<Arc<str>> = others.map(|other| Arc::clone(&other.analysis.name)).collect();
        schema.push(Arc::clone(&analysis.name));
        schema.sort_unstable();
        let members = schema.iter().map(|analysis| ChosenMember { analysis: Arc::clone(analysis), prompt: "p".into() });
        let (fit, members) = (Fit::default(), members.collect());
        let chosen = Chosen { route: "r".into(), variant: "a".into(), local: false, fit, members };
        let now = self.now();
        self.call.on(Input::Ready { task, chosen: Ok(chosen) }, now);
        let Some(start) = self.call.start() else { return };
        let Asks::Insights(members) = &start.asks else { panic!("analyses") };
        let asked = members.iter().map(|member| member.key.analysis.to_string()).collect();
        let schema = schema.iter().map(ToString::to_string).collect();
        self.started.push(Task { no: start.no, asked, schema, last: start.last });
    }

    /// The only task that was started since the last call of this function.
    pub(super) fn only_started(&mut self) -> Task {
        assert_eq!(self.started.len(), 1, "tasks that were started");
        self.started.remove(0)
    }

    /// A task ends with these parts, each a value of this weight or a failure. Its cost is 1 dollar.
    pub(super) fn answer(&mut self, task: TaskNo, parts: &[Result<u64, FailureCode>]) {
        let part = |part: &Result<u64, FailureCode>| match part {
            Ok(weight) => Ok(Reading { value: json!({"part": weight}), ..Reading::default() }),
            Err(code) => Err(Failed { code: *code, message: "wrong".to_owned(), temporary: true }),
        };
        let answered = Answered {
            members: parts.iter().map(part).collect(),
            model: "m".to_owned(),
            endpoint: "e".to_owned(),
            attempts: 1,
            bill: Bill { usage: TokenUsage::default(), cost_usd: Some(1.0) },
            weights: parts.iter().map(|part| part.as_ref().map_or(9, |weight| *weight)).collect(),
            degraded: false,
            first_token: None,
            took: Duration::ZERO,
        };
        self.input(Input::Done { task, result: Ok(Output::Insights(answered)) });
    }

    pub(super) fn fail(&mut self, task: TaskNo, code: FailureCode, temporary: bool) {
        let failed = Failed { code, message: "failed".to_owned(), temporary };
        self.input(Input::Done { task, result: Err(failed) });
    }

    fn event(&mut self, event: SttEvent) {
        self.frames += 1;
        let frames = Frames {
            connection: 1,
            stream: stream(),
            count: self.frames,
            carry: Arc::new(Carry::default()),
            events: vec![event],
            asks: Vec::new(),
            lease: None,
        };
        self.input(Input::Frames { frames: Box::new(frames), watched: false });
    }

    /// A turn, after this time.
    pub(super) fn say(&mut self, order: u64, after_ms: u64) {
        self.say_at(order, after_ms, order * 1_000);
    }

    /// A turn that began at this time of the call.
    pub(super) fn say_at(&mut self, order: u64, after_ms: u64, start_ms: u64) {
        self.pass(after_ms);
        self.event(SttEvent::Final(Box::new(Final {
            key: TurnKey::Order(order),
            formatted: true,
            text: format!("This is turn {order}."),
            speaker: Some("A".to_owned()),
            words: Vec::new(),
            start_ms: Some(start_ms),
            end_ms: Some(start_ms + 500),
            language: None,
            confidence: None,
        })));
    }

    pub(super) fn revise(&mut self, order: u64) {
        let text = Some("It was another one.".to_owned());
        let revision = Revision { key: TurnKey::Order(order), speaker: None, text, words: Vec::new() };
        self.event(SttEvent::Revise(Box::new(revision)));
    }

    pub(super) fn run(&mut self, analysis: &str) {
        self.input(Input::Run { ask: 2, analysis: analysis.to_owned() });
    }

    pub(super) fn end(&mut self) {
        self.event(SttEvent::End { reason: None, scope: EndScope::Call });
    }

    /// Lets time pass, and passes a timer input to the call whenever one is due.
    pub(super) fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(at) = self.call.wake_at().filter(|at| *at <= until && *at > self.now_ms) {
            self.now_ms = at;
            self.input(Input::Timer);
        }
        self.now_ms = until;
    }

    fn events(&self) -> impl Iterator<Item = Decoded> {
        let read = |(seq, stored): (u64, &Outgoing)| record::decode(seq, &stored.frame, b"").expect("a record");
        (1..).zip(&self.log).map(read)
    }

    /// `analysis rev trigger cost` of all insights.
    pub(super) fn insights(&self) -> Vec<String> {
        let line = |insight: &Insight| {
            let cost = insight.provenance.cost_usd.expect("a cost");
            let trigger = String::from(insight.trigger.clone());
            format!("{} {} {trigger} {cost}", insight.analysis, insight.rev)
        };
        let lines = self.events().filter_map(|decoded| match decoded.event {
            Event::InsightUpdated { insight } => Some(line(&insight)),
            _ => None,
        });
        lines.collect()
    }

    /// `analysis code` of all failures.
    pub(super) fn failures(&self) -> Vec<String> {
        let lines = self.events().filter_map(|decoded| match decoded.event {
            Event::InsightFailed { failure } => Some(format!("{} {}", failure.analysis, failure.code)),
            _ => None,
        });
        lines.collect()
    }

    pub(super) fn newest(&self, analysis: &str) -> Insight {
        let newest = self.call.log.standings[analysis].latest.as_deref();
        newest.expect("an insight").clone()
    }

    /// The final revisions of a call that is completed.
    pub(super) fn completed(&self) -> Value {
        let last = self.events().last().expect("an event");
        let Event::CallCompleted { r#final, missing, .. } = last.event else { panic!("the call is not completed") };
        assert_eq!(missing, JsonMap::new());
        Value::Object(r#final)
    }
}
