//! A call on a virtual clock, with its durable records.

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
use crate::call::input::{Attach, Detach, Frames, Input, Now};
use crate::call::record::{self, Outgoing, Private};
use crate::call::schedule::Phase;
use crate::call::task::{
    Answered, Asks, Chosen, ChosenMember, Digested, Digesting, Out, Output, Target, TaskKey, TaskNo,
};
use crate::call::{Call, Log, Settings};
use crate::context::{Claim, Snapshot};
use crate::protocol::{Event, FailureCode};
use crate::rules::Rules;
use crate::types::directory::Entry;
use crate::types::{
    CallId, Carry, Coverage, Evidence, Final, Insight, LatencyMs, Provenance, Revision, Status, StreamId, SttEvent,
    TokenUsage, TurnKey, TurnNo,
};

/// Wall time at which every call here begins, ms since 1970.
pub(in crate::call) const BEGAN_MS: i64 = 1_790_000_000_000;

/// A call, its clock, and its durable records.
pub(in crate::call) struct Bench {
    settings: Arc<Settings>,
    pub(in crate::call) call: Call,
    /// Time since the call began, ms.
    now_ms: u64,
    loaded_ms: u64,
    pub(in crate::call) log: Vec<Outgoing>,
    pub(in crate::call) entry: Option<Entry>,
    /// For each stream: the number of its connection, and the frames sent so far.
    connections: BTreeMap<String, (u64, u64)>,
    /// Running tasks, and the snapshots that they are about.
    running: BTreeMap<TaskNo, Snapshot>,
    /// Digests that are being made, oldest first.
    pub(in crate::call) digesting: Vec<(TaskNo, Box<Digesting>)>,
    /// The newest snapshot of an analysis.
    pub(in crate::call) seen: Option<Snapshot>,
}

fn section<T>(text: &str, read: impl FnOnce(Option<toml::Value>, &mut Problems) -> T) -> T {
    let mut problems = Problems::default();
    let table: toml::Table = text.parse().expect("toml");
    let read = read(Some(toml::Value::Table(table)), &mut problems);
    let problems: Vec<String> = problems.into_vec().iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{problems:?}");
    read
}

fn stream(name: &str) -> StreamId {
    StreamId::parse(name).expect("id")
}

impl Bench {
    /// Alerts may follow each other without a pause, unless `limits` says otherwise.
    pub(in crate::call) fn settings(rules: &str, analyses: &str, limits: &str) -> Settings {
        let pause = if limits.contains("alert_pause_ms") { "" } else { "alert_pause_ms = 0\n" };
        let never = "idle_timeout_ms = 86400000\nmax_silence_ms = 86400000\nlinger_ms = 86400000";
        let analyses = section(analyses, |value, problems| Registry::read(value, Path::new("."), problems));
        Settings {
            default_analyses: analyses.defaults(),
            analyses: Arc::new(analyses),
            rules: Arc::new(section(rules, Rules::read)),
            ingest: section(never, IngestConfig::read),
            limits: section(&format!("{pause}{limits}"), LimitsConfig::read),
        }
    }

    /// A call with the stream `s_1`.
    pub(in crate::call) fn new(rules: &str, analyses: &str, limits: &str) -> Self {
        Self::start(Self::settings(rules, analyses, limits))
    }

    pub(in crate::call) fn start(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let log = Log::new(CallId::parse("c_1").expect("id"));
        let now = Now { ms: 0, unix_ms: BEGAN_MS };
        let call = Call::new(Arc::clone(&settings), log, None, false, Box::new(|| 7), now);
        let (log, connections) = (Vec::new(), BTreeMap::new());
        let mut bench = Self {
            settings,
            call,
            now_ms: 0,
            loaded_ms: 0,
            log,
            entry: None,
            connections,
            running: BTreeMap::new(),
            digesting: Vec::new(),
            seen: None,
        };
        bench.connect("s_1", &json!({}));
        bench
    }

    pub(in crate::call) fn now(&self) -> Now {
        Now { ms: self.now_ms - self.loaded_ms, unix_ms: BEGAN_MS + i64::try_from(self.now_ms).expect("short") }
    }

    pub(in crate::call) fn input(&mut self, input: Input) {
        let now = self.now();
        self.call.on(input, now);
        self.settle();
    }

    pub(in crate::call) fn settle(&mut self) {
        let now = self.now();
        self.call.on(Input::Settle, now);
        while let Some(batch) = self.call.batch(now) {
            assert_eq!(batch.after, self.log.len() as u64);
            self.log.extend(batch.records);
            if let Some(entry) = batch.entry {
                self.entry = Some(entry);
            }
            let head = self.log.len() as u64;
            self.call.on(Input::Committed { head }, now);
        }
    }

    pub(in crate::call) fn connect(&mut self, name: &str, meta: &Value) {
        let attach = Attach {
            peer: self.now_ms + 1,
            stream: stream(name),
            dialect: crate::stt::dialect("sidetone").expect("a dialect"),
            offset_ms: None,
            meta: meta.as_object().cloned().unwrap_or_default(),
            analyses: None,
            variants: BTreeMap::new(),
            question: None,
        };
        let given = self.connections.values().map(|(connection, _)| *connection).max().unwrap_or(0);
        self.connections.insert(name.to_owned(), (given + 1, 0));
        self.input(Input::Attach(attach));
    }

    pub(in crate::call) fn disconnect(&mut self, name: &str) {
        let (connection, _) = self.connections[name];
        self.input(Input::Detach(Detach { connection, stream: stream(name) }));
    }

    pub(in crate::call) fn event_on(&mut self, name: &str, event: SttEvent) {
        let (connection, count) = self.connections.get_mut(name).expect("connected");
        *count += 1;
        let frames = Frames {
            connection: *connection,
            stream: stream(name),
            count: *count,
            carry: Arc::new(Carry::default()),
            events: vec![event],
            asks: Vec::new(),
            lease: None,
        };
        self.input(Input::Frames { frames: Box::new(frames), watched: false });
    }

    pub(in crate::call) fn say_on(
        &mut self,
        name: &str,
        order: u64,
        speaker: &str,
        text: &str,
        times: Option<(u64, u64)>,
    ) {
        let last = Final {
            key: TurnKey::Order(order),
            formatted: true,
            text: text.to_owned(),
            speaker: Some(speaker.to_owned()),
            words: Vec::new(),
            start_ms: times.map(|(start, _)| start),
            end_ms: times.map(|(_, end)| end),
            language: None,
            confidence: None,
        };
        self.event_on(name, SttEvent::Final(Box::new(last)));
    }

    pub(in crate::call) fn say(&mut self, order: u64, speaker: &str, text: &str) {
        self.say_on("s_1", order, speaker, text, None);
    }

    pub(in crate::call) fn partial(&mut self, order: u64, text: &str) {
        let event = SttEvent::Partial { key: TurnKey::Order(order), speaker: None, text: text.to_owned() };
        self.event_on("s_1", event);
    }

    pub(in crate::call) fn revise(&mut self, order: u64, speaker: Option<&str>, text: Option<&str>) {
        let revision = Revision {
            key: TurnKey::Order(order),
            speaker: speaker.map(str::to_owned),
            text: text.map(str::to_owned),
            words: Vec::new(),
        };
        self.event_on("s_1", SttEvent::Revise(Box::new(revision)));
    }

    pub(in crate::call) fn meta(&mut self, meta: &Value) {
        self.event_on("s_1", SttEvent::Meta(meta.as_object().cloned().expect("an object")));
    }

    /// Publishes a result of an analysis, as a task does.
    pub(in crate::call) fn insight(&mut self, analysis: &str, value: Value, evidence: Vec<Evidence>) {
        let known = self.call.log.standings.get(analysis).map_or(0, |standing| standing.rev);
        let insight = Insight {
            id: "i_1".into(),
            analysis: analysis.into(),
            rev: known + 1,
            status: Status::Provisional,
            degraded: false,
            turn: None,
            covers: Coverage {
                from: Some(0),
                to: Some(0),
                turns: 1,
                digest_to: None,
                verbatim_from: Some(0),
                revision: 1,
            },
            behind_turns: 0,
            trigger: crate::types::Trigger::Manual,
            value,
            changes: None,
            dropped_operations: 0,
            evidence,
            provenance: Provenance {
                route: "r".into(),
                variant: "a".into(),
                model: "m".into(),
                endpoint: "e".into(),
                prompt: "p".into(),
                attempts: 1,
                usage: TokenUsage::default(),
                cost_usd: None,
            },
            latency_ms: LatencyMs::default(),
        };
        self.call.now = self.now();
        self.call.emit(&Event::InsightUpdated { insight: Arc::new(insight) }, &Private::default());
        self.settle();
    }

    /// Lets time pass, and passes a timer input to the call whenever one is due.
    pub(in crate::call) fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        let mut tries = 0;
        while let Some(at) = self.call.wake_at().map(|at| at + self.loaded_ms).filter(|at| *at <= until) {
            tries = if at > self.now_ms { 0 } else { tries + 1 };
            assert!(tries < 10, "it wakes for nothing, again and again");
            self.now_ms = self.now_ms.max(at);
            self.input(Input::Timer);
        }
        self.now_ms = until;
    }

    /// Kills the daemon for `away_ms`. The call is then rebuilt from the records in its log.
    pub(in crate::call) fn restart(&mut self, away_ms: u64) {
        self.now_ms += away_ms;
        self.loaded_ms = self.now_ms;
        let mut log = Log::new(CallId::parse("c_1").expect("id"));
        for (seq, stored) in (1..).zip(&self.log) {
            log.restore(record::decode(seq, &stored.frame, &stored.private).expect("a record")).expect("in order");
        }
        assert_eq!(log.alerts, self.call.log.alerts, "the log says what the call knew");
        self.running.clear();
        self.digesting.clear();
        let now = self.now();
        self.call = Call::new(Arc::clone(&self.settings), log, self.entry.as_ref(), false, Box::new(|| 7), now);
        self.settle();
    }

    /// All alerts so far: `+a_1 rule@ms` when raised, `-a_1 …` when cleared.
    pub(in crate::call) fn alerts(&self) -> Vec<String> {
        let decoded =
            (1..).zip(&self.log).map(|(seq, stored)| record::decode(seq, &stored.frame, b"").expect("a record"));
        let line = |mark: &str, id: &str, rule: &str, at: &str| {
            let ms = crate::base::time::parse_rfc3339(at).expect("a time") - BEGAN_MS;
            format!("{mark}{id} {rule}@{ms}")
        };
        let lines = decoded.filter_map(|decoded| match &decoded.event {
            Event::AlertRaised { alert } => Some(line("+", &alert.id, &alert.rule, &decoded.at)),
            Event::AlertCleared { alert } => Some(line("-", &alert.id, &alert.rule, &decoded.at)),
            _ => None,
        });
        lines.collect()
    }

    /// Why an analysis waits for its permit.
    pub(in crate::call) fn queued(&self, analysis: &str) -> Option<String> {
        let slot = self.call.schedule.rolling.iter().find(|slot| *slot.analysis.name == *analysis)?;
        match slot.phase {
            Phase::Queued { cause, .. } => Some(self.call.trigger_of(cause).into()),
            Phase::Idle | Phase::Running => None,
        }
    }

    /// All tasks that wait for a permit have it, and are started.
    pub(in crate::call) fn start_tasks(&mut self) {
        for effect in self.call.task_effects() {
            let TaskEffect::Want(task) = effect else { continue };
            let member = |key: &TaskKey| ChosenMember { analysis: Arc::clone(&key.analysis), prompt: "p/v1@0".into() };
            let members = match self.call.tasks.out.get(&task) {
                Some(Out { target: Target::Insights(keys), .. }) => keys.iter().map(member).collect(),
                Some(Out { target: Target::Digest(_), .. }) => Vec::new(),
                _ => continue,
            };
            let chosen = Chosen { route: "r".into(), variant: "a".into(), local: false, fit: Fit::default(), members };
            self.input(Input::Ready { task, chosen: Ok(chosen) });
            let start = self.call.start().expect("it starts");
            match start.asks {
                Asks::Digest(digesting) => self.digesting.push((start.no, digesting)),
                _ => {
                    self.seen = Some(start.snapshot.clone());
                    self.running.insert(start.no, start.snapshot);
                }
            }
        }
    }

    /// The running task returns a value that quotes these turns.
    pub(in crate::call) fn answer(&mut self, quoted: &[TurnNo]) {
        let (task, snapshot) = self.running.pop_first().expect("a task");
        let quote = |turn: &TurnNo| {
            let text = snapshot.turn(*turn).expect("it is shown").text.clone();
            Evidence { turn: *turn, quote: text, unverified: false }
        };
        let reading = Reading { value: json!({}), evidence: quoted.iter().map(quote).collect(), ..Reading::default() };
        let answered = Answered {
            members: vec![Ok(reading)],
            model: "m".to_owned(),
            endpoint: "e".to_owned(),
            attempts: 1,
            bill: Bill::default(),
            weights: vec![1],
            degraded: false,
            first_token: None,
            took: Duration::ZERO,
        };
        self.input(Input::Done { task, result: Ok(Output::Insights(answered)) });
    }

    /// The oldest digest comes back with these claims, or fails.
    pub(in crate::call) fn digest(&mut self, claims: Option<Vec<Claim>>) {
        let (task, asked) = self.digesting.remove(0);
        let message = "the model failed".to_owned();
        let failed = Failed { code: FailureCode::UpstreamError, message, temporary: true };
        let result = claims.ok_or(failed.clone()).and_then(|claims| {
            let digest = asked.source.digest(claims, asked.most).map_err(|_| failed)?;
            Ok(Output::Digest(Digested { digest, cost_usd: Some(0.25) }))
        });
        self.input(Input::Done { task, result });
    }

    /// Turn and quote of the open alert of a rule.
    pub(in crate::call) fn open(&self, rule: &str) -> Option<(Option<TurnNo>, Option<String>)> {
        self.call.log.alerts.open(rule).map(|alert| (alert.turn, alert.quote.clone()))
    }
}
